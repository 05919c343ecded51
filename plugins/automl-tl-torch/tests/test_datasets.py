"""torchvision's sets as named data sources, from small archives in the sets' own formats."""

from __future__ import annotations

import gzip
import hashlib
import inspect
import io
import os
import socket
import subprocess
import sys
import tarfile
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torchvision
from PIL import Image
from scipy.io import savemat

from automl_tl.errors import DataError
from automl_tl_torch import cifar, datasets, export_dataset
from automl_tl_torch.datasets import SETS, TorchvisionSet

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from automl_tl.data.index import DataIndex


def one_of(name: str) -> TorchvisionSet:
    return next(one for one in SETS if one.name == name)


def put(path: Path, content: bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def packed(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def photo(seed: int) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), np.uint8)
    Image.fromarray(pixels).save(out, "JPEG")
    return out.getvalue()


def place_of(name: str, cache: Path) -> Path:
    return cache / "datasets" / f"torchvision-{name}"


def exported(name: str, cache: Path) -> DataIndex:
    """Export in this process; then the table is there, and ``load`` only reads it."""
    export_dataset.export(one_of(name), place_of(name, cache))
    return datasets.load(one_of(name), cache)


def rows(index: DataIndex) -> list[tuple[str, str, str | None]]:
    return [(item.name, index.classes[item.label], item.split) for item in index.items]


def test_torchvision_has_these_sets_and_downloads_these_files() -> None:
    for one in SETS:
        if one.name in cifar.SETS:
            assert one.files == (cifar.SETS[one.name].archive,)
            continue
        kind = getattr(torchvision.datasets, one.name)
        parameters = inspect.signature(kind).parameters
        asked = {name for each in (one.splits or {}).values() for name in each}
        assert {"root", "download", *asked} <= set(parameters), one.name
        assert ("loader" in parameters) == one.loads, one.name
        source = inspect.getsource(sys.modules[kind.__module__])
        missing = [file for file in one.files if file.rpartition("/")[2] not in source]
        assert not missing, f"{one.name}: {missing}"


def test_names_are_sorted_and_announced_with_their_licence() -> None:
    specs = datasets.torchvision_datasets()
    assert [spec.name for spec in specs] == sorted(spec.name for spec in specs)
    assert all(spec.licence and spec.description and spec.download_bytes for spec in specs)


def idx(array: np.ndarray[Any, Any]) -> bytes:
    head = bytes((0, 0, 8, array.ndim)) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return gzip.compress(head + array.tobytes())


@pytest.fixture
def fashion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray[Any, Any]:
    """Six train and four test pictures of clothes, downloaded already."""
    pictures = np.random.default_rng(0).integers(0, 256, (10, 28, 28), np.uint8)
    labels = np.arange(10, dtype=np.uint8)
    raw = place_of("FashionMNIST", tmp_path) / "download" / "FashionMNIST" / "raw"
    parts = (pictures[:6], labels[:6], pictures[6:], labels[6:])
    names = [file.rpartition("/")[2] for file in one_of("FashionMNIST").files]
    resources = [
        (name, put(raw / name, idx(part))) for name, part in zip(names, parts, strict=True)
    ]
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "resources", resources)
    return pictures


