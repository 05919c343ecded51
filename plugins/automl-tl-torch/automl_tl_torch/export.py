"""Writing trained models in formats that run without automl-tl: ONNX and ``torch.export``."""

from __future__ import annotations

import io
import logging
import warnings
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING

import torch

from automl_tl import modelfile
from automl_tl.errors import ExportError
from automl_tl_torch.archive import digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from torch import Tensor

    from automl_tl_torch.model import Classifier

OPSET = 18
"""Opset of exported ONNX files: everything needed here, and runtimes since 2023 read it."""


def write_onnx(
    classifier: Classifier, image_size: int, path: Path, metadata: Mapping[str, str]
) -> None:
    """Write one self-contained ONNX file.

    Input ``pixels``, uint8 RGB ``(batch, S, S, 3)``; output ``logits``, float32
    ``(batch, classes)``; any batch size from 1.

    Args:
        classifier: On the CPU, in evaluation mode.
        image_size: Side of the input in pixels.
        path: Written aside and renamed.
        metadata: Becomes the file's ``metadata_props``.

    Raises:
        ExportError: When the network cannot be expressed in ONNX, or the file not be written.
    """
    import onnx

    with modelfile.written(path) as aside:
        with _exporting("onnx", "torch or safetensors"):
            program = torch.onnx.export(
                classifier,
                (_sample(image_size),),
                input_names=["pixels"],
                output_names=["logits"],
                opset_version=OPSET,
                dynamo=True,
                dynamic_shapes=_any_batch(),
                external_data=False,
                verbose=False,
            )
            if program is None:
                raise RuntimeError("the exporter returned nothing")
            program.model.metadata_props.update(metadata)
        program.save(str(aside), external_data=False)
        with _exporting("onnx", "torch or safetensors"):
            onnx.checker.check_model(str(aside))


def write_archive(
    classifier: Classifier, image_size: int, path: Path, metadata: Mapping[str, str]
) -> str:
    """Write a ``torch.export`` archive, for ``torch.export.load``.

    The program takes uint8 RGB ``(batch, S, S, 3)`` and returns float32 ``(batch, classes)``, on
    the CPU; metadata are the archive's extra files.

    Args:
        classifier: On the CPU, in evaluation mode.
        image_size: Side of the input in pixels.
        path: Written aside and renamed.
        metadata: Stored as it is.

    Returns:
        The SHA-256 of the file.

    Raises:
        ExportError: When the network cannot be captured, or the file not be written.
    """
    buffer = io.BytesIO()
    sample = (_sample(image_size),)
    with modelfile.written(path) as aside:
        with _exporting("torch", "onnx or safetensors"):
            program = torch.export.export(
                classifier, sample, dynamic_shapes=_any_batch(), strict=False
            )
            torch.export.save(program, buffer, extra_files=dict(metadata))
        aside.write_bytes(buffer.getbuffer())
    return digest(buffer.getvalue())


def _sample(image_size: int) -> Tensor:
    # Of two images, because the exporter would take a batch of one for a constant.
    return torch.zeros(2, image_size, image_size, 3, dtype=torch.uint8)


def _any_batch() -> tuple[dict[int, torch.export.Dim]]:
    return ({0: torch.export.Dim("batch", min=1)},)


@contextmanager
def _exporting(format: str, others: str) -> Iterator[None]:
    """Keep the exporters' prints and warnings away; turn what they raise into one sentence."""
    silenced = logging.getLogger("torch.onnx"), logging.getLogger("torch.export")
    levels = [logger.level for logger in silenced]
    for logger in silenced:
        logger.setLevel(logging.ERROR)
    try:
        with (
            torch.no_grad(),
            warnings.catch_warnings(),
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ExportError(
            f"the {format} exporter cannot express this network ({reason}); choose the format "
            f"{others}."
        ) from error
    finally:
        for logger, level in zip(silenced, levels, strict=True):
            logger.setLevel(level)
