"""An exported ONNX model, run by onnxruntime and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from automl_tl import onnx_file
from automl_tl.errors import ExportError, UsageError
from automl_tl.machine import available_cpus

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from automl_tl.modelfile import ModelFacts


class OnnxModel:
    """Implements ``automl_tl.protocols.Model`` for an ONNX file, except that it exports nothing.

    The input is uint8 RGB ``(N, S, S, 3)``, the output float ``(N, classes)``.
    """

    def __init__(self, data: bytes, facts: ModelFacts, name: str, device: str = "auto") -> None:
        """Open a model from the bytes of its file.

        Args:
            data: The whole file.
            facts: Its metadata, which must fit its input and output.
            name: How to call the file in an error.
            device: ``cpu``, ``cuda``, ``cuda:N``, or ``auto`` for CUDA where onnxruntime has it.

        Raises:
            ExportError: When the file is damaged, refers to other files or contradicts ``facts``.
            UsageError: When onnxruntime does not have the device.
        """
        import onnxruntime

        self._name = name
        try:
            scattered = onnx_file.refers_to_other_files(data)
        except ValueError as error:
            raise ExportError(
                f"{name}: expected an ONNX file, but it is damaged ({error})."
            ) from None
        if scattered:
            raise ExportError(
                f"{name}: expected a model in one self-contained file, but its weights lie in "
                "other files, which are not opened; export it again."
            )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = available_cpus()
        # Threads that wait by spinning take 15 % more CPU, from the decoder among others.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = _providers(device, onnxruntime.get_available_providers())
        try:
            self._session = onnxruntime.InferenceSession(data, options, providers=providers)
        except Exception as error:  # onnxruntime's errors share no base class
            raise ExportError(f"{name}: onnxruntime cannot open it ({_reason(error)}).") from error
        self._input, self._output = self._check(facts)

    @property
    def device(self) -> str:
        """``cuda`` or ``cpu``."""
        used = self._session.get_providers()[0]
        return "cuda" if used == "CUDAExecutionProvider" else "cpu"

    def logits(self, pixels: NDArray[np.uint8], batch_size: int = 64) -> NDArray[np.float32]:
        """Classify uint8 RGB ``(N, S, S, 3)``; returns float32 ``(N, classes)``."""
        parts = [np.empty((0, self._classes), np.float32)]
        for start in range(0, len(pixels), batch_size):
            batch = np.ascontiguousarray(pixels[start : start + batch_size])
            try:
                result = self._session.run([self._output], {self._input: batch})[0]
            except Exception as error:  # onnxruntime's errors share no base class
                raise ExportError(
                    f"{self._name}: onnxruntime cannot run it on {len(batch)} images "
                    f"({_reason(error)})."
                ) from error
            if result.shape != (len(batch), self._classes):
                raise ExportError(
                    f"{self._name}: expected logits of shape {(len(batch), self._classes)}, but "
                    f"got {result.shape}; export it again."
                )
            parts.append(np.asarray(result, np.float32))
        return np.concatenate(parts)

    def _check(self, facts: ModelFacts) -> tuple[str, str]:
        """Hold the metadata against the graph; returns the names of input and output."""
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        self._classes = len(facts.classes)
        size = facts.image_size
        if not (
            len(inputs) == len(outputs) == 1
            and inputs[0].type == "tensor(uint8)"
            and _fits(inputs[0].shape, [size, size, 3])
            and outputs[0].type == "tensor(float)"
            and _fits(outputs[0].shape, [self._classes])
        ):
            found = "; ".join(f"{a.name}: {a.type} {list(a.shape)}" for a in [*inputs, *outputs])
            raise ExportError(
                f"{self._name}: its metadata promises uint8 images (N, {size}, {size}, 3) and "
                f"{self._classes} float logits, but the graph has {found}; export it again."
            )
        return inputs[0].name, outputs[0].name


def _fits(shape: list[Any], expected: list[int]) -> bool:
    """Whether a graph's shape has a free first dimension and then ``expected``, where known."""
    if len(shape) != 1 + len(expected) or isinstance(shape[0], int):
        return False
    return all(not isinstance(a, int) or a == b for a, b in zip(shape[1:], expected, strict=True))


def _providers(device: str, available: list[str]) -> list[Any]:
    kind, _, number = device.partition(":")
    cpu = "CPUExecutionProvider"
    if kind == "cpu" or (kind == "auto" and "CUDAExecutionProvider" not in available):
        return [cpu]
    if kind not in ("auto", "cuda") or (number and not number.isdecimal()):
        raise UsageError(
            f"Expected the device auto, cpu, cuda or cuda:N for an ONNX model, but got {device!r}."
        )
    if "CUDAExecutionProvider" not in available:
        raise UsageError(
            f"This onnxruntime has no CUDA, which {device!r} asks for; install onnxruntime-gpu or "
            "use --device cpu."
        )
    return [("CUDAExecutionProvider", {"device_id": int(number or 0)}), cpu]


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]
