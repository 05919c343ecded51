"""Mixed precision: what layers compute in while they train on TensorFlow."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import keras


def choose() -> str:
    """Return ``bfloat16`` where all GPUs in use compute in it natively, else ``float32``."""
    import tensorflow as tf

    found = [
        tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))
        for gpu in tf.config.get_visible_devices("GPU")
    ]
    return "bfloat16" if found and min(found) >= (8, 0) else "float32"


@contextmanager
def computing(segment: keras.Model | None, precision: str) -> Iterator[None]:
    """Let a segment's layers compute in a precision where they are traced inside.

    Their variables stay float32, and so do layers that ask for another type than float32.
    """
    if segment is None or precision == "float32":
        yield
        return
    layers = [layer for layer in segment._flatten_layers() if layer.dtype_policy.name == "float32"]
    policies = [layer.dtype_policy for layer in layers]
    try:
        for layer in layers:
            layer.dtype_policy = f"mixed_{precision}"
        yield
    finally:
        for layer, policy in zip(layers, policies, strict=True):
            layer.dtype_policy = policy
