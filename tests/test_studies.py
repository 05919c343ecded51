"""Every recipe in ``studies/`` can be searched, and its README tells of it."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from automl_tl.cli.config import SearchOptions, from_file, from_flags
from automl_tl.networks import check_size
from automl_tl.plugins import get_plugins
from automl_tl.space import Space

FOLDER = Path(__file__).resolve().parents[1] / "studies"
RECIPES = sorted(FOLDER.glob("*/*.toml"))
NAMES = {
    "cats_vs_dogs",
    "cats_vs_dogs_vgg16_features",
    "flowers_feature_vector",
    "inception_two_stage",
    "vgg16_from_block4_pool",
}


def title(path: Path) -> str:
    return path.relative_to(FOLDER).as_posix()


def searched(options: SearchOptions) -> Space:
    """Return the space of a search, checked as ``automl-tl search`` checks it."""
    options.check()
    plugins = get_plugins()
    keys = {b.key: b for pattern in options.backbone for b in plugins.match(pattern)}
    space = Space(tuple(sorted(keys)), options.set, first=options.first)
    for key, backbone in keys.items():
        for size in space.values("image_size", key):
            check_size(backbone, size or backbone.input_size)
    return space


def test_the_studies_are_there() -> None:
    assert {path.parent.name for path in RECIPES if path.name == "study.toml"} == NAMES


@pytest.mark.parametrize("path", RECIPES, ids=title)
def test_a_recipe_is_a_search_of_known_data_and_networks(path: Path) -> None:
    options = from_file(path)
    space = searched(options)
    assert options.data in get_plugins().datasets
    assert options.study == f"runs/{Path(options.study).name}", "beside the recipes, not in them"
    assert options.trials is not None
    assert len(space.probes()) <= options.trials
    if options.first:
        assert len(space.probes()) == len(options.first) == options.trials


@pytest.mark.parametrize("path", RECIPES, ids=title)
def test_the_readmes_commands_are_searches_of_the_recipe(path: Path) -> None:
    text = (path.parent / "README.md").read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL))
    commands = [shlex.split(line) for line in blocks.replace("\\\n", " ").splitlines()]
    name = path.relative_to(FOLDER.parent).as_posix()
    mine = [words for words in commands if name in words and "search" in words]
    assert any(words == ["automl-tl", "search", "--config", name] for words in mine)
    assert any(words[2].endswith("data/flowers5") for words in mine), "one on the shared images"
    for words in mine:
        given: dict[str, list[str]] = {"--backbone": [], "--set": []}
        for flag, value in pairwise(words):
            given.setdefault(flag, []).append(value)
        flags = from_flags(time=None, backbone=given["--backbone"], set_=given["--set"])
        searched(flags.over(from_file(path)))


def test_links_lead_somewhere() -> None:
    for page in FOLDER.rglob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page}: {target}"
