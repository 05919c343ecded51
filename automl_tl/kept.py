"""The files of finished trials, and the models of the best of them.

A frozen trial leaves its head only, which costs a millisecond; the whole model is written when the
search ends or somebody asks for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from automl_tl.cache.entry import checksum
from automl_tl.errors import ExportError
from automl_tl.files import write_json, write_text, written_aside
from automl_tl.identify import identify
from automl_tl.networks import network_spec
from automl_tl.plugins import get_plugins
from automl_tl.study import seal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from automl_tl.cache.store import Store
    from automl_tl.host import BackendHost
    from automl_tl.protocols import Trainer
    from automl_tl.study import StudyDirectory


def write_figures(
    directory: StudyDirectory,
    number: int,
    logits: NDArray[np.float32],
    history: Sequence[Mapping[str, Any]],
) -> None:
    """Write a trial's validation logits and history."""
    folder = directory.trial(number)
    folder.mkdir(parents=True, exist_ok=True)
    with written_aside(folder / "validation_logits.npy") as aside:
        np.save(aside, logits)
    write_json(folder / "history.json", list(history))


def write_model(
    directory: StudyDirectory,
    number: int,
    trained: Trainer | tuple[NDArray[np.float32], ...],
    metadata: Mapping[str, str],
) -> None:
    """Write a trial's model, or its head alone.

    Args:
        directory: The study directory, with the trial's folder.
        number: Of the trial.
        trained: What holds the model, or the weights of a head on a frozen network.
        metadata: Stored as it is.
    """
    if not isinstance(trained, tuple):
        trained.save(directory.model(number), metadata)
        _seal(directory.model(number))
        return
    path = directory.head(number)
    arrays = {f"{index:02d}": np.ascontiguousarray(array) for index, array in enumerate(trained)}
    with written_aside(path) as aside:
        save_file(arrays, aside, dict(metadata))
    _seal(path)


def _seal(path: Path) -> None:
    """Remember a model file's checksum: nothing else tells that a weight was changed."""
    write_text(seal(path), f"{checksum(path):08x}\n")


def check(path: Path) -> Path:
    """Return the path of a model file, or of a head's, that is what was written.

    Raises:
        ExportError: When it is not.
    """
    try:
        known = seal(path).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return path  # an older version wrote none; what another machine wrote was checked already
    if f"{checksum(path):08x}" != known:
        raise ExportError(
            f"{path} is damaged, it is not what was written when the trial ended: put back a copy, "
            "or export another trial with --trial."
        )
    return path


def model_file(directory: StudyDirectory, number: int) -> Path | None:
    """Return the file that tells of a kept model: the whole one, or its head's; None for neither.

    ``identify`` reads the facts of either.
    """
    found = (directory.model(number), directory.head(number))
    return next((path for path in found if path.is_file()), None)


def whole_model(directory: StudyDirectory, number: int, host: BackendHost, store: Store) -> Path:
    """Return the path of a kept model, written now when only its head is there.

    Args:
        directory: The study directory.
        number: Of the trial.
        host: Of its backend.
        store: The cache, which remembers the weights' hashes.

    Raises:
        ExportError: When the model is not kept, or its file is damaged.
        WeightsError: When the backbone's weights have gone.
    """
    model, head = directory.model(number), directory.head(number)
    if model.is_file():
        return check(model)
    facts = identify(head).facts
    config = directory.config
    network = network_spec(
        get_plugins().backbone(facts.backbone),
        config.weights[facts.backbone],
        facts.image_size,
        config.seed,
        store,
    )
    weights = head_weights(head)
    host.assemble(network, facts.head, weights, model, facts.metadata())
    _seal(model)
    for done in (head, seal(head)):
        done.unlink(missing_ok=True)
    return model


def head_weights(path: Path) -> list[NDArray[np.float32]]:
    """Read a head's file; returns weights as ``TrainJob.head_weights``.

    Raises:
        ExportError: When it is damaged.
    """
    try:
        with safe_open(check(path), "numpy") as file:
            return [file.get_tensor(name) for name in sorted(file.keys())]
    except (OSError, SafetensorError) as error:
        raise ExportError(f"{path}: the file is damaged ({error}).") from None
