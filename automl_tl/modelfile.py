"""The facts that travel inside every model file, whatever its format.

They are stored as one JSON string under the metadata key ``automl_tl``: enough to prepare an
image, to name the classes, to rebuild the network and to say where the model comes from.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from automl_tl.errors import ExportError
from automl_tl.files import written_aside
from automl_tl.types import Head

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

KEY = "automl_tl"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Facts of one trained model.

    Attributes:
        backbone: Key of the backbone.
        image_size: Side of the square input in pixels.
        resize: ``squash``, ``crop`` or ``pad``; see ``automl_tl.data.decode``.
        classes: Class names, in the order of the logits.
        head: The head.
        fine_tune_at: ``layers[:fine_tune_at]`` were frozen.
        study: Name of the study.
        trial: Number of the trial.
        params: The trial's parameters.
        validation: Validation metrics.
        test: Test metrics with interval; empty when they were not computed.
        versions: Versions of what trained it.
        licences: Licences of the architecture and of the weights it started from.
        extra: Anything else, JSON-ready.
    """

    backbone: str
    image_size: int
    resize: str
    classes: tuple[str, ...]
    head: Head
    fine_tune_at: int
    study: str = ""
    trial: int = -1
    params: Mapping[str, Any] = field(default_factory=dict)
    validation: Mapping[str, Any] = field(default_factory=dict)
    test: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    licences: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def backend(self) -> str:
        """Name of the backend that trained it."""
        return self.backbone.partition("/")[0]

    def metadata(self) -> dict[str, str]:
        """Return the metadata of a model file."""
        return {KEY: json.dumps({"format": FORMAT, **asdict(self)}, sort_keys=True)}

    @classmethod
    def parse(cls, metadata: Mapping[str, str], name: str) -> ModelFacts:
        """Read the facts back.

        Args:
            metadata: Metadata of a model file.
            name: How to call the file in an error.

        Raises:
            ExportError: When the file was not written by automl-tl, or by a newer one.
        """
        try:
            facts = json.loads(metadata[KEY])
        except (KeyError, ValueError):
            raise ExportError(
                f"{name}: expected a model that automl-tl exported, but it carries no automl-tl "
                "metadata; export it again with `automl-tl export`."
            ) from None
        try:
            if facts.pop("format") != FORMAT:
                raise ExportError(
                    f"{name}: written by another version of automl-tl; expected metadata format "
                    f"{FORMAT}."
                )
            head = facts.pop("head")
            head["units"] = tuple(int(u) for u in head["units"])
            return cls(
                **{**facts, "classes": tuple(str(c) for c in facts["classes"])}, head=Head(**head)
            )
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise ExportError(f"{name}: its automl-tl metadata is damaged ({error}).") from None


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """Give a name beside a model's path to write to; see ``automl_tl.files.written_aside``.

    Raises:
        ExportError: When the folder does not exist or nothing can be written there.
    """
    if not path.parent.is_dir():
        raise ExportError(
            f"{path}: expected an existing folder, got {path.parent}; choose a folder that exists."
        )
    try:
        with written_aside(path) as aside:
            yield aside
            if aside.is_file():  # safetensors writes files that only their owner may read
                aside.chmod(0o666 & ~_umask())
    except (OSError, SafetensorError) as error:
        raise ExportError(
            f"{path}: cannot be written ({error}); choose a folder that exists and has room."
        ) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def source_id(source: str) -> str:
    """Return what a model file says of where its data lay, without telling the path."""
    return hashlib.sha256(source.encode("utf-8", "backslashreplace")).hexdigest()[:16]
