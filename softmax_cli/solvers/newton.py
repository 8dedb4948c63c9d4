"""Sub-sampled Newton: reaches the optimum in a few passes over the images.

1. A few steps of gradient descent come close enough for the curvature to resemble that of the optimum.
2. For each class k, the block H_k = Xᵀ diag(y_k (1 − y_k)) X / n + l2·I of the Hessian (with the bias as a
   last feature that is 1, not regularized) is estimated from images drawn with probability proportional to
   y_k (1 − y_k), and factored, H_k = L Lᵀ. The inverses of the factors L are kept.
3. L-BFGS on all images, with these blocks as its initial inverse Hessian, restricted to parameters that
   sum to 0 over the classes, where the optimum lies. The coupling between classes and the error of the
   sample are corrected by the L-BFGS updates. A step has length 1, and is halved until the loss satisfies
   Armijo's condition.
4. The Newton decrement, gᵀH⁻¹g / 2, estimates how far the loss is above the optimum. If it is less than the
   tolerance times the loss, the run has converged. With few images, the last iteration then makes more steps,
   to a small fraction of the tolerance.

Sources: Xu, Yang, Roosta-Khorasani, Ré & Mahoney, Sub-sampled Newton methods with non-uniform sampling
(2016); Pilanci & Wainwright, Newton sketch (2017); Nocedal & Wright, Numerical Optimization (2006),
algorithm 7.4 for the two loops of L-BFGS and 3.1 for the backtracking line search.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from softmax_cli.backend import cores, for_each
from softmax_cli.config import SOLVERS, TrainConfig
from softmax_cli.errors import DivergenceError
from softmax_cli.model import Floats, Model
from softmax_cli.solvers import sgd
from softmax_cli.solvers.objective import Objective, SolverStart, Step, Stopped, divergence

WARM_UP = 470
"""Smallest number of steps of gradient descent at the start: two epochs of MNIST."""

WARM_UP_IMAGES = 2**23
"""Largest number of images that these steps read. A smaller one costs more iterations than it saves."""

REFRESH = 15
"""Number of iterations after which the curvature is estimated again, or sooner after a shortened step."""

SAMPLE = 4_000
"""Number of images from which the curvature of each class is estimated."""

POOL = 65_536
"""Number of images from which these are drawn."""

HISTORY = 10
"""Number of steps in the history of L-BFGS."""

MEMORY_TARGET = 2**31
"""Bytes that factors and work space may take while the factors are computed on several cores."""

SMALL = 20_000
"""Number of images up to which the last iteration continues beyond the tolerance."""

POLISHED = 0.03
"""Fraction of the tolerance at which it ends."""

POLISHING = 30
"""Largest number of steps by which it continues."""

COPIES = 5
"""Matrices of a block's size that computing one factor takes: sample, block, triangle, inverse, products."""


class Point(NamedTuple):
    """Parameters (D + 1, K), bias last, with objective, cross-entropy and gradient."""

    parameters: Floats
    objective: float
    cross_entropy: float
    gradient: Floats


class Pair(NamedTuple):
    """A step s of the parameters, the change y of the gradient, and 1 / s·y."""

    step: Floats
    change: Floats
    inverse_product: float


class Reached(NamedTuple):
    """The result of a step.

    Attributes:
        point: Where it leads.
        length: Its length, as a fraction of the full step.
        distance: Estimated distance from the optimum, relative to the loss.
        is_limited: Float32 permits no further progress.
    """

    point: Point
    length: float
    distance: float
    is_limited: bool


def memory(features: int, classes: int) -> int:
    """Return the bytes that the factors and the work space take.

    There are K factors and `COPIES` matrices, of (D + 1)²·4 bytes each.
    """
    return (classes + COPIES) * (features + 1) ** 2 * 4


def solve(objective: Objective, config: TrainConfig, start: SolverStart) -> Iterator[Step]:
    """Yield a step for each iteration.

    It ends after ``config.epochs`` iterations, or when float32 precision limits the progress.

    The loss never rises. A run that continues after some iterations starts without a warm-up, and reaches
    the same optimum.
    """
    try:
        yield from _iterate(objective, config, start)
    except Stopped:
        return


def _iterate(objective: Objective, config: TrainConfig, start: SolverStart) -> Iterator[Step]:
    tolerance = SOLVERS[config.solver].tolerance or 0.0
    steps = _descend(objective, config, start)
    for iteration in range(start.epoch + 1, config.epochs + 1):
        reached = next(steps)
        if len(objective) <= SMALL:
            reached = _polish(reached, steps, tolerance)
        point = reached.point
        if not (math.isfinite(point.objective) and math.isfinite(reached.distance)):
            raise divergence(config, iteration)
        yield Step(
            model=_split(point.parameters),
            velocity=start.velocity,
            train_loss=point.cross_entropy,
            rate=reached.length,
            gradient_norm=float(np.linalg.norm(point.gradient)),
            distance=reached.distance,
        )
        if reached.is_limited:
            return


