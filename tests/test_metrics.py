"""Scores agree with slow loops and published values."""

import math

import numpy as np
import pytest

from softmax_cli.metrics import BINS, ClassScore, Scores, score, total, wilson_interval
from softmax_cli.model import Floats, Labels, softmax


@pytest.fixture(scope="module")
def scored() -> tuple[Floats, Labels]:
    """Return evidence for 4 classes and 300 images, and labels.

    About 70 % of the labels agree with the evidence.
    """
    rng = np.random.default_rng(2)
    z = rng.normal(scale=2, size=(300, 4))
    labels = np.where(rng.random(300) < 0.6, z.argmax(axis=1), rng.integers(0, 4, 300))
    return z, labels.astype(np.uint8)


def scores_of(confusion: list[list[int]]) -> Scores:
    return Scores(np.array(confusion), np.zeros((BINS, 3)), 0.0, 0.0)


def assert_same(found: Scores, expected: Scores) -> None:
    np.testing.assert_array_equal(found.confusion, expected.confusion)
    np.testing.assert_allclose(found.calibration, expected.calibration, rtol=1e-13)
    assert found.loss_sum == pytest.approx(expected.loss_sum, rel=1e-13)
    assert found.brier_sum == pytest.approx(expected.brier_sum, rel=1e-13)


def test_confusion_counts_true_against_predicted(scored) -> None:
    z, labels = scored
    expected = [[0] * 4 for _ in range(4)]
    for row, label in zip(z.tolist(), labels.tolist(), strict=True):
        expected[label][row.index(max(row))] += 1
    scores = score(z, labels)
    assert scores.confusion.tolist() == expected
    assert scores.images == 300
    assert scores.accuracy == sum(expected[k][k] for k in range(4)) / 300


def test_loss_agrees_with_a_slow_loop(scored) -> None:
    z, labels = scored
    y = softmax(z)
    expected = math.fsum(-math.log(y[i, label]) for i, label in enumerate(labels)) / 300
    assert score(z, labels).loss == pytest.approx(expected, rel=1e-12)


def test_brier_agrees_with_a_slow_loop(scored) -> None:
    z, labels = scored
    squares = [
        (y - (k == label)) ** 2
        for row, label in zip(softmax(z), labels, strict=True)
        for k, y in enumerate(row)
    ]
    assert score(z, labels).brier == pytest.approx(math.fsum(squares) / 300, rel=1e-12)


def test_ece_agrees_with_a_slow_loop(scored) -> None:
    """ECE is Σ over 15 equal bins of (images / n) · |accuracy − mean confidence|."""
    z, labels = scored
    tops = [(row.max(), row.argmax() == label) for row, label in zip(softmax(z), labels, strict=True)]
    expected = 0.0
    for low in range(15):
        inside = [(top, right) for top, right in tops if low / 15 <= top < (low + 1) / 15]
        if inside:
            accuracy = sum(right for _, right in inside) / len(inside)
            confidence = sum(top for top, _ in inside) / len(inside)
            expected += len(inside) / 300 * abs(accuracy - confidence)
    assert expected > 0.01
    assert score(z, labels).ece == pytest.approx(expected, rel=1e-12)


def test_per_class_agrees_with_a_slow_loop(scored) -> None:
    z, labels = scored
    predicted = z.argmax(axis=1)
    for k, found in enumerate(score(z, labels).per_class()):
        hits = sum(bool(p == k and t == k) for p, t in zip(predicted, labels, strict=True))
        precision, recall = hits / np.count_nonzero(predicted == k), hits / np.count_nonzero(labels == k)
        expected = (precision, recall, 2 * precision * recall / (precision + recall))
        assert found[:3] == pytest.approx(expected, rel=1e-13)
        assert found.images == np.count_nonzero(labels == k)


def test_a_class_without_predictions_or_images_scores_zero() -> None:
    assert scores_of([[3, 0, 0], [2, 0, 0], [0, 0, 0]]).per_class() == [
        ClassScore(0.6, 1.0, 0.75, 3),
        ClassScore(0.0, 0.0, 0.0, 2),
        ClassScore(0.0, 0.0, 0.0, 0),
    ]


