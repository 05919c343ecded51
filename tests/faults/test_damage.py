"""One flipped byte, in a cached array, a model or the journal; a folder that cannot be written."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from automl_tl.cache.store import Store
from tests.faults.conftest import SEARCH, facts

if TYPE_CHECKING:
    from pathlib import Path

    from tests.commandline import CommandLine

TUNED = (*SEARCH, "--set", "depth=1", "--set", "epochs=3", "--set", "head_layers=0")


def flip(path: Path, at: float = 0.75) -> None:
    """Flip a bit of the byte at this share of a file."""
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] ^= 1
    path.write_bytes(data)


def test_flipped_bytes_in_the_cache_are_noticed_and_computed_again(
    cli: CommandLine, photos: Path
) -> None:
    cli.run("search", str(photos), *SEARCH, "--set", "depth=0", "--trials", "1")
    store = Store(cli.folder / "cache", 10**9)
    before = {entry.path: entry.path.read_bytes() for entry in store.entries()}
    assert {entry.meta["kind"] for entry in store.entries()} == {"pixels", "activations"}
    for path in before:
        flip(path)
    again = ("--study", "t", "--set", "depth=0", "--trials", "1")
    cli.run("search", str(photos), *SEARCH, *again)
    assert {path: path.read_bytes() for path in before} == before
    assert facts(cli, "t")["reuse"]["decoded"] == 120
    assert facts(cli, "t")["best"]["value"] == facts(cli)["best"]["value"]


@pytest.mark.slow
def test_a_flipped_byte_in_a_model_is_refused_by_export(cli: CommandLine, photos: Path) -> None:
    cli.run("search", str(photos), *TUNED, "--trials", "1")
    model = cli.folder / "studies" / "s" / "trials" / "00000" / "model.safetensors"
    flip(model)
    sentence = cli.run("export", "s", "-o", "m.onnx", code=2)
    assert "model.safetensors is damaged" in sentence and "put back a copy" in sentence
    assert not (cli.folder / "m.onnx").exists()
    flip(model)
    cli.run("export", "s", "-o", "m.onnx")


def test_a_changed_value_in_the_journal_is_refused(cli: CommandLine, photos: Path) -> None:
    cli.run("search", str(photos), *TUNED, "--trials", "1")
    journal = cli.folder / "studies" / "s" / "journal.log"
    text = re.sub(r',"crc32":"[0-9a-f]{8}"', "", journal.read_text())  # as who means it would
    changed, count = re.subn(r'"values":\s*\[\d\.\d+\]', '"values":[0.999]', text)
    assert count == 1
    journal.write_text(changed)
    assert "Trial 0 of the study 's' is recorded with a damaged 'value'" in cli.run(
        "show", "s", code=2
    )


def test_an_image_size_that_is_not_searched_is_refused_by_export(
    cli: CommandLine, photos: Path
) -> None:
    cli.run("search", str(photos), *TUNED, "--trials", "1", "--set", "image_size=32")
    config = cli.folder / "studies" / "s" / "study.toml"
    config.write_text(config.read_text().replace("image_size = 32", "image_size = 24"))
    sentence = cli.run("export", "s", "-o", "m.onnx", code=2)
    assert "Trial 0 of s is recorded with images of 32 pixels (squash), which its" in sentence
    assert not (cli.folder / "m.onnx").exists()
