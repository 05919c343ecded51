"""Fetching published weights, without a network."""

from __future__ import annotations

import urllib.error
from pathlib import Path
from typing import Any

import pytest

from automl_tl.errors import WeightsError
from automl_tl_keras import weights
from automl_tl_keras.catalog import applications

CATALOG = {backbone.name: backbone for backbone in applications()}


def test_a_download_is_verified_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    served = tmp_path / "served.h5"
    served.write_bytes(b"not what was published")
    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", _copy(served))
    with pytest.raises(WeightsError, match=r"keras/VGG16: .* cannot be downloaded \(Incomplete"):
        weights.download(CATALOG["VGG16"])
    assert not [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
    path = weights.download(CATALOG["MobileNet"])  # published without a hash
    assert path == CATALOG["MobileNet"].pretrained.path()  # type: ignore[union-attr]
    assert path.read_bytes() == served.read_bytes()
    assert weights.download(CATALOG["MobileNet"]) == path


def _copy(served: Path) -> Any:
    def urlretrieve(url: str, target: str, hook: Any) -> None:
        Path(target).write_bytes(served.read_bytes())

    return urlretrieve


def test_a_download_that_fails_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", refuse)
    with pytest.raises(WeightsError) as caught:
        weights.download(CATALOG["VGG16"])
    assert str(caught.value) == (
        "keras/VGG16: the weights file vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5 is not in "
        f"{tmp_path / 'models'} and cannot be downloaded (no route to host): put it there, or use "
        "--weights keras/VGG16=PATH or =none."
    )
