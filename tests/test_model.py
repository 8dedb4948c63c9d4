"""Formulas and objective agree with published values and slow references."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from softmax_cli.backend import VARIABLE
from softmax_cli.features import FeatureMap
from softmax_cli.model import (
    Floats,
    Model,
    cross_entropy,
    cross_entropy_gradient,
    evidence,
    log_softmax,
    loss_and_gradient,
    penalty,
    softmax,
    softmax_jacobian,
    squared_error_gradient,
)
from softmax_cli.solvers.objective import Objective, Value
from tests.helpers import differentiate

laws = settings(deadline=None, derandomize=True, database=None, max_examples=200)
logits = hnp.arrays(
    np.float64,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=8),
    elements=st.floats(-1e3, 1e3, allow_subnormal=False),
)
extreme_logits = hnp.arrays(
    np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=8), elements=st.floats(-1e300, 1e300)
)


@pytest.fixture
def problem() -> tuple[Model, Floats, Floats]:
    """Return a random problem in float64: model, inputs and labels.

    There are 4 classes, 7 features and 20 inputs.
    """
    rng = np.random.default_rng(1)
    model = Model(rng.normal(size=(7, 4)), rng.normal(size=4))
    return model, rng.normal(size=(20, 7)), rng.integers(0, 4, 20)


# Published values from the tests of scipy.special.softmax, log_softmax and logsumexp.


@pytest.mark.parametrize(
    ("z", "expected"),
    [
        ([0, 1, 2, 3], [0.03205860328008499, 0.08714431874203256, 0.23688281808991013, 0.6439142598879722]),
        ([1000, 0, 0, 0], [1, 0, 0, 0]),
        ([1, 1], [0.5, 0.5]),
        ([0, 1], [1 / (1 + math.e), math.e / (1 + math.e)]),
        ([1e4] * 1000, [1e-3] * 1000),
        ([1e300, 1e300, -1e300], [0.5, 0.5, 0]),
        ([0, -math.inf, 0], [0.5, 0, 0.5]),
    ],
)
def test_n1_softmax_agrees_with_published_values(z: list[float], expected: list[float]) -> None:
    with np.errstate(all="raise", under="ignore"):
        np.testing.assert_allclose(softmax(np.array(z, float)), expected, rtol=1e-13)


@pytest.mark.parametrize(
    ("z", "expected"),
    [
        ([0, 1, 2, 3], [-3.4401896985611953, -2.4401896985611953, -1.4401896985611953, -0.44018969856119533]),
        ([1000, 1], [0, -999]),
        ([1000, 1000], [-math.log(2)] * 2),
        ([1e4] * 1000, [-math.log(1000)] * 1000),
        ([1e300, 1e300, -1e300], [-math.log(2), -math.log(2), -2e300]),
        ([0, -math.inf, 0], [-math.log(2), -math.inf, -math.log(2)]),
    ],
)
def test_log_softmax_agrees_with_published_values(z: list[float], expected: list[float]) -> None:
    with np.errstate(all="raise", under="ignore"):
        np.testing.assert_allclose(log_softmax(np.array(z, float)), expected, rtol=1e-13)


@pytest.mark.parametrize(
    ("z", "loss"),
    [
        ([0, 0, 0, 0], math.log(4)),
        ([1e4, 0, 0, 0], 1e4),
        ([0, 1e4, 0, 0], 0),
        ([1e300, -1e300, 0, 0], 2e300),
        ([0, 0, -math.inf, -math.inf], math.log(2)),
    ],
)
def test_loss_of_extreme_evidence_is_exact(z: list[float], loss: float) -> None:
    """The loss is computed by log-softmax, so that it is exact even if the probability underflows."""
    with np.errstate(all="raise", under="ignore"):
        rows = np.array([z], float)
        found, gradient = cross_entropy_gradient(rows, np.array([1]))
        np.testing.assert_allclose([found, cross_entropy(rows, np.array([1]))], loss, rtol=1e-13)
        assert np.isfinite(gradient).all()


# Properties


@laws
@given(extreme_logits)
def test_n2_rows_are_distributions(z: Floats) -> None:
    with np.errstate(all="raise", under="ignore"):
        y = softmax(z)
    assert (y >= 0).all()
    np.testing.assert_allclose(y.sum(axis=1), 1, rtol=1e-14)


@laws
@given(extreme_logits)
def test_log_softmax_is_the_log_of_softmax(z: Floats) -> None:
    with np.errstate(all="raise", under="ignore"):
        log_y = log_softmax(z)
        assert (log_y <= 0).all()
        np.testing.assert_allclose(np.exp(log_y), softmax(z), rtol=1e-12, atol=1e-300)


@laws
@given(logits, st.floats(-1e3, 1e3))
def test_adding_a_constant_to_all_classes_changes_nothing(z: Floats, constant: float) -> None:
    np.testing.assert_allclose(softmax(z + constant), softmax(z), rtol=1e-11, atol=1e-300)
    np.testing.assert_allclose(log_softmax(z + constant), log_softmax(z), rtol=1e-11, atol=1e-11)


@laws
@given(logits, st.randoms(use_true_random=False))
def test_permuted_classes_have_permuted_probabilities(z: Floats, random) -> None:
    order = random.sample(range(z.shape[1]), z.shape[1])
    np.testing.assert_allclose(softmax(z[:, order]), softmax(z)[:, order], rtol=1e-13)
    np.testing.assert_allclose(log_softmax(z[:, order]), log_softmax(z)[:, order], rtol=1e-13, atol=1e-14)


@laws
@given(extreme_logits)
def test_the_class_with_most_evidence_is_the_most_probable(z: Floats) -> None:
    rows = np.arange(len(z))
    for result in (softmax(z), log_softmax(z)):
        np.testing.assert_array_equal(result[rows, z.argmax(axis=1)], result.max(axis=1))


@laws
@given(extreme_logits, st.randoms(use_true_random=False))
def test_loss_is_never_negative_nor_nan(z: Floats, random) -> None:
    labels = np.array([random.randrange(z.shape[1]) for _ in z])
    loss, gradient = cross_entropy_gradient(z, labels)
    assert 0 <= loss < math.inf
    assert loss == cross_entropy(z, labels)
    assert np.isfinite(gradient).all()


@laws
@given(logits, st.floats(1e-2, 10), st.data())
def test_more_evidence_for_a_class_raises_its_probability_and_lowers_the_others(
    z: Floats, rise: float, data: st.DataObject
) -> None:
    k = data.draw(st.integers(0, z.shape[1] - 1))
    raised = z.copy()
    raised[:, k] += rise
    change = softmax(raised) - softmax(z)
    others = np.delete(change, k, axis=1)
    assert (change[:, k] >= 0).all()
    assert (others <= 1e-15).all()
    np.testing.assert_allclose(-others.sum(axis=1), change[:, k], rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("k", range(4))
def test_one_unit_of_evidence_multiplies_the_odds_by_e(k: int) -> None:
    z = np.array([0.3, -1.2, 2.0, 0.0])
    before, after = softmax(z)[k], softmax(z + np.eye(4)[k])[k]
    assert after / (1 - after) == pytest.approx(math.e * before / (1 - before), rel=1e-12)


# The loss and its gradient


def test_softmax_jacobian_agrees_with_finite_differences() -> None:
    z = np.array([0.3, -1.2, 2.0, 0.0])
    slopes = [differentiate(lambda z, i=i: softmax(z)[i], z) for i in range(4)]
    np.testing.assert_allclose(softmax_jacobian(softmax(z)), slopes, rtol=1e-8)


@pytest.mark.parametrize("loss_and_slope", [cross_entropy_gradient, squared_error_gradient])
def test_gradient_by_evidence_agrees_with_finite_differences(problem, loss_and_slope) -> None:
    model, x, labels = problem
    z = evidence(model, x)
    slope = differentiate(lambda z: loss_and_slope(z, labels)[0], z, h=1e-2)
    np.testing.assert_allclose(loss_and_slope(z, labels)[1], slope, rtol=1e-6, atol=1e-11)


@pytest.mark.parametrize("weights", [None, np.arange(20) / 10], ids=["equal", "weighted"])
def test_gradient_agrees_with_finite_differences(problem, weights: Floats | None) -> None:
    model, x, labels = problem
    _, gradient = loss_and_gradient(model, x, labels, weights)
    by_weights = differentiate(
        lambda w: loss_and_gradient(Model(w, model.bias), x, labels, weights)[0], model.weights
    )
    by_bias = differentiate(
        lambda b: loss_and_gradient(Model(model.weights, b), x, labels, weights)[0], model.bias
    )
    np.testing.assert_allclose(gradient.weights, by_weights, rtol=1e-6)
    np.testing.assert_allclose(gradient.bias, by_bias, rtol=1e-6)


def test_loss_agrees_with_a_slow_loop(problem) -> None:
    """The loss is the mean over images of −log y of the true class; the penalty is l2/2 · ‖W‖²."""
    model, x, labels = problem
    losses = []
    for row, label in zip(x, labels, strict=True):
        z = [sum(row[d] * model.weights[d, k] for d in range(7)) + model.bias[k] for k in range(4)]
        losses.append(-math.log(math.exp(z[label]) / sum(math.exp(value) for value in z)))
    assert loss_and_gradient(model, x, labels)[0] == pytest.approx(math.fsum(losses) / 20, rel=1e-13)
    squares = sum(weight**2 for row in model.weights for weight in row)
    assert penalty(model, 0.3) == pytest.approx(0.3 / 2 * squares, rel=1e-13)
    factors = np.linspace(0.1, 0.7, 7)[:, None]
    squares = sum(factors[d, 0] * weight**2 for d, row in enumerate(model.weights) for weight in row)
    assert penalty(model, factors) == pytest.approx(squares / 2, rel=1e-13)


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_n3_zero_parameters_give_uniform_probabilities(classes: int) -> None:
    """The loss is ln K for K classes."""
    model, x = Model.zeros(5, classes, np.float64), np.random.default_rng(0).normal(size=(30, 5))
    np.testing.assert_allclose(softmax(evidence(model, x)), 1 / classes, rtol=1e-14)
    loss, _ = loss_and_gradient(model, x, np.arange(30) % classes)
    assert loss == pytest.approx(math.log(classes), rel=1e-14)


def test_gradient_by_evidence_sums_to_zero_and_is_bounded(problem) -> None:
    """Σ_k ∂loss/∂z is 0; entries of y − t lie in [−1, 1] and are negative for the true class only."""
    model, x, labels = problem
    residual = 20 * cross_entropy_gradient(10 * evidence(model, x), labels)[1]
    np.testing.assert_allclose(residual.sum(axis=1), 0, atol=1e-14)
    assert (np.abs(residual) <= 1).all()
    true = np.eye(4, dtype=bool)[labels]
    assert (residual[true] <= 0).all()
    assert (residual[~true] >= 0).all()


def test_squared_error_has_a_plateau_and_cross_entropy_has_none() -> None:
    """If the true class has probability 1e-9, the gradient is −1 for cross-entropy, near 0 for the square."""
    z, label = np.log([[1e-9, 1 - 1e-9]]), np.array([0])
    _, slope = cross_entropy_gradient(z, label)
    loss, flat = squared_error_gradient(z, label)
    assert slope[0, 0] == pytest.approx(-1, abs=1e-8)
    assert loss == pytest.approx(2, abs=1e-8)
    assert 0 < -flat[0, 0] < 1e-8


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_follows_the_data(dtype) -> None:
    model, x, labels = Model.zeros(3, 2, dtype), np.ones((4, 3), dtype), np.array([0, 1, 1, 0])
    z = evidence(model, x)
    _, gradient = loss_and_gradient(model, x, labels)
    results = (*model, z, softmax(z), log_softmax(z), cross_entropy_gradient(z, labels)[1], *gradient)
    assert {result.dtype for result in results} == {np.dtype(dtype)}


@pytest.mark.parametrize(
    "function",
    [
        softmax,
        log_softmax,
        lambda z: cross_entropy(z, np.array([0, 1])),
        lambda z: cross_entropy_gradient(z, np.array([0, 1])),
        lambda z: squared_error_gradient(z, np.array([0, 1])),
        lambda z: evidence(Model(z[:, :1], z[0, :1]), z),
        lambda z: loss_and_gradient(Model(z, z[0]), z, np.array([0, 1])),
    ],
)
def test_arguments_are_not_modified(function) -> None:
    z = np.array([[1.0, 2.0], [3.0, -4.0]])
    before = z.copy()
    function(z)
    np.testing.assert_array_equal(z, before)


# The objective of the solvers


def objective_of(kind: str, weighted: bool = False) -> Objective:
    """Return the objective for 5,000 of 6,000 inputs, in another order.

    There are 12 features and 3 classes.
    """
    rng = np.random.default_rng(7)
    if kind == "images":
        features, inputs = FeatureMap((3, 4)), rng.integers(0, 256, (6000, 3, 4), np.uint8)
    else:
        features, inputs = FeatureMap((12,), (), 1.0), rng.normal(size=(6000, 12)).astype(np.float32)
    rows = rng.permutation(6000)[:5000]
    weights = None
    if weighted:
        weights = rng.uniform(0, 2, 6000).astype(np.float32)
        weights /= weights[rows].mean()
    return Objective(features, inputs, rng.integers(0, 3, 6000), rows, 0.1, sample_weights=weights)


def random_model(dtype: Any = np.float64) -> Model:
    rng = np.random.default_rng(8)
    return Model(rng.normal(size=(12, 3)).astype(dtype), rng.normal(size=3).astype(dtype))


def slow_objective(objective: Objective, model: Model) -> tuple[float, float]:
    """Return the objective with and without the l2 term, by its definition.

    It is computed in float64.
    """
    inputs = objective.images[objective.rows].reshape(len(objective), -1).astype(float)
    z = inputs / (255 if objective.images.dtype == np.uint8 else 1) @ model.weights + model.bias
    y = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    losses = -np.log(y[np.arange(len(z)), objective.labels[objective.rows]])
    if objective.sample_weights is not None:
        losses *= objective.sample_weights[objective.rows]
    loss = losses.sum() / len(losses)
    return loss + objective.l2 / 2 * (model.weights**2).sum(), loss


def assert_close(found: Value, expected: Value, rtol: float) -> None:
    assert found[:2] == pytest.approx(expected[:2], rel=rtol)
    for one, other in zip(found.gradient, expected.gradient, strict=True):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=rtol)


both_inputs = pytest.mark.parametrize("kind", ["images", "float rows"])
with_and_without_weights = pytest.mark.parametrize("weighted", [False, True], ids=["equal", "weighted"])


@both_inputs
@with_and_without_weights
def test_the_objective_agrees_with_its_definition(kind: str, weighted: bool) -> None:
    """They agree to 12 digits in float64 and to 5 digits in float32."""
    objective, model = objective_of(kind, weighted), random_model()
    expected = slow_objective(objective, model)
    assert objective.full(model)[:2] == pytest.approx(expected, rel=1e-12)
    assert objective.full(random_model(np.float32))[:2] == pytest.approx(expected, rel=1e-5)


@both_inputs
@with_and_without_weights
def test_the_gradient_of_the_objective_agrees_with_finite_differences(kind: str, weighted: bool) -> None:
    objective, model = objective_of(kind, weighted), random_model()
    objective = replace(objective, rows=objective.rows[:2500])
    gradient = objective.full(model).gradient
    by_weights = differentiate(lambda w: objective.full(Model(w, model.bias)).objective, model.weights)
    by_bias = differentiate(lambda b: objective.full(Model(model.weights, b)).objective, model.bias)
    np.testing.assert_allclose(gradient.weights, by_weights, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(gradient.bias, by_bias, rtol=1e-6, atol=1e-9)


def test_the_number_of_threads_changes_no_bit_of_the_objective(monkeypatch: pytest.MonkeyPatch) -> None:
    objective, found = objective_of("images", weighted=True), []
    for threads in ("1", "2"):
        monkeypatch.setenv(VARIABLE, threads)
        value = objective.full(random_model(np.float32))
        found.append((*value[:2], *(part.tobytes() for part in value.gradient)))
    assert found[0] == found[1]


def test_sample_weights_of_one_are_no_weights() -> None:
    objective, model = objective_of("images"), random_model()
    ones = replace(objective, sample_weights=np.ones(6000, np.float32))
    assert_close(ones.full(model), objective.full(model), 1e-12)


def test_a_sample_weight_of_two_is_a_repeated_image() -> None:
    """Weight 2 for the first half of the images and 0 for the others repeats the first half."""
    objective, model = objective_of("images"), random_model()
    weights = np.zeros(6000, np.float32)
    weights[objective.rows[:2500]] = 2
    repeated = replace(objective, rows=np.tile(objective.rows[:2500], 2))
    assert_close(replace(objective, sample_weights=weights).full(model), repeated.full(model), 1e-12)


@both_inputs
@with_and_without_weights
def test_batches_estimate_the_objective_without_bias(kind: str, weighted: bool) -> None:
    """The mean over the batches of an epoch, weighted with their sizes, is the full value."""
    objective, model = objective_of(kind, weighted), random_model()
    loss, weights, bias = 0.0, np.zeros((12, 3)), np.zeros(3)
    for batch in objective.batches(objective.rows, 768, epoch=1):
        share = len(batch.labels) / len(objective)
        value, gradient = objective.batch_value(model, batch)
        loss += share * value
        weights += share * gradient.weights
        bias += share * gradient.bias
    full = objective.full(model)
    assert_close(Value(full.objective, loss, Model(weights, bias)), full, 1e-12)