def _polish(reached: Reached, steps: Iterator[Reached], tolerance: float) -> Reached:
    """Return the result of more steps if one has converged, which cost little for few images."""
    for _ in range(POLISHING):
        if reached.is_limited or not POLISHED * tolerance < reached.distance <= tolerance:
            break
        reached = next(steps)
    return reached


def _descend(objective: Objective, config: TrainConfig, start: SolverStart) -> Iterator[Reached]:
    """Yield what each step of L-BFGS reaches, without end."""
    if start.epoch:
        point = evaluate_objective(objective, _join(start.model))
    else:
        point = _warm_up(objective, config, start.model)
    pairs: list[Pair] = []
    length, age = 0.0, 0
    for number in count(start.epoch + 1):
        if length < 1 or age == REFRESH:
            factors, pairs, age = _inverse_factors(objective, point.parameters, number), [], 0
            direction = _direction(point.gradient, factors, pairs)
        reached, length = _search(objective, point, direction)
        is_limited = not length and not age  # new curvature did not help either
        pairs = _remember(pairs, point, reached)
        point, age = reached, age + 1
        direction = _direction(point.gradient, factors, pairs)
        decrement = float(np.vdot(point.gradient, direction)) / 2
        yield Reached(point, length, decrement / max(point.objective, 1e-30), is_limited)


def evaluate_objective(objective: Objective, parameters: Floats) -> Point:
    """Return the objective and its gradient at parameters (D + 1, K): one full pass."""
    value = objective.full(Model(parameters[:-1], parameters[-1]))
    return Point(parameters, value.objective, value.cross_entropy, np.vstack(value.gradient))


def _join(model: Model) -> Floats:
    """Return the parameters (D + 1, K), bias last, centred."""
    return _centred(np.vstack([model.weights, model.bias]))


def _centred(parameters: Floats) -> Floats:
    """Return the part of parameters (D + 1, K) that sums to 0 over the classes.

    Adding the same column to all classes changes no probability, so that the optimum with the smallest
    norm lies there. The blocks do not represent this, and would move along directions without effect.
    """
    centred: Floats = parameters - parameters.mean(axis=1, keepdims=True)
    return centred


def _split(parameters: Floats) -> Model:
    return Model(parameters[:-1].copy(), parameters[-1].copy())


