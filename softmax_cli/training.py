"""`fit`: the training loop, as an iterator of epochs. It prints nothing and writes nothing."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from softmax_cli import features
from softmax_cli.config import TrainConfig
from softmax_cli.data.dataset import Dataset
from softmax_cli.metrics import Scores, score, total
from softmax_cli.model import Model, evidence
from softmax_cli.solvers import sgd

BLOCK = 2048
"""Images that are turned into float32 at a time when a model is judged."""


class Epoch(NamedTuple):
    """What one epoch did: losses in nats without the l2 term, the learning rate of its first step."""

    epoch: int
    train_loss: float
    validation_loss: float | None
    validation_accuracy: float | None
    learning_rate: float


@dataclass(frozen=True)
class State:
    """Where training stands after `epoch` epochs.

    `model` is the one to use: the best on validation loss, or the last where nothing is held out. `last`
    and `velocity` are what the next epoch starts from. `stale` counts epochs since the best.
    """

    epoch: int
    model: Model
    last: Model
    velocity: Model
    best_epoch: int
    stale: int
    history: tuple[Epoch, ...]


def start(features: int, classes: int) -> State:
    """Return the state before the first epoch: all weights zero."""
    zeros = Model.zeros(features, classes)
    return State(0, zeros, zeros, zeros, best_epoch=0, stale=0, history=())


def is_complete(state: State, config: TrainConfig) -> bool:
    """Tell whether the run has had all of its epochs, or has run out of patience."""
    return state.epoch >= config.epochs or 0 < config.patience <= state.stale


def fit(
    config: TrainConfig,
    data: Dataset,
    split: tuple[NDArray[np.intp], NDArray[np.intp]],
    state: State,
    on_batch: Callable[[], bool] = lambda: False,
) -> Iterator[State]:
    """Train from `state` on; yield the state after each epoch until the run is complete.

    `split` are the indices of the images to learn from and, perhaps none, to validate on (`hold_out`).
    `on_batch` is called after each step; when it returns True, training stops at once and the
    unfinished epoch is forgotten. A run that starts from a yielded state continues as if it had never
    stopped, bit for bit. Raises `DivergenceError` at the first value that is not finite.
    """
    chosen, held = split
    while not is_complete(state, config):
        number = state.epoch + 1
        done = sgd.run_epoch(
            state.last, state.velocity, data.images, data.labels, chosen, number, config, on_batch
        )
        if done is None:
            return
        last, velocity, train_loss = done
        steps = sgd.steps_per_epoch(len(chosen), config)
        rate = sgd.learning_rate(state.epoch * steps, config.epochs * steps, config)
        scores = evaluate(last, data, held) if len(held) else None
        state = _advance(state, last, velocity, train_loss, scores, rate)
        yield state


def evaluate(model: Model, data: Dataset, indices: NDArray[np.intp]) -> Scores:
    """Score a model on ``data.images[indices]`` (at least one), a block of images at a time."""
    blocks = np.split(indices, range(BLOCK, len(indices), BLOCK))
    buffer = np.empty((len(blocks[0]), len(model.weights)), np.float32)
    return total(
        score(evidence(model, features.pixels(data.images[block], out=buffer)), data.labels[block])
        for block in blocks
    )


def _advance(
    state: State, last: Model, velocity: Model, train_loss: float, scores: Scores | None, rate: float
) -> State:
    """Return the next state: it keeps the best model so far, or the last where there are no scores."""
    losses = [epoch.validation_loss for epoch in state.history if epoch.validation_loss is not None]
    is_best = scores is None or scores.loss < min(losses, default=math.inf)
    number = state.epoch + 1
    record = Epoch(
        epoch=number,
        train_loss=train_loss,
        validation_loss=scores.loss if scores else None,
        validation_accuracy=scores.accuracy if scores else None,
        learning_rate=rate,
    )
    return State(
        epoch=number,
        model=last if is_best else state.model,
        last=last,
        velocity=velocity,
        best_epoch=number if is_best else state.best_epoch,
        stale=0 if is_best else state.stale + 1,
        history=(*state.history, record),
    )
