"""Classify images with a model file.

onnxruntime runs ONNX, the LiteRT interpreter LiteRT, and its framework any other.
"""

from __future__ import annotations

import os
from collections import deque
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from automl_tl import litert_model
from automl_tl.data.decoding import Decoders
from automl_tl.data.squares import Squares
from automl_tl.errors import UsageError
from automl_tl.identify import identify
from automl_tl.litert_model import LitertModel
from automl_tl.metrics import probabilities
from automl_tl.onnx_model import OnnxModel

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import TracebackType
    from typing import Protocol, Self

    from numpy.typing import NDArray

    from automl_tl.identify import ModelFile
    from automl_tl.modelfile import ModelFacts

    class Classifier(Protocol):
        """What ``Predictor`` asks of a model."""

        def logits(self, pixels: NDArray[np.uint8], batch_size: int = 64) -> NDArray[np.float32]:
            """See ``automl_tl.protocols.Model``."""


_JUNK = ("thumbs.db", "desktop.ini", "__macosx")


@dataclass(frozen=True, slots=True)
class Scored:
    """The logits of one image.

    Attributes:
        path: The image.
        logits: float32 ``(classes,)``, None when the image cannot be used.
        error: Why not, in a few words.
    """

    path: Path
    logits: NDArray[np.float32] | None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """What one image was taken for.

    Attributes:
        path: The image.
        ranked: Class names and probabilities, most probable first; empty with an error.
        error: Why the image cannot be used, in a few words, or None.
    """

    path: Path
    ranked: tuple[tuple[str, float], ...]
    error: str | None = None


