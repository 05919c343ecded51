"""How a study is named on the command line: a name below ``studies/``, or a path."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from automl_tl.errors import UsageError

FOLDER = Path("studies")
SETTINGS = "study.toml"


def directory(study: str) -> Path:
    """Return the directory that a new study gets.

    Raises:
        UsageError: When it cannot be the name of a directory.
    """
    if not study.strip() or "\0" in study:
        raise UsageError(f"Expected a study's name or path, got {study!r}; try --study flowers.")
    if is_path(study):
        return Path(study).expanduser()
    return FOLDER / study


def existing(study: str) -> Path:
    """Return the directory of a study that should exist.

    A bare name is looked for below ``studies/`` first, then in the current directory.

    Raises:
        UsageError: When a bare name is neither; it names the studies that there are.
    """
    path = directory(study)
    if is_path(study) or path.exists():
        return path
    if (Path(study) / SETTINGS).is_file():
        return Path(study)
    names = sorted(found.parent.name for found in FOLDER.glob(f"*/{SETTINGS}"))
    close = difflib.get_close_matches(study, names, 3)
    if close:
        hint = f"did you mean {' or '.join(close)}?"
    elif names:
        hint = f"there {'are' if len(names) > 1 else 'is'} {', '.join(names[:8])}."
    else:
        hint = "start one with `automl-tl search DATA`."
    raise UsageError(f"There is no study {study!r} in {FOLDER}/: {hint}")


def default_name(data: str) -> str:
    """Return a name for a study of ``data``: ``photos/My flowers.tar.gz`` gives ``My-flowers``."""
    last = Path(data).name
    if last in ("", ".", ".."):
        last = Path(data).resolve().name
    stem = re.sub(r"(\.tar)?\.(csv|zip|tar|tgz|gz|bz2|xz)$", "", last, flags=re.IGNORECASE)
    return re.sub(r"[^\w.-]+", "-", stem).strip("-.") or "study"


def is_path(study: str) -> bool:
    """Whether a study is named by its path."""
    return "/" in study or "\\" in study or study in (".", "..")
