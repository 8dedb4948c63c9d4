"""`fit`: the training loop, as an iterator of epochs without output."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from softmax_cli.calibration import fit_temperature, tempered
from softmax_cli.cluster import Cluster
from softmax_cli.config import SOLVERS, TrainConfig
from softmax_cli.data.dataset import Dataset, hold_out
from softmax_cli.errors import ConfigError, DivergenceError
from softmax_cli.examples import Examples
from softmax_cli.features import FeatureMap, fit_features, precompute
from softmax_cli.metrics import Scores, score, total
from softmax_cli.model import Floats, Model
from softmax_cli.solvers.objective import Objective, SolverStart, Step, divergence, solver_module

RowSplit = tuple[NDArray[np.intp], NDArray[np.intp]]

TRAINING, VALIDATION = "training", "validation"
"""The names of the examples of a run (see `prepare_examples`)."""

SOLVER_MEMORY = 2**31
"""Largest memory of a solver in bytes, without images and features."""


class Epoch(NamedTuple):
    """The record of one epoch; losses are in nats, without the l2 term.

    With newton an epoch is an iteration and `learning_rate` the length of its step; the norm of the gradient
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
    """The state of training after `epoch` epochs.

    Attributes:
        features: The feature map.
        epoch: Number of epochs that are done.
        model: The model to use on `features`: that of the best epoch by validation loss if the solver keeps
            the best and there are validation images, else the last one. Its parameters are divided by
            `temperature` already.
        temperature: Temperature of the calibration; 1 without calibration.
        last: Parameters from which the next epoch starts.
        velocity: Velocity from which the next epoch starts.
        best_epoch: Epoch of `model`.
        stale: Number of epochs since the best one.
        history: One record per epoch.
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


def start(config: TrainConfig, data: Dataset, split: RowSplit | None = None) -> State:
    """Return the state before the first epoch: fitted features, zero parameters.

    `split` is that of `fit`.

    Raises:
        ConfigError: Features or solver would take too much memory for this data set, or a part of the
            validation split would be empty.
    """
    if config.chooses_l2:
        raise ConfigError("l2 auto is not a number yet; call softmax_cli.regularization.choose_l2 first")
    rows, _ = split or split_rows(config, data)
    features = fit_features(config, data.images, rows)
    _check_solver_memory(config, features.dimension, len(data.class_names))
    zeros = Model.zeros(features.dimension, len(data.class_names))
    return State(features, 0, zeros, 1.0, zeros, zeros, best_epoch=0, stale=0, history=())


def split_rows(config: TrainConfig, data: Dataset) -> RowSplit:
    """Return the indices of the training images and of the validation images.

    There may be no validation images.
    """
    return hold_out(data.labels, config.validation_size, config.seed)


def _check_solver_memory(config: TrainConfig, features: int, classes: int) -> None:
    needed = solver_module(config.solver).memory(features, classes)
    if needed > SOLVER_MEMORY:
        raise ConfigError(
            f"solver {config.solver} would need {needed / 2**20:,.0f} MiB for {classes} classes and "
            f"{features:,} features; the limit is {SOLVER_MEMORY / 2**20:,.0f} MiB; use solver sgd"
        )


def has_converged(state: State, config: TrainConfig) -> bool:
    """Return whether the solver has converged, by its own estimate."""
    tolerance = SOLVERS[config.solver].tolerance
    distance = state.history[-1].distance if state.history else None
    return tolerance is not None and distance is not None and distance <= tolerance


def is_complete(state: State, config: TrainConfig) -> bool:
    """Return whether a run is complete.

    All epochs are done, the solver has converged, or the patience is exhausted.
    """
    return state.epoch >= config.epochs or has_converged(state, config) or 0 < config.patience <= state.stale


def fit(
    config: TrainConfig,
    data: Dataset,
    state: State | None = None,
    on_progress: Callable[[int], bool] = lambda images: False,
    split: RowSplit | None = None,
    cluster: Cluster | None = None,
) -> Iterator[State]:
    """Train; yield the state after each epoch until the run is complete.

    Args:
        config: The configuration of the run.
        data: The training split of a data set.
        state: State to continue from; by default, a new one (see `start`). A run of sgd that continues from
            a yielded state gives the same bytes as a run without interruption; one of newton reaches the
            same optimum.
        on_progress: Called with the number of images that were just processed. If it returns True, training
            stops at once and the unfinished epoch is dropped.
        split: Indices of the images to train on, and of those to validate on, perhaps none; by default,
            those that the config draws (see `split_rows`).
        cluster: Machines for the passes over all images, which read the same data themselves. The result
            does not depend on it.

    Raises:
        DivergenceError: A value is not finite.
        ConfigError: The solver cannot use a cluster.
        ClusterError: The cluster cannot be used.
    """
    state = state or start(config, data, split)
    if is_complete(state, config):
        return
    examples = make_examples(config, state.features, split, data, cluster)
    objective = Objective.of(examples[TRAINING], config.l2, seed=config.seed, on_progress=on_progress)
    validation = examples[VALIDATION]
    progress = SolverStart(state.last, state.velocity, state.epoch)
    for step in solver_module(config.solver).solve(objective, config, progress):
        scores, temperature = None, 1.0
        if len(validation):
            scores, temperature = _validate(step.model, validation, state.epoch + 1, config)
        state = _advance(state, step, scores, temperature, SOLVERS[config.solver].keeps_best)
        yield state
        if is_complete(state, config) or on_progress(0):
            return


def make_examples(
    config: TrainConfig, features: FeatureMap, split: RowSplit | None, data: Dataset, cluster: Cluster | None
) -> dict[str, Examples]:
    """Return the examples of a run (see `prepare_examples`), on a cluster if there is one."""
    build = partial(prepare_examples, config, features, split)
    if cluster is None:
        return build(data)
    check_cluster_suits(config)
    return cluster.share(data, build)


def check_cluster_suits(config: TrainConfig) -> None:
    """Raise `ConfigError` if the solver of a config cannot use a cluster."""
    if not SOLVERS[config.solver].uses_full_passes:
        able = ", ".join(name for name, facts in SOLVERS.items() if facts.uses_full_passes)
        raise ConfigError(
            f"solver {config.solver} makes a step for each {config.batch_size} images, which takes less time "
            f"than a message to another machine; leave out --cluster, or use --solver {able}"
        )


def prepare_examples(
    config: TrainConfig, features: FeatureMap, split: RowSplit | None, data: Dataset
) -> dict[str, Examples]:
    """Return the examples to train on and those to validate on, with what is the same in every epoch.

    `split` is that of `fit`.
    """
    rows, validation = split or split_rows(config, data)
    images, features = precompute(features, data.images)
    training = Examples(features, images, data.labels, rows)
    return {TRAINING: training, VALIDATION: replace(training, rows=validation)}


def _validate(model: Model, examples: Examples, epoch: int, config: TrainConfig) -> tuple[Scores, float]:
    """Return the scores on the validation images and the calibration temperature."""
    try:
        parts = list(examples.map_parts(score_part, (model, config.calibrate)))
    except DivergenceError as error:
        raise divergence(config, epoch) from error
    temperature = 1.0
    if config.calibrate:
        evidence = np.concatenate([z for _, blocks in parts for z in blocks])
        temperature = fit_temperature(evidence, examples.labels[examples.rows])
    return total(scores for scores, _ in parts), temperature


def score_part(examples: Examples, question: tuple[Model, bool], part: slice) -> tuple[Scores, list[Floats]]:
    """Return the scores of a model on a part and, if the question asks for it, the evidence in blocks."""
    model, keeps_evidence = question
    scores, evidence = list[Scores](), list[Floats]()
    for z, labels in examples.evidence_blocks(model, part):
        scores.append(score(z, labels))
        evidence += [z] * keeps_evidence
    return total(scores), evidence


def _advance(state: State, step: Step, scores: Scores | None, temperature: float, keeps_best: bool) -> State:
    """Return the next state.

    Its model is the best one so far; without validation images, or if `keeps_best` is False, the last one.
    """
    losses = [epoch.validation_loss for epoch in state.history if epoch.validation_loss is not None]
    is_best = scores is None or not keeps_best or scores.loss < min(losses, default=math.inf)
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
