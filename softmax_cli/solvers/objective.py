"""The objective that solvers minimise, as sums over images.

With softmax regression on features φ(x) of n training images, sample weights s_i of mean 1 and the labels
t_i as one-hot rows:

    objective(W, b) = (1/n) Σ_i s_i · cross-entropy(φ(x_i)·W + b, t_i) + l2/2 · ‖W‖²

Division by n, the l2 term and the scale of the features are applied here and nowhere else.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from softmax_cli.backend import map_ordered, partition, sum_ordered
from softmax_cli.config import SOLVERS, TrainConfig
from softmax_cli.errors import DivergenceError
from softmax_cli.examples import Batch, Examples
from softmax_cli.features import feature_dtype, scaled, take
from softmax_cli.model import Floats, Model, evidence, loss_and_gradient, penalty, softmax


class Value(NamedTuple):
    """The objective with and without the l2 term, and its gradient."""

    objective: float
    cross_entropy: float
    gradient: Model


@dataclass(frozen=True)
class Sums:
    """Sums of the loss and of its gradient by unscaled features, over some images."""

    loss: float
    gradient: Model

    def __add__(self, other: "Sums") -> "Sums":
        weights, bias = (a + b for a, b in zip(self.gradient, other.gradient, strict=True))
        return Sums(self.loss + other.loss, Model(weights, bias))


class Stopped(Exception):
    """The caller asked the solver to stop."""


@dataclass(frozen=True)
class Objective(Examples):
    """The objective: mean loss over the images ``images[rows]``, plus the l2 term.

    Attributes:
        l2: Factor of the regularization, or a factor for each feature, (D, 1).
        seed: Seed of the displacements that are drawn anew in each epoch.
        on_progress: Called on the solver's thread with the number of images that were just processed; if
            it returns True, `Stopped` is raised.
    """

    l2: float | Floats
    seed: int = 0
    on_progress: Callable[[int], bool] = lambda images: False

    @classmethod
    def of(cls, examples: Examples, l2: float | Floats, **options: Any) -> "Objective":
        """Return the objective over some examples; `options` are its other fields."""
        given = {item.name: getattr(examples, item.name) for item in fields(Examples)}
        return cls(l2=l2, **given, **options)

    def report(self, images: int) -> None:
        """Report progress by a number of images.

        Raises:
            Stopped: The caller asks the solver to stop.
        """
        if self.on_progress(images):
            raise Stopped

    def batches(self, rows: NDArray[np.intp], size: int, epoch: int | None = None) -> Iterator[Batch]:
        """Yield batches of `size` of the rows, in order.

        Each batch is valid until the next one is requested.

        Features that take work are computed ahead, on all cores. In epoch e, random displacements of
        batch i are drawn from ``default_rng((seed, e, 2, i))``. Call `report` after each batch.
        """
        begins = range(0, len(rows), size)
        if self.features.stages or self.features.is_random:

            def compute(begin: int) -> Batch:
                return self._batch(rows[begin : begin + size], epoch, begin // size)

            yield from map_ordered(compute, begins)
            return
        # Pixels are only copied, which is faster into one buffer than on another thread.
        gathered = np.empty((min(size, len(rows)), *self.images.shape[1:]), self.images.dtype)
        buffer = np.empty((len(gathered), self.features.dimension), feature_dtype(self.images))
        for begin in begins:
            chosen = rows[begin : begin + size]
            x = self.features.transform(take(self.images, chosen, gathered), buffer)
            yield Batch(x, self.labels[chosen], self.weights_of(chosen))

    def _batch(self, rows: NDArray[np.intp], epoch: int | None, index: int) -> Batch:
        generator = None
        if epoch is not None and self.features.is_random:
            generator = np.random.default_rng((self.seed, epoch, 2, index))
        images = self.features.redraw(take(self.images, rows), generator)
        return Batch(self.features.transform(images), self.labels[rows], self.weights_of(rows))

    def batch_value(self, model: Model, batch: Batch) -> tuple[float, Model]:
        """Return the mean cross-entropy of a batch and the gradient of the objective."""
        inner = scaled(model, self.features)
        with np.errstate(over="ignore", invalid="ignore"):  # solvers check that the result is finite
            loss, gradient = loss_and_gradient(inner, batch.x, batch.labels, batch.weights)
        weights = gradient.weights
        weights *= weights.dtype.type(self.features.scale)
        weights += np.asarray(self.l2, weights.dtype) * model.weights
        return loss, gradient

    def full(self, model: Model) -> Value:
        """Return the objective and its gradient over all training images.

        This is one full pass on all cores.

        The sums over fixed parts of the rows are added in a fixed order.
        """
        inner = scaled(model, self.features)
        total: Sums = sum_ordered(self.map_parts(part_sums, inner), self._report_part)
        n, dtype = len(self), model.weights.dtype.type
        weights = total.gradient.weights * dtype(self.features.scale / n)
        weights += np.asarray(self.l2, weights.dtype) * model.weights
        loss = total.loss / n
        gradient = Model(weights, total.gradient.bias / dtype(n))
        return Value(loss + penalty(model, self.l2), loss, gradient)

    def _report_part(self, index: int) -> None:
        part = self.parts[index]
        self.report(part.stop - part.start)

    def probabilities(self, model: Model, rows: NDArray[np.intp]) -> Floats:
        """Return the class probabilities (n, K) for the images ``images[rows]``.

        They are computed on all cores.
        """
        inner = scaled(model, self.features)

        def compute(part: slice) -> Floats:
            return np.concatenate([softmax(evidence(inner, b.x)) for b in self.blocks(rows[part])])

        return np.concatenate(list(map_ordered(compute, partition(len(rows)))))

    def feature_rows(self, rows: NDArray[np.intp]) -> Floats:
        """Return the features (n, D) of ``images[rows]``, scale included, as a new array."""
        x = self._batch(rows, None, 0).x
        x = x if x.flags.writeable and x.base is None else x.copy()
        x *= x.dtype.type(self.features.scale)
        return x


def part_sums(examples: Examples, inner: Model, part: slice) -> Sums:
    """Return the sums of a part, for a model of unscaled features."""
    loss_sum, weights, bias = 0.0, np.zeros_like(inner.weights), np.zeros_like(inner.bias)
    for block in examples.blocks(examples.rows[part]):
        with np.errstate(over="ignore", invalid="ignore"):  # solvers check that the result is finite
            loss, gradient = loss_and_gradient(inner, block.x, block.labels, block.weights)
        n = len(block.labels)
        loss_sum += loss * n
        weights += n * gradient.weights
        bias += n * gradient.bias
    return Sums(loss_sum, Model(weights, bias))


class SolverStart(NamedTuple):
    """The start of a solver: parameters, velocity, and number of finished epochs."""

    model: Model
    velocity: Model
    epoch: int


class Step(NamedTuple):
    """The result of one epoch of a solver.

    Attributes:
        model: The parameters.
        velocity: What the solver needs to continue, such as the velocity of gradient descent, else
            that of its start.
        train_loss: Mean cross-entropy over the training images, without the l2 term, at the parameters of
            the step or, with mini-batches, at those before each batch.
        rate: Learning rate, or length of the step.
        gradient_norm: Norm of the gradient, if known.
        distance: Estimated distance of the loss from the optimum, relative to the loss, if known.
    """

    model: Model
    velocity: Model
    train_loss: float
    rate: float
    gradient_norm: float | None = None
    distance: float | None = None


class Solver(Protocol):
    """The interface of a solver's module."""

    def solve(self, objective: Objective, config: TrainConfig, start: SolverStart) -> Iterator[Step]:
        """Yield a step for each epoch from ``start.epoch + 1`` to ``config.epochs``.

        It returns if `Stopped` is raised (by ``objective.report``), and drops the unfinished epoch. Arguments
        and yielded values are never modified. A learning rate for the weights is multiplied by
        ``objective.features.gain``.

        Raises:
            DivergenceError: A loss or a parameter is not finite (see `divergence`).
        """

    def memory(self, features: int, classes: int) -> int:
        """Return the bytes of memory that the solver needs beside images and features."""


def solver_module(name: str) -> Solver:
    """Return the module of the solver of that name, in `softmax_cli.config.SOLVERS`."""
    return import_module(f"softmax_cli.solvers.{name}")


def divergence(config: TrainConfig, epoch: int, step: int | None = None) -> DivergenceError:
    """Return the error for a value that is not finite, with a remedy.

    Steps are counted from 1.
    """
    facts = SOLVERS[config.solver]
    where = f"{facts.unit} {epoch}" + (f", step {step}" if step else "")
    rate = f", with learning rate {config.learning_rate:g}" if facts.uses_learning_rate else ""
    return DivergenceError(f"training diverged in {where}{rate}: a value is not finite; {facts.remedy}")
