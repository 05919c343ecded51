"""The search space: the one place that calls ``trial.suggest_*``. A ``TrialSpec`` comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from automl_tl.errors import UsageError
from automl_tl.parameters import (
    PARAMETERS,
    WHEN_FROZEN,
    Choice,
    Domain,
    Fixed,
    Range,
    decode,
    encode,
    preferred,
)
from automl_tl.settings import domain, member, of_trial

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import optuna

    from automl_tl.types import Pooling


_PROBED = 8
_TUNED = 4
_QUARTER = {"depth": 0.25, "augmentation": 0.0}
_HALF = {"depth": 0.5, "augmentation": 0.0}
_WHOLE = {"depth": 1.0}


@dataclass(frozen=True, slots=True)
class TrialSpec:
    """What one trial trains, before the backbone's layers are known.

    Attributes mirror ``PARAMETERS``; ``depth`` is None when ``fine_tune_at`` says where, and the
    parameters of fine-tuning are neutral when the backbone stays frozen.
    """

    backbone: str
    depth: float | None
    fine_tune_at: int | float | str | None
    image_size: int | None
    resize: str
    pooling: Pooling
    head_units: tuple[int, ...]
    dropout: float
    optimizer: str
    learning_rate: float
    fine_tune_factor: float
    weight_decay: float
    batch_size: int
    label_smoothing: float
    augmentation: float
    flip: bool
    epochs: int
    warmup_epochs: int
    schedule: str
    class_weights: str
    fine_tune_optimizer: str = "same"
    rotation: float = 15.0
    crop: bool = True
    colour: bool = True

    @classmethod
    def of(cls, recorded: Mapping[str, Any]) -> TrialSpec:
        """Return the spec that was recorded with a trial, as ``asdict`` and JSON left it."""
        return cls(**{**recorded, "head_units": tuple(recorded["head_units"])})

    @property
    def frozen(self) -> bool:
        """Whether only the head trains."""
        return _frozen(self.fine_tune_at, self.depth)


class Space:
    """The domain of every parameter for the backbones of one study.

    Args:
        backbones: Keys of the backbones, sorted.
        settings: What the user fixed, narrowed or widened: values as ``parse_setting`` gives them.
        narrowed: What plugins say of each backbone, in the same form; the user's settings win.
        first: The trials to begin with instead of ours: ``backbone`` and any parameters. What one
            leaves out has the value that we would try first.

    Raises:
        UsageError: For an unknown parameter or a value that it cannot have, or that is not
            searched.
    """

    def __init__(
        self,
        backbones: tuple[str, ...],
        settings: Mapping[str, Any],
        narrowed: Mapping[str, Mapping[str, Any]] | None = None,
        first: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.backbones = backbones
        given = {name: domain(name, value) for name, value in settings.items()}
        if "fine_tune_at" in given and "depth" in given:
            raise UsageError("Expected depth or fine_tune_at, got both: give one of them.")
        self._domains = {name: p.default for name, p in PARAMETERS.items()} | given
        self._narrowed = {
            backbone: {
                name: domain(name, value) for name, value in space.items() if name not in given
            }
            for backbone, space in (narrowed or {}).items()
        }
        self._first: list[dict[str, Any]] = []
        for number, wish in enumerate(first, 1):
            with of_trial(number):
                self._first.append(self._asked(wish))

    @property
    def frozen(self) -> bool:
        """Whether no trial can train more than a head."""
        searched = [
            (self.domain("fine_tune_at", b), self.domain("depth", b)) for b in self.backbones
        ]
        return all(
            at == Fixed("none") or (at == Fixed(None) and depth == Fixed(0.0))
            for at, depth in searched
        )

    @property
    def one_pass(self) -> bool:
        """Whether one pass of a frozen network computes what the heads of all trials see."""
        (first, *others) = self.backbones
        seen = {name: self.values(name, first) for name in ("image_size", "resize", "pooling")}
        alike = all(len(values) == 1 for values in seen.values())
        # A flattened map may be too large to be stored; then every head needs the network.
        return self.frozen and not others and alike and seen["pooling"] != ["flatten"]

    def domain(self, name: str, backbone: str) -> Domain:
        """Return where a parameter is searched for a backbone."""
        return self._narrowed.get(backbone, {}).get(name, self._domains[name])

    def values(self, name: str, backbone: str) -> list[Any]:
        """Return all values of a parameter that ``domain`` does not let be a range."""
        found = self.domain(name, backbone)
        assert not isinstance(found, Range), name
        return list(found.options) if isinstance(found, Choice) else [found.value]

    def suggest(self, trial: optuna.trial.Trial) -> TrialSpec:
        """Draw a trial. Parameters without effect on it are not drawn."""
        frozen = False

        def draw(name: str) -> Any:
            if frozen and name in WHEN_FROZEN:
                return WHEN_FROZEN[name]
            return _suggest(trial, f"{name}{suffix(name)}", self.domain(name, backbone))

        def suffix(name: str) -> str:
            # Optuna forbids a name with two distributions in one study.
            return f"@{backbone}" if name in self._narrowed.get(backbone, {}) else ""

        backbone = self.backbones[0]
        if len(self.backbones) > 1:
            backbone = str(trial.suggest_categorical("backbone", self.backbones))
        at = draw("fine_tune_at")
        depth = draw("depth") if at is None else None
        frozen = _frozen(at, depth)
        return TrialSpec(
            backbone=backbone,
            depth=depth,
            fine_tune_at=at,
            image_size=draw("image_size"),
            resize=draw("resize"),
            pooling=draw("pooling"),
            head_units=_units(self.domain("head_units", backbone), draw),
            dropout=draw("dropout"),
            optimizer=draw("optimizer"),
            learning_rate=draw("learning_rate"),
            fine_tune_factor=draw("fine_tune_factor"),
            weight_decay=draw("weight_decay"),
            batch_size=draw("batch_size"),
            label_smoothing=draw("label_smoothing"),
            augmentation=draw("augmentation"),
            flip=draw("flip"),
            epochs=draw("epochs"),
            warmup_epochs=draw("warmup_epochs"),
            schedule=draw("schedule"),
            class_weights=draw("class_weights"),
            fine_tune_optimizer=draw("fine_tune_optimizer"),
            rotation=draw("rotation"),
            crop=draw("crop"),
            colour=draw("colour"),
        )

    def probes(self) -> list[dict[str, Any]]:
        """Return the trials to begin with, as parameters to enqueue.

        Every backbone gets a linear head on frozen features, which costs next to nothing and fills
        the cache. Of many backbones, eight are probed and the sampler chooses the others. Where the
        user said what to begin with, that counts, and nothing of ours.
        """
        if self._first:
            return _distinct(self._first)
        probed = self.backbones[:: -(-len(self.backbones) // _PROBED)]
        return _distinct(self._preferred(b, {"depth": 0.0, "learning_rate": 1e-2}) for b in probed)

    def tuned(self, backbones: Sequence[str]) -> list[dict[str, Any]]:
        """Return the trials that follow the probes: the best four, fine-tuned with moderate values.

        Probe, then tune: Kumar et al. (2022). Of each the upper half, of the best one the upper
        quarter before, without augmentation, because one pass then stores what all epochs need.
        Duplicates, which a fixed parameter causes, are left out.

        Args:
            backbones: Those that were probed, best first.
        """
        if self._first:
            return []
        best = [self._preferred(backbone, _QUARTER) for backbone in backbones[:1]]
        halves = [self._preferred(backbone, _HALF) for backbone in backbones[:_TUNED]]
        known = self.probes()
        return [params for params in _distinct((*best, *halves)) if params not in known]

    def deeper(self, tuned: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return what follows the best of ``tuned``: as deep as the space allows, augmented.

        It costs more than they, so it is tried only where a half was better than the others.
        """
        backbone = self.backbone(tuned)
        if self._first or tuned != self._preferred(backbone, _HALF):
            return []
        return [self._preferred(backbone, _WHOLE)]

    def backbone(self, params: Mapping[str, Any]) -> str:
        """Return the backbone of enqueued parameters."""
        return str(params.get("backbone", self.backbones[0]))

    def _asked(self, wish: Mapping[str, Any]) -> dict[str, Any]:
        """Return the trial that a person wants to begin with, as parameters to enqueue."""
        wanted = dict(wish)
        only = self.backbones[0] if len(self.backbones) == 1 else None
        backbone = wanted.pop("backbone", only)
        if backbone not in self.backbones:
            known = ", ".join(self.backbones)
            raise UsageError(f"backbone: expected one of {known}, got {backbone!r}.")
        if "depth" in wanted and self.domain("fine_tune_at", backbone) != Fixed(None):
            raise UsageError("depth: expected fine_tune_at, which is searched instead.")
        if "head_units" in wanted and isinstance(self.domain("head_units", backbone), Range):
            wanted = _layers(wanted)
        for name, value in wanted.items():
            found = self.domain(name, backbone) if name in PARAMETERS else Fixed(None)
            wanted[name] = member(name, found, value)
        return self._preferred(backbone, wanted)

    def _preferred(self, backbone: str, wish: Mapping[str, Any]) -> dict[str, Any]:
        params: dict[str, Any] = {"backbone": backbone} if len(self.backbones) > 1 else {}
        narrowed = self._narrowed.get(backbone, {})
        at, depth = self.domain("fine_tune_at", backbone), self.domain("depth", backbone)
        searched = at == Fixed(None)
        share = depth.value if isinstance(depth, Fixed) else preferred(depth, wish.get("depth"))
        frozen = searched and share == 0
        for name in PARAMETERS:
            found = self.domain(name, backbone)
            if isinstance(found, Fixed) or (name == "depth" and not searched):
                continue
            if frozen and name in WHEN_FROZEN:
                continue
            value = preferred(found, wish.get(name))
            key = f"{name}@{backbone}" if name in narrowed else name
            params[key] = value
        return params


