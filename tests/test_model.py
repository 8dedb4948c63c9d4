"""The mathematics, against published values, finite differences, slow loops and its own laws."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

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
    """Return a random model of 4 classes on 7 features, 20 inputs and their labels, in float64."""
    rng = np.random.default_rng(1)
    model = Model(rng.normal(size=(7, 4)), rng.normal(size=4))
    return model, rng.normal(size=(20, 7)), rng.integers(0, 4, 20)


def differentiate(function: Callable[[Floats], float], at: Floats, h: float = 1e-3) -> Floats:
    """Return the gradient by the five-point stencil (f(−2h) − 8f(−h) + 8f(h) − f(2h)) / 12h."""
    slope = np.empty(at.shape)
    for index in np.ndindex(at.shape):
        step = np.zeros(at.shape)
        step[index] = h
        near = function(at + step) - function(at - step)
        far = function(at + 2 * step) - function(at - 2 * step)
        slope[index] = (8 * near - far) / (12 * h)
    return slope


# Published values: the tests of scipy.special.softmax, log_softmax and logsumexp.


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
def test_softmax_published(z: list[float], expected: list[float]) -> None:
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
def test_log_softmax_published(z: list[float], expected: list[float]) -> None:
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
def test_loss_of_extreme_evidence(z: list[float], loss: float) -> None:
    """The loss comes from log-softmax: it stays exact where the probability itself underflows to 0."""
    with np.errstate(all="raise", under="ignore"):
        rows = np.array([z], float)
        found, gradient = cross_entropy_gradient(rows, np.array([1]))
        np.testing.assert_allclose([found, cross_entropy(rows, np.array([1]))], loss, rtol=1e-13)
        assert np.isfinite(gradient).all()


# Properties.


@laws
@given(extreme_logits)
def test_rows_are_distributions(z: Floats) -> None:
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
def test_a_constant_changes_nothing(z: Floats, constant: float) -> None:
    np.testing.assert_allclose(softmax(z + constant), softmax(z), rtol=1e-11, atol=1e-300)
    np.testing.assert_allclose(log_softmax(z + constant), log_softmax(z), rtol=1e-11, atol=1e-11)


@laws
@given(logits, st.randoms(use_true_random=False))
def test_classes_have_no_order(z: Floats, random) -> None:
    order = random.sample(range(z.shape[1]), z.shape[1])
    np.testing.assert_allclose(softmax(z[:, order]), softmax(z)[:, order], rtol=1e-13)
    np.testing.assert_allclose(log_softmax(z[:, order]), log_softmax(z)[:, order], rtol=1e-13, atol=1e-14)


@laws
@given(extreme_logits)
def test_most_evidence_is_most_probable(z: Floats) -> None:
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
def test_what_one_class_gains_the_others_lose(z: Floats, rise: float, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, z.shape[1] - 1))
    raised = z.copy()
    raised[:, k] += rise
    change = softmax(raised) - softmax(z)
    others = np.delete(change, k, axis=1)
    assert (change[:, k] >= 0).all()
    assert (others <= 1e-15).all()
    np.testing.assert_allclose(-others.sum(axis=1), change[:, k], rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("k", range(4))
def test_one_more_unit_of_evidence_multiplies_the_odds_by_e(k: int) -> None:
    z = np.array([0.3, -1.2, 2.0, 0.0])
    before, after = softmax(z)[k], softmax(z + np.eye(4)[k])[k]
    assert after / (1 - after) == pytest.approx(math.e * before / (1 - before), rel=1e-12)


# The loss and its gradient.


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


@pytest.mark.parametrize("l2", [0.0, 0.1])
def test_gradient_agrees_with_finite_differences(problem, l2: float) -> None:
    model, x, labels = problem
    _, gradient = loss_and_gradient(model, x, labels, l2)
    by_weights = differentiate(lambda w: loss_and_gradient(Model(w, model.bias), x, labels, l2)[0], model[0])
    by_bias = differentiate(lambda b: loss_and_gradient(Model(model.weights, b), x, labels, l2)[0], model[1])
    np.testing.assert_allclose(gradient.weights, by_weights, rtol=1e-6)
    np.testing.assert_allclose(gradient.bias, by_bias, rtol=1e-6)


def test_loss_agrees_with_a_slow_loop(problem) -> None:
    """The loss is −log y of the true class, mean over images, plus l2/2 times the squared weights only."""
    model, x, labels = problem
    losses = []
    for row, label in zip(x, labels, strict=True):
        z = [sum(row[d] * model.weights[d, k] for d in range(7)) + model.bias[k] for k in range(4)]
        losses.append(-math.log(math.exp(z[label]) / sum(math.exp(value) for value in z)))
    weight_decay = 0.3 / 2 * sum(weight**2 for row in model.weights for weight in row)
    assert loss_and_gradient(model, x, labels)[0] == pytest.approx(math.fsum(losses) / 20, rel=1e-13)
    assert penalty(model, 0.3) == pytest.approx(weight_decay, rel=1e-13)
    assert loss_and_gradient(model, x, labels, l2=0.3)[0] == pytest.approx(
        math.fsum(losses) / 20 + weight_decay, rel=1e-13
    )


def test_l2_leaves_the_bias_free(problem) -> None:
    model, x, labels = problem
    _, plain = loss_and_gradient(model, x, labels)
    _, decayed = loss_and_gradient(model, x, labels, l2=0.3)
    np.testing.assert_array_equal(decayed.bias, plain.bias)
    np.testing.assert_allclose(decayed.weights - plain.weights, 0.3 * model.weights, rtol=1e-12)


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_zero_weights_give_the_loss_of_a_guess(classes: int) -> None:
    """A model of zeros finds all K classes equally likely, at a loss of ln K."""
    model, x = Model.zeros(5, classes, np.float64), np.random.default_rng(0).normal(size=(30, 5))
    np.testing.assert_allclose(softmax(evidence(model, x)), 1 / classes, rtol=1e-14)
    loss, _ = loss_and_gradient(model, x, np.arange(30) % classes, l2=1.0)
    assert loss == pytest.approx(math.log(classes), rel=1e-14)


def test_gradient_by_evidence_sums_to_zero_and_is_bounded(problem) -> None:
    """Σ_k of ∂loss/∂z is 0; entries of y − t lie in [−1, 1], and none but the true class's is below 0."""
    model, x, labels = problem
    residual = 20 * cross_entropy_gradient(10 * evidence(model, x), labels)[1]
    np.testing.assert_allclose(residual.sum(axis=1), 0, atol=1e-14)
    assert (np.abs(residual) <= 1).all()
    true = np.eye(4, dtype=bool)[labels]
    assert (residual[true] <= 0).all()
    assert (residual[~true] >= 0).all()


def test_squared_error_has_a_plateau_where_cross_entropy_has_none() -> None:
    """Confident and wrong, output 1e-9 for a target of 1: slope −1 under cross-entropy, near 0 squared."""
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
    _, gradient = loss_and_gradient(model, x, labels, l2=0.1)
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
        lambda z: loss_and_gradient(Model(z, z[0]), z, np.array([0, 1]), 0.1),
    ],
)
def test_arguments_stay_as_they_are(function) -> None:
    z = np.array([[1.0, 2.0], [3.0, -4.0]])
    before = z.copy()
    function(z)
    np.testing.assert_array_equal(z, before)