def _warm_up(objective: Objective, config: TrainConfig, start: Model) -> Point:
    """Return the point after a few steps of gradient descent from parameters 0.

    They read at most `WARM_UP_IMAGES`, evenly spaced. If the point is no better, the start is returned.
    """
    some = replace(objective, rows=objective.rows[:: -(-len(objective) // WARM_UP_IMAGES)])
    model, velocity = start, Model.zeros(*start.weights.shape, start.weights.dtype)  # type: ignore[call-arg]
    epochs = math.ceil(WARM_UP / sgd.steps_per_epoch(len(some), config))
    try:
        for epoch in range(1, epochs + 1):
            step = sgd.run_epoch(some, config, model, velocity, epoch, epochs)
            model, velocity = step.model, step.velocity
    except DivergenceError:
        return evaluate_objective(objective, _join(start))
    point = evaluate_objective(objective, _join(model))
    at_start = math.log(start.bias.size)  # uniform probabilities
    return point if point.objective < at_start else evaluate_objective(objective, _join(start))


def _inverse_factors(objective: Objective, parameters: Floats, iteration: int) -> Floats:
    """Return the inverse Cholesky factors L_k⁻¹ of the blocks, (K, D + 1, D + 1).

    The classes are computed on several cores, as far as the memory allows.
    """
    pool = objective.rows[:: -(-len(objective) // POOL)]
    curvature = _curvature(objective, parameters, pool)
    size, classes = parameters.shape
    factors = np.empty((classes, size, size), parameters.dtype)

    def factor(k: int) -> None:
        generator = np.random.default_rng((objective.seed, iteration, k))
        factors[k] = _inverse_factor(objective, pool, curvature[:, k], generator)

    room = (MEMORY_TARGET // factors[0].nbytes - classes) // COPIES
    for_each(factor, range(classes), min(cores(), max(1, room)))
    objective.report(0)
    return factors


def _curvature(objective: Objective, parameters: Floats, pool: NDArray[np.intp]) -> Floats:
    """Return y_k (1 − y_k) for the images of the pool, (n, K).

    The values are multiplied by the sample weights.
    """
    y = objective.probabilities(Model(parameters[:-1], parameters[-1]), pool)
    curvature: Floats = y * (1 - y)
    if objective.sample_weights is not None:
        curvature *= objective.sample_weights[pool, None]
    return curvature


def _inverse_factor(
    objective: Objective, pool: NDArray[np.intp], curvature: Floats, generator: "np.random.Generator"
) -> Floats:
    """Return L_k⁻¹ for one class, (D + 1, D + 1), from `SAMPLE` images of the pool.

    Features that are 0 in all of them, such as the pixels of a border, have only the ridge on the diagonal;
    the others form a block that is the smaller for it.
    """
    drawn = _draw(pool, curvature, generator)
    x, used = _used_features(objective.feature_rows(drawn))
    x *= np.sqrt(curvature.mean() / len(x)).astype(x.dtype)
    block = x.T @ x
    size = objective.features.dimension
    ridge = np.zeros(size + 1)
    ridge[:-1] = np.ravel(objective.l2)
    ridge += 1e-6 * float(np.trace(block)) / size + 1e-12  # for float32, if l2 is small or 0
    block[np.diag_indices(len(block))] += ridge[used].astype(x.dtype)
    inverse: Floats = np.diag((1 / np.sqrt(ridge)).astype(x.dtype))
    inverse[np.ix_(used, used)] = _invert_triangular(_cholesky(block))
    return inverse


def _draw(pool: NDArray[np.intp], curvature: Floats, generator: "np.random.Generator") -> NDArray[np.intp]:
    """Return images of the pool, drawn with probability proportional to `curvature`, perhaps repeatedly.

    The draw is systematic: evenly spaced along the cumulative sum of the curvatures, with one random start.
    Each image then has the same weight, the mean curvature.
    """
    count = min(SAMPLE, len(pool))
    cumulative = np.cumsum(curvature, dtype=np.float64)
    spots = (np.arange(count) + generator.random()) * (cumulative[-1] / count)
    drawn: NDArray[np.intp] = pool[np.minimum(np.searchsorted(cumulative, spots), len(pool) - 1)]
    return drawn


def _used_features(x: Floats) -> tuple[Floats, NDArray[np.intp]]:
    """Return the columns of x (n, D) that are not all 0, and their indices.

    The last column is 1, for the bias.
    """
    used = np.flatnonzero(x.any(axis=0))
    columns: Floats = x.take(np.append(used, 0), axis=1)
    columns[:, -1] = 1
    return columns, np.append(used, x.shape[1])


def _cholesky(block: Floats) -> Floats:
    """Return the Cholesky factor of a block.

    The diagonal is increased until the block is positive definite in float32.
    """
    mean = float(np.trace(block)) / len(block)
    for power in range(-6, 2):
        try:
            factor: Floats = np.linalg.cholesky(block)
        except np.linalg.LinAlgError:
            block[np.diag_indices(len(block))] += 10.0**power * mean
        else:
            return factor
    identity: Floats = np.eye(len(block), dtype=block.dtype)
    return identity


def _invert_triangular(lower: Floats) -> Floats:
    """Return the inverse L⁻¹ of a lower triangular matrix, recursively.

    The recursion is [[A, 0], [B, C]]⁻¹ = [[A⁻¹, 0], [−C⁻¹ B A⁻¹, C⁻¹]]. A general inverse would take eight
    times the work.
    """
    size = len(lower)
    if size <= 64:
        return np.tril(np.linalg.inv(lower))
    half = size // 2
    upper_left, lower_right = _invert_triangular(lower[:half, :half]), _invert_triangular(lower[half:, half:])
    inverse = np.zeros_like(lower)
    inverse[:half, :half] = upper_left
    inverse[half:, half:] = lower_right
    inverse[half:, :half] = -lower_right @ (lower[half:, :half] @ upper_left)
    return inverse


def _direction(gradient: Floats, factors: Floats, pairs: list[Pair]) -> Floats:
    """Return the inverse Hessian, approximated by L-BFGS, times the gradient."""
    direction = gradient.copy()
    shares = []
    for pair in reversed(pairs):
        share = pair.inverse_product * float(np.vdot(pair.step, direction))
        direction -= share * pair.change
        shares.append(share)
    columns = _centred(direction).T[:, :, None]  # (K, D + 1, 1)
    columns = factors.transpose(0, 2, 1) @ (factors @ columns)
    direction = _centred(columns[:, :, 0].T)
    for pair, share in zip(pairs, reversed(shares), strict=True):
        direction += (share - pair.inverse_product * float(np.vdot(pair.change, direction))) * pair.step
    return direction


def _search(objective: Objective, point: Point, direction: Floats) -> tuple[Point, float]:
    """Return the point found by backtracking, and the length of the step.

    It is the first of the lengths 1, 1/2, 1/4, ... with a sufficient decrease. If there is none, the progress
    is limited by float32 precision: the result is the point itself, and 0.
    """
    slope = float(np.vdot(point.gradient, direction))
    length = 1.0
    while length > 1e-3:
        reached = evaluate_objective(objective, point.parameters - length * direction)
        if reached.objective <= point.objective - 1e-4 * length * slope:
            return reached, length
        length /= 2
    return point, 0.0


def _remember(pairs: list[Pair], before: Point, after: Point) -> list[Pair]:
    """Return the history with the newest step and without the oldest.

    A step without positive curvature is not added.
    """
    step, change = after.parameters - before.parameters, after.gradient - before.gradient
    product = float(np.vdot(step, change))
    if product <= 0:
        return pairs
    return [*pairs[-HISTORY + 1 :], Pair(step, change, 1 / product)]
