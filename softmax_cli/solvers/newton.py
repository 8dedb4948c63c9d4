"""Sub-sampled Newton: to the optimum of the convex loss in a few passes over the images.

1. A little gradient descent comes near enough for the curvature to be that of the optimum.
2. For each class k, the block H_k = Xᵀ diag(y_k (1 − y_k)) X / n + l2·I of the Hessian (the bias joins
   as a last feature that is 1, without l2) is estimated from images drawn with probability proportional
   to y_k (1 − y_k), and factored, H_k = L Lᵀ. The inverses of the factors L are kept.
3. L-BFGS on all images, with these blocks as its initial inverse Hessian, restricted to parameters that
   sum to 0 over the classes, where the optimum is: what else couples the classes, and what the sample
   missed, it learns from its own steps. A step has length 1 unless the loss falls short
   of Armijo's condition; then it is halved.
4. The Newton decrement, gᵀH⁻¹g / 2, estimates how far the loss is above the optimum. When that is less
   than `TOLERANCE` times the loss, the run has converged.

Sources: Xu, Yang, Roosta-Khorasani, Ré & Mahoney, Sub-sampled Newton methods with non-uniform sampling
(2016); Pilanci & Wainwright, Newton sketch (2017); Nocedal & Wright, Numerical Optimization (2006),
algorithm 7.4 for the two loops of L-BFGS and 3.1 for the back-track.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from softmax_cli.errors import ConfigError, DivergenceError
from softmax_cli.features import scaled
from softmax_cli.model import Floats, Model, evidence, loss_and_gradient, penalty, softmax
from softmax_cli.parallel import cores, for_each
from softmax_cli.solvers import sgd
from softmax_cli.solvers.problem import Problem, Step

WARM_UP = 470
"""Steps of gradient descent at the start, at least: two epochs of MNIST."""

REFRESH = 15
"""Iterations after which the curvature is estimated anew; sooner where a step had to be shortened."""

SAMPLE = 4_000
"""Images from which the curvature of each class is estimated."""

POOL = 65_536
"""Images from which these are drawn."""

HISTORY = 10
"""Steps that L-BFGS remembers."""

BLOCK = 1024
"""Images in a batch of a full pass."""

TOLERANCE = 1e-5
"""Estimated distance from the optimum, relative to the loss, at which the run has converged."""

MEMORY_LIMIT = 2**31
"""Bytes that the factors may take, together with the copies that making them needs."""

COPIES = 5
"""Matrices as large as a block that making one factor takes: sample, block, triangle, inverse, products."""


class Point(NamedTuple):
    """A place on the surface: parameters (D + 1, K), the bias last; loss with and without l2; gradient."""

    parameters: Floats
    objective: float
    cross_entropy: float
    gradient: Floats


class Pair(NamedTuple):
    """A step s of the parameters, what it did to the gradient, and 1 / s·y."""

    step: Floats
    change: Floats
    inverse_product: float


class _Stopped(Exception):
    """`on_batch` asked to stop."""


def solve(problem: Problem, model: Model, velocity: Model, done: int) -> Iterator[Step]:
    """Yield a step for each iteration until the optimum is reached or ``config.epochs`` are done.

    The loss never rises. A run that goes on after `done` iterations starts from `model` without a
    warm-up, and reaches the same optimum. Raises `ConfigError`, before any work, where the blocks would
    take more memory than `MEMORY_LIMIT`.
    """
    check_memory(problem.feature_map.dimension, model.weights.shape[1])
    try:
        point = _look(problem, _join(model))
        if not done:
            point = _warm_up(problem, model, point)
        pairs: list[Pair] = []
        length, age = 0.0, 0
        for iteration in range(done + 1, problem.config.epochs + 1):
            if length < 1 or age == REFRESH:
                factors, pairs, age = _inverse_factors(problem, point.parameters, iteration), [], 0
                direction = _direction(point.gradient, factors, pairs)
            reached, length = _search(problem, point, direction)
            stuck = not length and not age  # not even new curvature helps: float32 has no more to give
            pairs = _remember(pairs, point, reached)
            point, age = reached, age + 1
            direction = _direction(point.gradient, factors, pairs)
            decrement = float(np.vdot(point.gradient, direction)) / 2
            yield Step(
                model=_split(point.parameters),
                velocity=velocity,
                train_loss=point.cross_entropy,
                rate=length,
                gradient_norm=float(np.linalg.norm(point.gradient)),
                distance=decrement / max(point.objective, 1e-30),
            )
            if stuck:
                return
    except _Stopped:
        return


def has_converged(distance: float | None) -> bool:
    """Tell whether a step's estimated distance is within the tolerance."""
    return distance is not None and distance <= TOLERANCE


