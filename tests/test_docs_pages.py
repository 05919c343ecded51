"""The pages below docs: their links, commands and examples."""

from __future__ import annotations

import importlib.metadata
import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pluggy
import pytest
import typer

from automl_tl import hookspecs, plugins
from automl_tl.cli.app import app
from automl_tl.data.sources import open_data
from automl_tl.settings import domain
from automl_tl.specs import Backbone, FinishedEpoch, FinishedTrial, WorkerSettings
from tests.commandline import CommandLine
from tests.pages import DOCS, README, ROOT, anchors, blocks, commands, load, page, prose

PAGES = sorted(path.name for path in DOCS.glob("*.md"))
EXECUTED = ("getting-started.md", "questions.md")
NET = Backbone("vit_b", "torch", load=lambda weights: None, input_size=32, parameters=1)


def _links(text: str) -> list[str]:
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", prose(text)) if "://" not in link]


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", *(f"docs/{p}" for p in PAGES)])
def test_links_lead_somewhere(name: str) -> None:
    source = ROOT / name
    for link in _links(source.read_text(encoding="utf-8")):
        target, _, anchor = link.partition("#")
        found = (source.parent / target).resolve() if target else source
        assert found.exists(), f"{name}: {link}"
        if source.parent == DOCS:
            assert found.parent in {DOCS, DOCS / "assets"}, f"{name}: {link} is not in the site"
        if anchor:
            assert anchor in anchors(found.read_text(encoding="utf-8")), f"{name}: {link}"


def test_every_page_is_in_the_site_and_can_be_reached() -> None:
    nav = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]
    assert sorted(re.findall(r"'([\w-]+\.md)'", str(nav))) == PAGES
    reached = {link.partition("#")[0] for link in _links(page("index.md"))}
    assert reached == {*PAGES} - {"index.md"}


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """It is built from a copy, so that nothing is left in the checkout."""
    shutil.copytree(DOCS, tmp_path / "docs")
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    build = [sys.executable, "-m", "zensical", "build", "--strict"]
    done = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    site = tmp_path / "site"
    assert sorted(path.stem for path in site.glob("*.html") if path.stem != "404") == [
        Path(name).stem for name in PAGES
    ]
    assert not list(site.rglob("*.py"))


@pytest.mark.parametrize("name", PAGES)
def test_every_command_of_a_page_is_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are parsed, not run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_net.py").touch()
    monkeypatch.setenv("AUTOML_TL_PLUGINS", "")  # put back afterwards, whatever parsing adds
    for line in commands(page(name), "bash", "text"):
        command: Any = typer.main.get_group(app)
        words = shlex.split(line)[1:]
        while hasattr(command, "commands"):
            assert words, line
            assert words[0] in command.commands, line
            command = command.commands[words.pop(0)]
        command.make_context("automl-tl", words)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXECUTED)
def test_the_commands_of_a_page_work(name: str, cli: CommandLine, photos: Path) -> None:
    """They run in order; only the bounds are made smaller, and weights are what is here."""
    shutil.copytree(photos, cli.folder / "photos" / "flowers")
    shutil.copy(photos / "circle" / "000.png", cli.folder / "photo.jpg")
    for line in commands(page(name), "bash"):
        here = line.replace("flower_photos", "photos/flowers")
        shorter = re.sub(r"--trials \d+", "--trials 2", re.sub(r"--time \dm", "--time 40s", here))
        cli.run(*shlex.split(shorter)[1:])
    assert (cli.folder / "flowers.onnx").is_file()


def _plugin(name: str) -> Any:
    """Load the example of a hook as a plugin; returns the one function that calls the hook."""
    module = type(sys)(f"example_{name}")
    exec(load("reference").example(name), module.__dict__)
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(module)
    manager.check_pending()
    (implementation,) = getattr(manager.hook, name).get_hookimpls()
    return implementation.function


def test_every_hook_is_documented_as_it_is() -> None:
    known = [name for name in vars(hookspecs) if name.startswith("automl_tl_")]
    text = page("hooks.md")
    assert re.findall(r"^## (automl_tl_\w+)$", text, re.MULTILINE) == known
    for name in known:
        section = text.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert "Called" in section
        shown, code = blocks(section, "python")
        real = inspect.signature(getattr(hookspecs, name))
        assert shown == f"{name}{real}\n".replace("'", "")
        assert f"def {name}(" in code
        for parameter in real.parameters:
            assert f"\n- `{parameter}` (" in section


