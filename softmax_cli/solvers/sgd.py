"""Mini-batch gradient descent with momentum.

Per step, with the gradient g of the batch: v ← momentum·v − rate·g, then parameters ← parameters + v.
Sources: Polyak (1964) for the momentum, Loshchilov & Hutter (2017) for the cosine schedule.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from softmax_cli import features
from softmax_cli.config import TrainConfig
from softmax_cli.errors import DivergenceError
from softmax_cli.model import Model, loss_and_gradient


def steps_per_epoch(images: int, config: TrainConfig) -> int:
    """Return the number of batches that `images` make; the last may be smaller."""
    return math.ceil(images / config.batch_size)


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """Return the learning rate of step 0, 1, ... of `steps` in the whole run.

    The cosine schedule is rate/2 · (1 + cos(π·step/steps)): the full rate at first, almost 0 at the end.
    """
    if config.schedule == "constant":
        return config.learning_rate
    return config.learning_rate / 2 * (1 + math.cos(math.pi * step / steps))


def run_epoch(
    model: Model,
    velocity: Model,
    images: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    indices: NDArray[np.intp],
    epoch: int,
    config: TrainConfig,
    on_batch: Callable[[], bool],
) -> tuple[Model, Model, float] | None:
    """Make one pass over ``images[indices]`` in a random order; leave the arguments as they are.

    The order of epoch 1, 2, ... is a permutation drawn by ``default_rng((seed, epoch))``. Images are
    gathered and turned into float32 a batch at a time. Returns the new model, the new velocity and the
    mean cross-entropy of the batches, each before its step; or None as soon as `on_batch`, called after
    each step, returns True. Raises `DivergenceError` at the first loss or weight that is not finite.
    """
    model, velocity = Model(*(a.copy() for a in model)), Model(*(a.copy() for a in velocity))
    order = indices[np.random.default_rng((config.seed, epoch)).permutation(len(indices))]
    gathered = np.empty((config.batch_size, *images.shape[1:]), np.uint8)  # two buffers, used again for
    buffer = np.empty((config.batch_size, len(model.weights)), np.float32)  # each batch
    batches = steps_per_epoch(len(order), config)
    loss_sum = 0.0
    for batch in range(batches):
        chosen = order[batch * config.batch_size : (batch + 1) * config.batch_size]
        rate = learning_rate((epoch - 1) * batches + batch, config.epochs * batches, config)
        batch_images = images.take(chosen, axis=0, out=gathered[: len(chosen)], mode="clip")
        x = features.pixels(batch_images, out=buffer)
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is noticed below
            loss, gradient = loss_and_gradient(model, x, labels[chosen])
            _step(model, velocity, gradient, rate, config)
        if not math.isfinite(loss):
            raise _diverged(epoch, batch, config)
        loss_sum += loss * len(chosen)
        if on_batch():
            return None
    if not all(np.isfinite(a).all() for a in (*model, *velocity)):
        raise _diverged(epoch, batches - 1, config)
    return model, velocity, loss_sum / len(order)


def _step(model: Model, velocity: Model, gradient: Model, rate: float, config: TrainConfig) -> None:
    """Update the model and the velocity in place, and spend the gradient: this is the hot loop."""
    gradient.weights[...] += config.l2 * model.weights
    for parameter, speed, slope in zip(model, velocity, gradient, strict=True):
        speed *= config.momentum
        slope *= rate
        speed -= slope
        parameter += speed


def _diverged(epoch: int, batch: int, config: TrainConfig) -> DivergenceError:
    return DivergenceError(
        f"training diverged in epoch {epoch}, step {batch + 1}, with learning rate {config.learning_rate:g}: "
        "a value is no longer finite; choose a smaller --learning-rate"
    )
