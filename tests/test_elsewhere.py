"""A worker on another machine, played by this one with another cache."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from automl_tl import Study
from automl_tl.cache.store import Store
from automl_tl.elsewhere import Elsewhere
from automl_tl.errors import StudyError, UsageError, WeightsError
from automl_tl.machine import available_cpus
from automl_tl.prepare import open_networks
from automl_tl.stages import silent
from automl_tl.study import StudyDirectory
from automl_tl.study_config import write_config
from automl_tl.worker_setup import Setup

if TYPE_CHECKING:
    from collections.abc import Mapping


@pytest.fixture
def images(photos: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(photos, tmp_path / "images"))


@pytest.fixture
def elsewhere(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    """A study made with one cache; from now on there is another."""
    monkeypatch.setenv("AUTOML_TL_CACHE", str(tmp_path / "here"))
    Study.create(tmp_path / "s", images, backbones=["torch/tiny"])
    study, store = StudyDirectory.open(tmp_path / "s"), Store()
    networks = open_networks(study, study.data(), "cpu", store, silent)
    setup = Setup(
        directory=study.path,
        networks=networks,
        index=3,
        workers=1,
        device="cpu",
        gpu="0",
        threads=7,
        host_threads=14,
        cache=store.root,
        cache_bytes=store.max_bytes,
        search="id",
    )
    monkeypatch.setenv("AUTOML_TL_CACHE", str(tmp_path / "there"))
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    return Elsewhere(setup)


def test_it_fills_its_own_cache_once_and_takes_its_own_threads(
    elsewhere: Elsewhere, tmp_path: Path, images: Path
) -> None:
    said: list[Mapping[str, Any]] = []
    found = elsewhere.settle(said.append)
    assert found.cache == tmp_path / "there"
    assert (found.index, found.gpu, found.search) == (3, None, "id")
    assert (found.threads, found.host_threads) == (2, 2)
    before = elsewhere.setup.networks
    assert found.networks.specs == before.specs
    for key, (path, identity) in found.networks.arrays.items():
        assert path.is_relative_to(tmp_path / "there")
        assert identity == before.arrays[key][1]
        assert path.read_bytes() == before.arrays[key][0].read_bytes()
    assert said
    assert not any("worker" in one for one in said)  # the supervisor knows which
    shutil.rmtree(images)
    assert elsewhere.settle(said.append).networks == found.networks


def test_images_that_are_not_there_are_said(elsewhere: Elsewhere, images: Path) -> None:
    shutil.rmtree(images)
    with pytest.raises(StudyError, match="images of the study s are needed again"):
        elsewhere.settle(print)


def test_other_images_are_refused(elsewhere: Elsewhere, images: Path) -> None:
    first, second = sorted(images.rglob("*.png"))[:2]
    shutil.copy(second, first)
    with pytest.raises(StudyError, match="have changed"):
        elsewhere.settle(print)


def test_published_weights_are_where_this_machine_keeps_them(elsewhere: Elsewhere) -> None:
    path = elsewhere.setup.directory
    study = StudyDirectory.open(path)
    recorded = Path(study.config.weights["torch/tiny"])
    moved = {"torch/tiny": str(Path("/not/here") / recorded.name)}
    write_config(path / "study.toml", replace(study.config, weights=moved))
    specs = elsewhere.settle(print).networks.specs
    assert {spec.weights for spec in specs.values()} == {recorded}


def test_other_weights_are_refused(elsewhere: Elsewhere) -> None:
    networks = elsewhere.setup.networks
    other = {key: replace(spec, weights_id="other") for key, spec in networks.specs.items()}
    setup = replace(elsewhere.setup, networks=replace(networks, specs=other))
    with pytest.raises(WeightsError, match="weights of torch/tiny on this machine are not those"):
        replace(elsewhere, setup=setup).settle(print)


def test_a_plugin_file_that_is_not_there_is_said(elsewhere: Elsewhere) -> None:
    with pytest.raises(UsageError, match="there is no such file"):
        replace(elsewhere, plugins=(Path("/not/here.py"),)).settle(print)


@pytest.mark.parametrize("text", ["", "0", "4,2", "many"])
def test_threads_that_nobody_granted_are_all(
    elsewhere: Elsewhere, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert elsewhere.settle(lambda _: None).threads == available_cpus()
