"""Mini-batch gradient descent with momentum.

Per step, with the gradient g of the batch: v ← momentum·v − rate·g, then parameters ← parameters + v. For
the weights, the rate is multiplied by the gain of the features, for which steps may be larger (see there).
Sources: Polyak (1964) for the momentum, Loshchilov & Hutter (2017) for the cosine schedule.
"""

import math
import os
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from softmax_cli.config import TrainConfig
from softmax_cli.errors import DivergenceError
from softmax_cli.features import FeatureMap, scaled
from softmax_cli.model import Model, loss_and_gradient
from softmax_cli.solvers.problem import Problem, Step

SHUFFLE_BLOCK = 2**30
"""Bytes of images that are shuffled at a time, where all of them do not fit in memory."""


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


def solve(problem: Problem, model: Model, velocity: Model, done: int) -> Iterator[Step]:
    """Yield a step for each epoch after the first `done`, from the model and velocity that these left.

    The images of epoch 1, 2, ... come in an order drawn by ``default_rng((seed, epoch))``. What was
    passed or yielded is never changed. Raises `DivergenceError` at the first loss or weight that is not
    finite.
    """
    config = problem.config
    for epoch in range(done + 1, config.epochs + 1):
        reached = run_epoch(problem, model, velocity, epoch, config.epochs)
        if reached is None:
            return
        model, velocity = reached.model, reached.velocity
        yield reached


def run_epoch(problem: Problem, model: Model, velocity: Model, epoch: int, epochs: int) -> Step | None:
    """Make pass number `epoch` of `epochs` over the images, in a random order; None if it was stopped."""
    config, images = problem.config, len(problem.indices)
    model, velocity = Model(*(a.copy() for a in model)), Model(*(a.copy() for a in velocity))
    order = shuffle(problem, epoch)
    steps = steps_per_epoch(images, config)
    loss_sum = 0.0
    for step, (x, labels) in enumerate(problem.batches(order, config.batch_size), (epoch - 1) * steps):
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is noticed below
            loss, gradient = loss_and_gradient(scaled(model, problem.feature_map), x, labels)
            rate = learning_rate(step, epochs * steps, config)
            _move(model, velocity, gradient, rate, problem.feature_map, config)
        if not math.isfinite(loss):
            raise diverged(epoch, step - (epoch - 1) * steps, config)
        loss_sum += loss * len(labels)
        if problem.on_batch():
            return None
    if not all(np.isfinite(a).all() for a in (*model, *velocity)):
        raise diverged(epoch, steps - 1, config)
    first_rate = learning_rate((epoch - 1) * steps, epochs * steps, config)
    return Step(model, velocity, loss_sum / images, first_rate)


def shuffle(problem: Problem, epoch: int) -> NDArray[np.intp]:
    """Return the rows to learn from in the order of an epoch, drawn by ``default_rng((seed, epoch))``.

    Every order is equally likely where the images fit in memory. Where they do not, reading at random
    would fetch a page of the disk for each image; then blocks of `SHUFFLE_BLOCK` bytes come in random
    order, and the rows of each block in random order.
    """
    generator, rows = np.random.default_rng((problem.config.seed, epoch)), problem.indices
    if fits_in_memory(problem.images):
        return rows[generator.permutation(len(rows))]
    size = max(1, SHUFFLE_BLOCK // problem.images[0].nbytes)
    blocks = np.split(rows, range(size, len(rows), size))
    return np.concatenate([generator.permutation(blocks[i]) for i in generator.permutation(len(blocks))])


def fits_in_memory(images: NDArray[np.uint8]) -> bool:
    """Tell whether three quarters of this machine's memory hold the images; where it cannot tell, yes."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return True
    return images.nbytes <= memory * 3 // 4


def _move(
    model: Model, velocity: Model, gradient: Model, rate: float, features: FeatureMap, config: TrainConfig
) -> None:
    """Update the model and the velocity in place, and spend the gradient: this is the hot loop.

    The gradient is that of unscaled features: by the weights, it lacks the scale and the l2 term.
    """
    steepest = rate * features.gain
    gradient.weights[...] *= steepest * features.scale
    gradient.weights[...] += (steepest * config.l2) * model.weights
    gradient.bias[...] *= rate
    for parameter, speed, change in zip(model, velocity, gradient, strict=True):
        speed *= config.momentum
        speed -= change
        parameter += speed


def diverged(epoch: int, batch: int, config: TrainConfig) -> DivergenceError:
    """Return the error that says where training left the finite numbers, batches counted from 0."""
    return DivergenceError(
        f"training diverged in epoch {epoch}, step {batch + 1}, with learning rate {config.learning_rate:g}: "
        "a value is no longer finite; choose a smaller --learning-rate (or --l2)"
    )