def test_pictures_in_arrays_become_image_files(
    fashion: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    index = exported("FashionMNIST", tmp_path)
    assert (index.name, index.source) == ("FashionMNIST", "torchvision/FashionMNIST")
    found = rows(index)
    assert found[0] == ("images/test/00000.png", "Shirt", "test")
    assert found[4] == ("images/train/00000.png", "T-shirt/top", "train")
    with Image.open(index.items[4].path) as image:
        assert np.array_equal(np.asarray(image), fashion[0])
    left = {path.name for path in place_of("FashionMNIST", tmp_path).iterdir()}
    assert left == {"images", "index.csv"}


def test_what_a_killed_export_unpacked_is_not_taken_for_the_set(
    fashion: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    place = place_of("FashionMNIST", tmp_path)
    put(place / "download" / "FashionMNIST" / "raw" / "train-images-idx3-ubyte", b"half")
    put(place / "images" / "train" / "99999.png", b"half")
    assert len(exported("FashionMNIST", tmp_path).items) == 10
    assert not (place / "images" / "train" / "99999.png").exists()


def test_photographs_stay_the_files_that_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = place_of("Flowers102", tmp_path) / "download" / "flowers-102"
    photos = {f"jpg/image_{n:05d}.jpg": photo(n) for n in range(1, 7)}
    tables: dict[str, dict[str, list[int]]] = {
        "imagelabels.mat": {"labels": [1, 2, 1, 2, 1, 102]},
        "setid.mat": {"trnid": [1, 2], "valid": [3, 4], "tstid": [5, 6]},
    }
    md5 = {"image": ("102flowers.tgz", put(folder / "102flowers.tgz", packed(photos)))}
    for key, (name, table) in zip(("label", "setid"), tables.items(), strict=True):
        out = io.BytesIO()
        savemat(out, {column: np.array(values) for column, values in table.items()})
        md5[key] = (name, put(folder / name, out.getvalue()))
    monkeypatch.setattr(torchvision.datasets.Flowers102, "_file_dict", md5)
    index = exported("Flowers102", tmp_path)
    path = "download/flowers-102/jpg/image_0000{}.jpg"
    primrose, orchid = "pink primrose", "hard-leaved pocket orchid"
    assert rows(index) == [
        (path.format(1), primrose, "train"),
        (path.format(2), orchid, "train"),
        (path.format(3), primrose, "validation"),
        (path.format(4), orchid, "validation"),
        (path.format(5), primrose, "test"),
        (path.format(6), "blackberry lily", "test"),
    ]
    assert index.items[0].path.read_bytes() == photo(1)
    assert [file.name for file in folder.iterdir()] == ["jpg"], "archives are no longer needed"


def test_pets_are_not_decoded_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = place_of("OxfordIIITPet", tmp_path) / "download" / "oxford-iiit-pet"
    names = [f"{name}_{number}" for name in ("Abyssinian", "pug") for number in (1, 2)]
    images = packed({f"images/{name}.jpg": photo(7) for name in names})
    lists = {
        "trainval": b"Abyssinian_1 1 1 1\npug_1 2 2 1\n",
        "test": b"Abyssinian_2 1 1 1\npug_2 2 2 1\n",
    }
    table = packed({f"annotations/{split}.txt": text for split, text in lists.items()})
    resources = [
        (f"https://example.invalid/{name}.tar.gz", put(folder / f"{name}.tar.gz", content))
        for name, content in (("images", images), ("annotations", table))
    ]
    monkeypatch.setattr(torchvision.datasets.OxfordIIITPet, "_RESOURCES", resources)
    index = exported("OxfordIIITPet", tmp_path)
    path = "download/oxford-iiit-pet/images/{}.jpg"
    assert rows(index) == [
        (path.format("Abyssinian_1"), "Abyssinian", "train"),
        (path.format("Abyssinian_2"), "Abyssinian", "test"),
        (path.format("pug_1"), "Pug", "train"),
        (path.format("pug_2"), "Pug", "test"),
    ]
    assert index.items[0].path.read_bytes() == photo(7)


@pytest.mark.parametrize(("name", "labels"), [("CIFAR10", 1), ("CIFAR100", 2)])
def test_cifar_is_read_from_its_binary_form(
    name: str, labels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = cifar.SETS[name]
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), np.uint8)
    classes = np.array([[9] * (labels - 1) + [n] for n in range(2)], np.uint8)
    content = np.concatenate([classes, pixels.reshape(2, -1)], axis=1).tobytes()
    files = {f"{known.folder}/{file}": content for split in known.files.values() for file in split}
    archive = packed({f"{known.folder}/{known.names}": b"apple\nbear\n", **files})
    md5 = put(place_of(name, tmp_path) / "download" / known.archive, archive)
    monkeypatch.setattr(cifar, "SETS", {name: replace(known, md5=md5)})
    index = exported(name, tmp_path)
    assert len(index.items) == 2 * len(files)
    assert rows(index)[:2] == [
        ("images/test/00000.png", "apple", "test"),
        ("images/test/00001.png", "bear", "test"),
    ]
    with Image.open(index.items[1].path) as image:
        assert np.array_equal(np.asarray(image), pixels[1].transpose(1, 2, 0))


def test_offline_it_says_which_files_belong_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    with pytest.raises(DataError) as error:
        datasets.load(one_of("Flowers102"), tmp_path)
    place = place_of("Flowers102", tmp_path)
    message = str(error.value)
    assert message.startswith("torchvision/Flowers102 cannot be downloaded (")
    assert "refused" in message.lower()
    assert (
        "put flowers-102/102flowers.tgz, flowers-102/imagelabels.mat and flowers-102/setid.mat "
        f"into {place / 'download'}, or pass a local folder"
    ) in message
    assert not (place / "index.csv").exists()


def test_the_process_that_downloads_ends_with_the_one_that_started_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        proxy = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = subprocess.Popen(
            [sys.executable, "-m", "automl_tl_torch.export_dataset", "MNIST", str(tmp_path)],
            stdin=subprocess.PIPE,
            env={**os.environ, "http_proxy": proxy, "https_proxy": proxy, "no_proxy": ""},
        )
        assert process.stdin is not None
        with silent.accept()[0]:  # it waits for the answer of its proxy
            assert process.poll() is None
            process.stdin.close()
            assert process.wait(20) == 1
