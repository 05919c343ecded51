"""What steps compute on JAX, as pure functions of arrays.

Whatever differs from trial to trial is an argument, so that JAX compiles again only for new sizes.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import keras

from automl_tl_keras import optim
from automl_tl_keras.steps import random_states

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Values = list[jax.Array]


def forward(segment: keras.Model) -> Any:
    """Compile a segment in inference mode: of the values of its variables and its input."""

    def run(values: Values, x: Any) -> Any:
        with keras.StatelessScope(zip(segment.variables, values, strict=True)):
            return segment(x, training=False)

    return jax.jit(run)


def gradients(segment: keras.Model, tuned: list[keras.Variable], pooling: str) -> Any:
    """Compile the gradients of a head and a segment below it, which has random states.

    Of ``(values, fixed, x, labels, key, share, scale, dropout, smoothing, class_weights)``, where
    ``values`` are the head's and those of ``tuned``, and ``fixed`` those of ``others``. Returns the
    sum of the losses, the random states afterwards, and the gradients.
    """
    known = [*tuned, *others(segment, tuned)]

    def loss(values: Values, fixed: Values, x: Any, *rest: Any) -> tuple[Any, tuple[Any, Values]]:
        head = values[: len(values) - len(tuned)]
        mapping = zip(known, [*values[len(head) :], *fixed], strict=True)
        with keras.StatelessScope(mapping) as scope:
            x = segment(x, training=True)
            drawn = [scope.get_current_value(state) for state in random_states(segment)]
        scaled, total = _loss(pooling, head, x, *rest)
        return scaled, (total, drawn)

    def run(*arguments: Any) -> tuple[Any, Values, Values]:
        (_, (total, drawn)), found = jax.value_and_grad(loss, has_aux=True)(*arguments)
        return total, drawn, found

    return jax.jit(run)


def others(segment: keras.Model, tuned: Iterable[keras.Variable]) -> list[keras.Variable]:
    """Return the variables of a segment that are not tuned."""
    known = {id(variable) for variable in tuned}
    return [variable for variable in segment.variables if id(variable) not in known]


@partial(jax.jit, static_argnums=0)
def head_gradients(pooling: str, *arguments: Any) -> tuple[Any, Values]:
    """Return the sum of the losses and the gradients of a head alone.

    Of ``(values, x, labels, key, share, scale, dropout, smoothing, class_weights)``.
    """
    loss = jax.value_and_grad(partial(_loss, pooling), has_aux=True)
    (_, total), found = loss(*arguments)
    return total, found


@partial(jax.jit, static_argnums=0)
def logits(pooling: str, values: Values, x: Any, scale: Any) -> Any:
    """Apply a head without dropout."""
    return _head(pooling, values, x, scale, lambda x, _: x)


@partial(jax.jit, static_argnums=0)
def update(
    name: str, decay: Values, values: Values, gradients: Values, slots: Any, constants: Any
) -> tuple[Values, Any]:
    """Return variables and slots after a step; see ``optim``."""
    moved = [
        _move(name, *one, constants) for one in zip(values, gradients, slots, decay, strict=True)
    ]
    return [value for value, _ in moved], [slot for _, slot in moved]


def _loss(
    pooling: str,
    head: Values,
    x: Any,
    labels: Any,
    key: Any,
    share: Any,
    scale: Any,
    dropout: Any,
    smoothing: Any,
    class_weights: Any,
) -> tuple[Any, Any]:
    keys = jax.random.split(key, len(head))

    def drop(x: Any, index: int) -> Any:
        kept = jax.random.uniform(keys[index], x.shape) >= dropout
        return jnp.where(kept, x / (1 - dropout), 0.0)

    found = _head(pooling, head, x, scale, drop)
    classes = found.shape[1]
    targets = jax.nn.one_hot(labels, classes) * (1 - smoothing) + smoothing / classes
    losses = -(targets * jax.nn.log_softmax(found)).sum(1)
    total = (losses * class_weights[labels]).sum()
    return total * share, total


def _head(pooling: str, values: Values, x: Any, scale: Any, drop: Callable[[Any, int], Any]) -> Any:
    x = _pool(pooling, x) * scale
    for index, (kernel, bias) in enumerate(zip(values[:-2:2], values[1:-2:2], strict=True)):
        x = drop(jax.nn.relu(x @ kernel + bias), index)
    if len(values) == 2:
        x = drop(x, 0)
    return x @ values[-2] + values[-1]


def _pool(pooling: str, x: Any) -> Any:
    if x.ndim != 4:
        return x
    if pooling == "avg":
        return x.mean((1, 2))
    return x.max((1, 2)) if pooling == "max" else x.reshape(len(x), -1)


def _move(
    name: str, value: Any, gradient: Any, slots: Any, decay: Any, constants: Any
) -> tuple[Any, Values]:
    """Return a variable and its slots after a step, as ``optim`` says."""
    rate, corrected, epsilon = constants
    if name == "adamw":
        value = value * (1 - rate * decay)
    else:
        gradient = gradient + decay * value
    if name == "sgd":
        m = optim.MOMENTUM * slots[0] + gradient
        return value - rate * m, [m]
    if name == "adagrad":
        v = slots[0] + gradient**2
        return value - rate * gradient / (jnp.sqrt(v) + epsilon), [v]
    if name == "rmsprop":
        v = optim.RHO * slots[0] + (1 - optim.RHO) * gradient**2
        return value - rate * gradient / (jnp.sqrt(v) + epsilon), [v]
    m = optim.BETA_1 * slots[0] + (1 - optim.BETA_1) * gradient
    v = optim.BETA_2 * slots[1] + (1 - optim.BETA_2) * gradient**2
    return value - corrected * m / (jnp.sqrt(v) + epsilon), [m, v]
