"""Reads a CSV file with the columns ``path``, ``label`` and optionally ``split``."""

from __future__ import annotations

import csv
import io
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from automl_tl.data.index import SPLIT_NAMES, STRICTEST_FIRST
from automl_tl.errors import DataError
from automl_tl.units import plural

if TYPE_CHECKING:
    from automl_tl.types import Split

    Row = tuple[Path, str, str, Split | None]

_PRECEDENCE = (*STRICTEST_FIRST, None)


def has_columns(path: Path) -> bool:
    """Tell whether a file starts with a header that has the columns ``path`` and ``label``."""
    try:
        with path.open("rb") as file:
            header = file.readline(4096).decode("utf-8-sig")
        return {"path", "label"} <= set(_columns(header.partition("\r")[0]))
    except (OSError, UnicodeDecodeError, csv.Error):
        return False


def read_csv(path: Path, confined: bool = False) -> tuple[list[Row], list[str]]:
    """Read the table; UTF-8, with or without a byte order mark, with a header.

    Commas, semicolons and tabs separate; spaces around a cell count only where they belong to a
    file's name. Relative paths count from the file's folder and must stay below it; absolute paths
    are taken as they are.

    Args:
        path: The file.
        confined: The table comes from an archive: absolute paths are refused.

    Returns:
        Rows of path, name, class and split, and notes.

    Raises:
        DataError: A column is missing, a line is wrong, or no path leads to a file.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")  # a path may hold any line break
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text: save it as CSV in UTF-8.") from None
    lines = io.StringIO(text, newline="")
    header = lines.readline()
    lines.seek(0)
    try:
        columns = _columns(header)
    except csv.Error as error:
        raise DataError(f"{path}, line 1: {error}.") from None
    if missing := [name for name in ("path", "label") if name not in columns]:
        raise DataError(
            f"{path} has no column {' and no column '.join(missing)}: expected a header with path, "
            f"label and perhaps split, found {header.strip()[:80]!r}."
        )
    reader = csv.reader(lines, delimiter=_delimiter(header))
    rows: dict[tuple[Path, str], Row] = {}
    repeated = contradicting = 0
    try:
        next(reader)
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            padded = [*cells, *[""] * len(columns)]
            row = _row(path, reader.line_num, dict(zip(columns, padded, strict=False)), confined)
            if before := rows.get((row[0], row[2])):
                repeated += 1
                contradicting += len({before[3], row[3], None}) == 3
                row = min(before, row, key=lambda one: _PRECEDENCE.index(one[3]))
            rows[row[0], row[2]] = row
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}.") from None
    if rows and not any(row[0].is_file() for row in rows.values()):
        first = str(next(iter(rows.values()))[0])
        first = first if first.isprintable() else repr(first)
        raise DataError(
            f"None of the paths in {path} leads to a file: they count from the CSV "
            f"file's folder, the first one is {first}."
        )
    note = f"Left out from {path.name}: {plural(repeated, 'repeated line')}"
    if contradicting:
        note += (
            f", {contradicting} of them with another split: test counts before validation, and "
            "that before train"
        )
    return list(rows.values()), [f"{note}."] if repeated else []


def _row(table: Path, line: int, cells: dict[str, str], confined: bool) -> Row:
    label, split = cells["label"].strip(), cells.get("split", "").strip().lower()
    text = _named(table.parent, cells["path"])
    if not text or not label:
        raise DataError(f"{table}, line {line}: expected a path and a label, one is missing.")
    if split and split not in SPLIT_NAMES:
        raise DataError(
            f"{table}, line {line}: expected the split to be train, validation, test or empty, "
            f"found {split!r}."
        )
    path = Path(text)
    if not path.is_absolute() and "/" not in text and "\\" in text:
        path = Path(text.replace("\\", "/"))  # written on Windows
    if path.is_absolute() and confined:
        raise DataError(f"{table}, line {line}: {text!r} must be a path inside the archive.")
    if ".." in path.parts and not path.is_absolute():
        path = _below(path, f"{table}, line {line}")
    name = PurePosixPath(path).as_posix()
    return table.parent / path, name, label, SPLIT_NAMES.get(split)


def _named(folder: Path, cell: str) -> str:
    """Return a path without the spaces around it, unless they are part of the file's name."""
    bare = cell.strip()
    with suppress(OSError):  # a name may be too long for the file system
        if bare and bare != cell and (folder / cell).is_file():
            return cell
    return bare


def _below(path: Path, where: str) -> Path:
    """Resolve ``..`` without leaving the table's folder."""
    parts: list[str] = []
    for part in path.parts:
        if part != "..":
            parts.append(part)
        elif parts:
            parts.pop()
        else:
            raise DataError(
                f"{where}: {str(path)!r} leads out of the CSV file's folder: move the file up, or "
                "write the path as an absolute one."
            )
    return Path(*parts)


def _delimiter(header: str) -> str:
    return max(",;\t", key=header.count)


def _columns(header: str) -> list[str]:
    cells = next(csv.reader([header.strip()], delimiter=_delimiter(header)), [])
    return [cell.strip().lower() for cell in cells]
