"""Imports torchvision without PyTorch's compiler, which takes longer to import than PyTorch.

torchvision wants one function of ``torch._dynamo.utils``, for its RoI align, which no classifier
has. While torchvision is imported, modules stand in for the compiler's; whatever is asked of them
comes from the real ones, imported then. Importing the backend so takes 2.0 s instead of 4.1 s on
two cores. PyTorch imports the compiler itself when it describes a network, once for each cache, or
makes an optimizer.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

_COMPILER = "torch._dynamo"
_UTILS = f"{_COMPILER}.utils"
_DEFERRED = "is_compile_supported"


class _StandIn(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if (self.__name__, name) == (_UTILS, _DEFERRED):
            return _deferred
        return getattr(_real(self.__name__), name)


def _deferred(*arguments: Any) -> Any:
    return getattr(_real(_UTILS), _DEFERRED)(*arguments)


def _real(module: str) -> ModuleType:
    _withdraw()
    return import_module(module)


def _withdraw() -> None:
    for name in (_COMPILER, _UTILS):
        if isinstance(sys.modules.get(name), _StandIn):
            del sys.modules[name]


def _import() -> ModuleType:
    if "torchvision" not in sys.modules and _COMPILER not in sys.modules:
        package = _StandIn(_COMPILER)
        package.__path__ = [f"{folder}/_dynamo" for folder in import_module("torch").__path__]
        sys.modules[_COMPILER], sys.modules[_UTILS] = package, _StandIn(_UTILS)
    try:
        return import_module("torchvision")
    finally:
        _withdraw()


torchvision = _import()
NodePathTracer = import_module("torchvision.models.feature_extraction").NodePathTracer
