"""From the kept trials of a study to one ONNX file that averages the best of them."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from automl_tl import calibration, ensemble_trials, export, kept, storage, testsplit
from automl_tl.calibrated import calibrated
from automl_tl.deliver import with_classes
from automl_tl.destination import check_destination
from automl_tl.ensemble import mean_logits
from automl_tl.ensemble_facts import ensemble_facts
from automl_tl.ensemble_onnx import merge, require_onnx
from automl_tl.errors import ExportError, StudyError, UsageError
from automl_tl.facts import facts_of
from automl_tl.host import BackendHost
from automl_tl.parity import Recorded
from automl_tl.prepare import open_arrays
from automl_tl.stages import silent
from automl_tl.study import reference

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import optuna
    from numpy.typing import NDArray

    from automl_tl.cache.store import Store
    from automl_tl.ensemble import Ensemble
    from automl_tl.ensemble_trials import Candidate
    from automl_tl.export import ExportReport
    from automl_tl.modelfile import ModelFacts
    from automl_tl.stages import Stage
    from automl_tl.study import StudyDirectory
    from automl_tl.study_data import StudyData
    from automl_tl.types import Split

SUFFIXES = {"onnx": ".onnx"}
OTHERS = frozenset({".keras", ".md", ".pt2", ".safetensors", ".savedmodel", ".tflite"})


@dataclass(frozen=True, slots=True)
class EnsembleReport:
    """What an ensemble is made of and reaches.

    Attributes:
        export: The file and its proof.
        members: ``trial``, ``draws`` and ``weight`` of each.
        metric: What the members were chosen by.
        validation: The metric of the ensemble on the validation split.
        best: Likewise of its best member.
        reachable: Likewise of an ensemble of the best finished trials, also those without a kept
            model: of at most 100, of fewer where their probabilities need more than 1 GiB.
        trials: How many these are.
        test: Figures on the test split; empty when the study has not looked at it yet.
        left_out: Trials whose kept models take other pixels than the best one's.
    """

    export: ExportReport
    members: Sequence[Mapping[str, Any]]
    metric: str
    validation: float
    best: float
    reachable: float
    trials: int
    test: Mapping[str, Any]
    left_out: Sequence[int]


def export_ensemble(
    directory: StudyDirectory,
    data: StudyData,
    study: optuna.Study,
    store: Store,
    destination: Path,
    calibrate: bool = False,
    stage: Stage = silent,
) -> EnsembleReport:
    """Export the kept trials that are better together than the best alone, as one ONNX file.

    The file must agree, on the validation images, with the mean of what its members' own
    frameworks compute. The test figures count as one more look at the test split.

    Args:
        directory: The study directory.
        data: The study's data.
        study: The Optuna study.
        store: The cache, with the study's pixels.
        destination: The file to write.
        calibrate: Divide the logits of the mean by the temperature that fits validation best.
        stage: See ``export.export_model``.

    Raises:
        StudyError: When no trial is finished yet.
        UsageError: When the destination says another format or cannot be a file, or the package
            onnx is missing.
        ExportError: When no ensemble is better, no temperature can be fitted, the file does not
            agree with its members, or one of these not with what its trial recorded.
    """
    if destination.suffix.lower() in OTHERS:
        raise UsageError(
            f"Expected an ONNX file for an ensemble, such as {destination.with_suffix('.onnx')}, "
            f"but got {destination}."
        )
    require_onnx()
    check_destination("onnx", destination, SUFFIXES)
    complete = storage.best_trials(study)
    if not complete:
        raise StudyError(f"The study {directory.name} has no finished trial: search first.")
    candidates = ensemble_trials.kept(directory, data, complete)
    chosen = _choose(directory, data, candidates)
    members = [one for one in candidates if one.number in chosen.draws]
    weights = [chosen.weights[one.number] for one in members]
    first = members[0].facts
    pixels, _ = open_arrays(directory, data, store)[first.image_size, first.resize]
    validation_logits = mean_logits([one.logits for one in members], weights)
    test_logits = _test_logits(directory, data, store, members, weights, pixels)
    test = _test(directory, data, chosen, test_logits)
    logits: dict[Split, Any] = {"validation": validation_logits, "test": test_logits}
    facts = ensemble_facts(data, members, chosen, validation_logits, test, len(complete))
    facts = with_classes(facts, data, logits)
    if calibrate:
        facts = calibrated(facts, data, logits, "the ensemble")

    def write(aside: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        precision = {trial.number: facts_of(trial).get("precision") for trial in complete}
        recorded = [
            Recorded(one.number, one.logits[positions], precision[one.number]) for one in members
        ]
        return _write(directory, store, members, weights, recorded, facts, aside, images, stage)

    positions = export.spread(len(data.rows("validation")))
    rows = data.rows("validation")[positions]
    report = export.prove(
        write,
        lambda aside: _open(aside, facts),
        "onnx",
        destination,
        SUFFIXES,
        np.ascontiguousarray(np.load(pixels, mmap_mode="r")[rows]),
        data.labels[rows],
        facts,
        stage,
    )
    considered = ensemble_trials.considered(data, complete)
    everything = ensemble_trials.reachable(directory, data, considered)
    metric = directory.config.metric
    return EnsembleReport(
        export=report,
        members=ensemble_trials.members(chosen),
        metric=metric,
        validation=chosen.value,
        best=float(complete[0].values[0]),
        reachable=everything.value if everything else chosen.value,
        trials=len(considered),
        test=test,
        left_out=[
            trial.number
            for trial in complete
            if kept.model_file(directory, trial.number)
            and trial.number not in {one.number for one in candidates}
        ],
    )


def _choose(
    directory: StudyDirectory, data: StudyData, candidates: Sequence[Candidate]
) -> Ensemble:
    """Choose members, or say that no ensemble is better than one trial."""
    numbers = ", ".join(str(one.number) for one in candidates)
    if len(candidates) < 2:
        raise ExportError(
            f"Expected models of two trials that take the same pixels, but {directory.name} keeps "
            f"{'that of trial ' + numbers if candidates else 'none'}; `automl-tl resume "
            f"{reference(directory.path)}` searches further."
        )
    found = ensemble_trials.choose(directory, data, {one.number: one.logits for one in candidates})
    if len(found.draws) < 2:
        [best] = found.draws
        raise ExportError(
            f"Expected an ensemble that is better than trial {best} on validation "
            f"({directory.config.metric} {found.value:.4f}), but no mean of the kept trials "
            f"{numbers} is; export that trial alone, without --ensemble."
        )
    return found


def _hosts(members: Sequence[Candidate]) -> Iterator[tuple[int, Candidate, BackendHost]]:
    """Yield members with their position, one framework after the other."""
    for name in dict.fromkeys(one.facts.backend for one in members):
        with BackendHost(name, device="cpu") as host:
            for position, member in enumerate(members):
                if member.facts.backend == name:
                    yield position, member, host


def _write(
    directory: StudyDirectory,
    store: Store,
    members: Sequence[Candidate],
    weights: Sequence[float],
    recorded: Sequence[Recorded],
    facts: ModelFacts,
    aside: Path,
    images: NDArray[np.uint8],
    stage: Stage,
) -> NDArray[np.float32]:
    """Write the joined file; returns its logits, as the members' own frameworks compute them."""
    calibrating = facts.extra.get("calibration")
    temperature = calibrating["temperature"] if calibrating else 1.0
    with tempfile.TemporaryDirectory(prefix="automl-tl-", ignore_cleanup_errors=True) as folder:
        files = [Path(folder) / str(one.number) / "model.onnx" for one in members]
        logits: list[Any] = [None] * len(members)
        for position, member, host in _hosts(members):
            file = files[position]
            file.parent.mkdir()
            model = kept.whole_model(directory, member.number, host, store).resolve()
            own = _of_member(stage, member.number)
            logits[position] = export.write(
                host, model, "onnx", file, images, member.facts, own, recorded[position]
            )
        stage(f"joining {len(members)} models", 0, 0)
        merge(
            files,
            weights,
            aside,
            facts.metadata(),
            image_size=facts.image_size,
            classes=len(facts.classes),
            temperature=temperature,
        )
    return calibration.divided(mean_logits(logits, weights), temperature)


