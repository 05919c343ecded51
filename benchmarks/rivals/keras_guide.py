"""B1: Optuna and the two phases of Keras's transfer-learning guide, with its ``cache()``."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from inputs import Row, arguments, optimize

HOME = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras"))
WEIGHTS = HOME / "models" / "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
CUTS = (0, 100, 154)
"""Layers from which a trial may fine-tune; 154 is none."""


class Clock(keras.callbacks.Callback):
    """Notes the seconds of every epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Start."""
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Stop."""
        self.seconds.append(time.perf_counter() - self.started)


def images(rows: list[Row], size: int) -> tf.data.Dataset:
    """Return decoded images, cached once they were read, as ``image_dataset_from_directory``."""

    def decode(path: Any, label: Any) -> tuple[Any, Any]:
        image = tf.io.decode_image(tf.io.read_file(path), channels=3, expand_animations=False)
        return tf.image.resize(image, (size, size)), label

    paths, labels = [path for path, _ in rows], [label for _, label in rows]
    dataset = tf.data.Dataset.from_tensor_slices((paths, labels))
    return dataset.map(decode, num_parallel_calls=tf.data.AUTOTUNE).cache()


def build(base: keras.Model, params: dict[str, Any], size: int, classes: int) -> keras.Model:
    """Return the network with a head on top."""
    inputs = keras.Input((size, size, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    x = base(x, training=False)
    x = keras.layers.GlobalAveragePooling2D()(x)
    if params["head_layers"]:
        x = keras.layers.Dense(params["head_units"], activation="relu")(x)
    x = keras.layers.Dropout(params["dropout"])(x)
    return keras.Model(inputs, keras.layers.Dense(classes)(x))


def build_optimizer(name: str, rate: float) -> keras.optimizers.Optimizer:
    """Return an optimizer without weight decay."""
    kinds = {
        "adam": keras.optimizers.Adam,
        "adamw": keras.optimizers.AdamW,
        "rmsprop": keras.optimizers.RMSprop,
        "adagrad": keras.optimizers.Adagrad,
    }
    if name == "sgd":
        return keras.optimizers.SGD(rate, momentum=0.9)
    return kinds[name](rate, weight_decay=0.0) if name == "adamw" else kinds[name](rate)


def main() -> None:
    """Train the trials."""
    options = arguments(__doc__ or "")
    tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    training = images(options.rows["train"], options.size)
    validation = images(options.rows["validation"], options.size)
    validation = validation.batch(64).prefetch(tf.data.AUTOTUNE)

    def train(params: dict[str, Any], seed: int) -> tuple[list[float], list[float]]:
        keras.utils.clear_session()
        keras.utils.set_random_seed(seed)
        weights = str(WEIGHTS) if options.weights == "imagenet" else None
        shape = (options.size, options.size, 3)
        base = keras.applications.MobileNetV2(shape, include_top=False, weights=weights)
        model = build(base, params, options.size, len(options.classes))
        batches = training.shuffle(1000).batch(params["batch_size"]).prefetch(tf.data.AUTOTUNE)
        clock, accuracies = Clock(), []

        def fit(rate: float) -> None:
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            optimizer = build_optimizer(params["optimizer"], rate)
            model.compile(optimizer, loss, metrics=["accuracy"])
            done = model.fit(
                batches,
                epochs=options.epochs,
                validation_data=validation,
                verbose=0,
                callbacks=[clock],
            )
            accuracies.extend(float(value) for value in done.history["val_accuracy"])

        base.trainable = False
        fit(params["learning_rate"])
        if (cut := params.get("cut", len(base.layers))) < len(base.layers):
            base.trainable = True
            for layer in base.layers[:cut]:
                layer.trainable = False
            fit(params["learning_rate"] * params["fine_tune_factor"])
        return accuracies, clock.seconds

    fine_tunes = options.sample or any("cut" in trial for trial in options.trials)
    optimize(options, train, CUTS if fine_tunes else ())


if __name__ == "__main__":
    main()