def check_memory(features: int, classes: int) -> None:
    """Raise `ConfigError` where K factors and `COPIES`, of (D + 1)²·4 bytes each, exceed `MEMORY_LIMIT`."""
    needed = (classes + COPIES) * (features + 1) ** 2 * 4
    if needed > MEMORY_LIMIT:
        raise ConfigError(
            f"solver newton would need {needed / 2**20:,.0f} MiB for the curvature of {classes} classes and "
            f"{features:,} features, and may take {MEMORY_LIMIT / 2**20:,.0f}; use solver sgd"
        )


def _join(model: Model) -> Floats:
    """Return the parameters (D + 1, K), bias last, centred: which changes no probability."""
    return _centred(np.vstack([model.weights, model.bias]))


def _centred(parameters: Floats) -> Floats:
    """Return the part of parameters (D + 1, K) that sums to 0 over the classes.

    The softmax does not notice when all classes gain the same, so that the optimum lies there. The blocks
    do not know it, and would spend their steps on what makes no difference.
    """
    centred: Floats = parameters - parameters.mean(axis=1, keepdims=True)
    return centred


def _split(parameters: Floats) -> Model:
    return Model(parameters[:-1].copy(), parameters[-1].copy())


def _look(problem: Problem, parameters: Floats) -> Point:
    """Return the loss and gradient over all images: one full pass."""
    model = Model(parameters[:-1], parameters[-1])
    inner, l2 = scaled(model, problem.feature_map), problem.config.l2
    total, loss_sum = np.zeros_like(parameters), 0.0
    for x, labels in problem.batches(problem.indices, BLOCK):
        loss, gradient = loss_and_gradient(inner, x, labels)
        loss_sum += loss * len(labels)
        total[:-1] += len(labels) * gradient.weights
        total[-1] += len(labels) * gradient.bias
        if problem.on_batch():
            raise _Stopped
    total /= len(problem.indices)
    total[:-1] *= problem.feature_map.scale
    total[:-1] += l2 * model.weights
    loss = loss_sum / len(problem.indices)
    return Point(parameters, loss + penalty(model, l2), loss, total)


def _warm_up(problem: Problem, model: Model, start: Point) -> Point:
    """Return where a little gradient descent comes, or the start if that is not lower."""
    velocity = Model.zeros(*model.weights.shape)
    epochs = math.ceil(WARM_UP / sgd.steps_per_epoch(len(problem.indices), problem.config))
    for epoch in range(1, epochs + 1):
        try:
            reached = sgd.run_epoch(problem, model, velocity, epoch, epochs)
        except DivergenceError:
            return start
        if reached is None:
            raise _Stopped
        model, velocity = reached.model, reached.velocity
    point = _look(problem, _join(model))
    return point if point.objective < start.objective else start