def _of_member(stage: Stage, number: int) -> Stage:
    def of_member(what: str, done: int, total: int, unit: str = "images") -> None:
        stage(f"trial {number}: {what}", done, total, unit)

    return of_member


def _open(aside: Path, facts: ModelFacts) -> Any:
    opened = export.open_written(aside, facts)
    if opened is None:
        raise ExportError(f"Expected an ONNX file in {aside.name}, but it is something else.")
    return opened


def _test_logits(
    directory: StudyDirectory,
    data: StudyData,
    store: Store,
    members: Sequence[Candidate],
    weights: Sequence[float],
    pixels: Path,
) -> NDArray[np.float32] | None:
    """Return the ensemble's logits on the test split; None when the study has not looked at it."""
    if directory.result() is None or not len(data.rows("test")):
        return None
    logits: list[Any] = [
        testsplit.read_logits(directory, data, one.number, "test") for one in members
    ]
    missing = [one for one, known in zip(members, logits, strict=True) if known is None]
    for _, member, host in _hosts(missing):
        kept.whole_model(directory, member.number, host, store)
        found = testsplit.trial_logits(directory, data, member.number, pixels, host)
        logits[members.index(member)] = found
    return mean_logits(logits, weights)


def _test(
    directory: StudyDirectory,
    data: StudyData,
    chosen: Ensemble,
    logits: NDArray[np.float32] | None,
) -> dict[str, Any]:
    """Return the test figures, and count the look at them when this ensemble is a new one."""
    result = directory.result()
    if logits is None or result is None:
        return {}
    test = testsplit.figures(logits, data.labels[data.rows("test")])
    members = ensemble_trials.members(chosen)
    if result.get("ensemble", {}).get("members") != members:
        directory.write_result(
            {
                **result,
                "ensemble": {"members": members, "test": test},
                "evaluations": result["evaluations"] + 1,
            }
        )
    return test
