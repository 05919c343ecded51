"""Whether a module computes what its class says, so that something equal may take its place."""

from __future__ import annotations

from typing import TypeGuard

from torch import nn

_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
_ROW = ("forward", "__call__")


def is_plain(module: nn.Module) -> bool:
    """Say whether calling a module runs the ``forward`` of its class and nothing else.

    Hooks may change what goes in and what comes out; weight and spectral normalisation of
    ``torch.nn.utils`` compute the weight in one.
    """
    return "forward" not in vars(module) and not any(vars(module)[name] for name in _HOOKS)


def is_row(module: nn.Module) -> TypeGuard[nn.Sequential]:
    """Say whether a module runs its children one after the other and does nothing else.

    A subclass of ``nn.Sequential`` may add its input to the result, as residual blocks do.
    """
    row = isinstance(module, nn.Sequential) and is_plain(module)
    return row and all(getattr(type(module), n) is getattr(nn.Sequential, n) for n in _ROW)
