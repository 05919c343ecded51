"""Search for the best transfer-learning setup for image classification."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from automl_tl.api import Study
    from automl_tl.best import Best
    from automl_tl.errors import AutoMLError

__all__ = ["AutoMLError", "Best", "Study"]


def __getattr__(name: str) -> Any:
    """Import on first use, so that ``automl-tl --help`` stays instant."""
    if name not in __all__:
        raise AttributeError(f"module 'automl_tl' has no attribute {name!r}")
    from automl_tl import api, errors

    return getattr(errors if name == "AutoMLError" else api, name)
