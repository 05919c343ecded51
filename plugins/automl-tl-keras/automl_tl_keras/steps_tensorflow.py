"""Steps on TensorFlow: a few compiled functions that serve one trial after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import tensorflow as tf

from automl_tl.training.head import decays
from automl_tl_keras import optim
from automl_tl_keras import steps_precision as precision
from automl_tl_keras import steps_tensorflow_graph as graph
from automl_tl_keras.steps import Kept, random_states, variable_names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from automl_tl_keras.network import Network
    from automl_tl_keras.steps import Numbers, Part, Plan

_HEAD_FUNCTIONS = 64
_NETWORK_FUNCTIONS = 12
"""Compiled functions that are kept; those that run a network's layers take some 20 MiB each."""


class _Owned:
    """What lives as long as its owner: compiled functions, and optimizers' slots by name."""

    def __init__(self, most: int) -> None:
        self.functions = Kept(most)
        self.updates = Kept(_HEAD_FUNCTIONS)
        self.slots: dict[tuple[str, int], tf.Variable] = {}


class TensorFlowStepper:
    """Implements ``automl_tl_keras.steps.Stepper``.

    The head's variables and all slots have no fixed size, so that heads of all widths on all
    networks share compiled functions, and nothing is held between trials. Functions that run a
    network's layers are forgotten with the network.
    """

    def __init__(self) -> None:
        self.precision = precision.choose()
        self._head: dict[str, tf.Variable] = {}
        self._heads = _Owned(_HEAD_FUNCTIONS)
        self._networks: WeakKeyDictionary[Network, _Owned] = WeakKeyDictionary()
        self._names: list[str] = []
        self._phase: _Phase | None = None

    def place(self, array: NDArray[Any]) -> Any:
        """Put an array on the device."""
        return tf.constant(array)

    def forward(self, network: Network, start: int, stop: int, x: Any) -> Any:
        """Run ``layers[start:stop]`` in inference mode."""
        x = tf.convert_to_tensor(x)
        if start == stop:
            return x
        return self._owned(network).functions.get(
            ("forward", start, stop, x.dtype),
            lambda: graph.forward(network.segment(start, stop), x),
        )(x)

    def load(self, head: Mapping[str, NDArray[np.float32]]) -> None:
        """Fill the head's variables."""
        self._names = variable_names(len(head) // 2 - 1)
        for name in self._names:
            if name not in self._head:
                self._head[name] = graph.flexible(head[name].ndim)
            self._head[name].assign(head[name])

    def begin(self, plan: Plan, numbers: Numbers) -> None:
        """Choose what trains, with a new optimizer; the head stays as it is."""
        owned, variables = self._heads, {f"head.{name}": self._head[name] for name in self._names}
        if plan.network is not None:
            plan.network.freeze(plan.fine_tune_at)
            owned = self._owned(plan.network)
            tuned = plan.network.trainable(plan.fine_tune_at)
            variables |= {f"backbone.{name}": tuned[name].value for name in tuned}
        self._phase = _Phase(plan, numbers, variables, owned)

    def seed(self, seed: int) -> None:
        """Begin an epoch's dropout and stochastic depth."""
        phase = self._current()
        phase.seed, phase.steps_of_epoch = seed, 0
        if phase.plan.network is not None:
            for index, state in enumerate(random_states(phase.plan.network.model)):
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
        phase, rank = self._current(), x.shape.rank
        function = self._heads.functions.get(
            ("sweep", phase.plan.optimizer, phase.plan.pooling, len(self._names), rank),
            lambda: graph.sweep(self._loss(), phase.trained, rank),
        )
        constants, seeds = phase.constants(rates), phase.seeds()
        size, decay = np.int64(batch_size), phase.decay
        total = function(x, labels, order, size, constants, decay, seeds, *phase.numbers)
        phase.advance(len(rates))
        return total

    def backward(self, start: int, parts: Sequence[Part]) -> Any:
        """Compute a batch's gradients, as if its parts were one."""
        scale = np.float32(1 / sum(len(part.labels) for part in parts))
        total, gradients = self._gradients(start, parts[0], 0, scale)
        for number, part in enumerate(parts[1:], start=1):
            loss, more = self._gradients(start, part, number, scale)
            total += loss
            gradients = [a + b for a, b in zip(gradients, more, strict=True)]
        self._current().gradients = gradients
        return total

    def update(self, rate: float) -> None:
        """Take one step along the gradients of the last batch."""
        phase = self._current()
        update = phase.owned.updates.get(
            (phase.plan.optimizer, phase.plan.fine_tune_at, len(self._names)),
            lambda: graph.update(phase.trained),
        )
        update(phase.gradients, phase.constants(np.array([rate]))[0], phase.decay)
        phase.gradients = []
        phase.advance(1)

    def logits(self, x: Any) -> NDArray[np.float32]:
        """Apply the head without dropout."""
        x, pooling = tf.convert_to_tensor(x), self._current().plan.pooling
        function = self._heads.functions.get(
            ("logits", pooling, len(self._names), x.shape.rank),
            lambda: graph.logits(self._variables(), pooling, x.shape.rank),
        )
        found: NDArray[np.float32] = function(x, self._current().numbers[0]).numpy()
        return found

    def values(self) -> dict[str, NDArray[np.float32]]:
        """Copy what trains."""
        return {name: var.numpy() for name, var in self._current().variables.items()}

    def release(self) -> None:
        """Give the head's and the optimizer's memory back; compiled code stays."""
        slots = [
            slot
            for owned in (self._heads, *self._networks.values())
            for slot in owned.slots.values()
        ]
        for variable in (*self._head.values(), *slots):
            variable.assign(tf.zeros([0] * variable.shape.rank))
        self._phase = None

    def _gradients(self, start: int, part: Part, number: int, scale: np.float32) -> Any:
        phase, x = self._current(), tf.convert_to_tensor(part.x)
        plan = phase.plan

        def make() -> Any:
            segment = plan.network and plan.network.segment(start, len(plan.network.info.layers))
            loss = graph.loss(self._variables(), plan.pooling, segment)
            with precision.computing(segment, self.precision):
                return graph.gradients(loss, phase.trained.variables, x, segment)

        key = (
            "gradients",
            start,
            plan.fine_tune_at,
            plan.pooling,
            len(self._names),
            x.shape.rank,
            x.dtype,
        )
        function = phase.owned.functions.get(key, make)
        return function(x, part.labels, scale, phase.seeds(number), *phase.numbers)

    def _loss(self) -> graph.Loss:
        return graph.loss(self._variables(), self._current().plan.pooling, None)

    def _variables(self) -> list[tf.Variable]:
        return [self._head[name] for name in self._names]

    def _owned(self, network: Network) -> _Owned:
        if network not in self._networks:
            self._networks[network] = _Owned(_NETWORK_FUNCTIONS)
        return self._networks[network]

    def _current(self) -> _Phase:
        assert self._phase is not None, "begin comes first"
        return self._phase


class _Phase:
    """A phase that is under way: what trains, with which numbers, and how far it is."""

    def __init__(
        self, plan: Plan, numbers: Numbers, variables: Mapping[str, tf.Variable], owned: _Owned
    ) -> None:
        self.plan = plan
        self.variables = variables
        self.owned = owned
        self.numbers = (
            np.float32(numbers.scale),
            np.float32(numbers.dropout),
            np.float32(numbers.smoothing),
            numbers.class_weights,
        )
        shapes = [tuple(tf.shape(variable).numpy()) for variable in variables.values()]
        spared = np.array([decays(shape) for shape in shapes], np.float32)
        self.decay = np.float32(numbers.weight_decay) * spared
        slots = [
            [_slot(owned, (name, number), shape, value) for number, value in enumerate(starts)]
            for name, shape in zip(variables, shapes, strict=True)
            for starts in [optim.starts(plan.optimizer)]
        ]
        self.trained = graph.Trained(plan.optimizer, list(variables.values()), slots)
        self.seed = self.steps = self.steps_of_epoch = 0
        self.gradients: list[Any] = []

    def constants(self, rates: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return the constants of the next steps."""
        return optim.constants(self.plan.optimizer, rates, self.steps)

    def seeds(self, number: int = 0) -> NDArray[np.int32]:
        """Return the seeds of a part of the next step."""
        return np.array([(self.seed + number) % 2**31, self.steps_of_epoch], np.int32)

    def advance(self, steps: int) -> None:
        """Count steps."""
        self.steps += steps
        self.steps_of_epoch += steps


def _slot(owned: _Owned, key: tuple[str, int], shape: tuple[int, ...], value: float) -> tf.Variable:
    if key not in owned.slots:
        owned.slots[key] = graph.flexible(len(shape))
    owned.slots[key].assign(tf.fill(shape, np.float32(value)))
    return owned.slots[key]
