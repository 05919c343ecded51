"""``automl-tl features``: any layer's output, with the real PyTorch plugin."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from automl_tl.cache.store import Store
from automl_tl.cli.errors import run
from automl_tl.errors import AutoMLError, UsageError
from automl_tl.features import FeatureSettings, write_features
from automl_tl.host import BackendHost
from automl_tl.network_layers import list_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TINY = "torch/tiny"
CUT, INNER = "features.stage1.0", "features.stage1.4.body.0"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, split into train and test, one image of them broken."""
    root = tmp_path_factory.mktemp("features")
    random = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 2)):
        for name in ("grün", "rot"):
            folder = root / "data" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (20, 20, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    (root / "data" / "train" / "rot" / "broken.png").write_bytes(b"no image")
    return root


@pytest.fixture(scope="module", autouse=True)
def _one_process() -> Iterator[None]:
    """Starting PyTorch takes seconds, so all tests share one real process."""
    with BackendHost("torch", "cpu") as host, pytest.MonkeyPatch.context() as patch:
        for module in ("features", "network_layers"):
            patch.setattr(f"automl_tl.{module}.BackendHost", lambda *_: nullcontext(host))
        yield


@pytest.fixture
def write(root: Path, tmp_path: Path) -> Callable[..., Any]:
    def call(**settings: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        store = Store(root / "cache", 10**9)
        made = FeatureSettings(**{"backbone": TINY, "device": "cpu", **settings})
        facts = write_features(root / "data", tmp_path / "f.npz", made, store=store)
        assert [path.name for path in tmp_path.iterdir()] == ["f.npz"]
        with np.load(tmp_path / "f.npz", allow_pickle=False) as file:
            return facts, dict(file)

    return call


def test_the_file_says_what_each_row_is(write) -> None:
    facts, file = write(layer=CUT)
    assert file["features"].shape == (12, 16, 16, 16)
    assert file["features"].dtype == np.float32
    assert file["labels"].dtype == np.int64
    assert file["classes"].tolist() == facts["classes"] == ["grün", "rot"]
    assert file["paths"][[0, -1]].tolist() == ["test/grün/0.png", "train/rot/3.png"]
    assert [path.split("/")[1] for path in file["paths"]] == file["classes"][
        file["labels"]
    ].tolist()
    assert (str(file["layer"]), str(file["backbone"]), int(file["image_size"])) == (CUT, TINY, 32)
    assert [one["name"] for one in facts["broken"]] == ["train/rot/broken.png"]
    assert facts["bytes"] == Path(facts["path"]).stat().st_size


def test_names_and_indices_are_the_same_layer_and_the_last_is_the_default(write) -> None:
    layers = list_layers(TINY)["layers"]
    index = next(row["index"] for row in layers if row["name"] == INNER)
    np.testing.assert_array_equal(
        write(layer=INNER)[1]["features"], write(layer=str(index))[1]["features"]
    )
    facts, file = write()
    assert facts["layer"] == layers[-1]["name"]
    assert list(file["features"].shape[1:]) == layers[-1]["shape"]
    assert write(pooling="avg")[1]["features"].shape == (12, list_layers(TINY)["features"])


def test_pooled_maps_are_the_means_and_maxima_of_whole_ones(write) -> None:
    for layer in (CUT, INNER, None):
        whole = write(layer=layer)[1]["features"]
        for pooling, reduce in (("avg", np.mean), ("max", np.max)):
            pooled = write(layer=layer, pooling=pooling)[1]["features"]
            np.testing.assert_allclose(pooled, reduce(whole, axis=(2, 3)), rtol=1e-4, atol=1e-5)


def test_a_split_is_the_same_rows(write) -> None:
    _, whole = write(layer=INNER)
    facts, test = write(layer=INNER, split="test")
    assert facts["broken"] == []
    rows = [i for i, path in enumerate(whole["paths"]) if path.startswith("test/")]
    assert test["paths"].tolist() == whole["paths"][rows].tolist()
    np.testing.assert_allclose(test["features"], whole["features"][rows], rtol=1e-4, atol=1e-5)
    with pytest.raises(AutoMLError, match=r"'validation'.*only test, train"):
        write(split="validation")


def test_nothing_is_computed_twice(write, monkeypatch: pytest.MonkeyPatch) -> None:
    _, first = write(layer=CUT)

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("the backend was asked again")

    with monkeypatch.context() as patch:
        patch.setattr(BackendHost, "start", forbidden)
        np.testing.assert_array_equal(write(layer=CUT)[1]["features"], first["features"])
    sources = []
    extract = BackendHost.extract

    def spy(host: BackendHost, network: Any, source: Any, *rest: Any) -> None:
        sources.append(source.cut)
        extract(host, network, source, *rest)

    monkeypatch.setattr(BackendHost, "extract", spy)
    write(layer=INNER)
    index = next(row["index"] for row in list_layers(TINY)["layers"] if row["name"] == CUT)
    assert sources[0] >= index + 1, "what lies below was computed again"


def test_what_the_cache_cannot_hold_is_computed_all_the_same(write, root: Path, tmp_path) -> None:
    _, expected = write(layer=CUT)
    small = Store(root / "small", 150_000)  # the pixels fit, the features do not
    settings = FeatureSettings(TINY, layer=CUT, device="cpu")
    write_features(root / "data", tmp_path / "f.npz", settings, store=small)
    with np.load(tmp_path / "f.npz") as file:
        np.testing.assert_allclose(file["features"], expected["features"], rtol=1e-4, atol=1e-5)


WRONG = [
    ("--layer features.stage1.9", "has no layer 'features.stage1.9'; did you mean features.stage"),
    ("--layer 99", "expected 0 to 35 for the 36 layers of torch/tiny"),
    ("--image-size 4", "needs at least 8 pixels, got 4"),
    ("--pooling mean", "--pooling none, avg or max, got 'mean'"),
    ("--weights nowhere.pth", "expected synthetic, none or a file, got 'nowhere.pth'"),
    (
        "--weights torch/resnet18=none",
        "expected weights of torch/tiny, got those of torch/resnet18",
    ),
    ("-o x.parquet", "-o x.parquet: expected a name that ends in .npz"),
    ("-o nowhere/x.npz", "there is no nowhere"),
    ("--backbone torch/*", "Expected one backbone, but 'torch/*' fits torch/alexnet"),
]


@pytest.mark.parametrize(("arguments", "expected"), WRONG)
def test_what_is_wrong_is_told_in_one_sentence(
    root: Path, tmp_path: Path, capsys, monkeypatch, arguments: str, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTOML_TL_CACHE", str(root / "cache"))
    given = ["--backbone", TINY, "-o", "f.npz", "--device", "cpu", *arguments.split()]
    assert run(["features", str(root / "data"), *given]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert expected in err
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_the_command_prints_what_it_wrote(root: Path, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTOML_TL_CACHE", str(root / "cache"))
    command = [
        "features",
        str(root / "data"),
        "--backbone",
        "torch/tin?",
        "--layer",
        CUT,
        "-o",
        "f.npz",
    ]
    assert run([*command, "--weights", "torch/tiny=none"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("f.npz (")
    assert "features 12 x 16 x 16 x 16 of layer 3, features.stage1.0, of torch/tiny at 32" in text
    assert "left out: train/rot/broken.png: not an image" in text
    assert run([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["shape"] == [16, 16, 16]


def test_layers_are_listed(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOML_TL_CACHE", str(tmp_path))
    assert run(["backbones", TINY, "--layers", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    rows = facts["layers"]
    assert [row["index"] for row in rows] == list(range(len(rows)))
    assert facts["parameters"] == sum(row["parameters"] for row in rows)
    shapes = {row["name"]: row["shape"] for row in rows}
    assert shapes[CUT] == [16, 16, 16]
    assert shapes[INNER] is None, "a skip connection flows past it"
    assert all(row["cut"] == (row["shape"] is not None) for row in rows)
    assert run(["backbones", TINY, "--layers"]) == 0
    assert "features.stage1.0         MaxPool2d                16 x 16 x 16" in (
        capsys.readouterr().out
    )
    with pytest.raises(UsageError, match=r"'torch/r\*' fits torch/regnet.* and \d+ more"):
        list_layers("torch/r*")
