"""Checks of what a network computes: its layers, its cut points, its output."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from automl_tl.testing.arrays import difference, make_images, read
from automl_tl.testing.bench import Recorder
from automl_tl.testing.findings import Finding, some
from automl_tl.types import Source
from automl_tl.weights import location

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from automl_tl.testing.bench import Bench

SAME = 1e-4
"""Of the largest value: what two ways to compute the same may differ by."""
CLASSIFIER = 50
"""A backbone with its classifier has at most this many times the parameters that it has without:
AlexNet has 25."""


def check_layers(bench: Bench) -> Iterator[Finding]:
    """The layers have unique names, and the cut points lie among them from end to end."""
    layers, cuts = bench.info.layers, bench.info.cuts
    count = len(layers)
    twice = [name for name, n in Counter(layer.name for layer in layers).items() if n > 1]
    received = f"{some(twice)} more than once" if twice else f"{count} layers"
    yield Finding(
        bench.key, "layers", "unique names of layers", received, bool(layers) and not twice
    )
    indices = [cut.index for cut in cuts]
    ordered = all(a < b for a, b in pairwise(indices))
    yield Finding(
        bench.key,
        "layers",
        f"cut points from 0, the pixels, to {count}, the output, in order",
        some(map(str, indices), 12),
        ordered and len(indices) > 1 and (indices[0], indices[-1]) == (0, count),
    )
    pixels = (bench.size, bench.size, 3)
    yield Finding(
        bench.key, "layers", f"{pixels} at cut 0", f"{cuts[0].shape}", cuts[0].shape == pixels
    )
    flops = [cut.flops for cut in cuts]
    rising = all(a <= b for a, b in pairwise(flops)) and flops[0] == 0 and flops[-1] > 0
    yield Finding(
        bench.key,
        "layers",
        "multiply-adds that rise from 0 from cut to cut",
        f"{flops[0]:,} to {flops[-1]:,}",
        rising,
    )


def check_parameters(bench: Bench) -> Iterator[Finding]:
    """The layers have the parameters that the description announces, less the classifier's."""
    counted = sum(layer.parameters for layer in bench.info.layers)
    most = bench.backbone.parameters
    yield Finding(
        bench.key,
        "parameters",
        f"at most the {most:,} that Backbone.parameters says, and no less than 2 % of them",
        f"{counted:,} in the layers",
        0 < counted <= most <= CLASSIFIER * counted,
    )
    stored = sum(tensor.size for tensor in bench.tensors.values())
    yield Finding(
        bench.key,
        "parameters",
        f"at least the layers' {counted:,} values in a model file",
        f"{stored:,}",
        stored >= counted,
    )


def check_cut_points(bench: Bench) -> Iterator[Finding]:
    """From the pixels to a cut and from there to the end computes what the whole network does."""
    whole = bench.array(bench.end)
    shapes = {cut.index: cut.shape for cut in bench.info.cuts}
    for cut in bench.cuts:
        layer = bench.info.layers[cut - 1].name
        tensor = bench.extracted(layer)
        yield Finding(
            bench.key,
            "cut points",
            f"{shapes[cut]} at cut {cut}, the output of {layer}",
            f"{tensor.shape[1:]}",
            tensor.shape[1:] == shapes[cut],
        )
        if tensor.shape[1:] != shapes[cut]:
            continue
        off = difference(bench.array(cut), tensor)
        yield Finding(
            bench.key,
            "cut points",
            f"at cut {cut} the output of {layer}",
            f"values that differ by {off:.2g} of the largest",
            off <= SAME,
        )
        if cut < bench.end:
            off = difference(read(bench.run(bench.stored(cut), bench.end)), whole)
            yield Finding(
                bench.key,
                "cut points",
                f"from cut {cut} on the output of the whole network",
                f"values that differ by {off:.2g} of the largest",
                off <= SAME,
            )


