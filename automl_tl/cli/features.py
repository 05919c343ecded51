"""``automl-tl features``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from automl_tl.cli.bars import staging
from automl_tl.cli.console import cell, print_json, printable, stdout
from automl_tl.cli.plugin_files import Plugin

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from automl_tl.data.decode import Resize
    from automl_tl.types import Split


def features(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="Labelled images, as `automl-tl search` takes.")
    ],
    backbone: Annotated[
        str, typer.Option(metavar="KEY", help="The pretrained network, as keras/VGG19.")
    ],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE.npz", help="The file to write.")
    ],
    layer: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name or index of the layer [default: the last one]"),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(metavar="KEY=none|PATH|URL", help="Start from other weights.")
    ] = None,
    pooling: Annotated[
        str, typer.Option(metavar="NAME", help="Of a spatial map: none, avg or max.")
    ] = "none",
    image_size: Annotated[
        int | None,
        typer.Option(metavar="N", help="Side of the input in pixels [default: the network's]"),
    ] = None,
    resize: Annotated[
        str, typer.Option(metavar="NAME", help="How an image becomes a square: squash, crop, pad.")
    ] = "squash",
    split: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only this split of DATA: train, validation or test."),
    ] = None,
    device: Annotated[
        str, typer.Option(metavar="NAME", help="auto, cpu, mps, cuda:0, ...")
    ] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    plugin: Plugin = None,
) -> None:
    """Write the output of any layer of a pretrained network for all images.

    FILE.npz holds features, labels, classes, paths, layer, backbone and image_size.
    `automl-tl backbones KEY --layers` lists the layers.
    """
    from automl_tl.features import FeatureSettings, write_features
    from automl_tl.network_layers import one_backbone

    _check("--pooling", pooling, ("none", "avg", "max"))
    _check("--resize", resize, ("squash", "crop", "pad"))
    _check("--split", split, (None, "train", "validation", "test"))
    settings = FeatureSettings(
        backbone=backbone,
        layer=layer,
        weights=own_weights(weights, one_backbone(backbone).key),
        pooling=None if pooling == "none" else cast("Any", pooling),
        image_size=image_size,
        resize=cast("Resize", resize),
        split=cast("Split | None", split),
        device=device,
    )
    with staging() as stage:
        facts = write_features(data, output, settings, stage)
    if json:
        print_json(facts)
    else:
        print_features(stdout(), facts)


def own_weights(setting: str | None, key: str) -> str | None:
    """Return what ``--weights VALUE`` or ``--weights KEY=VALUE`` says of one backbone.

    Raises:
        UsageError: When it speaks of another backbone.
    """
    from automl_tl.errors import UsageError
    from automl_tl.plugins import get_plugins

    if setting is None:
        return None
    named, equals, value = setting.partition("=")
    if not equals or named not in get_plugins().backbones:
        return setting
    if named != key:
        raise UsageError(f"--weights {setting}: expected weights of {key}, got those of {named}.")
    return value


def print_features(console: Console, facts: Mapping[str, Any]) -> None:
    """Print the facts of ``automl_tl.features.write_features`` for people."""
    from automl_tl.units import format_bytes

    shape = " x ".join(map(str, (facts["images"], *facts["shape"])))
    pooled = f", {facts['pooling']} pooling" if facts["pooling"] else ""
    console.print(f"{cell(facts['path'])} ({format_bytes(facts['bytes'])})", soft_wrap=True)
    console.print(
        f"  features {shape} of layer {facts['layer_index']}, {cell(facts['layer'])}, of "
        f"{facts['backbone']} at {facts['image_size']} pixels{pooled}",
        soft_wrap=True,
    )
    for image in facts["broken"]:
        text = f"left out: {cell(image['name'])}: {cell(image['reason'])}"
        console.print(text, style="yellow", soft_wrap=True)
    for note in facts["notes"]:
        console.print(f"Note: {printable(note)}", style="yellow", soft_wrap=True)


def _check(option: str, value: str | None, allowed: tuple[str | None, ...]) -> None:
    from automl_tl.errors import UsageError

    if value not in allowed:
        names = [name for name in allowed if name]
        named = f"{', '.join(names[:-1])} or {names[-1]}"
        raise UsageError(f"Expected {option} {named}, got {value!r}.")
