"""Every reader of a stranger's bytes, by name, for the coverage-guided fuzzer.

A reader may succeed or raise an ``AutoMLError`` of one sentence. Anything else is a fault.
"""

from __future__ import annotations

import base64
import json
import zlib
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL.PngImagePlugin import ChunkStream

from automl_tl.api import Study
from automl_tl.cache import contents
from automl_tl.cache.store import Store
from automl_tl.cli import config
from automl_tl.data import archive, decode, sources
from automl_tl.errors import AutoMLError
from automl_tl.identify import identify
from automl_tl.kept import head_weights
from automl_tl.onnx_file import refers_to_other_files
from automl_tl.published import publish, read_published
from automl_tl.report import figures, model_plots, page
from automl_tl.report.facts import gather
from automl_tl.report.images import Images
from automl_tl.settings import parse_setting
from automl_tl.space import Space
from automl_tl.summary import summarise
from automl_tl.units import parse_bytes, parse_duration
from tests.fuzz import test_cache, test_data, test_images, test_models, test_studies, test_words
from tests.fuzz.mutations import read
from tests.report.conftest import fill, make
from tests.report.test_page import Reader as Page

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    Read = Callable[[bytes], object]
    Prepare = Callable[[Path], tuple[Sequence[bytes], Read]]


def _archive(folder: Path) -> tuple[Sequence[bytes], Read]:
    file = folder / "a.zip"

    def one(data: bytes) -> None:
        file.write_bytes(data)
        if archive.is_archive(file):
            place = read(archive.extract, file, folder / "out")
            if place is not None:
                read(sources.unpacked, place, "a", "a.zip")
                _remove(place)
        assert {path.name for path in folder.iterdir()} <= {"a.zip", "out"}

    return test_data.ARCHIVES, one


def _table(folder: Path) -> tuple[Sequence[bytes], Read]:
    for name in ("a.png", "b.png", "c.png"):
        (folder / name).write_bytes(test_data.PICTURE)

    def one(data: bytes) -> None:
        (folder / "a.csv").write_bytes(data)
        read(sources.open_data, str(folder / "a.csv"), folder / "cache", {})

    return test_data.TABLES, one


def _image(_: Path) -> tuple[Sequence[bytes], Read]:
    # Who means harm computes the checksums of what was changed; a fuzzer cannot.
    ChunkStream.crc = lambda *_: None  # type: ignore[method-assign]

    def one(data: bytes) -> None:
        rule: decode.Resize = ("squash", "crop", "pad")[len(data) % 3]  # type: ignore[assignment]
        pixels = read(decode.decode, data, 16, rule)
        assert pixels is None or (pixels.shape, pixels.dtype) == ((16, 16, 3), np.uint8)

    return test_images.PICTURES, one


def _configuration(folder: Path) -> tuple[Sequence[bytes], Read]:
    def one(data: bytes) -> None:
        (folder / "study.toml").write_bytes(data)
        options = read(config.from_file, folder / "study.toml")
        if options is not None:
            read(options.check)
            read(Space, ("torch/mobilenet_v2",), options.set, {}, options.first)

    return test_words.DOCUMENTS, one


def _words(_: Path) -> tuple[Sequence[bytes], Read]:
    def one(data: bytes) -> None:
        text = data.decode(errors="replace")
        read(parse_duration, text)
        read(parse_bytes, text)
        if setting := read(parse_setting, text):
            read(Space, ("any/backbone",), dict([setting]))

    typed = ("30m", "1h30m", "2GB", "dropout=0.2", "learning_rate=1e-4..1e-2", "epochs=3..9")
    more = ("batch_size=16,32", "head_units=[[256],[128,64]]", "flip=false", "depth=0..1")
    return [text.encode() for text in (*typed, *more)], one


def _model(folder: Path) -> tuple[Sequence[bytes], Read]:
    def one(data: bytes) -> None:
        (folder / "model").write_bytes(data)
        found = read(identify, folder / "model")
        if found and found.kind == "onnx":
            with suppress(ValueError):  # OnnxModel refuses it then
                refers_to_other_files(data)

    return test_models.FILES, one


def _head(folder: Path) -> tuple[Sequence[bytes], Read]:
    header = b'{"00":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'

    def one(data: bytes) -> None:
        (folder / "head.safetensors").write_bytes(data)
        read(head_weights, folder / "head.safetensors")

    return [len(header).to_bytes(8, "little") + header + bytes(4)], one


def _published(folder: Path) -> tuple[Sequence[bytes], Read]:
    made = make(folder, images=3)
    study = _Attributes()
    config = made.directory.config
    publish(study, SimpleNamespace(config=config, data=made.data, weights={"a": "b"}))
    packed = base64.b64decode(study.user_attrs["automl_tl:part:0"])
    text = zlib.decompress(packed)

    def one(data: bytes) -> None:
        """Read it as the text that was packed, and as what somebody packed."""
        for content in (zlib.compress(data, 1), data):
            part = base64.b64encode(content).decode()
            study.user_attrs = {"automl_tl:parts": 1, "automl_tl:part:0": part}
            read(read_published, study)

    return [text, packed], one


