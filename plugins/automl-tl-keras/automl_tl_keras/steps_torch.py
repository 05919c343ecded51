"""Steps of Keras on PyTorch: eager, with PyTorch's own optimizers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import torch
import torch.nn.functional as F

from automl_tl.training.head import decays
from automl_tl_keras import optim
from automl_tl_keras.steps import Part, random_states, variable_names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from automl_tl_keras.network import Network
    from automl_tl_keras.steps import Numbers, Plan


class TorchStepper:
    """Implements ``automl_tl_keras.steps.Stepper``."""

    precision = "float32"

    def __init__(self) -> None:
        self._device = keras.ops.zeros(()).device
        self._head: dict[str, Tensor] = {}
        self._trained: dict[str, Tensor] = {}
        self._optimizer: Any = None
        self._plan: Any = None

    def place(self, array: NDArray[Any]) -> Any:
        """Put an array on the device."""
        return torch.from_numpy(array).to(self._device)

    def forward(self, network: Network, start: int, stop: int, x: Any) -> Any:
        """Run ``layers[start:stop]`` in inference mode."""
        with torch.inference_mode():
            return network.segment(start, stop)(self._tensor(x), training=False)

    def load(self, head: Mapping[str, NDArray[np.float32]]) -> None:
        """Fill the head's variables."""
        self._head = {
            f"head.{name}": torch.nn.Parameter(self.place(head[name].copy()))
            for name in variable_names(len(head) // 2 - 1)
        }

    def begin(self, plan: Plan, numbers: Numbers) -> None:
        """Choose what trains, with a new optimizer; the head stays as it is."""
        self._plan, self._numbers = plan, numbers
        self._weights = self.place(numbers.class_weights)
        self._trained = dict(self._head)
        if plan.network is not None:
            plan.network.freeze(plan.fine_tune_at)
            tuned = plan.network.trainable(plan.fine_tune_at)
            self._trained |= {f"backbone.{name}": tuned[name].value for name in tuned}
        self._optimizer = _optimizer(
            plan.optimizer, list(self._trained.values()), numbers.weight_decay
        )

    def seed(self, seed: int) -> None:
        """Begin an epoch's dropout and stochastic depth."""
        self._random = torch.Generator(self._device).manual_seed(seed)
        network = self._plan.network
        if network is not None:
            for index, state in enumerate(random_states(network.model)):
                state.assign([(seed + index) % 2**31, 0])

    def sweep(
        self,
        x: Any,
        labels: Any,
        order: NDArray[np.int64],
        batch_size: int,
        rates: NDArray[np.float64],
    ) -> Any:
        """Take steps over placed features and labels in one call; the head alone trains."""
        rows, total = self.place(order), torch.zeros((), device=self._device)
        for step, rate in enumerate(rates):
            batch = rows[step * batch_size : (step + 1) * batch_size]
            part = Part(x.index_select(0, batch), labels.index_select(0, batch))
            total += self.backward(0, [part])
            self.update(float(rate))
        return total

    def backward(self, start: int, parts: Sequence[Part]) -> Any:
        """Compute a batch's gradients, as if its parts were one."""
        images = sum(len(part.labels) for part in parts)
        total = torch.zeros((), device=self._device)
        self._optimizer.zero_grad(set_to_none=True)
        for part in parts:
            loss = self._loss(start, part)
            (loss / images).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    def update(self, rate: float) -> None:
        """Take one step along the gradients of the last batch."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()

    def logits(self, x: Any) -> NDArray[np.float32]:
        """Apply the head without dropout."""
        with torch.no_grad():
            found: NDArray[np.float32] = self._apply(self._tensor(x), 0.0).cpu().numpy()
        return found

    def values(self) -> dict[str, NDArray[np.float32]]:
        """Copy what trains."""
        return {
            name: tensor.detach().to("cpu", copy=True).numpy()
            for name, tensor in self._trained.items()
        }

    def release(self) -> None:
        """Give the head's and the optimizer's memory back."""
        for tensor in self._trained.values():
            tensor.grad = None
        self._head, self._trained = {}, {}
        self._optimizer = self._plan = None

    def _tensor(self, x: Any) -> Tensor:
        return torch.as_tensor(x, device=self._device)

    def _loss(self, start: int, part: Part) -> Tensor:
        x, network = self._tensor(part.x), self._plan.network
        if network is not None:
            x = network.segment(start, len(network.info.layers))(x, training=True)
        labels, smoothing = self._tensor(part.labels), self._numbers.smoothing
        logits = self._apply(x, self._numbers.dropout)
        losses = F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
        total: Tensor = (losses * self._weights[labels]).sum()
        return total

    def _apply(self, x: Tensor, dropout: float) -> Tensor:
        x = _pool(x.float(), self._plan.pooling) * self._numbers.scale
        tensors = list(self._head.values())
        for kernel, bias in zip(tensors[:-2:2], tensors[1:-2:2], strict=True):
            x = self._drop(F.relu(x @ kernel + bias), dropout)
        if len(tensors) == 2:
            x = self._drop(x, dropout)
        logits: Tensor = x @ tensors[-2] + tensors[-1]
        return logits

    def _drop(self, x: Tensor, rate: float) -> Tensor:
        if not rate:
            return x
        kept = torch.rand(x.shape, generator=self._random, device=self._device) >= rate
        return torch.where(kept, x / (1 - rate), 0.0)


def _pool(x: Tensor, pooling: str) -> Tensor:
    if x.ndim != 4:
        return x
    if pooling == "avg":
        return x.mean((1, 2))
    return x.amax((1, 2)) if pooling == "max" else x.flatten(1)


def _optimizer(name: str, tensors: list[Tensor], weight_decay: float) -> torch.optim.Optimizer:
    """Make an optimizer as ``optim`` says."""
    optim.starts(name)
    groups = [
        {"params": [t for t in tensors if decays(t.shape)], "weight_decay": weight_decay},
        {"params": [t for t in tensors if not decays(t.shape)], "weight_decay": 0.0},
    ]
    epsilon = optim.EPSILON
    match name:
        case "sgd":
            return torch.optim.SGD(groups, 0.0, momentum=optim.MOMENTUM)
        case "adam":
            return torch.optim.Adam(groups, 0.0, (optim.BETA_1, optim.BETA_2), epsilon)
        case "adamw":
            return torch.optim.AdamW(groups, 0.0, (optim.BETA_1, optim.BETA_2), epsilon)
        case "rmsprop":
            return torch.optim.RMSprop(groups, 0.0, alpha=optim.RHO, eps=epsilon)
        case _:
            start = optim.starts(name)[0]
            return torch.optim.Adagrad(groups, 0.0, initial_accumulator_value=start, eps=epsilon)
