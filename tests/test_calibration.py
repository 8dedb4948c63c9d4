"""Calibration by a temperature."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softmax_cli.calibration import COLDEST, HOTTEST, fit_temperature, tempered
from softmax_cli.model import Model, cross_entropy, softmax


def evidence_and_labels(seed: int, n: int = 500, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Return evidence, and labels that are drawn from its softmax."""
    generator = np.random.default_rng(seed)
    z = generator.normal(0, 2, (n, classes))
    draws = generator.random((n, 1))
    return z, (np.cumsum(softmax(z), axis=1) < draws).sum(axis=1).clip(max=classes - 1)


@pytest.mark.parametrize("true", [0.2, 0.7, 1.0, 3.0, 20.0])
def test_the_true_temperature_is_found(true: float) -> None:
    """For labels drawn from softmax(z), the optimum for z·T is T, within the error of 20,000 draws."""
    z, labels = evidence_and_labels(0, 20_000)
    assert fit_temperature(true * z, labels) == pytest.approx(true, rel=0.03)


@settings(max_examples=40, deadline=None, database=None)
@given(st.integers(0, 10**6), st.floats(0.05, 30), st.integers(2, 6))
def test_no_other_temperature_has_a_lower_loss(seed: int, heat: float, classes: int) -> None:
    z, labels = evidence_and_labels(seed, 300, classes)
    best = fit_temperature(heat * z, labels)
    losses = [cross_entropy(heat * z / (best * factor), labels) for factor in (1, 0.999, 1.001, 0.5, 2)]
    assert min(losses) == losses[0]


def test_the_temperature_is_one_if_there_is_no_optimum() -> None:
    z = np.array([[2.0, 0, 0], [0, 1, 0], [0, 0, 3]])
    assert fit_temperature(z, np.array([0, 1, 2])) == 1  # all correct: the optimum is 0
    assert fit_temperature(z, np.array([1, 2, 0])) == 1  # all wrong: the optimum is infinite
    assert fit_temperature(np.zeros((3, 3)), np.array([0, 1, 2])) == 1


def test_a_constant_in_all_classes_changes_nothing() -> None:
    """This holds for a constant a billion times larger than the differences, and for float32."""
    z, labels = evidence_and_labels(2)
    best = fit_temperature(z, labels)
    assert fit_temperature(z + 1e10, labels) == pytest.approx(best, rel=1e-4)
    assert fit_temperature(z.astype(np.float32), labels) == pytest.approx(best, rel=1e-5)
    heated = (1e3 * z).astype(np.float32)
    assert fit_temperature(heated / 20, labels) == pytest.approx(50 * best, rel=1e-5)


def test_the_temperature_is_limited_to_its_range() -> None:
    z, labels = evidence_and_labels(1, 2000)
    assert fit_temperature(1e-6 * z, labels) == pytest.approx(COLDEST)
    assert fit_temperature(1e6 * z, labels) == pytest.approx(HOTTEST)


def test_a_tempered_model_has_its_evidence_divided_by_the_temperature() -> None:
    generator = np.random.default_rng(0)
    model = Model(generator.normal(size=(6, 3)).astype(np.float32), np.float32([1, 2, 3]))
    cool = tempered(model, 0.5)
    np.testing.assert_array_equal(cool.weights, 2 * model.weights)
    np.testing.assert_array_equal(cool.bias, 2 * model.bias)
    assert cool.weights.dtype == np.float32
    assert tempered(model, 1.0) is model
