"""What the README and the docs say is what the program does."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import automl_tl

if TYPE_CHECKING:
    from types import ModuleType

    from tests.commandline import CommandLine

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_pages_are_up_to_date() -> None:
    generate = _generator()
    page = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    assert page == generate.command_line(), "run python docs/generate.py"
    assert generate.readme(README) == README, "run python docs/generate.py"


def test_the_readmes_commands_work(cli: CommandLine, photos: Path) -> None:
    """They run in order; only the bounds are made smaller."""
    shutil.copytree(photos, cli.folder / "photos" / "flowers")
    shutil.copy(photos / "circle" / "000.png", cli.folder / "photo.jpg")
    blocks = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
    commands = "\n".join(blocks).replace("\\\n", " ").splitlines()
    ran = 0
    for line in commands:
        words = shlex.split(line, comments=True)
        if words[:1] != ["automl-tl"]:
            continue
        text = shlex.join(words[1:]).replace("--trials 20", "--trials 2")
        cli.run(*shlex.split(text.replace("--trials 5", "--trials 1").replace("8", "2")))
        ran += 1
    assert ran >= 8


def test_the_readmes_python_works(cli: CommandLine, photos: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    shutil.copytree(photos, cli.folder / "photos" / "flowers")
    script = cli.folder / "script.py"
    script.write_text(code.replace("trials=50", "trials=2"), encoding="utf-8")
    out = cli.python(str(script))
    assert "'accuracy'" in out
    assert (cli.folder / "flowers.onnx").is_file()
    assert (cli.folder / "flowers.onnx.md").is_file()


def test_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_public_names_are_sorted_and_there() -> None:
    assert automl_tl.__all__ == sorted(automl_tl.__all__)
    for name in automl_tl.__all__:
        assert getattr(automl_tl, name).__doc__