class Predictor:
    """A model file, ready to classify. A context manager; made by ``open_model``.

    Attributes:
        path: The model file.
        facts: What the file says of itself.
        runtime: ``onnxruntime``, ``LiteRT``, or the name of the backend that runs it.
    """

    def __init__(
        self,
        path: Path,
        facts: ModelFacts,
        runtime: str,
        model: Classifier,
        decoders: Decoders,
        resources: ExitStack,
    ) -> None:
        self.path = path
        self.facts = facts
        self.runtime = runtime
        self._model = model
        self._decoders = decoders
        self._resources = resources

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the processes: of the decoder, and of the backend, if there is one."""
        self._resources.close()

    def logits(self, pixels: NDArray[np.uint8], batch_size: int = 64) -> NDArray[np.float32]:
        """Classify uint8 RGB ``(N, S, S, 3)``; returns float32 ``(N, classes)``."""
        return self._model.logits(pixels, batch_size)

    def score(self, images: Iterable[Path], batch_size: int = 32) -> Iterator[Scored]:
        """Decode image files as in training and compute their logits, in the given order.

        Args:
            images: Files. The next batch is decoded while the model works on the last one.
            batch_size: Images decoded and run at once.
        """
        size, resize = self.facts.image_size, self.facts.resize
        paths: deque[Path] = deque()

        def asked() -> Iterator[tuple[str, int, str]]:
            for path in images:
                paths.append(path)
                yield os.path.abspath(path), size, resize

        with self._decoders.borrow() as decoder, closing(decoder.results(asked())) as results:
            while batch := list(islice(results, batch_size)):
                yield from self._run([(paths.popleft(), pixels) for pixels in batch])

    def classify(
        self, images: Iterable[str | Path], top: int = 5, batch_size: int = 32
    ) -> Iterator[Prediction]:
        """Classify image files and all images in folders.

        An image that is missing or broken is named with the reason, and the rest goes on.

        Args:
            images: Files, and folders to be searched at any depth.
            top: How many classes to name.
            batch_size: Images decoded and run at once.

        Raises:
            UsageError: When ``top`` is less than 1.
        """
        if top < 1:
            raise UsageError(f"Expected at least 1 class to name, but got {top}.")
        return self._classify(images, top, batch_size)

    def _classify(
        self, images: Iterable[str | Path], top: int, batch_size: int
    ) -> Iterator[Prediction]:
        for scored in self.score(find_images(images), batch_size):
            ranked: tuple[tuple[str, float], ...] = ()
            if scored.logits is not None:
                shares = probabilities(scored.logits[None])[0]
                order = np.argsort(-shares, kind="stable")[:top]
                ranked = tuple((self.facts.classes[i], float(shares[i])) for i in order)
            yield Prediction(scored.path, ranked, scored.error)

    def _run(self, batch: Sequence[tuple[Path, NDArray[np.uint8] | str]]) -> Iterator[Scored]:
        good = [pixels for _, pixels in batch if not isinstance(pixels, str)]
        rows = iter(self.logits(np.stack(good), len(good))) if good else iter(())
        for path, pixels in batch:
            if isinstance(pixels, str):
                yield Scored(path, None, pixels)
                continue
            logits = next(rows)
            if np.isfinite(logits).all():
                yield Scored(path, logits)
            else:
                yield Scored(path, None, "the model returns NaN or infinite logits for it")


def open_model(path: str | Path, device: str = "auto") -> Predictor:
    """Open a model file by its content, whatever its suffix.

    Args:
        path: What ``automl-tl export`` or a study wrote.
        device: ``auto``, ``cpu``, ``cuda:N`` or another name that the runtime knows.

    Raises:
        ExportError: When it is no model that automl-tl wrote, or a damaged one.
        UsageError: When the runtime does not have the device, or the backend is not installed.
    """
    file = identify(Path(path))
    with ExitStack() as resources:
        decoders = resources.enter_context(Decoders(Squares()))  # starts while the model opens
        opened = open_alone(file, str(path), device)
        if not opened:
            from automl_tl.host import BackendHost

            host = resources.enter_context(BackendHost(file.facts.backend, device))
            opened = host.name, host.load(file.path.resolve())
        return Predictor(file.path, file.facts, *opened, decoders, resources.pop_all())


def open_alone(file: ModelFile, name: str, device: str) -> tuple[str, Classifier] | None:
    """Open a model that runs in this process, without its framework.

    Args:
        file: What ``identify`` found.
        name: How to call the file in an error.
        device: As for ``open_model``.

    Returns:
        The runtime's name and the model, or None for a model that takes a backend.

    Raises:
        ExportError: When the file is damaged or contradicts its metadata.
        UsageError: When the runtime does not have the device.
    """
    if file.data is None:
        return None
    if file.kind == "onnx":
        return "onnxruntime", OnnxModel(file.data, file.facts, name, device)
    if litert_model.available():
        return "LiteRT", LitertModel(file.data, file.facts, name, device)
    return None


def find_images(images: Iterable[str | Path]) -> Iterator[Path]:
    """Yield files as they come, and all images in folders, sorted, but the hidden ones.

    Broken images are yielded too, but no file whose name and content say that it is none. A folder
    without any image is yielded itself, and so is one that cannot be read.
    """
    for image in images:
        path = Path(image)
        files = _files_below(path) if os.path.isdir(path) else iter(())
        yield next(files, path)
        yield from files


def _files_below(folder: Path) -> Iterator[Path]:
    from automl_tl.data.stray import is_stray

    visited = set()
    unread: list[Path] = []

    def miss(error: OSError) -> None:
        unread.append(Path(error.filename))

    for root, folders, files in os.walk(folder, onerror=miss, followlinks=True):
        status = os.stat(root)
        identity = status.st_dev, status.st_ino
        known = identity in visited  # links may lead round in a circle
        visited.add(identity)
        folders[:] = [] if known else sorted(name for name in folders if _may_be_image(name))
        if not known:
            paths = (Path(root, name) for name in sorted(files) if _may_be_image(name))
            yield from (path for path in paths if not is_stray(path))
    yield from unread


def _may_be_image(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in _JUNK
