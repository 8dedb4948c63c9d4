"""Comparison of two models on the same images.

Only the m images that exactly one model classifies correctly are informative: `first` of them by the first
model, `second` by the second. If the models were equally good, `first` would follow a binomial distribution
with m trials and probability 1/2. McNemar's exact test gives the probability of a split that is at least as
uneven as the observed one. The interval of the difference is the adjusted Wald interval: with z the 97.5 %
quantile of the normal distribution, p₁ = (first + 1)/(n + 2) and p₂ = (second + 1)/(n + 2), it is
p₁ − p₂ ± z·sqrt((p₁ + p₂ − (p₁ − p₂)²)/(n + 2)).

Sources: McNemar, Psychometrika (1947); Bonett & Price, Adjusted Wald confidence interval for a difference
of binomial proportions based on paired data, J. Educ. Behav. Stat. (2012).
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from softmax_cli.metrics import NORMAL_QUANTILE


class Comparison(NamedTuple):
    """Numbers of images: only the first model is correct, only the second is, and all."""

    first: int
    second: int
    images: int

    @property
    def difference(self) -> float:
        """Accuracy of the first model minus that of the second."""
        return (self.first - self.second) / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the difference."""
        n = self.images + 2
        p1, p2 = (self.first + 1) / n, (self.second + 1) / n
        half = NORMAL_QUANTILE * math.sqrt((p1 + p2 - (p1 - p2) ** 2) / n)
        return max(-1.0, p1 - p2 - half), min(1.0, p1 - p2 + half)

    @property
    def p_value(self) -> float:
        """Probability of a difference at least this large between equally good models."""
        return min(1.0, 2 * _binomial_tail(self.first + self.second, min(self.first, self.second)))


def compare(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Comparison:
    """Compare two models, given whether each classifies each image correctly, (n,)."""
    return Comparison(int((first & ~second).sum()), int((second & ~first).sum()), len(first))


def _binomial_tail(trials: int, successes: int) -> float:
    """Return the probability of at most `successes` in `trials` with p = 1/2."""
    counts = np.arange(1, successes + 1)
    ways = np.cumsum(np.log((trials + 1 - counts) / counts))  # logarithms of binomial coefficients
    logs = np.concatenate([[0.0], ways]) - trials * math.log(2)
    top = float(logs.max())
    return math.exp(top) * float(np.exp(logs - top).sum())
