"""The documentation's pages, read for tests."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text(encoding="utf-8")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def load(name: str) -> ModuleType:
    """Import a script of the folder docs, which they import each other from."""
    if str(DOCS) not in sys.path:
        sys.path.append(str(DOCS))
    return importlib.import_module(name)


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def blocks(text: str, *languages: str) -> list[str]:
    """Return a page's blocks of code in these languages."""
    return [code for language, code in _FENCE.findall(text) if language in languages]


def commands(text: str, *languages: str) -> list[str]:
    """Return the commands of automl-tl in a page's blocks, without comments."""
    lines = "\n".join(blocks(text, *languages)).replace("\\\n", " ").splitlines()
    return [line.partition(" #")[0] for line in lines if line.startswith("automl-tl ")]


def prose(text: str) -> str:
    """Return a page without its blocks of code."""
    return _FENCE.sub("", text)


def anchors(text: str) -> set[str]:
    """Return what a page's headings are called in links."""
    titles = re.findall(r"^#+ +(.+?)\s*$", prose(text), re.MULTILINE)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}
