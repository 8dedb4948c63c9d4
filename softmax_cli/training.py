"""`fit`: the training loop, as an iterator of epochs. It prints nothing and writes nothing."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from softmax_cli.calibration import fit_temperature, tempered
from softmax_cli.config import TrainConfig
from softmax_cli.data.dataset import Dataset
from softmax_cli.errors import DivergenceError
from softmax_cli.features import FeatureMap, check_memory, dimension, draw, evidence_of, prepare, take
from softmax_cli.metrics import Scores, score, total
from softmax_cli.model import Floats, Labels, Model
from softmax_cli.solvers import newton, sgd
from softmax_cli.solvers.problem import Problem, Step

BLOCK = 2048
"""Images that are judged at a time, at most."""

BLOCK_VALUES = 2**24
"""Features, and pixels, that are judged at a time, at most."""

SOLVERS = {"sgd": sgd.solve, "newton": newton.solve}


class Epoch(NamedTuple):
    """What one epoch did: losses in nats without the l2 term, the learning rate of its first step.

    With newton an epoch is an iteration, its rate the length of the step, and the norm of the gradient
    and the estimated relative distance from the optimum are known.
    """

    epoch: int
    train_loss: float
    validation_loss: float | None
    validation_accuracy: float | None
    learning_rate: float
    gradient_norm: float | None = None
    distance: float | None = None


@dataclass(frozen=True)
class State:
    """Where training stands after `epoch` epochs.

    `model` is the one to use on `features`: the best on validation loss, or the last where nothing is held
    out, its weights divided by `temperature` already. `last` and `velocity` are what the next epoch starts
    from. `stale` counts epochs since the best.
    """

    features: FeatureMap
    epoch: int
    model: Model
    temperature: float
    last: Model
    velocity: Model
    best_epoch: int
    stale: int
    history: tuple[Epoch, ...]


def start(config: TrainConfig, data: Dataset) -> State:
    """Return the state before the first epoch: the features drawn, all weights zero.

    Raises `ConfigError` where features or solver would take more memory than they may for this data.
    """
    if config.solver == "newton":
        newton.check_memory(dimension(config, data.image_shape), len(data.class_names))
    features = draw(config, data.image_shape)
    check_memory(features, data.images, config.batch_size)
    zeros = Model.zeros(features.dimension, len(data.class_names))
    return State(features, 0, zeros, 1.0, zeros, zeros, best_epoch=0, stale=0, history=())


def has_converged(state: State) -> bool:
    """Tell whether newton has reached the optimum."""
    return bool(state.history) and newton.has_converged(state.history[-1].distance)


def is_complete(state: State, config: TrainConfig) -> bool:
    """Tell whether the run has had all of its epochs, has converged, or has run out of patience."""
    return state.epoch >= config.epochs or has_converged(state) or 0 < config.patience <= state.stale


def fit(
    config: TrainConfig,
    data: Dataset,
    split: tuple[NDArray[np.intp], NDArray[np.intp]],
    state: State,
    on_batch: Callable[[], bool] = lambda: False,
) -> Iterator[State]:
    """Train from `state` on; yield the state after each epoch until the run is complete.

    `split` are the indices of the images to learn from and, perhaps none, to validate on (`hold_out`).
    `on_batch` is called after each batch of work; when it returns True, training stops at once and the
    unfinished epoch is forgotten. A run of sgd that starts from a yielded state continues as if it had
    never stopped, bit for bit; one of newton reaches the same optimum. Raises `DivergenceError` at the
    first value that is not finite.
    """
    if is_complete(state, config):
        return
    chosen, held = split
    data = replace(data, images=prepare(state.features, data.images))
    features = state.features.prepared
    problem = Problem(features, data.images, data.labels, chosen, config, on_batch)
    for step in SOLVERS[config.solver](problem, state.last, state.velocity, state.epoch):
        scores, temperature = None, 1.0
        if len(held):
            scores, temperature = _validate(step.model, features, data, held, state.epoch + 1, config)
        state = _advance(state, step, scores, temperature, keep_best=config.solver == "sgd")
        yield state
        if is_complete(state, config):
            return


def _validate(
    model: Model,
    features: FeatureMap,
    data: Dataset,
    held: NDArray[np.intp],
    epoch: int,
    config: TrainConfig,
) -> tuple[Scores, float]:
    """Score a model on the images that were held out; return the best temperature, too, if it is wanted."""
    try:
        blocks = list(judge(model, features, data, held))
    except DivergenceError as error:
        last = sgd.steps_per_epoch(len(data) - len(held), config) - 1
        raise sgd.diverged(epoch, last, config) from error
    temperature = 1.0
    if config.calibrate:
        temperature = fit_temperature(np.concatenate([z for z, _ in blocks]), data.labels[held])
    return total(score(z, labels) for z, labels in blocks), temperature


def work_per_epoch(images: int, config: TrainConfig) -> int:
    """Return how often `on_batch` is called in an epoch (with newton, in most)."""
    return math.ceil(images / (config.batch_size if config.solver == "sgd" else newton.BLOCK))


def evaluate(state: State, data: Dataset, indices: NDArray[np.intp]) -> Scores:
    """Score the model of a state on ``data.images[indices]`` (at least one), a block of images at a time.

    Raises `DivergenceError` where its evidence is not finite.
    """
    blocks = judge(state.model, state.features, data, indices)
    return total(score(z, labels) for z, labels in blocks)


def judge(
    model: Model, features: FeatureMap, data: Dataset, indices: NDArray[np.intp]
) -> Iterator[tuple[Floats, Labels]]:
    """Yield the evidence (n, K) that a model finds in ``data.images[indices]``, and their labels (n,).

    The images come in their order, a block at a time. Raises `DivergenceError` where the evidence is not
    finite.
    """
    values = max(features.dimension, data.images[0].size)
    size = min(BLOCK, max(1, BLOCK_VALUES // values), len(indices))
    buffer = np.empty((size, features.dimension), np.float32)
    for begin in range(0, len(indices), size):
        rows = indices[begin : begin + size]
        images = prepare(features, take(data.images, rows))
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is noticed below
            z = evidence_of(model, features, images, buffer)
        if not np.isfinite(z).all():
            raise DivergenceError(
                "the model's weights are so large that its evidence is not finite; train it anew"
            )
        yield z, data.labels[rows]


def _advance(state: State, step: Step, scores: Scores | None, temperature: float, keep_best: bool) -> State:
    """Return the next state: it has the best model so far, or the last where no best is known or wanted."""
    losses = [epoch.validation_loss for epoch in state.history if epoch.validation_loss is not None]
    is_best = scores is None or not keep_best or scores.loss < min(losses, default=math.inf)
    number = state.epoch + 1
    record = Epoch(
        epoch=number,
        train_loss=step.train_loss,
        validation_loss=scores.loss if scores else None,
        validation_accuracy=scores.accuracy if scores else None,
        learning_rate=step.rate,
        gradient_norm=step.gradient_norm,
        distance=step.distance,
    )
    return State(
        features=state.features,
        epoch=number,
        model=tempered(step.model, temperature) if is_best else state.model,
        temperature=temperature if is_best else state.temperature,
        last=step.model,
        velocity=step.velocity,
        best_epoch=number if is_best else state.best_epoch,
        stale=0 if is_best else state.stale + 1,
        history=(*state.history, record),
    )
