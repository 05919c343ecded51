"""Checks of what training changes, and that it is the same computation however it is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from automl_tl.testing.arrays import difference
from automl_tl.testing.findings import Finding, some
from automl_tl.types import PhaseSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from automl_tl.testing.arrays import Tensors
    from automl_tl.testing.bench import Bench, Trained
    from automl_tl.types import NetworkInfo

SAME = 1e-3
"""Of the largest logit: rounding, after steps of a network with random weights."""
MOVED = 0.95
"""Share of the parameters that must change: the gradient of a few is zero by its formula, as that
of the bias of an attention's keys."""


def check_frozen(bench: Bench) -> Iterator[Finding]:
    """With ``fine_tune_at=len(layers)`` no weight and no BatchNorm statistic changes."""
    trained = bench.frozen
    yield _untouched(bench, "frozen", trained, f"no change with fine_tune_at={bench.end}")


def check_batch_norm(bench: Bench) -> Iterator[Finding]:
    """BatchNorm statistics stay as they are in the layers that train, too."""
    # At a learning rate of 0, nothing but a statistic can move.
    still = bench.once(0, optimizer="sgd", fine_tuning=PhaseSpec(1, 0.0))
    yield _untouched(bench, "batch norm", still, "no change while training at a rate of 0")


def check_part_frozen(bench: Bench) -> Iterator[Finding]:
    """With a ``fine_tune_at`` in the middle, the layers below stay as they are."""
    at = bench.middle
    if at == 0:
        return
    above = sum(layer.parameters for layer in bench.info.layers[at:])
    count = bench.once(at).values
    yield Finding(
        bench.key,
        "part frozen",
        f"changes in the {above:,} parameters from layer {at} on, and in no others",
        f"{count:,} that changed",
        0 < count <= above,
    )


def check_fine_tuning(bench: Bench) -> Iterator[Finding]:
    """With ``fine_tune_at=0`` every layer with weights changes."""
    trained = bench.tuned
    moved = trained.moved
    owned = _by_layer(bench.info, bench.tensors)
    still = [layer for layer, names in owned.items() if not moved & names]
    yield Finding(
        bench.key,
        "fine tuning",
        "a change in every layer with weights",
        f"none in {some(still)}" if still else f"a change in all {len(owned)}",
        not still,
    )
    parameters = sum(layer.parameters for layer in bench.info.layers)
    count = trained.values
    yield Finding(
        bench.key,
        "fine tuning",
        f"changes in the {parameters:,} parameters of the layers, and in no others",
        f"{count:,} that changed",
        MOVED * parameters <= count <= parameters,
    )
    facts = trained.facts
    yield Finding(
        bench.key,
        "fine tuning",
        "all parameters of the layers and the head counted as trainable",
        f"{facts.trainable_parameters:,} of {facts.total_parameters:,}",
        parameters < facts.trainable_parameters == facts.total_parameters,
    )


def check_stored_features(bench: Bench) -> Iterator[Finding]:
    """A head trains to the same numbers on stored features and on the pixels."""
    yield _alike(bench, "stored features", bench.once(bench.end, pooled=True), bench.frozen)


def check_stored_activations(bench: Bench) -> Iterator[Finding]:
    """Fine-tuning gives the same numbers from stored activations and from the pixels."""
    at = bench.middle
    if at:
        stored, pixels = bench.once(at, cut=at), bench.once(at)
        yield _alike(bench, "stored activations", stored, pixels)


def check_same_seed(bench: Bench) -> Iterator[Finding]:
    """The same job gives the same numbers again, and another seed others."""
    first = bench.once(bench.middle)
    again = bench.train(bench.job(bench.middle))
    off = difference(again.logits, first.logits)
    yield Finding(
        bench.key,
        "same seed",
        "the same logits when a job is repeated",
        f"logits that differ by {off:.2g} of the largest",
        off == 0,
    )
    other = bench.train(bench.job(bench.middle, seed=8))
    off = difference(other.logits, first.logits)
    yield Finding(
        bench.key,
        "same seed",
        "other logits with another seed",
        f"logits that differ by {off:.2g} of the largest",
        off > 0,
    )


def _untouched(bench: Bench, check: str, trained: Trained, expected: str) -> Finding:
    moved = trained.moved
    received = f"a change in {some(sorted(moved))}" if moved else "no change"
    return Finding(bench.key, check, expected, received, not moved)


def _alike(bench: Bench, check: str, stored: Trained, pixels: Trained) -> Finding:
    off = difference(stored.logits, pixels.logits)
    return Finding(
        bench.key,
        check,
        "the logits that training from the pixels gives",
        f"logits that differ by {off:.2g} of the largest",
        off <= SAME,
    )


def _by_layer(info: NetworkInfo, tensors: Tensors) -> dict[str, set[str]]:
    """Return the tensors of every layer with parameters, as far as names tell.

    A tensor belongs to the layer whose name its own begins with, the longest of them. A function
    that uses a parameter of the network around it has another name; such tensors are left out.
    """
    paths = {name: name.replace("/", ".") for name in tensors}
    first = {path.partition(".")[0] for path in paths.values()}
    layers = {layer.name.replace("/", "."): layer.name for layer in info.layers if layer.parameters}
    if len(first) == 1 and not any(f"{path}.".startswith(f"{min(first)}.") for path in layers):
        paths = {name: path.partition(".")[2] for name, path in paths.items()}
    owned: dict[str, set[str]] = {}
    for name, path in paths.items():
        parts = path.split(".")
        for length in range(len(parts), 0, -1):
            layer = layers.get(".".join(parts[:length]))
            if layer is not None:
                owned.setdefault(layer, set()).add(name)
                break
    return owned


TRAINING_CHECKS: tuple[Callable[[Bench], Iterator[Finding]], ...] = (
    check_frozen,
    check_batch_norm,
    check_part_frozen,
    check_fine_tuning,
    check_stored_features,
    check_stored_activations,
    check_same_seed,
)
