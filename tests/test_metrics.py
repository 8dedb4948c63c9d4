"""Every score against a slow loop or a published value."""

import math

import numpy as np
import pytest

from softmax_cli.metrics import BINS, Scores, score, total, wilson_interval


def evidence_and_labels(n: int = 200, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(1)
    z = generator.normal(0, 2, (n, classes))
    return z, generator.integers(0, classes, n)


def slow_probabilities(row: np.ndarray) -> list[float]:
    powers = [math.exp(value) for value in row]
    return [power / math.fsum(powers) for power in powers]


def test_scores_equal_those_of_a_slow_loop() -> None:
    z, labels = evidence_and_labels()
    confusion = [[0] * 4 for _ in range(4)]
    losses, briers = [], []
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    for row, label in zip(z, labels, strict=True):
        y = slow_probabilities(row)
        guess = y.index(max(y))
        confusion[label][guess] += 1
        losses.append(-math.log(y[label]))
        briers.append(sum((y[k] - (k == label)) ** 2 for k in range(4)))
        bins[min(int(max(y) * BINS), BINS - 1)].append((max(y), guess == label))
    gaps = [abs(sum(right for _, right in b) - math.fsum(top for top, _ in b)) for b in bins]
    found = score(z, labels)
    assert found.confusion.tolist() == confusion
    assert found.images == 200
    assert found.accuracy == sum(confusion[k][k] for k in range(4)) / 200
    assert found.loss == pytest.approx(math.fsum(losses) / 200, rel=1e-12)
    assert found.brier == pytest.approx(math.fsum(briers) / 200, rel=1e-12)
    assert found.ece == pytest.approx(math.fsum(gaps) / 200, rel=1e-12)


def test_the_classes_are_scored_one_by_one() -> None:
    confusion = np.array([[5, 1, 0], [2, 3, 0], [0, 4, 0]])
    scores = Scores(confusion, np.zeros((BINS, 3)), 0.0, 0.0).per_class()
    assert [one.images for one in scores] == [6, 5, 4]
    assert [one.precision for one in scores] == [5 / 7, 3 / 8, 0]  # nothing was taken for the last class
    assert [one.recall for one in scores] == [5 / 6, 3 / 5, 0]
    assert [one.f1 for one in scores] == pytest.approx([10 / 13, 6 / 13, 0])


def test_the_worst_confusions_come_first_and_only_those_that_happened() -> None:
    confusion = np.array([[9, 1, 0], [4, 9, 0], [0, 2, 9]])
    scores = Scores(confusion, np.zeros((BINS, 3)), 0.0, 0.0)
    assert scores.worst_confusions(9) == [(1, 0, 4), (2, 1, 2), (0, 1, 1)]
    assert scores.worst_confusions(1) == [(1, 0, 4)]


def test_scores_of_parts_add_up_to_those_of_the_whole() -> None:
    z, labels = evidence_and_labels()
    whole, parts = (
        score(z, labels),
        total(score(z[i : i + 70], labels[i : i + 70]) for i in range(0, 200, 70)),
    )
    assert (parts.confusion == whole.confusion).all()
    for name in ("accuracy", "loss", "brier", "ece"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), rel=1e-12)


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_interval_is_wilsons(right: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(right / n, n) == pytest.approx((low, high), abs=5e-5)


def test_certainty_is_worth_the_best_scores_or_the_worst() -> None:
    z = np.array([[1e4, 0.0], [0.0, 1e4]])
    sure = score(z, np.array([0, 1]))
    assert (sure.accuracy, sure.loss, sure.brier, sure.ece) == (1, 0, 0, 0)
    wrong = score(z, np.array([1, 0]))
    assert (wrong.accuracy, wrong.loss, wrong.brier, wrong.ece) == (0, 1e4, 2, 1)
