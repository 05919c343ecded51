"""Where an exported model goes: refused before any work is done, moved into place at the end."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from automl_tl import card
from automl_tl.errors import ExportError, UsageError
from automl_tl.identify import identify

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FOLDERS = frozenset({"savedmodel"})
"""Formats that are a folder."""


def check_destination(format: str, destination: Path, suffixes: Mapping[str, str]) -> Path:
    """Refuse a format that there is not, or a destination that cannot be a file of it.

    Args:
        format: Export format.
        destination: The file or folder to write.
        suffixes: The suffix of each format.

    Returns:
        The path of the model card beside it.

    Raises:
        UsageError: When the format is unknown, or the name tells another one or, with the card's
            suffix, is longer than the file system allows, or something else is there.
    """
    if format not in suffixes:
        raise UsageError(
            f"Expected a format that the model can be exported to, {', '.join(suffixes)}, but got "
            f"{format!r}; choose one of these."
        )
    suffix = destination.suffix.lower()
    others = {s: name for name, s in suffixes.items() if s != suffixes[format]}
    if suffix in others or suffix == ".md":
        meaning = f"format {others[suffix]}" if suffix in others else "the model card"
        raise UsageError(
            f"Expected a file name for the format {format}, such as "
            f"{destination.with_suffix(suffixes[format])}, but {destination} says {meaning}."
        )
    _check_free(format, destination, destination / f"model{suffixes[format]}")
    card_path = destination.with_name(f"{destination.name}.md")
    _check_length(card_path)
    if os.path.exists(card_path) and not card.is_card(card_path):
        raise UsageError(
            f"Expected to write the model card to {card_path}, but that file is something else; "
            "choose another name for the model or move that file."
        )
    return card_path


def _check_length(card_path: Path) -> None:
    """Refuse names that a file system has no room for, also in folders that are yet to be made."""
    there = next(folder for folder in card_path.parents if os.path.exists(folder))
    names = card_path.relative_to(there).parts
    for path in (card_path, *(there / name for name in names)):
        try:
            os.lstat(path)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise UsageError(
                    f"Expected a name that leaves room for the model card's, but {path} is too "
                    "long for the file system; choose a shorter one."
                ) from None


def _check_free(format: str, destination: Path, example: Path) -> None:
    """Refuse to replace a folder that is not ours, or a file by a folder and the reverse."""
    folder = os.path.isdir(destination)
    if format not in FOLDERS:
        if folder:
            raise UsageError(
                f"Expected a file to write, but {destination} is a folder; use {example}."
            )
        return
    if os.path.exists(destination) and not folder:
        raise UsageError(
            f"Expected a folder to write, but {destination} is a file; choose another name."
        )
    try:
        ours = not folder or identify(destination).kind == "savedmodel"
    except ExportError:
        ours = False
    if not ours:
        raise UsageError(
            f"Expected a new folder, or one that automl-tl wrote, but {destination} is another; "
            f"use {example}."
        )


def size_on_disk(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    return sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())


def move_into_place(aside: Path, destination: Path, replaced: Path) -> None:
    """Move a file or folder into place; what was there comes back when that fails."""
    if not aside.is_dir():
        aside.replace(destination)
        return
    there = os.path.lexists(destination)
    if there:
        destination.rename(replaced)
    try:
        aside.rename(destination)
    except OSError:
        if there:
            replaced.rename(destination)
        raise
