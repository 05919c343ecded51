"""A training step's forward and backward pass as a CUDA graph.

The kernels of a small network take less time than Python and PyTorch need to launch them. Recorded
once and replayed as one graph, they follow each other without a gap.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from automl_tl_torch.plain import is_plain

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    Compute = Callable[[Tensor, Tensor], Tensor]

BEFORE = 2
"""Steps of a shape that run as they are: libraries and the allocator settle in them."""
_KNOWN = ("torch", "torchvision", "automl_tl_torch", "_operator", "builtins", "math")


class Replays:
    """Computes losses and gradients of batches; from the third of a shape on by a graph.

    The kernels are the same, on the same numbers. A graph reads its input from fixed places and
    leaves the gradients in fixed places, so that optimizers need not know.

    Args:
        parameters: Get the gradients.
        enabled: Whether to record at all.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], *, enabled: bool) -> None:
        self._parameters = parameters
        self._enabled = enabled
        self._seen: Counter[Hashable] = Counter()
        self._graphs: dict[Hashable, _Replay] = {}

    def __call__(self, compute: Compute, x: Tensor, labels: Tensor) -> Tensor:
        """Return the loss; the gradients are then in the parameters' ``grad``.

        Args:
            compute: Maps ``x`` and ``labels`` to a loss and runs it backward onto parameters
                without gradients. Of one shape it always has to do the same.
            x: Input of the network.
            labels: int64 ``(N,)``.
        """
        key = (tuple(x.shape), x.dtype)
        replay = self._graphs.get(key)
        if replay is None and self._enabled:
            self._seen[key] += 1
            if self._seen[key] > BEFORE:
                replay = self._record(key, compute, x, labels)
        if replay is not None:
            return replay(x, labels)
        self._clear()
        return compute(x, labels)

    def drop(self) -> None:
        """Give the graphs' memory back, and record none any more."""
        self._enabled = False
        self._graphs.clear()

    def _record(self, key: Hashable, compute: Compute, x: Tensor, labels: Tensor) -> _Replay | None:
        self._clear()
        try:
            # The graphs of a step and of an epoch's last, smaller one take turns in one pool.
            pool = next((one.graph.pool() for one in self._graphs.values()), None)
            self._graphs[key] = _Replay(self._parameters, compute, x, labels, pool)
        except RuntimeError:  # out of memory, or something in there waits for the device
            self.drop()
            self._clear()
        return self._graphs.get(key)

    def _clear(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None


class _Replay:
    """One recorded graph with the places that it reads and writes."""

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        compute: Compute,
        x: Tensor,
        labels: Tensor,
        pool: Any,
    ) -> None:
        self._parameters = parameters
        self._x, self._labels = x.clone(), labels.clone()
        self.graph = torch.cuda.CUDAGraph()
        # Only this thread is held to what a graph can record: others may pin memory meanwhile.
        with torch.cuda.graph(self.graph, pool=pool, capture_error_mode="thread_local"):
            self._loss = compute(self._x, self._labels)
        self._gradients = [parameter.grad for parameter in parameters]

    def __call__(self, x: Tensor, labels: Tensor) -> Tensor:
        self._x.copy_(x)
        self._labels.copy_(labels)
        self.graph.replay()
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        return self._loss


def recordable(module: nn.Module) -> bool:
    """Say whether a module does the same in every step, whatever Python does between its kernels.

    So do the layers of PyTorch and torchvision. What another's code does is not known: it may draw
    a random number in Python, and that would be recorded too.
    """
    return all(_module_known(one) and _calls_known(one) for one in module.modules())


def _module_known(module: nn.Module) -> bool:
    """Ask for all classes: one that is made for a parametrization inherits its ``forward``."""
    return is_plain(module) and all(_known(one) for one in type(module).__mro__)


def _calls_known(module: nn.Module) -> bool:
    if not isinstance(module, fx.GraphModule):
        return True
    called = (node.target for node in module.graph.nodes if node.op == "call_function")
    return all(_known(function) for function in called)


def _known(thing: Any) -> bool:
    return str(getattr(thing, "__module__", "")).partition(".")[0] in _KNOWN