def _inverse_factors(problem: Problem, parameters: Floats, iteration: int) -> Floats:
    """Return L_k⁻¹ for the Cholesky factor of each class's block of the Hessian, shape (K, D + 1, D + 1).

    The classes share out the cores, as many as there is memory for.
    """
    pool = problem.indices[:: -(-len(problem.indices) // POOL)]
    curvature = _curvature(problem, parameters, pool)
    size, classes = parameters.shape
    factors = np.empty((classes, size, size), parameters.dtype)

    def factor(k: int) -> None:
        generator = np.random.default_rng((problem.config.seed, iteration, k))
        block = _block(problem, pool, curvature[:, k], generator)
        factors[k] = _invert_triangular(_cholesky(block))

    room = (MEMORY_LIMIT // factors[0].nbytes - classes) // COPIES
    for_each(factor, range(classes), min(cores(), max(1, room)))
    if problem.on_batch():
        raise _Stopped
    return factors


def _curvature(problem: Problem, parameters: Floats, pool: NDArray[np.intp]) -> Floats:
    """Return y_k (1 − y_k) for the images of the pool, shape (n, K)."""
    inner = scaled(Model(parameters[:-1], parameters[-1]), problem.feature_map)
    y = np.concatenate([softmax(evidence(inner, x)) for x, _ in problem.batches(pool, BLOCK)])
    curvature: Floats = y * (1 - y)
    return curvature


def _block(
    problem: Problem, pool: NDArray[np.intp], curvature: Floats, generator: "np.random.Generator"
) -> Floats:
    """Estimate H_k from `SAMPLE` images of the pool, drawn with probability proportional to `curvature`.

    The draw is systematic: evenly spaced along the sum of the curvatures, from one random start. Each
    image then counts the same, the mean curvature. Where there are few images, all of them are taken.
    """
    mean, count = float(curvature.mean()), min(SAMPLE, len(pool))
    heap = np.cumsum(curvature, dtype=np.float64)
    spots = (np.arange(count) + generator.random()) * (heap[-1] / count)
    drawn = pool[np.minimum(np.searchsorted(heap, spots), len(pool) - 1)]
    ((x, _),) = problem.batches(drawn, count)
    root = np.sqrt(mean / count)
    x *= x.dtype.type(root * problem.feature_map.scale)
    size = x.shape[1]
    block = np.empty((size + 1, size + 1), x.dtype)
    np.matmul(x.T, x, out=block[:-1, :-1])
    block[-1, :-1] = block[:-1, -1] = root * x.sum(axis=0)
    block[-1, -1] = mean
    ridge = np.full(size + 1, problem.config.l2, np.float64)
    ridge[-1] = 0
    ridge += 1e-6 * float(np.trace(block)) / size + 1e-12  # float32 needs some, where l2 is small or 0
    block[np.diag_indices(size + 1)] += ridge.astype(x.dtype)
    return block


def _cholesky(block: Floats) -> Floats:
    """Return the Cholesky factor of a block, with as much ridge as float32 needs to find one."""
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
    """Return L⁻¹ of a lower triangle: [[A, 0], [B, C]]⁻¹ = [[A⁻¹, 0], [−C⁻¹ B A⁻¹, C⁻¹]], by halves.

    A general inverse would take eight times the work.
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
    """Return the inverse Hessian, as L-BFGS knows it, times the gradient: where to go down from."""
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


def _search(problem: Problem, point: Point, direction: Floats) -> tuple[Point, float]:
    """Return the first point with a sufficient decrease among the lengths 1, 1/2, 1/4, ..., and its length.

    Where there is none, float32 has no more to give: the point itself, and 0.
    """
    slope = float(np.vdot(point.gradient, direction))
    length = 1.0
    while length > 1e-3:
        reached = _look(problem, point.parameters - length * direction)
        if reached.objective <= point.objective - 1e-4 * length * slope:
            return reached, length
        length /= 2
    return point, 0.0


def _remember(pairs: list[Pair], before: Point, after: Point) -> list[Pair]:
    """Return the history with the newest step, if it has positive curvature, and without the oldest."""
    step, change = after.parameters - before.parameters, after.gradient - before.gradient
    product = float(np.vdot(step, change))
    if product <= 0:
        return pairs
    return [*pairs[-HISTORY + 1 :], Pair(step, change, 1 / product)]
