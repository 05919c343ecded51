"""What is installed and stored: ``backbones``, ``plugins``, ``doctor`` and ``cache``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from automl_tl.cli.console import cell, parameters, print_json, printable, stderr, stdout, table
from automl_tl.cli.plugin_files import Plugin
from automl_tl.units import plural

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

Json = Annotated[bool, typer.Option("--json", help="Print everything as JSON.")]

cache = typer.Typer(help="Look at the cache, or empty it.")


def backbones(
    pattern: Annotated[
        str, typer.Argument(metavar="GLOB", help="Which ones, as 'torch/resnet*'.")
    ] = "*",
    layers: Annotated[
        bool, typer.Option("--layers", help="List the layers of the one network instead.")
    ] = False,
    json: Json = False,
    plugin: Plugin = None,
) -> None:
    """List the pretrained networks and where their weights are."""
    from automl_tl.doctor import weights_state
    from automl_tl.plugins import get_plugins

    if layers:
        from automl_tl.network_layers import list_layers

        facts = list_layers(pattern)
        if json:
            print_json(facts)
        else:
            print_layers(stdout(), facts)
        return
    plugins = get_plugins()
    rows: list[dict[str, Any]] = []
    found = plugins.match(pattern)
    _print_problems(stderr(), [f"{one.plugin}: {one.message}" for one in plugins.problems])
    for backbone in found:
        state, path = weights_state(plugins, backbone.key)
        published = backbone.pretrained
        rows.append(
            {
                "key": backbone.key,
                "input_size": backbone.input_size,
                "parameters": backbone.parameters,
                "recommended": backbone.recommended,
                "weights": published.name if published else None,
                "weights_state": state,
                "weights_path": None if path is None else str(path),
                "weights_url": published.source if published else None,
                "licence": backbone.licence,
                "weights_licence": published.licence if published else None,
                "facts": dict(backbone.facts),
            }
        )
    if json:
        print_json(rows)
        return
    console = stdout()
    board = table(
        [
            ("backbone", False),
            ("input", True),
            ("parameters", True),
            ("weights", False),
            ("licence", False),
        ]
    )
    for row in rows:
        name = cell(row["key"]) + (" *" if row["recommended"] else "")
        count = parameters(row["parameters"])
        board.add_row(
            name, cell(row["input_size"]), count, row["weights_state"], cell(row["licence"])
        )
    console.print(board)
    console.print("* searched when no --backbone is given; `download` fetches weights when used.")


def print_layers(console: Console, facts: Mapping[str, Any]) -> None:
    """Print the facts of ``automl_tl.network_layers.list_layers`` for people."""
    rows = facts["layers"]
    count = parameters(facts["parameters"])
    console.print(
        f"{cell(facts['key'])} at {facts['image_size']} pixels: {len(rows)} layers, "
        f"{count} parameters without the classifier",
        style="bold",
    )
    board = table(
        [
            ("layer", True),
            ("name", False),
            ("kind", False),
            ("parameters", True),
            ("output", False),
        ]
    )
    for row in rows:
        shape = " x ".join(map(str, row["shape"])) if row["cut"] else ""
        own = f"{row['parameters']:,}" if row["parameters"] else ""
        board.add_row(cell(row["index"]), cell(row["name"]), cell(row["kind"]), own, shape)
    console.print(board)
    console.print(
        "An output is shown where nothing else flows past the layer: up to there, and only there, "
        "the frozen part is computed once and stored.",
        soft_wrap=True,
    )


def plugins(json: Json = False, plugin: Plugin = None) -> None:
    """List the plugins and what they provide."""
    from automl_tl.doctor import listing
    from automl_tl.plugins import get_plugins

    rows = listing(get_plugins())
    if json:
        print_json(rows)
    else:
        console = stdout()
        _print_plugins(console, rows)
        problems = [f"{row['name']}: {text}" for row in rows for text in row["problems"]]
        _print_problems(console, problems)


def doctor(json: Json = False, plugin: Plugin = None) -> None:
    """Examine devices, frameworks, plugins and the cache."""
    from automl_tl.doctor import examine

    facts = examine()
    if json:
        print_json(facts)
    else:
        print_doctor(stdout(), facts)


@cache.command("show")
def cache_show(json: Json = False) -> None:
    """Show what the cache holds."""
    from automl_tl.cache import contents
    from automl_tl.cache.store import Store
    from automl_tl.units import format_bytes, format_duration

    store = Store()
    usage = contents.usage(store.root)
    size = sum(row["bytes"] for row in usage)
    if json:
        facts = {"path": str(store.root), "bytes": size, "max_bytes": store.max_bytes}
        print_json({**facts, "kinds": usage})
        return
    console = stdout()
    bound = format_bytes(store.max_bytes)
    console.print(f"{printable(store.root)}: {format_bytes(size)} of at most {bound}", style="bold")
    if usage:
        board = table(
            [("kind", False), ("entries", True), ("size", True), ("time to compute", True)]
        )
        for row in usage:
            sizes = (format_bytes(row["bytes"]), format_duration(row["seconds"]))
            board.add_row(cell(row["kind"]), cell(row["entries"]), *sizes)
        console.print(board)


@cache.command("clear")
def cache_clear() -> None:
    """Delete everything in the cache; studies and models stay."""
    from automl_tl.cache import contents
    from automl_tl.cache.store import Store
    from automl_tl.units import format_bytes

    root = Store().root
    print(f"{printable(root)}: {format_bytes(contents.clear(root))} freed")


def print_doctor(console: Console, facts: Mapping[str, Any]) -> None:
    """Print the facts of ``automl_tl.doctor.examine`` for people."""
    from automl_tl.units import format_bytes

    python, system, store = facts["python"], facts["system"], facts["cache"]
    memory = format_bytes(system["memory_bytes"])
    lines = [
        ("automl-tl", facts["automl_tl"]),
        ("Python", f"{python['version']} ({python['executable']})"),
        ("system", f"{system['platform']}, {plural(system['cores'], 'CPU')}, {memory} memory"),
        (
            "cache",
            f"{store['path']}: {format_bytes(store['bytes'])} of at most "
            f"{format_bytes(store['max_bytes'])}, {format_bytes(store['disk_free_bytes'])} free"
            + ("" if store["writable"] else ", NOT writable"),
        ),
    ]
    gpus = [f"{gpu['name']}, {gpu['memory']}, driver {gpu['driver']}" for gpu in facts["gpus"]]
    lines += [("GPU", gpu) for gpu in gpus or ["none found by nvidia-smi"]]
    for backend in facts["backends"]:
        versions = ", ".join(f"{p} {v or 'missing'}" for p, v in backend["packages"].items())
        devices = f"devices {', '.join(backend['devices'])}" if backend["devices"] else "no devices"
        lines.append((f"backend {backend['name']}", f"{versions}; {devices}"))
    for name, text in lines:
        console.print(f"{cell(name):<15} {cell(text)}", soft_wrap=True)
    _print_plugins(console, facts["plugins"])
    console.print("weights on this disk" + ("" if facts["weights"] else ": none"), style="bold")
    for row in facts["weights"]:
        size = format_bytes(row["bytes"])
        name = cell(row["backbone"]) + (" with its classifier" if row["classifier"] else "")
        console.print(f"  {name}  {size}  {cell(row['path'])}", soft_wrap=True)
    _print_problems(console, facts["problems"])
    if not facts["problems"]:
        console.print("No problems found.", style="green")


def _print_plugins(console: Console, rows: list[dict[str, Any]]) -> None:
    board = table([("plugin", False), ("distribution", False), ("provides", False)])
    for row in rows:
        provides = [_provided(kind, names) for kind, names in sorted(row["provides"].items())]
        board.add_row(cell(row["name"]), cell(row["distribution"]), "; ".join(provides))
    console.print(board)


def _print_problems(console: Console, problems: list[str]) -> None:
    for problem in problems:
        console.print(f"Problem: {printable(problem)}", style="red", soft_wrap=True)


def _provided(kind: str, names: list[str]) -> str:
    """Return ``backends torch``, or ``80 backbones`` when there are many."""
    if len(names) > 4:
        return f"{len(names)} {kind}"
    return f"{kind} {', '.join(cell(name) for name in names)}"
