"""``automl-tl predict KEY``: a pretrained network with its original classifier."""

from __future__ import annotations

import csv
import json
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from automl_tl import imagenet
from automl_tl.cli.errors import run
from automl_tl.data.decode import decode
from automl_tl.errors import UsageError
from automl_tl.host import BackendHost
from automl_tl.metrics import probabilities
from automl_tl.pretrained import is_key, open_classifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KEY = "torch/squeezenet1_1"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights with a classifier, and a photo that a crop and a squash see differently."""
    import torch
    import torchvision

    place = tmp_path_factory.mktemp("pretrained")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = torchvision.models.squeezenet1_1(weights=None)
    torch.save(network.state_dict(), place / "weights.pth")
    pixels = np.random.default_rng(0).integers(0, 256, (60, 200, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(place / "photo.png")
    return place


@pytest.fixture(scope="module", autouse=True)
def _one_process(place: Path) -> Iterator[None]:
    """Starting PyTorch takes seconds, so all tests share one real process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(place / "nothing"))
        patch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing is downloaded
        with BackendHost("torch", "cpu") as host:
            patch.setattr("automl_tl.pretrained.BackendHost", lambda *_: nullcontext(host))
            yield


@pytest.fixture
def cli(place: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[str, str]]:
    monkeypatch.chdir(place)
    monkeypatch.setenv("AUTOML_TL_CACHE", str(place / "cache"))

    def call(*arguments: str, code: int = 0) -> tuple[str, str]:
        assert run(list(arguments)) == code
        out, err = capsys.readouterr()
        return out, err

    return call


def test_the_names_are_imagenets() -> None:
    names = imagenet.class_names()
    assert len(set(names)) == len(names) == 1000
    known = {0: "tench", 281: "tabby", 504: "coffee mug", 985: "daisy", 999: "toilet tissue"}
    assert {index: names[index] for index in known} == known


def test_it_classifies_the_square_at_the_centre(place: Path) -> None:
    with open_classifier(KEY, place / "weights.pth", "cpu") as predictor:
        (found,) = predictor.classify([place / "photo.png"], top=1000)
        pixels = decode((place / "photo.png").read_bytes(), 224, "crop")
        shares = probabilities(predictor.logits(pixels[None]))[0]
    expected = dict(zip(imagenet.class_names(), shares.tolist(), strict=True))
    assert dict(found.ranked) == pytest.approx(expected, rel=1e-4)


def test_every_output_names_the_same_classes(cli) -> None:
    given = ("predict", KEY, "photo.png", "--top", "3", "--weights")
    found: Any = json.loads(cli(*given, "weights.pth", "--json")[0])
    (image,) = found
    names = [one["class"] for one in image["classes"]]
    assert set(names) < set(imagenet.class_names())
    text, _ = cli(*given, f"{KEY}=weights.pth")
    assert text.startswith(f"photo.png: {names[0]} ")
    rows = list(csv.DictReader(cli(*given, "weights.pth", "--csv")[0].splitlines()))
    assert [row["class"] for row in rows] == names


def test_a_file_wins_over_a_key(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    assert is_key(KEY)
    assert not is_key("models/resnet18.onnx")
    (place / "torch").mkdir()
    (place / "torch" / "squeezenet1_1").write_bytes(b"")
    assert not is_key(KEY)
    (place / "torch" / "squeezenet1_1").unlink()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("torch/tiny", "1000 classes of ImageNet, but it knows synthetic classes"),
        (
            "torch/squeezenet1_0",
            "nothing/hub/checkpoints and cannot be downloaded (Connection refused): "
            "put it there, or use --weights torch/squeezenet1_0=PATH",
        ),
        (
            "torch/squeezenet9",
            "Unknown backbone 'torch/squeezenet9': did you mean torch/squeezenet",
        ),
        (f"{KEY} --weights none", "expected a file with the classifier of torch/squeezenet1_1"),
        (f"{KEY} --weights torch/alexnet=weights.pth", "got those of torch/alexnet"),
        ("torch/resnet18 --weights weights.pth", "belongs to another one"),
        ("weights.pth", "this is a checkpoint"),
        ("weights.pth --weights weights.pth", "--weights with a pretrained network as keras/"),
    ],
)
def test_what_is_wrong_is_told_in_one_sentence(cli, arguments: str, expected: str) -> None:
    model, *rest = arguments.split()
    out, err = cli("predict", model, "photo.png", *rest, code=2)
    assert out == ""
    assert err.startswith("Error: ")
    assert len(err.splitlines()) == 1
    assert expected in err


def test_classes_without_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="it knows 500 classes, which have no names"):
        from automl_tl.plugins import get_plugins

        published = get_plugins().backbone("torch/tiny").pretrained
        assert published is not None
        open_classifier("torch/tiny", published.path(), "cpu")
