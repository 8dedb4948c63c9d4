"""Two models on the same images: is one better, or was it luck?

Only images that one has right and the other wrong tell them apart: `first` and `second` of them, m in all.
If the models were equally good, each would fall to either side like a coin. McNemar's exact test is the
probability that m coins fall as unevenly as they did, or more. The interval of the difference is the
adjusted Wald interval: with z the 97.5 % quantile of the normal distribution, p₁ = (first + 1)/(n + 2) and
p₂ = (second + 1)/(n + 2), it is p₁ − p₂ ± z·sqrt((p₁ + p₂ − (p₁ − p₂)²)/(n + 2)).

Sources: McNemar, Psychometrika (1947); Bonett & Price, Adjusted Wald confidence interval for a difference
of binomial proportions based on paired data, J. Educ. Behav. Stat. (2012).
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from softmax_cli.metrics import NORMAL_QUANTILE


class Comparison(NamedTuple):
    """How many images only the first model has right, how many only the second, and how many there are."""

    first: int
    second: int
    images: int

    @property
    def difference(self) -> float:
        """Accuracy of the first model less that of the second."""
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
        """Probability of a difference as large as this, or larger, if the models were equally good."""
        return min(1.0, 2 * _coins(self.first + self.second, min(self.first, self.second)))


def compare(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Comparison:
    """Compare two models by which of the same images (n,) each has right."""
    return Comparison(int((first & ~second).sum()), int((second & ~first).sum()), len(first))


def _coins(tossed: int, heads: int) -> float:
    """Return the probability that at most so many of the coins that are tossed show heads."""
    counts = np.arange(1, heads + 1)
    ways = np.cumsum(np.log((tossed + 1 - counts) / counts))  # log of tossed over 1, 2, ...
    logs = np.concatenate([[0.0], ways]) - tossed * math.log(2)
    top = float(logs.max())
    return math.exp(top) * float(np.exp(logs - top).sum())