class _Attributes(SimpleNamespace):
    """An Optuna study as far as it holds what was published."""

    def __init__(self) -> None:
        super().__init__(study_name="made", user_attrs={})

    def set_user_attr(self, key: str, value: object) -> None:
        self.user_attrs[key] = value


def _cached(name: str) -> Prepare:
    def prepare(folder: Path) -> tuple[Sequence[bytes], Read]:
        key, array = test_cache.KEY, test_cache.ARRAY
        write = test_cache._write
        Store(folder).get("activations", key, array.shape, "float32", write)
        (changed,) = folder.rglob(name)
        original = changed.read_bytes()

        def one(data: bytes) -> None:
            changed.parent.mkdir(parents=True, exist_ok=True)
            changed.write_bytes(data)
            store = Store(folder)
            read(contents.usage, store.root)
            entry, _ = store.get("activations", key, array.shape, "float32", write)
            assert np.array_equal(entry.array(), array)

        return [original], one

    return prepare


def _study(name: str) -> Prepare:
    """One file of a study directory, which is shown."""

    def prepare(folder: Path) -> tuple[Sequence[bytes], Read]:
        made = fill(make(folder, images=10), 4)
        made.directory.write_bounds({"trials": 20, "time": 60.0, "target": None})
        path = made.directory.path

        def one(data: bytes) -> None:
            (path / name).write_bytes(data)
            study = read(Study.open, path)
            if study:
                read(study.summary)
                study._directory.bounds()
                _facts(study, made.store)

        return [test_studies.unchecked(path / name)], one

    return prepare


def _facts(study: Study, store: Store) -> None:
    """Gather what a report says, as ``write_report`` does before it draws."""
    directory, data = study._directory, study._data
    with suppress(AutoMLError):
        opened = study._study()
        images = Images(directory, data, store)
        read(gather, directory, data, opened, summarise(directory, data, opened), store, images)


def _names(folder: Path) -> tuple[Sequence[bytes], Read]:
    """A class's and a file's name, into the page of a report."""
    made = fill(make(folder, images=10, picture=False), 4)
    page.plotly_script = lambda: ""  # its four megabytes are the same in every page

    def one(data: bytes) -> None:
        text = data.decode(errors="replace") or "a"
        classes = ("daisy", text, f"{text}b")
        names = tuple(text if row % 2 else name for row, name in enumerate(made.data.names))
        changed = replace(
            made, data=replace(made.data, classes=classes, names=names, facts={"notes": [text]})
        )
        facts = changed.facts()
        drawn = {
            f"confusion-{split}": model_plots.confusion(failed["matrix"], split)
            for split, failed in facts["failures"].items()
        }
        drawn["timeline"] = figures.timeline(facts["search"]["trials"])
        _harmless(page.render(facts, _All(drawn), {}, None, _All({}, 1)))

    return [b"<script>alert(1)</script>", b"a' onerror=alert(1) b", b"{{ 7 }}]]>-->"], one


class _All(dict[str, Any]):
    """Answers to every name."""

    def __init__(self, known: Mapping[str, Any], other: Any = "not drawn") -> None:
        super().__init__(known)
        self._other = other

    def __missing__(self, name: str) -> Any:
        return self._other


def _harmless(html: str) -> None:
    reader = Page()
    reader.feed(html)
    kinds = [attributes.get("type") for tag, attributes in reader.tags if tag == "script"]
    assert kinds == ["application/json", None, None], kinds
    json.loads(reader.scripts[0])
    for tag, attributes in reader.tags:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        for name in ("src", "href", "srcset", "action", "data"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, attributes)


def _torch(kind: str) -> Prepare:
    def prepare(folder: Path) -> tuple[Sequence[bytes], Read]:
        import torch
        from safetensors.torch import save_file

        from automl_tl_torch import archive as exported
        from automl_tl_torch import weights

        network = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.Linear(2, 2))
        state = network.state_dict()
        path = folder / "w"
        originals = []

        def save(write: Callable[[], object]) -> None:
            write()
            originals.append(path.read_bytes())

        def one(data: bytes) -> None:
            path.write_bytes(data)
            if kind == "weights":
                read(weights.load_into, network, path, "torch/any")
            else:
                read(exported.read, path)

        if kind == "weights":
            save(lambda: torch.save(state, path))
            save(
                lambda: torch.save(
                    {"state_dict": state}, path, _use_new_zipfile_serialization=False
                )
            )
            save(lambda: save_file(state, path))
        else:
            program = torch.export.export(network[:1], (torch.zeros(2, 1, 2, 2),))
            save(lambda: torch.export.save(program, path, extra_files={"automl_tl": "{}"}))
        return originals, one

    return prepare


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder)


READERS: Mapping[str, Prepare] = {
    "archive": _archive,
    "table": _table,
    "image": _image,
    "configuration": _configuration,
    "words": _words,
    "model": _model,
    "head": _head,
    "published": _published,
    "names": _names,
    "cache-meta": _cached("meta.json"),
    "cache-array": _cached("data.npy"),
    **{name.rpartition("/")[2]: _study(name) for name in test_studies.FILES},
    "torch-weights": _torch("weights"),
    "torch-archive": _torch("archive"),
}
