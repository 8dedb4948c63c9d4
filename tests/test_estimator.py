"""`SoftmaxRegression` follows scikit-learn's conventions and agrees with `LogisticRegression`."""

import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator
from threadpoolctl import threadpool_info, threadpool_limits

from softmax_cli import SoftmaxRegression, training
from softmax_cli.checkpoint import Checkpoint
from softmax_cli.classifier import Classifier
from softmax_cli.config import TrainConfig
from softmax_cli.data.dataset import Dataset, hold_out
from softmax_cli.features.gradients import Gradients
from softmax_cli.model import cross_entropy
from softmax_cli.solvers.objective import Objective

Array = np.ndarray[Any, Any]


def expected_failures(estimator: Any) -> dict[str, str]:
    """Return the checks that scikit-learn marks as failing for its SGDClassifier, too."""
    reason = "newton ends at a tolerance"
    return {"check_sample_weight_equivalence_on_dense_data": reason} if estimator.solver == "newton" else {}


CHECKS = [
    pair
    for estimator in (SoftmaxRegression(max_iter=30), SoftmaxRegression(solver="sgd"))
    for pair in estimator_checks_generator(
        estimator, expected_failed_checks=expected_failures(estimator), mark="xfail"
    )
]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.parametrize(
    ("estimator", "check"), CHECKS, ids=lambda one: getattr(one, "func", type(one)).__name__
)
def test_scikit_learns_checks(estimator: SoftmaxRegression, check: Callable[..., None]) -> None:
    check(estimator)


def objective(weights: Array, bias: Array, x: Array, y: Array, l2: float) -> float:
    return cross_entropy(x @ weights + bias, y) + l2 / 2 * float((weights**2).sum())


def parameters(model: Any) -> tuple[Array, Array]:
    """Return coefficients (D, K) and intercepts (K,); of two classes, those that sum to 0."""
    coef, intercept = model.coef_, model.intercept_
    if len(coef) == 1:
        coef, intercept = np.vstack([-coef, coef]) / 2, np.concatenate([-intercept, intercept]) / 2
    return coef.T, intercept


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("l2", [1e-2, 1e-4])
@pytest.mark.parametrize("load", [load_iris, load_wine, load_digits, load_breast_cancer])
def test_optimum_is_that_of_logistic_regression(load: Any, l2: float, dtype: type) -> None:
    """On raw features, whose scales differ by up to five orders of magnitude."""
    x, y = load(return_X_y=True)
    classes = len(np.unique(y))
    reference = LogisticRegression(
        C=(2 if classes == 2 else 1) / (l2 * len(y)), solver="newton-cholesky", max_iter=1000, tol=1e-9
    ).fit(x, y)
    ours = SoftmaxRegression(l2=l2).fit(x.astype(dtype), y)
    values = [objective(*parameters(model), x, y, l2) for model in (ours, reference)]
    assert abs(values[0] - values[1]) < 1e-5 * values[1]
    assert (ours.predict(x) == reference.predict(x)).mean() >= 0.995
    assert (ours.converged_, ours.coef_.shape) == (True, reference.coef_.shape)
    np.testing.assert_allclose(ours.predict_proba(x), reference.predict_proba(x), atol=0.01)


def test_two_classes_have_one_column() -> None:
    x, y = load_breast_cancer(return_X_y=True)
    names = np.array(["malignant", "benign"])[y]
    model = SoftmaxRegression().fit(x, names)
    z = model.decision_function(x)
    assert (z.shape, model.coef_.shape, model.intercept_.shape) == ((len(x),), (1, 30), (1,))
    np.testing.assert_allclose(z, (x @ model.coef_.T + model.intercept_)[:, 0])
    assert ((z > 0) == (model.predict(x) == model.classes_[1])).all()
    np.testing.assert_allclose(model.predict_proba(x)[:, 1], 1 / (1 + np.exp(-z)))


def test_weights_count_samples_several_times() -> None:
    """A weight of 2 gives the optimum of a sample that is there twice, and 0 of one that is not there."""
    x, y = load_iris(return_X_y=True)
    weights = np.arange(len(x)) % 3
    weighted = SoftmaxRegression(1e-2, tol=1e-10).fit(x, y, sample_weight=weights)
    repeated = SoftmaxRegression(1e-2, tol=1e-10).fit(np.repeat(x, weights, axis=0), np.repeat(y, weights))
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, atol=1e-4)


