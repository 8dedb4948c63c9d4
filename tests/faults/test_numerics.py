"""N6: the optimum that newton finds on small data agrees with those of two independent methods."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from softmax_cli.config import TrainConfig
from softmax_cli.data.dataset import Dataset
from softmax_cli.training import fit, has_converged
from tests.helpers import SOAK

Floats = NDArray[np.float64]

SUBSETS = ("300 images", "three classes", "two classes", "repeated images", "all")


def subset(sample: Dataset, kind: str) -> Dataset:
    rows = {
        "300 images": np.arange(300),
        "three classes": np.flatnonzero(sample.labels < 3),
        "two classes": np.flatnonzero(sample.labels < 2),
        "repeated images": np.tile(np.arange(200), 5),
        "all": np.arange(len(sample)),
    }[kind]
    labels = sample.labels[rows]
    names = sample.class_names[: int(labels.max()) + 1]
    return replace(sample, images=sample.images[rows], labels=labels, class_names=names)


class Reference:
    """The objective in float64, its gradient and the product of its Hessian with a direction."""

    def __init__(self, data: Dataset, l2: float):
        pixels = data.images.reshape(len(data), -1) / 255
        self.x = np.hstack([pixels, np.ones((len(data), 1))])
        self.labels, self.n = data.labels, len(data)
        self.shape = (self.x.shape[1], len(data.class_names))
        self.ridge = np.full((self.shape[0], 1), l2)
        self.ridge[-1] = 0

    def value(self, theta: Floats) -> tuple[float, Floats, Floats]:
        """Return the objective, its gradient, and the probabilities."""
        z = self.x @ theta
        z -= z.max(axis=1, keepdims=True)
        y = np.exp(z)
        sums = y.sum(axis=1, keepdims=True)
        y /= sums
        rows = np.arange(self.n)
        loss = float((np.log(sums[:, 0]) - z[rows, self.labels]).mean())
        error = y.copy()
        error[rows, self.labels] -= 1
        return (
            loss + float((self.ridge * theta**2).sum()) / 2,
            self.x.T @ error / self.n + self.ridge * theta,
            y,
        )

    def curve(self, y: Floats, direction: Floats) -> Floats:
        """Return the Hessian times a direction."""
        v = self.x @ direction
        v = y * (v - (y * v).sum(axis=1, keepdims=True))
        return self.x.T @ v / self.n + self.ridge * direction

    def minimum(self, theta: Floats) -> float:
        """Return the smallest value, by Newton's method with conjugate gradients."""
        for _ in range(50):
            value, gradient, y = self.value(theta)
            step, residual = np.zeros(self.shape), gradient.copy()
            direction, square = residual.copy(), float((residual**2).sum())
            if square < 1e-18:
                break
            first = square
            for _ in range(300):
                product = self.curve(y, direction)
                length = square / float((direction * product).sum())
                step += length * direction
                residual -= length * product
                before, square = square, float((residual**2).sum())
                if square < 1e-6 * first:
                    break
                direction = residual + square / before * direction
            while self.value(theta - step)[0] > value:
                step /= 2
            theta = theta - step
        return self.value(theta)[0]


@pytest.mark.parametrize("l2", [1e-2, 1e-4] if SOAK else [1e-2])
@pytest.mark.parametrize("kind", SUBSETS[:-1])
def test_n6_newton_is_within_a_millionth_of_the_optimum(kind: str, l2: float, sample: Dataset) -> None:
    """The reference starts where newton ends, so that it can only be lower."""
    data = subset(sample, kind)
    config = TrainConfig(dataset="sample", solver="newton", l2=l2, validation_size=0)
    *_, state = fit(config, data)
    reference = Reference(data, l2)
    found = np.vstack([state.model.weights, state.model.bias]).astype(np.float64)
    least = reference.minimum(found)
    assert reference.value(found)[0] <= least * (1 + 1e-6)
    assert has_converged(state, config)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # old scikit-learn calls new SciPy
@pytest.mark.parametrize("l2", [1e-2, 1e-3] if SOAK else [1e-2])
@pytest.mark.parametrize("kind", SUBSETS if SOAK else ["two classes", "three classes"])
def test_n6_scikit_learn_finds_the_same_optimum(kind: str, l2: float, sample: Dataset) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    data = subset(sample, kind)
    *_, state = fit(TrainConfig(dataset="sample", solver="newton", l2=l2, validation_size=0), data)
    reference = Reference(data, l2)
    pixels, is_binary = reference.x[:, :-1], len(data.class_names) == 2
    # with two classes it fits w = w1 - w0, whose penalty is twice that of w1 = w/2 and w0 = -w/2
    strength = l2 / 2 if is_binary else l2
    other = linear.LogisticRegression(C=1 / (strength * len(data)), tol=1e-8, max_iter=10_000)
    other.fit(pixels, data.labels)
    weights, bias = other.coef_.T, other.intercept_
    if is_binary:
        weights, bias = np.hstack([-weights, weights]) / 2, np.array([-bias[0], bias[0]]) / 2
    found = np.vstack([state.model.weights, state.model.bias]).astype(np.float64)
    theirs = reference.value(np.vstack([weights, bias]))[0]
    assert reference.value(found)[0] <= theirs * (1 + 1e-6)
    same = (reference.x @ found).argmax(axis=1) == (pixels @ weights + bias).argmax(axis=1)
    assert same.mean() >= 0.999
