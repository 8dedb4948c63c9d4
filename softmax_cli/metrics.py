"""Scores: accuracy, loss, Brier score, calibration, confusions, scores per class."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from softmax_cli.model import Floats, Labels, log_softmax

BINS = 15
"""Number of equal-width bins of the confidence (the top probability), for the calibration error."""

NORMAL_QUANTILE = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution, for intervals of 95 %."""


class ClassScore(NamedTuple):
    """Precision, recall and F1 of one class, in [0, 1], and its number of images.

    Undefined scores are 0.
    """

    precision: float
    recall: float
    f1: float
    images: int


class Bin(NamedTuple):
    """A bin of the confidence: limits, number of images, mean confidence, accuracy."""

    low: float
    high: float
    images: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Scores:
    """Sums over images that determine all scores.

    The sums of disjoint sets of images can be added.

    Attributes:
        confusion: (K, K), number of images of true class i that were predicted as j.
        calibration: (BINS, 3), per bin of the confidence: number of images, sum of the confidence, and
            number of correct predictions.
        loss_sum: Sum of the cross-entropies, in nats.
        brier_sum: Sum of the Brier scores.
    """

    confusion: NDArray[np.int64]
    calibration: NDArray[np.float64]
    loss_sum: float
    brier_sum: float

    def __add__(self, other: "Scores") -> "Scores":
        return Scores(
            self.confusion + other.confusion,
            self.calibration + other.calibration,
            self.loss_sum + other.loss_sum,
            self.brier_sum + other.brier_sum,
        )

    @property
    def images(self) -> int:
        """Number of images scored."""
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """Fraction of images whose most probable class is the true one."""
        return int(np.trace(self.confusion)) / self.images

    @property
    def loss(self) -> float:
        """Mean cross-entropy, in nats, without any penalty on the weights."""
        return self.loss_sum / self.images

    @property
    def brier(self) -> float:
        """Mean over images of Σ_k (y_k − t_k)², in [0, 2] (Brier 1950)."""
        return self.brier_sum / self.images

    @property
    def ece(self) -> float:
        """Expected calibration error (Guo et al. 2017).

        It is Σ over bins of |correct − confidence| / n.
        """
        _, confidence, correct = self.calibration.T
        return float(np.abs(correct - confidence).sum()) / self.images

    def reliability(self) -> list[Bin]:
        """Return the bins that contain images, by increasing confidence."""
        return [
            Bin(index / BINS, (index + 1) / BINS, int(images), confidence / images, correct / images)
            for index, (images, confidence, correct) in enumerate(self.calibration.tolist())
            if images
        ]

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """The 95 % Wilson score interval of the accuracy."""
        return wilson_interval(self.accuracy, self.images)

    def per_class(self) -> list[ClassScore]:
        """Return the scores of each class, in order."""
        correct = np.diag(self.confusion)
        predicted, true = self.confusion.sum(axis=0), self.confusion.sum(axis=1)
        precision = correct / np.maximum(predicted, 1)
        recall = correct / np.maximum(true, 1)
        f1 = 2 * correct / np.maximum(predicted + true, 1)
        return [
            ClassScore(*row) for row in zip(*(a.tolist() for a in (precision, recall, f1, true)), strict=True)
        ]

    def worst_confusions(self, count: int) -> list[tuple[int, int, int]]:
        """Return the most frequent confusions, at most `count`.

        Each is a triple (true class, predicted class, images); the most frequent one is first.
        """
        wrong = self.confusion - np.diag(np.diag(self.confusion))
        order = np.argsort(-wrong, axis=None, kind="stable")[:count]
        cells = zip(*np.unravel_index(order, wrong.shape), strict=True)
        return [(int(i), int(j), int(wrong[i, j])) for i, j in cells if wrong[i, j]]


def score(z: Floats, labels: Labels) -> Scores:
    """Score the evidence z (n, K) of images against their true labels (n,)."""
    n, classes = z.shape
    log_y = log_softmax(z.astype(np.float64))
    true = np.arange(n), labels
    predicted = z.argmax(axis=1)
    confusion = np.bincount(labels.astype(np.intp) * classes + predicted, minlength=classes * classes)
    loss_sum = -float(log_y[true].sum())
    y = np.exp(log_y, out=log_y)
    top = y[np.arange(n), predicted]
    y[true] -= 1
    return Scores(
        confusion=confusion.reshape(classes, classes),
        calibration=_calibration(top, predicted == labels),
        loss_sum=loss_sum,
        brier_sum=float((y * y).sum()),
    )


def total(parts: Iterable[Scores]) -> Scores:
    """Add up the scores of disjoint sets of images (at least one)."""
    first, *rest = parts
    return sum(rest, start=first)


def wilson_interval(rate: float, n: int) -> tuple[float, float]:
    """Return the 95 % score interval of a rate observed in n trials (Wilson 1927)."""
    z = NORMAL_QUANTILE
    centre = rate + z * z / (2 * n)
    half = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return max(0.0, (centre - half) / (1 + z * z / n)), min(1.0, (centre + half) / (1 + z * z / n))


def _calibration(top: NDArray[np.float64], correct: NDArray[Any]) -> NDArray[np.float64]:
    bins = np.minimum((top * BINS).astype(np.intp), BINS - 1)
    columns = (np.ones(len(top)), top, correct.astype(np.float64))
    return np.stack([np.bincount(bins, column, BINS) for column in columns], axis=1)
