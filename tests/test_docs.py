"""What the README and the docs say is what the program does."""

from __future__ import annotations

import re
import shlex
import shutil
from typing import TYPE_CHECKING

import automl_tl
from tests.pages import README, ROOT, load

if TYPE_CHECKING:
    from pathlib import Path

    from tests.commandline import CommandLine


def test_generated_pages_are_up_to_date() -> None:
    generate = load("generate")
    for name, text in generate.pages().items():
        page = (ROOT / "docs" / name).read_text(encoding="utf-8")
        assert page == text, f"{name}: run python docs/generate.py"
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


def test_the_public_names_are_sorted_and_there() -> None:
    assert automl_tl.__all__ == sorted(automl_tl.__all__)
    for name in automl_tl.__all__:
        assert getattr(automl_tl, name).__doc__