def test_one_image_of_a_class_is_enough_for_its_scores() -> None:
    assert scores_of([[1, 0], [0, 0]]).per_class() == [ClassScore(1, 1, 1, 1), ClassScore(0, 0, 0, 0)]


@pytest.mark.parametrize(
    ("label", "accuracy", "loss", "brier", "ece"), [(1, 1, 0, 0, 0), (0, 0, 1e4, 2, 1), (2, 0, 2e4, 2, 1)]
)
def test_a_probability_of_one_has_the_extreme_scores(label: int, accuracy, loss, brier, ece) -> None:
    """The scores are the best possible if the prediction is correct, else the worst; all are finite."""
    scores = score(np.array([[0, 1e4, -1e4]]), np.array([label]))
    assert (scores.accuracy, scores.loss, scores.brier, scores.ece) == (accuracy, loss, brier, ece)


@pytest.mark.parametrize(("top", "index"), [(0.5, 7), (0.68, 10), (0.79, 11), (0.81, 12), (1.0, 14)])
def test_bins_are_fifteenths_and_the_last_one_includes_one(top: float, index: int) -> None:
    z = [math.log(top / (1 - top)), 0] if top < 1 else [1e4, 0]
    images = score(np.array([z]), np.array([0])).calibration[:, 0]
    np.testing.assert_array_equal(images, np.eye(15)[index])


@pytest.mark.parametrize("size", [1, 7, 128, 300])
def test_scores_of_blocks_add_up(scored, size: int) -> None:
    z, labels = scored
    blocks = [score(z[i : i + size], labels[i : i + size]) for i in range(0, 300, size)]
    assert_same(total(blocks), score(z, labels))


def test_addition_does_not_modify_its_terms(scored) -> None:
    part = score(*scored)
    assert_same(part + part, score(*(np.concatenate([a, a]) for a in scored)))
    assert_same(part, score(*scored))


def test_scores_do_not_depend_on_the_types_of_evidence_and_labels(scored) -> None:
    """Sums are computed in float64, also for evidence in float32."""
    z, labels = scored[0].astype(np.float32), scored[1]
    assert_same(score(z, labels), score(z.astype(np.float64), labels.astype(np.int64)))


def test_scoring_does_not_modify_the_evidence(scored) -> None:
    z = scored[0].copy()
    score(z, scored[1])
    np.testing.assert_array_equal(z, scored[0])


def test_confusions_are_counted_for_more_than_256_cells() -> None:
    """With 20 classes, the index of a cell (up to 399) exceeds the range of uint8, the type of labels."""
    z = np.eye(20)
    np.testing.assert_array_equal(score(z, np.arange(20, dtype=np.uint8)).confusion, np.eye(20))


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_agrees_with_published_values(right: int, n: int, low: float, high: float) -> None:
    """Newcombe, Statistics in Medicine 17 (1998), table I, method 3; and the mirror image of each."""
    assert wilson_interval(right / n, n) == pytest.approx((low, high), abs=5e-5)
    assert wilson_interval(1 - right / n, n) == pytest.approx((1 - high, 1 - low), abs=5e-5)


@pytest.mark.parametrize(("right", "n"), [(0, 1), (1, 1), (9260, 10000), (1, 10**9), (11, 11), (0, 21)])
def test_wilson_interval_contains_the_rate_and_is_within_0_and_1(right: int, n: int) -> None:
    low, high = wilson_interval(right / n, n)
    assert 0 <= low <= right / n <= high <= 1
    assert low < high


def test_accuracy_interval_is_that_of_the_accuracy() -> None:
    assert scores_of([[50, 10], [2, 86]]).accuracy_interval == wilson_interval(136 / 148, 148)


def test_the_most_frequent_confusions_come_first() -> None:
    """Ties are in order of class; correct predictions and empty cells are not listed."""
    scores = scores_of([[9, 1, 0], [4, 9, 1], [0, 7, 9]])
    assert scores.worst_confusions(3) == [(2, 1, 7), (1, 0, 4), (0, 1, 1)]
    assert scores.worst_confusions(99) == [(2, 1, 7), (1, 0, 4), (0, 1, 1), (1, 2, 1)]
    assert scores_of([[3, 0], [0, 3]]).worst_confusions(5) == []