def check_output(bench: Bench) -> Iterator[Finding]:
    """The output is as wide as announced, finite, and another one for another image."""
    width = bench.extracted(bench.info.layers[-1].name, "avg").shape[1:]
    yield Finding(
        bench.key,
        "output",
        f"{bench.info.features} features, as announced",
        " x ".join(map(str, width)),
        width == (bench.info.features,),
    )
    for what, values in (
        ("output", bench.array(bench.end)),
        ("pooled output", bench.array(bench.end, "avg")),
    ):
        wrong = int((~np.isfinite(values)).sum())
        yield Finding(
            bench.key,
            "output",
            f"finite values in the {what}",
            f"{wrong} of {values.size} are NaN or infinite" if wrong else "that",
            not wrong,
        )
    values = bench.array(bench.end).reshape(len(bench.images), -1)
    alike = bool((values == values[0]).all())
    yield Finding(
        bench.key,
        "output",
        "another output for another image",
        "the same for all" if alike else "that",
        not alike,
    )


def check_repeated_images(bench: Bench) -> Iterator[Finding]:
    """An image has the same features alone, in another batch, and when it is computed again."""
    rows = np.arange(len(bench.images))[::-3]
    again = read(bench.run(bench.pixels(rows), bench.end, "avg"))
    off = difference(again, bench.array(bench.end, "avg")[rows])
    yield Finding(
        bench.key,
        "repeated images",
        "the same features of an image in any batch",
        f"values that differ by {off:.2g} of the largest",
        off <= SAME,
    )


def check_smallest_size(bench: Bench) -> Iterator[Finding]:
    """The network takes images of its smallest size."""
    size = bench.backbone.min_size
    if bench.backbone.fixed_size or size == bench.size:
        return
    path = bench.folder / f"pixels-{size}.npy"
    np.save(path, make_images(bench.labels[:2], size))
    spec = replace(bench.spec, image_size=size)
    end, out = len(bench.host.describe(spec).layers), bench.folder / f"features-{size}.npy"
    np.save(out, np.full((2, bench.info.features), np.nan, np.float32))
    bench.host.run(spec, Source(path, 0), end, "avg", out, Recorder())
    finite = bool(np.isfinite(np.load(out)).all())
    yield Finding(
        bench.key,
        "smallest size",
        f"finite features of images of {size} x {size} pixels, as min_size says",
        "that" if finite else "NaN or infinite ones",
        finite,
    )


def check_seeds(bench: Bench) -> Iterator[Finding]:
    """The same seed draws the same random weights, another seed others."""
    before = bench.tensors
    other = bench.assembled(replace(bench.spec, weights_id="random:1", seed=1))
    again = bench.assembled()
    moved = [name for name, value in before.items() if not np.array_equal(again[name], value)]
    yield Finding(
        bench.key,
        "seeds",
        "the same random weights from the same seed",
        f"others in {some(moved)}" if moved else "that",
        not moved,
    )
    same = all(np.array_equal(other[name], value) for name, value in before.items())
    yield Finding(
        bench.key,
        "seeds",
        "other random weights from another seed",
        "the same" if same else "that",
        not same,
    )


def check_weights(bench: Bench) -> Iterator[Finding]:
    """Weights that lie on this disk load, and decide all that the network computes."""
    published = bench.backbone.pretrained
    path = location(published) if published else None
    if published is None or path is None or not path.is_file():
        return
    first, again = (
        read(bench.run(bench.pixels(), bench.end, "avg", spec))
        for spec in (replace(bench.spec, weights=path, weights_id="file", seed=n) for n in (0, 1))
    )
    off = difference(again, first)
    yield Finding(
        bench.key,
        "weights",
        f"the same features with any seed from the {published.name} weights",
        f"values that differ by {off:.2g} of the largest",
        off <= SAME,
    )
    off = difference(first, bench.array(bench.end, "avg"))
    yield Finding(
        bench.key,
        "weights",
        f"other features from the {published.name} weights than from random ones",
        f"values that differ by {off:.2g} of the largest",
        off > SAME,
    )


NETWORK_CHECKS: tuple[Callable[[Bench], Iterator[Finding]], ...] = (
    check_layers,
    check_output,
    check_parameters,
    check_cut_points,
    check_repeated_images,
    check_smallest_size,
    check_seeds,
    check_weights,
)
