"""An exported LiteRT model (``.tflite``), run by the LiteRT interpreter and nothing else."""

from __future__ import annotations

import importlib.util
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from automl_tl.errors import ExportError, UsageError
from automl_tl.machine import available_cpus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from automl_tl.modelfile import ModelFacts

MAX_TENSOR = 2**31
"""Most bytes of one tensor, for one image; a damaged file may ask for any number."""


class LitertModel:
    """Implements ``automl_tl.protocols.Model`` for a LiteRT file, except that it exports nothing.

    The input is uint8 RGB ``(N, S, S, 3)``, the output float32 ``(N, classes)``. It runs on the
    CPU.
    """

    def __init__(
        self,
        data: bytes,
        facts: ModelFacts,
        name: str,
        device: str = "auto",
        interpreter: Callable[..., Any] | None = None,
    ) -> None:
        """Open a model from the bytes of its file.

        Args:
            data: The whole file.
            facts: Its metadata, which must fit its input and output.
            name: How to call the file in an error.
            device: ``cpu`` or ``auto``.
            interpreter: The class ``Interpreter``; by default that of ai-edge-litert, see
                ``available``.

        Raises:
            ExportError: When the file is damaged or contradicts ``facts``.
            UsageError: For another device.
        """
        if device not in ("auto", "cpu"):
            raise UsageError(
                f"Expected the device auto or cpu for a LiteRT model, but got {device!r}; export "
                "to ONNX to use a GPU."
            )
        self._name = name
        self._classes = len(facts.classes)
        side = facts.image_size
        try:
            with _silent():
                create = interpreter or _interpreter()
                self._interpreter = create(model_content=data, num_threads=available_cpus())
                self._input, self._output = self._check(side)
                self._allocate((1, side, side, 3))
        except ExportError:
            raise
        except Exception as error:  # LiteRT raises whatever a damaged file makes it
            raise ExportError(f"{name}: LiteRT cannot open it ({_reason(error)}).") from error

    def logits(self, pixels: NDArray[np.uint8], batch_size: int = 64) -> NDArray[np.float32]:
        """Classify uint8 RGB ``(N, S, S, 3)``; returns float32 ``(N, classes)``."""
        parts = [np.empty((0, self._classes), np.float32)]
        for start in range(0, len(pixels), batch_size):
            batch = np.ascontiguousarray(pixels[start : start + batch_size])
            try:
                result = self._run(batch)
            except Exception as error:  # LiteRT raises whatever a damaged file makes it
                raise ExportError(
                    f"{self._name}: LiteRT cannot run it on {len(batch)} images ({_reason(error)})."
                ) from error
            if result.shape != (len(batch), self._classes):
                raise ExportError(
                    f"{self._name}: expected logits of shape {(len(batch), self._classes)}, but "
                    f"got {result.shape}; export it again."
                )
            parts.append(result)
        return np.concatenate(parts)

    def _run(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        if batch.shape != self._shape:
            self._allocate(batch.shape)
        self._interpreter.set_tensor(self._input, batch)
        self._interpreter.invoke()
        result: NDArray[np.float32] = self._interpreter.get_tensor(self._output)
        return result

    def _allocate(self, shape: tuple[int, ...]) -> None:
        self._shape: tuple[int, ...] = ()
        self._interpreter.resize_tensor_input(self._input, shape)
        self._interpreter.allocate_tensors()
        self._shape = shape

    def _check(self, side: int) -> tuple[int, int]:
        """Hold the metadata against the graph; returns the numbers of input and output."""
        inputs = self._interpreter.get_input_details()
        outputs = self._interpreter.get_output_details()
        if not (
            len(inputs) == len(outputs) == 1
            and inputs[0]["dtype"] is np.uint8
            and outputs[0]["dtype"] is np.float32
            and inputs[0]["shape_signature"].tolist() == [-1, side, side, 3]
            and outputs[0]["shape_signature"].tolist() == [-1, self._classes]
        ):
            found = "; ".join(
                f"{tensor['name']}: {np.dtype(tensor['dtype'])} "
                f"{tensor['shape_signature'].tolist()}"
                for tensor in [*inputs, *outputs]
            )
            raise ExportError(
                f"{self._name}: its metadata promises uint8 images (N, {side}, {side}, 3) and "
                f"{self._classes} float32 logits, but the graph has {found}; export it again."
            )
        largest = max(_bytes(tensor) for tensor in self._interpreter.get_tensor_details())
        if largest > MAX_TENSOR:
            raise ExportError(
                f"{self._name}: expected tensors of at most {MAX_TENSOR} bytes, but it asks for "
                f"one of {largest}; export it again."
            )
        return int(inputs[0]["index"]), int(outputs[0]["index"])


def available() -> bool:
    """Whether ai-edge-litert is installed."""
    return importlib.util.find_spec("ai_edge_litert") is not None


def _interpreter() -> Callable[..., Any]:
    from ai_edge_litert.interpreter import Interpreter

    found: Callable[..., Any] = Interpreter
    return found


def _bytes(tensor: dict[str, Any]) -> int:
    count = 1
    for length in tensor["shape"].tolist():
        count *= max(1, length)
    return count * int(np.dtype(tensor["dtype"]).itemsize)


@contextmanager
def _silent() -> Iterator[None]:
    """Keep away what LiteRT prints about its delegates, which no setting of it turns off."""
    try:
        kept = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]
