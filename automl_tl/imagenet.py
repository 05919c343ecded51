"""The names of ImageNet's 1000 classes; ``imagenet.txt`` beside this module says where from."""

from __future__ import annotations

from pathlib import Path


def class_names() -> tuple[str, ...]:
    """Return the class names in the order of the logits of networks trained on ILSVRC 2012."""
    text = Path(__file__).with_suffix(".txt").read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if not line.startswith("#"))