def test_class_weight_is_a_sample_weight() -> None:
    x, y = load_iris(return_X_y=True)
    x, y = x[:120], y[:120]
    balanced = SoftmaxRegression(1e-2, class_weight="balanced").fit(x, y)
    weights = np.array([1, 1, 2.5])[y]
    by_hand = SoftmaxRegression(1e-2).fit(x, y, sample_weight=weights)
    np.testing.assert_allclose(balanced.coef_, by_hand.coef_, rtol=1e-5)


def test_partial_fit_learns_from_parts() -> None:
    x, y = load_digits(return_X_y=True)
    model = SoftmaxRegression(solver="sgd")
    for _ in range(3):
        for part in np.array_split(np.random.default_rng(0).permutation(len(x)), 4):
            model.partial_fit(x[part], y[part], classes=range(10))
    assert (model.score(x, y) > 0.93, model.n_iter_.tolist()) == (True, [12])
    assert not hasattr(SoftmaxRegression(), "partial_fit")
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        SoftmaxRegression(solver="sgd").partial_fit(x, y)
    with pytest.raises(ValueError, match="labels that are not in classes"):
        model.partial_fit(x[:1], [11])


def test_partial_fit_ignores_an_earlier_fit_schedule() -> None:
    """Training again after partial_fit gives the model of a new estimator."""
    x, y = load_iris(return_X_y=True)
    used = SoftmaxRegression(solver="sgd").partial_fit(x, y, classes=[0, 1, 2]).fit(x, y)
    np.testing.assert_array_equal(used.coef_, SoftmaxRegression(solver="sgd").fit(x, y).coef_)


@pytest.mark.parametrize(
    "options",
    [
        {"features": "deskew,fourier"},
        {"features": "normalize,gradients,pca"},
        {"augment": True},
        {"features": "normalize,gradients", "augment": True},
    ],
    ids=str,
)
def test_images_are_learned_as_by_the_command(
    options: dict[str, Any], sample: Dataset, sample_test: Dataset
) -> None:
    """Rows of pixels give the weights and the answers of `softmax train` on the same images."""
    part = replace(sample, images=sample.images[:500], labels=sample.labels[:500])
    model = SoftmaxRegression(1e-4, solver="sgd", max_iter=3, **options)
    model.fit(part.images.reshape(500, -1), part.labels)
    config = TrainConfig(epochs=3, validation_size=0, l2=1e-4, **options)
    *_, state = training.fit(config, part)
    np.testing.assert_allclose(model.coef_.T, state.model.weights, rtol=1e-5, atol=1e-6)
    classifier = Classifier(Checkpoint.begin(config, part, state))
    found = model.predict_proba(sample_test.images.reshape(1000, -1))
    np.testing.assert_allclose(found, classifier.predict_proba(sample_test.images), atol=1e-5)


def test_partial_fit_augments_anew_in_each_call(sample: Dataset) -> None:
    """Two calls give the weights of two epochs of the command at a constant learning rate."""
    part = replace(sample, images=sample.images[:500], labels=sample.labels[:500])
    model = SoftmaxRegression(solver="sgd", augment=True)
    for _ in range(2):
        model.partial_fit(part.images.reshape(500, -1), part.labels, classes=range(10))
    *_, state = training.fit(
        TrainConfig(augment=True, epochs=2, validation_size=0, schedule="constant"), part
    )
    np.testing.assert_allclose(model.coef_.T, state.model.weights, rtol=1e-5, atol=1e-6)


def test_features_of_numbers_are_computed_from_them_as_given() -> None:
    """With ``gradients``, rows are images in any unit; ``fourier`` takes any rows."""
    x, y = load_digits(return_X_y=True)
    model = SoftmaxRegression(1e-5, features="gradients").fit(x / 16, y)
    stage = Gradients.from_arrays({}, TrainConfig(features="gradients"), (8, 8))
    phi = stage.transform((x / 16).astype(np.float32).reshape(-1, 8, 8))
    np.testing.assert_allclose(
        model.decision_function(x / 16), phi @ model.coef_.T + model.intercept_, atol=1e-3
    )
    assert model.score(x / 16, y) > 0.98
    assert SoftmaxRegression(features="pixels,fourier", solver="sgd").fit(x, y).coef_.shape == (10, 4000)