def test_hooks_that_announce_are_called_in_the_order_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = re.findall(r"^\d\. `(automl_tl_\w+)`$", page("hooks.md"), re.MULTILINE)
    entries = []
    for name in ("second", "first"):
        module = f"order_{tmp_path.name.replace('-', '_')}_{name}"
        note = f"    open({str(tmp_path / 'calls')!r}, 'a').write"
        source = "from automl_tl.hookspecs import hookimpl\n" + "".join(
            f"@hookimpl\ndef {hook}():\n{note}('{hook} {name}\\n')\n" for hook in reversed(listed)
        )
        (tmp_path / f"{module}.py").write_text(source)
        entries.append(importlib.metadata.EntryPoint(name, module, "automl_tl"))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: entries)
    assert plugins.discover().problems == []
    said = (tmp_path / "calls").read_text().splitlines()
    assert said == [f"{hook} {name}" for hook in listed for name in ("first", "second")]
    assert len(listed) == 4


def test_the_example_of_a_data_source_can_be_opened(tmp_path: Path) -> None:
    (spec,) = _plugin("automl_tl_datasets")()
    index = open_data("greys", tmp_path, {spec.name: spec})
    assert len(index.items) == 256
    assert all(item.path.is_file() for item in index.items)
    assert index.classes[index.items[0].label] == "dark"


def test_the_example_of_a_search_space_is_one() -> None:
    narrow = _plugin("automl_tl_search_space")
    for name, value in narrow(backbone=NET).items():
        domain(name, value)
    assert narrow(backbone=Backbone("net", "torch", NET.load, 32, 1)) is None


def test_the_examples_of_observers_write_what_they_hear(tmp_path: Path) -> None:
    epoch = FinishedEpoch("s", tmp_path, 3, "warm-up", 4, 9, "accuracy", 0.5, 1.0, 0.01, 0.1)
    trial = FinishedTrial("s", tmp_path, 3, "complete", "accuracy", 0.5, {}, {})
    _plugin("automl_tl_epoch_finished")(epoch)
    _plugin("automl_tl_trial_finished")(trial)
    assert (tmp_path / "epochs.csv").read_text() == "3,4,0.5\n"
    assert (tmp_path / "trials.csv").read_text() == "3,complete,0.5\n"


def test_the_example_of_an_engine_starts_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nice: list[int] = []
    monkeypatch.setattr("os.nice", nice.append)
    (spec,) = _plugin("automl_tl_engines")()
    settings = WorkerSettings(tmp_path, ("cpu",), 1, lambda index: None)
    engine = spec.create(settings)
    assert engine.poll(0.0) == []
    engine.close(0.0)
    assert nice == [10]


DESCRIBE = """
import sys
from pathlib import Path
from automl_tl.types import NetworkSpec

framework, *files = sys.argv[1:]
modules = []
for file in files:
    exec(Path(file).read_text(), module := {})
    modules.append(module)
found = {b.key: b for m in modules for b in m.get("automl_tl_backbones", list)()}
backends = [b for m in modules for b in m.get("automl_tl_backends", list)()]
assert not {"torch", "keras"} & set(sys.modules), "imported by a plugin's module"

if framework == "torch":
    from automl_tl_torch.backend import TorchBackend as Backend

    def count(network):
        return sum(parameter.numel() for parameter in network.parameters())
else:
    from automl_tl_keras.backend import KerasBackend as Backend

    def count(network):
        return sum(variable.value.shape.num_elements() for variable in network.trainable_variables)

assert all(isinstance(backend.load(), Backend) for backend in backends)
for key, backbone in found.items():
    info = Backend(found.__getitem__).describe(NetworkSpec(key, backbone.input_size, None, "", 0))
    assert count(backbone.load(None)) == backbone.parameters
    print(key, info.features)
"""


@pytest.mark.parametrize("framework", ["torch", "keras"])
def test_the_backbone_of_the_page_is_one(framework: str, cli: CommandLine) -> None:
    (code,) = [b for b in blocks(page("write-a-backbone.md"), "python") if f'"{framework}", ' in b]
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    sources = [code]
    if framework == "torch":
        names = ("automl_tl_backbones", "automl_tl_backends")
        sources += [load("reference").example(name) for name in names]
    files = []
    for number, source in enumerate(sources):
        files.append(cli.folder / f"{number}.py")
        files[-1].write_text(source, encoding="utf-8")
    said = cli.python("-c", DESCRIBE, framework, *map(str, files)).splitlines()
    assert said == [f"{framework}/my_net 128", "torch/minute 16"][: 2 if len(files) > 1 else 1]


def test_the_readme_leads_to_the_documentation() -> None:
    assert {f"docs/{name}" for name in ("index.md", "write-a-backbone.md")} <= set(_links(README))


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["torch", "keras"])
def test_the_backbone_of_the_page_passes_the_kit(
    framework: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is installed as a distribution is: a module, and metadata that names it."""
    (code,) = [b for b in blocks(page("write-a-backbone.md"), "python") if f'"{framework}", ' in b]
    (tmp_path / "my_net.py").write_text(code, encoding="utf-8")
    (metadata := tmp_path / "my_net-1.0.dist-info").mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my_net\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[automl_tl]\nmy_net = my_net\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    said = CommandLine(tmp_path, cache).run("plugin", "check", "my_net")
    assert "nothing wrong" in said.splitlines()[-1]
