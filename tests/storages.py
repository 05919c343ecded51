"""Studies in storages, without a search."""

from __future__ import annotations

from typing import TYPE_CHECKING

from automl_tl import storage

if TYPE_CHECKING:
    from pathlib import Path

    import optuna


def open_study(path: Path, seed: int = 0, url: str | None = None) -> optuna.Study:
    if url or not (path / storage.JOURNAL).exists():
        storage.create_optuna(path, url, "s", "maximize")
    return storage.open_optuna(path, url, "s", seed)
