"""The conformance kit: what plugin authors run to know that their plugin is right.

``automl-tl plugin check NAME`` runs it on anything that is installed. In a plugin's own tests,
subclass a case and say what to check:

```python
import pytest
from automl_tl.testing import BackboneTestCase


class TestMyNet(BackboneTestCase):
    @pytest.fixture
    def backbone(self):
        return "torch/my_net"
```

Everything that touches a framework runs in a process of its own, on the CPU, with random weights
and without a network. Only the cases need pytest; the checks are plain functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from automl_tl.testing.cases import (
        BackboneTestCase,
        BackendTestCase,
        DatasetTestCase,
        EngineTestCase,
        PluginTestCase,
    )

__all__ = [
    "BackboneTestCase",
    "BackendTestCase",
    "DatasetTestCase",
    "EngineTestCase",
    "PluginTestCase",
]


def __getattr__(name: str) -> Any:
    """Import on first use: the command line runs the checks where pytest is not installed."""
    if name not in __all__:
        raise AttributeError(f"module 'automl_tl.testing' has no attribute {name!r}")
    from automl_tl.testing import cases

    return getattr(cases, name)
