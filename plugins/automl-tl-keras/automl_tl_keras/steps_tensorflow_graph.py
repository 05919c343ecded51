"""The functions that training compiles on TensorFlow.

Learning rates, dropout, smoothing, weights of classes and weight decay are arguments, never
constants, and sizes are free where they can be, so that one function serves many trials.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import tensorflow as tf

from automl_tl_keras import optim

if TYPE_CHECKING:
    from collections.abc import Sequence

    import keras

    from automl_tl.types import Pooling

Loss: TypeAlias = Callable[..., Any]
"""Of ``(x, labels, seeds, scale, dropout, smoothing, class_weights)``: the sum over the images."""

_F, _I = tf.float32, tf.int64
_SEEDS = tf.TensorSpec((2,), tf.int32)
_NUMBER = tf.TensorSpec((), _F)
_NUMBERS = (_NUMBER, _NUMBER, _NUMBER, tf.TensorSpec((None,), _F))
"""Scale of the features, dropout rate, label smoothing and the weights of classes."""
_CONSTANTS = tf.TensorSpec((None, 3), _F)
_DECAY = tf.TensorSpec((None,), _F)


@dataclass(frozen=True, slots=True)
class Trained:
    """What an optimizer moves.

    Attributes:
        optimizer: Its name.
        variables: The head's, then the network's.
        slots: The optimizer's, for each variable.
    """

    optimizer: str
    variables: Sequence[tf.Variable]
    slots: Sequence[Sequence[tf.Variable]]


def flexible(rank: int) -> tf.Variable:
    """Make an empty float32 variable that takes values of any size."""
    return tf.Variable(tf.zeros([0] * rank), shape=[None] * rank, trainable=False)


def loss(head: Sequence[tf.Variable], pooling: Pooling, segment: keras.Model | None) -> Loss:
    """Make the loss of a head, on top of a segment if there is one."""

    def compute(x: Any, labels: Any, seeds: Any, *numbers: Any) -> Any:
        scale, dropout, smoothing, class_weights = numbers
        if segment is not None:
            x = segment(x, training=True)
        found = _head(head, pooling, x, scale, lambda x, index: _dropout(x, index, dropout, seeds))
        classes = tf.shape(found)[1]
        targets = tf.one_hot(labels, classes) * (1 - smoothing)
        targets += smoothing / tf.cast(classes, _F)
        losses = tf.nn.softmax_cross_entropy_with_logits(targets, found)
        return tf.reduce_sum(losses * tf.gather(class_weights, labels))

    return compute


def logits(head: Sequence[tf.Variable], pooling: Pooling, rank: int) -> Any:
    """Compile ``(x, scale)``: a head without dropout, of features with an axis for the images."""
    return _compile(
        lambda x, scale: _head(head, pooling, x, scale, lambda x, _: x), _features(rank), _NUMBER
    )


def forward(segment: keras.Model, x: Any) -> Any:
    """Compile a segment in inference mode for any number of images like ``x``."""
    return _compile(
        lambda x: tf.cast(segment(x, training=False), _F),
        _images(x),
    )


def gradients(
    loss: Loss, variables: Sequence[tf.Variable], x: Any, segment: keras.Model | None
) -> Any:
    """Compile ``(x, labels, share, seeds, *numbers)`` to the loss and the gradients of its share.

    Args:
        loss: Sum over images.
        variables: To differentiate by.
        x: Like the input, which may have any number of images.
        segment: What the loss has below the head; where there is none, ``x`` may have any size.
    """
    spec = _features(x.shape.rank) if segment is None else _images(x)
    return _compile(
        lambda x, labels, share, *rest: _gradients(loss, variables, share, x, labels, *rest),
        *(spec, tf.TensorSpec((None,), _I), _NUMBER, _SEEDS, *_NUMBERS),
    )


def update(trained: Trained) -> Any:
    """Compile ``(gradients, constants, decay)``: one update of every variable.

    ``constants`` is a row of ``optim.constants``, ``decay`` float32, one value a variable.
    """

    def run(gradients: Any, constants: Any, decay: Any) -> None:
        _update(trained, gradients, constants, decay)

    specs = [tf.TensorSpec(variable.shape, _F) for variable in trained.variables]
    return _compile(run, specs, tf.TensorSpec((3,), _F), _DECAY)


def sweep(loss: Loss, trained: Trained, rank: int) -> Any:
    """Compile many steps over resident features.

    Of ``(x, labels, order, batch_size, constants, decay, seeds, *numbers)``; it takes as many
    steps as ``constants`` has rows and returns the sum of the losses.
    """

    def run(
        x: Any,
        labels: Any,
        order: Any,
        size: Any,
        constants: Any,
        decay: Any,
        seeds: Any,
        *numbers: Any,
    ) -> Any:
        def step(number: Any, total: Any) -> Any:
            rows = order[number * size : (number + 1) * size]
            share = 1 / tf.cast(tf.size(rows), _F)
            keys = tf.stack([seeds[0], seeds[1] + tf.cast(number, tf.int32)])
            batch = tf.gather(x, rows), tf.gather(labels, rows)
            value, found = _gradients(loss, trained.variables, share, *batch, keys, *numbers)
            with tf.control_dependencies(_update(trained, found, constants[number], decay)):
                return number + 1, total + value

        steps = tf.shape(constants, _I)[0]
        start = tf.constant(0, _I), tf.constant(0, _F)
        _, total = tf.while_loop(
            lambda number, _: number < steps, step, start, parallel_iterations=1
        )
        return total

    whole = tf.TensorSpec((None,), _I)
    return _compile(
        run,
        _features(rank),
        whole,
        whole,
        tf.TensorSpec((), _I),
        _CONSTANTS,
        _DECAY,
        _SEEDS,
        *_NUMBERS,
    )


def _compile(run: Callable[..., Any], *specs: Any) -> Any:
    """Trace once, for arguments like ``specs``; the result never traces again."""
    return tf.function(run, input_signature=specs, autograph=False).get_concrete_function()


def _images(x: Any) -> tf.TensorSpec:
    return tf.TensorSpec((None, *x.shape[1:]), x.dtype)


def _features(rank: int) -> tf.TensorSpec:
    return tf.TensorSpec([None] * rank, _F)


def _head(
    variables: Sequence[tf.Variable],
    pooling: Pooling,
    x: Any,
    scale: Any,
    dropout: Callable[[Any, int], Any],
) -> Any:
    x = _pool(tf.cast(x, _F), pooling) * scale
    hidden = len(variables) // 2 - 1
    for index in range(hidden):
        x = tf.nn.relu(tf.matmul(x, variables[2 * index]) + variables[2 * index + 1])
        x = dropout(x, index)
    if not hidden:
        x = dropout(x, 0)
    return tf.matmul(x, variables[-2]) + variables[-1]


def _pool(x: Any, pooling: Pooling) -> Any:
    if x.shape.rank != 4:
        return x
    match pooling:
        case "avg":
            return tf.reduce_mean(x, (1, 2))
        case "max":
            return tf.reduce_max(x, (1, 2))
        case "flatten":
            return tf.reshape(x, (tf.shape(x)[0], tf.reduce_prod(tf.shape(x)[1:])))


def _dropout(x: Any, index: int, rate: Any, seeds: Any) -> Any:
    """Drop with the mask of a layer in a step; seeds are of the epoch and the step."""
    key = tf.stack([seeds[0] + index * 7919, seeds[1]])
    kept = tf.random.stateless_uniform(tf.shape(x), key) >= rate
    return tf.where(kept, x / (1 - rate), 0.0)


def _gradients(
    loss: Loss, variables: Sequence[tf.Variable], share: Any, *arguments: Any
) -> tuple[Any, list[Any]]:
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(variables)
        total = loss(*arguments)
        scaled = total * share
    return total, tape.gradient(scaled, variables, unconnected_gradients="zero")


def _update(trained: Trained, gradients: Sequence[Any], constants: Any, decay: Any) -> list[Any]:
    found = zip(trained.variables, trained.slots, gradients, strict=True)
    return [
        _move(trained.optimizer, variable, slots, gradient, constants, decay[index])
        for index, (variable, slots, gradient) in enumerate(found)
    ]


def _move(
    name: str, variable: Any, slots: Sequence[Any], gradient: Any, constants: Any, decay: Any
) -> Any:
    """Update one variable in place as ``optim`` says; returns what to wait for."""
    rate, corrected, epsilon = constants[0], constants[1], constants[2]
    handles = [variable.handle, *(slot.handle for slot in slots)]
    if name == "adamw":
        variable.assign_sub(rate * decay * variable)
    else:
        gradient = gradient + decay * variable
    match name:
        case "sgd":
            return tf.raw_ops.ResourceApplyMomentum(
                var=handles[0], accum=handles[1], lr=rate, grad=gradient, momentum=optim.MOMENTUM
            )
        case "adam" | "adamw":
            return tf.raw_ops.ResourceApplyAdam(
                **dict(zip(("var", "m", "v"), handles, strict=True)),
                **{"beta1_power": 0.0, "beta2_power": 0.0, "lr": corrected, "epsilon": epsilon},
                **{"beta1": optim.BETA_1, "beta2": optim.BETA_2, "grad": gradient},
            )
        case "adagrad":
            return tf.raw_ops.ResourceApplyAdagradV2(
                var=handles[0], accum=handles[1], lr=rate, epsilon=epsilon, grad=gradient
            )
    slot = slots[0]
    mean = slot.assign(optim.RHO * slot + (1 - optim.RHO) * tf.square(gradient))
    return variable.assign_sub(rate * gradient / (tf.sqrt(mean) + epsilon))
