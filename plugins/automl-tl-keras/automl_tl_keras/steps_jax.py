"""Steps of Keras on JAX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from automl_tl.training.head import decays
from automl_tl_keras import optim
from automl_tl_keras import steps_jax_graph as graph
from automl_tl_keras.steps import Part, random_states, variable_names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import keras
    from numpy.typing import NDArray

    from automl_tl_keras.network import Network
    from automl_tl_keras.steps import Numbers, Plan


class JaxStepper:
    """Implements ``automl_tl_keras.steps.Stepper``."""

    precision = "float32"

    def __init__(self) -> None:
        self._head: dict[str, jax.Array] = {}
        self._tuned: dict[str, keras.Variable] = {}
        self._plan: Any = None
        self._slots: Any = None
        self._gradients: Any = None

    def place(self, array: NDArray[Any]) -> Any:
        """Put an array on the device."""
        return jnp.asarray(array)

    def forward(self, network: Network, start: int, stop: int, x: Any) -> Any:
        """Run ``layers[start:stop]`` in inference mode."""
        segment, key = network.segment(start, stop), ("forward", start, stop)
        if key not in network.compiled:
            network.compiled[key] = graph.forward(segment)
        values = [variable.value for variable in segment.variables]
        return network.compiled[key](values, jnp.asarray(x))

    def load(self, head: Mapping[str, NDArray[np.float32]]) -> None:
        """Fill the head's variables."""
        names = variable_names(len(head) // 2 - 1)
        self._head = {f"head.{name}": jnp.asarray(head[name]) for name in names}

    def begin(self, plan: Plan, numbers: Numbers) -> None:
        """Choose what trains, with a new optimizer; the head stays as it is."""
        self._plan, self._steps, self._tuned = plan, 0, {}
        weights = jnp.asarray(numbers.class_weights)
        self._numbers = numbers.scale, numbers.dropout, numbers.smoothing, weights
        if plan.network is not None:
            plan.network.freeze(plan.fine_tune_at)
            tuned = plan.network.trainable(plan.fine_tune_at)
            self._tuned = {f"backbone.{name}": tuned[name] for name in tuned}
        shapes = [value.shape for value in self._values()]
        self._decay = [numbers.weight_decay * decays(shape) for shape in shapes]
        starts = optim.starts(plan.optimizer)
        self._slots = [[jnp.full(shape, value) for value in starts] for shape in shapes]

    def seed(self, seed: int) -> None:
        """Begin an epoch's dropout and stochastic depth."""
        self._key, self._steps_of_epoch = jax.random.key(seed), 0
        if self._plan.network is not None:
            for index, state in enumerate(random_states(self._plan.network.model)):
                state.assign([(seed + index) % 2**31, 0])

    def sweep(
        self,
        x: Any,
        labels: Any,
        order: NDArray[np.int64],
        batch_size: int,
        rates: NDArray[np.float64],
    ) -> Any:
        """Take steps over placed features and labels; the head alone trains."""
        total = jnp.zeros(())
        for step, rate in enumerate(rates):
            rows = order[step * batch_size : (step + 1) * batch_size]
            total += self.backward(0, [Part(x[rows], labels[rows])])
            self.update(float(rate))
        return total

    def backward(self, start: int, parts: Sequence[Part]) -> Any:
        """Compute a batch's gradients, as if its parts were one."""
        scale, total, gradients = 1 / sum(len(part.labels) for part in parts), jnp.zeros(()), None
        for number, part in enumerate(parts):
            loss, found = self._part(start, part, number, scale)
            total += loss
            gradients = found if gradients is None else jax.tree.map(jnp.add, gradients, found)
        self._gradients = gradients
        return total

    def update(self, rate: float) -> None:
        """Take one step along the gradients of the last batch."""
        name, values = self._plan.optimizer, self._values()
        constants = optim.constants(name, np.array([rate]), self._steps)[0]
        values, self._slots = graph.update(
            name, self._decay, values, self._gradients, self._slots, constants
        )
        self._gradients = None
        self._head = dict(zip(self._head, values[: len(self._head)], strict=True))
        for variable, value in zip(self._tuned.values(), values[len(self._head) :], strict=True):
            variable.assign(value)
        self._steps += 1
        self._steps_of_epoch += 1

    def logits(self, x: Any) -> NDArray[np.float32]:
        """Apply the head without dropout."""
        head = list(self._head.values())
        return np.array(graph.logits(self._plan.pooling, head, jnp.asarray(x), self._numbers[0]))

    def values(self) -> dict[str, NDArray[np.float32]]:
        """Copy what trains."""
        names = [*self._head, *self._tuned]
        return {name: np.array(value) for name, value in zip(names, self._values(), strict=True)}

    def release(self) -> None:
        """Give the head's and the optimizer's memory back; compiled code stays."""
        self._head, self._tuned = {}, {}
        self._plan = self._slots = self._gradients = None

    def _values(self) -> list[jax.Array]:
        return [*self._head.values(), *(variable.value for variable in self._tuned.values())]

    def _part(self, start: int, part: Part, number: int, scale: float) -> Any:
        network, pooling = self._plan.network, self._plan.pooling
        key = jax.random.fold_in(jax.random.fold_in(self._key, self._steps_of_epoch), number)
        rest = part.labels, key, scale, *self._numbers
        if network is None:
            return graph.head_gradients(pooling, self._values(), jnp.asarray(part.x), *rest)
        segment = network.segment(start, len(network.info.layers))
        tuned = list(self._tuned.values())
        kept = ("gradients", start, self._plan.fine_tune_at, pooling)
        if kept not in network.compiled:
            network.compiled[kept] = graph.gradients(segment, tuned, pooling)
        fixed = [variable.value for variable in graph.others(segment, tuned)]
        total, drawn, gradients = network.compiled[kept](
            self._values(), fixed, jnp.asarray(part.x), *rest
        )
        for state, value in zip(random_states(segment), drawn, strict=True):
            state.assign(value)
        return total, gradients
