"""Comparison of two models on the same images, against exact arithmetic."""

import math
from fractions import Fraction
from math import comb

import numpy as np
import pytest

from softmax_cli.comparison import Comparison, compare


def exact_p(first: int, second: int) -> Fraction:
    """Return the two-sided binomial probability, in integer arithmetic."""
    tossed = first + second
    tail = sum(comb(tossed, k) for k in range(min(first, second) + 1))
    return min(Fraction(1), 2 * Fraction(tail, 2**tossed))


@pytest.mark.parametrize(
    ("first", "second"),
    [(0, 0), (0, 1), (1, 1), (5, 5), (3, 9), (9, 3), (0, 20), (59, 121), (150, 86), (400, 90), (700, 3)],
)
def test_the_p_value_is_the_binomial_probability(first: int, second: int) -> None:
    found = Comparison(first, second, 10_000).p_value
    assert found == pytest.approx(float(exact_p(first, second)), rel=1e-9)


def test_the_published_example_of_mcnemar() -> None:
    """Agresti, Categorical Data Analysis (2013), table 11.1: only the first 86, only the second 150."""
    assert Comparison(86, 150, 1600).difference == pytest.approx(-0.04)
    low, high = Comparison(86, 150, 1600).interval
    assert (low, high) == pytest.approx((-0.0588, -0.0212), abs=3e-4)  # there: -0.059 to -0.021


def test_the_interval_is_that_of_the_formula() -> None:
    """For (7, 2) of 50, p₁ = 8/52 and p₂ = 3/52; the interval is clipped to [−1, 1]."""
    p1, p2, n = 8 / 52, 3 / 52, 52
    half = 1.959963984540054 * math.sqrt((p1 + p2 - (p1 - p2) ** 2) / n)
    assert Comparison(7, 2, 50).interval == pytest.approx((p1 - p2 - half, p1 - p2 + half), abs=1e-12)
    assert Comparison(10, 0, 10).interval[1] == 1
    assert Comparison(0, 10, 10).interval[0] == -1


def test_the_p_value_of_a_million_differences_is_computed() -> None:
    assert Comparison(500_000, 500_500, 10**7).p_value == pytest.approx(0.6178, abs=1e-3)
    assert Comparison(1_000_000, 0, 10**7).p_value == 0.0


def test_the_interval_covers_the_true_difference() -> None:
    """The probability of coverage, over all outcomes for 40 images, is at least 94 %."""
    n = 40
    for p1, p2 in ((0.1, 0.1), (0.3, 0.1), (0.05, 0.2), (0.4, 0.4)):
        covered = 0.0
        for first in range(n + 1):
            for second in range(n + 1 - first):
                ways = comb(n, first) * comb(n - first, second)
                chance = ways * p1**first * p2**second * (1 - p1 - p2) ** (n - first - second)
                low, high = Comparison(first, second, n).interval
                covered += chance * (low <= p1 - p2 <= high)
        assert 0.94 < covered <= 1


def test_only_images_on_which_the_models_differ_count() -> None:
    first = np.array([True, True, False, False, True])
    second = np.array([True, False, True, False, False])
    assert compare(first, second) == (2, 1, 5)