def _frozen(fine_tune_at: int | float | str | None, depth: float | None) -> bool:
    return depth == 0 if fine_tune_at is None else fine_tune_at == "none"


def _distinct(baselines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for params in baselines:
        if params not in found:
            found.append(params)
    return found


def _layers(wanted: dict[str, Any]) -> dict[str, Any]:
    """Say hidden layers of one width as they are searched: a width, and how often."""
    units = wanted.pop("head_units")
    widths = list(units) if isinstance(units, list | tuple) else [units]
    layers = {"head_layers": len(widths), **wanted}
    if not widths:
        return layers
    same = all(width == widths[0] for width in widths)
    return {**layers, "head_units": widths[0] if same else units}


def _units(found: Domain, draw: Any) -> tuple[int, ...]:
    """Widths of the hidden layers: a list as it is, a width ``head_layers`` times."""
    if isinstance(found, Range):
        layers = draw("head_layers")
        return (draw("head_units"),) * layers if layers else ()
    return tuple(draw("head_units"))


def _suggest(trial: optuna.trial.Trial, name: str, found: Domain) -> Any:
    if isinstance(found, Fixed):
        return found.value
    if isinstance(found, Choice):
        chosen = trial.suggest_categorical(name, [encode(option) for option in found.options])
        return decode(chosen)
    if found.integer:
        step = 1 if found.log else int(found.step or 1)
        return trial.suggest_int(name, int(found.low), int(found.high), step=step, log=found.log)
    return trial.suggest_float(name, found.low, found.high, step=found.step, log=found.log)
