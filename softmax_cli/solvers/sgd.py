"""Mini-batch gradient descent with momentum.

Per step, with the gradient g of a batch: v ← momentum·v − rate·g, then parameters ← parameters + v. For the
weights, the rate is multiplied by the gain of the features (see `FeatureMap.gain`).

Sources: Polyak (1964) for momentum, Loshchilov & Hutter (2017) for the cosine schedule.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from softmax_cli.backend import memory_size
from softmax_cli.config import TrainConfig
from softmax_cli.model import Model
from softmax_cli.solvers.objective import Objective, SolverStart, Step, Stopped, divergence

SHUFFLE_BLOCK = 2**30
"""Bytes of images that are shuffled at a time if all of them do not fit in memory."""


def steps_per_epoch(images: int, config: TrainConfig) -> int:
    """Return the number of batches in an epoch; the last one may be smaller."""
    return math.ceil(images / config.batch_size)


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """Return the learning rate of step 0, 1, ... of `steps` in the whole run.

    The cosine schedule is rate/2 · (1 + cos(π·step/steps)), the linear one rate · (1 − step/steps): the full
    rate at first, almost 0 at the end.
    """
    return config.learning_rate * _SCHEDULES[config.schedule](step / steps)


_SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
    "linear": lambda done: 1 - done,
    "constant": lambda done: 1.0,
}
"""The learning rate, relative to that at first, when this fraction of all steps is done."""


def memory(features: int, classes: int) -> int:
    """Return the bytes that model, velocity and gradient take."""
    return 3 * 4 * (features + 1) * classes


def solve(objective: Objective, config: TrainConfig, start: SolverStart) -> Iterator[Step]:
    """Yield a step for each epoch.

    The order of the images in epoch 1, 2, ... is drawn by ``default_rng((seed, epoch))``. Arguments and
    yielded values are never modified.

    Raises:
        DivergenceError: A loss or a parameter is not finite.
    """
    model, velocity = start.model, start.velocity
    try:
        for epoch in range(start.epoch + 1, config.epochs + 1):
            step = run_epoch(objective, config, model, velocity, epoch, config.epochs)
            model, velocity = step.model, step.velocity
            yield step
    except Stopped:
        return


def run_epoch(
    objective: Objective, config: TrainConfig, model: Model, velocity: Model, epoch: int, epochs: int
) -> Step:
    """Make pass number `epoch` of `epochs` over the images, in random order."""
    images = len(objective)
    model, velocity = Model(*(a.copy() for a in model)), Model(*(a.copy() for a in velocity))
    order = shuffle(objective.images, objective.rows, epoch, config.seed)
    steps = steps_per_epoch(images, config)
    gain, loss_sum = objective.features.gain, 0.0
    batches = objective.batches(order, config.batch_size, epoch)
    for step, batch in enumerate(batches, (epoch - 1) * steps):
        with np.errstate(over="ignore", invalid="ignore"):  # an overflow is reported below
            loss, gradient = objective.batch_value(model, batch)
            _move(model, velocity, gradient, learning_rate(step, epochs * steps, config), gain, config)
        if not math.isfinite(loss):
            raise divergence(config, epoch, step - (epoch - 1) * steps + 1)
        loss_sum += loss * len(batch.labels)
        objective.report(len(batch.labels))
    if not all(np.isfinite(a).all() for a in (*model, *velocity)):
        raise divergence(config, epoch, steps)
    return Step(
        model, velocity, loss_sum / images, learning_rate((epoch - 1) * steps, epochs * steps, config)
    )


def shuffle(images: NDArray[np.generic], rows: NDArray[np.intp], epoch: int, seed: int) -> NDArray[np.intp]:
    """Return the rows in the random order of an epoch.

    It is drawn by ``default_rng((seed, epoch))``.

    If the images fit in memory, every order is equally likely. If not, random access would read a page of
    the disk for each image; then blocks of `SHUFFLE_BLOCK` bytes come in random order, and so do the rows of
    each block.
    """
    generator = np.random.default_rng((seed, epoch))
    if fits_in_memory(images):
        return rows[generator.permutation(len(rows))]
    size = max(1, SHUFFLE_BLOCK // images[0].nbytes)
    blocks = np.split(rows, range(size, len(rows), size))
    return np.concatenate([generator.permutation(blocks[i]) for i in generator.permutation(len(blocks))])


def fits_in_memory(images: NDArray[np.generic]) -> bool:
    """Return whether three quarters of the memory hold the images; True if its size is not known."""
    size = memory_size()
    return size is None or images.nbytes <= size * 3 // 4


def _move(
    model: Model, velocity: Model, gradient: Model, rate: float, gain: float, config: TrainConfig
) -> None:
    """Update the model and the velocity in place, and overwrite the gradient.

    This is the hot loop.
    """
    gradient.weights[...] *= rate * gain
    gradient.bias[...] *= rate
    for parameter, speed, change in zip(model, velocity, gradient, strict=True):
        speed *= config.momentum
        speed -= change
        parameter += speed
