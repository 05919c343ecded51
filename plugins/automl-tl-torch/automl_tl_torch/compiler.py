"""Keeps PyTorch's compiler out of a process that never compiles.

PyTorch imports it, with Triton and much else, where it only asks whether something is compiled, or
hides a function of its own from it. That takes longer than importing PyTorch, and 170 MB for as
long as the process lives. Meanwhile modules stand in for the compiler's; whatever else is asked of
them comes from the real ones, imported then.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

_COMPILER = "torch._dynamo"
_UTILS = f"{_COMPILER}.utils"
_DEFERRED = "is_compile_supported"


class _StandIn(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        known = _KNOWN.get((self.__name__, name))
        return known or getattr(_real(self.__name__), name)


def _deferred(*arguments: Any) -> Any:
    """Answer when asked: torchvision takes this function for its RoI align."""
    return getattr(_real(_UTILS), _DEFERRED)(*arguments)


def _unhidden(function: Callable[..., T], *_: Any, **__: Any) -> Callable[..., T]:
    """Return a function that need not be hidden from a compiler that is not there."""
    return function


_KNOWN = {(_UTILS, _DEFERRED): _deferred, (_COMPILER, "disable"): _unhidden}


@contextmanager
def no_compiler() -> Iterator[None]:
    """Have stand-ins for the compiler, unless it is imported already."""
    if _COMPILER not in sys.modules:
        package = _StandIn(_COMPILER)
        package.__path__ = [f"{folder}/_dynamo" for folder in import_module("torch").__path__]
        sys.modules[_COMPILER], sys.modules[_UTILS] = package, _StandIn(_UTILS)
    try:
        yield
    finally:
        _withdraw()


def _real(module: str) -> ModuleType:
    _withdraw()
    return import_module(module)


def _withdraw() -> None:
    for name in (_COMPILER, _UTILS):
        if isinstance(sys.modules.get(name), _StandIn):
            del sys.modules[name]