def test_calibration_divides_by_the_best_temperature() -> None:
    """On the samples that are set aside for it, any other temperature has a higher loss."""
    x, y = load_breast_cancer(return_X_y=True)
    model = SoftmaxRegression(1e-5, calibrate=True).fit(x, y)
    _, rows = hold_out(y, 0.1, 0)
    half = model.decision_function(x[rows])[:, None] / 2
    z = np.hstack([-half, half])
    losses = [cross_entropy(z * factor, y[rows]) for factor in (0.99, 1, 1.01)]
    assert losses[1] < min(losses[0], losses[2])
    trained = np.setdiff1d(np.arange(len(x)), rows)
    uncalibrated = SoftmaxRegression(1e-5).fit(x[trained], y[trained])
    ratio = model.coef_ / uncalibrated.coef_
    assert abs(ratio.mean() - 1) > 0.01
    np.testing.assert_allclose(ratio, ratio.mean(), rtol=1e-6)


def test_it_works_inside_of_scikit_learn() -> None:
    x, y = load_wine(return_X_y=True)
    pipeline = make_pipeline(StandardScaler(), SoftmaxRegression())
    search = GridSearchCV(pipeline, {"softmaxregression__l2": [1e-1, 1e-3]}, cv=3).fit(x, y)
    assert search.best_score_ > 0.95
    calibrated = CalibratedClassifierCV(SoftmaxRegression(1e-2), cv=3).fit(x, y)
    assert calibrated.score(x, y) > 0.95
    copy = pickle.loads(pickle.dumps(search.best_estimator_))
    np.testing.assert_array_equal(copy.predict_proba(x), search.predict_proba(x))


@pytest.mark.parametrize("solver", ["newton", "sgd"])
def test_blas_has_one_thread_while_the_package_has_several(
    solver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads of both kinds at once are several times slower than either."""
    seen = []

    def report(self: Objective, images: int) -> None:
        seen.extend(one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas")

    monkeypatch.setattr(Objective, "report", report)
    with threadpool_limits(2, "blas"):
        SoftmaxRegression(solver=solver).fit(*load_iris(return_X_y=True))
        if solver == "sgd":
            SoftmaxRegression(solver=solver).partial_fit(*load_iris(return_X_y=True), classes=range(3))
        after = {one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}
    assert (set(seen), after) == ({1}, {2})


def test_a_run_that_is_cut_short_warns_and_says_so() -> None:
    x, y = load_wine(return_X_y=True)
    with pytest.warns(ConvergenceWarning, match="did not converge in 1 iterations"):
        model = SoftmaxRegression(max_iter=1).fit(x, y)
    assert (model.converged_, model.n_iter_.tolist()) == (False, [1])
    assert SoftmaxRegression(solver="sgd").fit(x, y).converged_ is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "adam"}, "solver must be sgd or newton, not 'adam'"),
        ({"l2": -1}, "l2 must be at least 0"),
        ({"features": "edges"}, "unknown feature stage 'edges'"),
        ({"features": "deskew"}, "features 'deskew' needs square images, one a row; 13 columns are no"),
        ({"features": "gradients"}, "features 'gradients' needs square images, one a row; 13 columns"),
        ({"augment": True, "solver": "sgd"}, "augment needs square images, one a row; 13 columns"),
        ({"augment": True}, "augment has no effect with solver newton"),
    ],
)
def test_wrong_parameters_are_value_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SoftmaxRegression(**options).fit(*load_wine(return_X_y=True))


@pytest.mark.parametrize("change", [0.5, -1, 300])
def test_images_to_be_redrawn_are_whole_numbers(change: float) -> None:
    x, y = load_digits(return_X_y=True)
    x[3, 0] += change
    with pytest.raises(ValueError, match="augment needs images with whole numbers from 0 to 255; X has oth"):
        SoftmaxRegression(solver="sgd", augment=True).fit(x, y)


def test_without_scikit_learn_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['sklearn'] = None; sys.modules['sklearn.base'] = None; import softmax_cli; "
    )
    code += "from softmax_cli import *; softmax_cli.SoftmaxRegression"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "which the extra [sklearn] installs" in result.stderr.splitlines()[-1]
