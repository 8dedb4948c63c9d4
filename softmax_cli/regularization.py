"""Choose the strength of the L2 regularization by the validation loss, along a path of values.

The values are tried from large to small, so that models grow from simple to complex. Each starts from the
parameters of the one before (a warm start), which makes it much cheaper than a run of its own. The path ends
when the validation loss rises. Source: Friedman, Hastie & Tibshirani, Regularization paths for generalized
linear models via coordinate descent (2010), section 2.5.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from softmax_cli.cluster import Cluster
from softmax_cli.config import SOLVERS, TrainConfig
from softmax_cli.data.dataset import Dataset
from softmax_cli.features import fit_features
from softmax_cli.metrics import total
from softmax_cli.model import Model
from softmax_cli.solvers.objective import Objective, SolverStart, solver_module
from softmax_cli.training import TRAINING, VALIDATION, RowSplit, make_examples, score_part, split_rows

log = logging.getLogger(__name__)

VALUES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
"""The values of l2 that are tried, in this order."""

DISTANCE = 1e-3
"""Relative distance from the optimum at which a value's validation loss is close enough to be compared."""


class PathPoint(NamedTuple):
    """One value of a path, with the scores of its model on the validation images."""

    l2: float
    validation_loss: float
    validation_accuracy: float


def choose_l2(
    config: TrainConfig,
    data: Dataset,
    split: RowSplit | None = None,
    on_progress: Callable[[int], bool] = lambda images: False,
    cluster: Cluster | None = None,
) -> tuple[TrainConfig, tuple[PathPoint, ...]]:
    """Return the config with the l2 of lowest validation loss, and the path on which it was found.

    A solver that runs for a number of epochs runs this number for each value; one that converges needs only
    a few iterations. Arguments are those of `softmax_cli.training.fit`.
    """
    config = replace(config, l2=VALUES[0])
    features = fit_features(config, data.images, (split or split_rows(config, data))[0])
    examples = make_examples(config, features, split, data, cluster)
    objective = Objective.of(examples[TRAINING], 0.0, seed=config.seed, on_progress=on_progress)
    zeros = Model.zeros(objective.features.dimension, len(data.class_names))
    model, path = zeros, list[PathPoint]()
    for l2 in VALUES:
        # A solver without a schedule skips its warm-up if some iterations are done.
        epoch = 0 if SOLVERS[config.solver].uses_learning_rate or not path else 1
        start = SolverStart(model, zeros, epoch)
        model = _solve(replace(objective, l2=l2), replace(config, l2=l2), start)
        scores = total(scores for scores, _ in examples[VALIDATION].map_parts(score_part, (model, False)))
        path.append(PathPoint(l2, scores.loss, scores.accuracy))
        log.info("l2 %g: validation %.4f, accuracy %.2f %%", l2, scores.loss, 100 * scores.accuracy)
        if scores.loss > min(point.validation_loss for point in path):
            break
    best = min(path, key=lambda point: point.validation_loss)
    return replace(config, l2=best.l2), tuple(path)


def _solve(objective: Objective, config: TrainConfig, start: SolverStart) -> Model:
    """Return the parameters after all epochs, or near the optimum if the solver converges."""
    model = start.model
    for step in solver_module(config.solver).solve(objective, config, start):
        model = step.model
        if step.distance is not None and step.distance <= DISTANCE:
            break
    return model
