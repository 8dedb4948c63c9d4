"""`SoftmaxRegression`: softmax regression with the conventions of scikit-learn.

With X (n, D) as given, sample weights s_i scaled to a mean of 1, and coefficients W (D, K) in the units of X:

    objective(W, b) = (1/n) Σ_i s_i · cross-entropy(x_i·W + b, y_i) + l2/2 · ‖W‖²

This is the objective of `sklearn.linear_model.LogisticRegression` with C = 1/(l2·n), divided by C·n. For two
classes, scikit-learn has one vector of coefficients, W_1 − W_0; at the optimum W_0 = −W_1, so that ‖W‖² is
half of its squared norm, and C = 2/(l2·n).

The solvers see x' = (x − mean) / scale, with W' = scale · W. The term of the regularization is then
Σ_d l2/scale_d² / 2 · ‖W'_d‖²: the objective is the same, and only its conditioning better.

scikit-learn, which the extra ``[sklearn]`` installs, is imported here only.
"""

import math
import warnings
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from softmax_cli.backend import map_ordered
from softmax_cli.calibration import fit_temperature
from softmax_cli.config import SOLVERS, STAGES, TrainConfig
from softmax_cli.data.dataset import hold_out
from softmax_cli.errors import ConfigError, SoftmaxError
from softmax_cli.features import FeatureMap, fit_features, precompute
from softmax_cli.model import Floats, Model, evidence, log_softmax, softmax
from softmax_cli.solvers import sgd
from softmax_cli.solvers.objective import Objective, SolverStart, Step, solver_module

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils import check_random_state
    from sklearn.utils.class_weight import compute_class_weight
    from sklearn.utils.metaestimators import available_if
    from sklearn.utils.multiclass import check_classification_targets, unique_labels
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
    from threadpoolctl import threadpool_limits  # scikit-learn needs it, too
except ImportError as error:
    raise ConfigError(
        "SoftmaxRegression needs scikit-learn 1.6 or newer, which the extra [sklearn] installs: "
        "pip install 'softmax-regression[sklearn]'"
    ) from error

VALIDATION = 0.1
"""Fraction of the samples to which the temperature is fitted."""

BLOCK = 1024
"""Number of samples whose features a core computes at a time."""

RIDGES = 10
"""Multiple of l2 that is added to the variance of a feature for its internal scale."""

NORM = 50
"""Largest mean squared norm of scaled samples: that of centred MNIST, which suits the learning rate."""


def internal_scale(variance: Floats, l2: float) -> Floats:
    """Return the scale of each feature, (D,), given its variance, (D,).

    The curvature of the objective along a feature is about p·variance + l2, with p up to 1/4. The scale
    sqrt(variance + 10·l2) makes it similar for all features, and does not enlarge those that hardly vary.
    """
    square = variance + RIDGES * l2
    scale: Floats = np.sqrt(square * max(1, len(variance) / NORM))
    return np.where(scale > 0, scale, 1)


def _is_incremental(estimator: "SoftmaxRegression") -> bool:
    return estimator.solver in SOLVERS and SOLVERS[estimator.solver].uses_learning_rate


class SoftmaxRegression(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # without types
    """Softmax regression (multinomial logistic regression), as a scikit-learn classifier.

    Args:
        l2: Factor of the regularization; l2/2 times the squared coefficients, in the units of X, is added to
            the mean loss.
        solver: ``newton``, which converges to the optimum, or ``sgd``.
        features: ``pixels``, the columns of X as they are, or a pipeline of feature stages such as
            ``pixels,fourier``. ``gradients`` needs rows of X that are square images. Stages that redraw
            images, such as ``deskew``, need square images with whole numbers from 0 to 255; features are then
            computed from X/255.
        augment: Distort the images at random, anew in each pass of ``sgd``. X is as for stages that redraw
            images.
        calibrate: Fit a temperature to a tenth of the samples, which are then not trained on.
        tol: With ``newton``, the estimated distance of the loss from the optimum, relative to the loss, at
            which it has converged.
        max_iter: Largest number of iterations, by default 100 with ``newton``; passes over the samples, by
            default 10, with ``sgd``.
        random_state: Seed of everything random.
        class_weight: Weights of the classes: a dict, ``"balanced"``, or None.

    Attributes:
        classes_: The classes, (K,).
        coef_: Coefficients of the features, (K, D), or (1, D) for two classes.
        intercept_: Intercepts, (K,), or (1,) for two classes.
        n_iter_: Number of iterations, (1,).
        converged_: Whether ``newton`` has converged; None with ``sgd``.
        n_features_in_: Number of columns of X.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> SoftmaxRegression().fit(*load_iris(return_X_y=True)).score(*load_iris(return_X_y=True))
        0.98
    """

    def __init__(
        self,
        l2: float = 1e-4,
        *,
        solver: str = "newton",
        features: str = "pixels",
        augment: bool = False,
        calibrate: bool = False,
        tol: float = 1e-6,
        max_iter: int | None = None,
        random_state: Any = 0,
        class_weight: Any = None,
    ):
        self.l2 = l2
        self.solver = solver
        self.features = features
        self.augment = augment
        self.calibrate = calibrate
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state
        self.class_weight = class_weight

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:  # noqa: N803
        """Train on samples X (n, D) with labels y (n,) and weights (n,), by default all 1.

        Raises:
            ValueError: The parameters or the data are not valid, or training diverges.
        """
        x, y = validate_data(self, X, y, dtype=[np.float64, np.float32], order="C")
        check_classification_targets(y)
        self.n_iter_ = np.array([0])
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"SoftmaxRegression needs at least 2 classes, got one class: {self.classes_[0]!r}"
            )
        config, weights = self._config(), self._weights(x, labels, y, sample_weight)
        rows, validation = np.arange(len(x)) if weights is None else np.flatnonzero(weights), None
        try:
            if self.calibrate:
                kept, chosen = hold_out(labels[rows], VALIDATION, config.seed)
                rows, validation = rows[kept], rows[chosen]
            self._begin(x, rows, weights, config)
            with threadpool_limits(1, "blas"):  # the package has threads of its own
                step = self._solve(self._objective(x, labels, rows, weights, config), config)
        except SoftmaxError as error:
            raise ValueError(str(error)) from error
        self._adopt(step.model, step.velocity)
        if validation is not None:
            self._cool(x[validation], labels[validation])
        return self

    @available_if(_is_incremental)  # type: ignore[untyped-decorator]  # without types
    def partial_fit(
        self,
        X: ArrayLike,  # noqa: N803
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Make one pass of gradient descent over samples; the first call needs all classes.

        The first call also determines the means and deviations by which features are scaled internally.

        Raises:
            AttributeError: The solver cannot continue from other samples; use ``sgd``.
            ValueError: A label is not in `classes`, or training diverges.
        """
        first = not hasattr(self, "_velocity")
        if first and classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit")
        x, y = validate_data(self, X, y, dtype=[np.float64, np.float32], order="C", reset=first)
        check_classification_targets(y)
        known = unique_labels(classes) if first else self.classes_
        labels = np.minimum(np.searchsorted(known, y), len(known) - 1)
        if (known[labels] != y).any():
            raise ValueError(f"y has labels that are not in classes {known}")
        self.classes_ = known
        config, weights = self._config("constant"), self._weights(x, labels, y, sample_weight)
        rows = np.arange(len(x))
        try:
            if first:
                self._begin(x, rows, weights, config)
            objective = self._objective(x, labels, rows, weights, config)
            epoch = int(self.n_iter_[0]) + 1
            with threadpool_limits(1, "blas"):  # the package has threads of its own
                step = sgd.run_epoch(objective, config, self._model, self._velocity, epoch, epoch)
        except SoftmaxError as error:
            raise ValueError(str(error)) from error
        self.n_iter_ = np.array([epoch])
        self._adopt(step.model, step.velocity)
        return self

    def decision_function(self, X: ArrayLike) -> Floats:  # noqa: N803
        """Return the evidence (n, K); for two classes the difference (n,), positive for ``classes_[1]``."""
        z = self._evidence(X)
        return z[:, 1] - z[:, 0] if z.shape[1] == 2 else z

    def predict(self, X: ArrayLike) -> NDArray[Any]:  # noqa: N803
        """Return the most probable class of each sample, (n,)."""
        best = self._evidence(X).argmax(axis=1)
        found: NDArray[Any] = self.classes_[best]
        return found

    def predict_proba(self, X: ArrayLike) -> Floats:  # noqa: N803
        """Return the class probabilities (n, K)."""
        return softmax(self._evidence(X))

    def predict_log_proba(self, X: ArrayLike) -> Floats:  # noqa: N803
        """Return the logarithms of the class probabilities (n, K)."""
        return log_softmax(self._evidence(X))

    # Internal

    def _config(self, schedule: str = "cosine") -> TrainConfig:
        """Return the parameters as a `TrainConfig`, which checks them."""
        seed = self.random_state
        if not isinstance(seed, int | np.integer):
            seed = check_random_state(seed).randint(2**31 - 1)
        try:
            return TrainConfig(
                solver=self.solver,
                features=self.features,
                augment=bool(self.augment),
                epochs=None if self.max_iter is None else int(self.max_iter),  # type: ignore[arg-type]
                l2=float(self.l2),
                validation_size=0.0,
                schedule=schedule,
                seed=int(seed),
            )
        except SoftmaxError as error:
            raise ValueError(str(error)) from error

    def _weights(
        self, x: Floats, labels: NDArray[np.intp], y: Any, sample_weight: ArrayLike | None
    ) -> Floats | None:
        """Return the weights of the samples (n,), those of their classes included; None if all are 1."""
        if sample_weight is None and self.class_weight is None:
            return None
        weights = _check_sample_weight(sample_weight, x, dtype=np.float64, ensure_non_negative=True)
        if self.class_weight is not None:
            weights = weights * compute_class_weight(self.class_weight, classes=self.classes_, y=y)[labels]
        if not weights.any():
            raise ValueError("all sample weights are 0")
        return np.asarray(weights, x.dtype)

    def _begin(self, x: Floats, rows: NDArray[np.intp], weights: Floats | None, config: TrainConfig) -> None:
        """Fit the feature stages and the internal scale, and set all parameters to 0."""
        self._features: FeatureMap | None = None
        dimension = x.shape[1]
        self._mean: Floats = np.zeros(dimension)
        self._scale: Floats = np.ones(dimension)
        if config.stages or config.augment:
            self._features = fit_features(config, self._inputs(x), rows)
            dimension = self._features.dimension
        else:
            chosen = x if len(rows) == len(x) else x[rows]
            given = None if weights is None else weights[rows]
            self._mean = np.average(chosen, axis=0, weights=given)
            variance = np.average((chosen - self._mean) ** 2, axis=0, weights=given)
            self._scale = internal_scale(variance, config.l2)
        dtype = np.float32 if self._features else x.dtype
        self._model = Model.zeros(dimension, len(self.classes_), dtype)
        self._velocity = Model.zeros(dimension, len(self.classes_), dtype)
        self.n_iter_ = np.array([0])
        self.converged_: bool | None = None

    def _inputs(self, x: Floats) -> NDArray[Any]:
        """Return what the feature stages are given for x (n, D).

        These are uint8 images (n, rows, cols) if images are redrawn; images in float32 if a stage needs
        them; else x in float32.
        """
        stages = [STAGES[name] for name in TrainConfig(features=self.features).stages]
        redraws = self.augment or any(stage.redraws for stage in stages)
        if not redraws and not any(stage.needs_images for stage in stages):
            return x.astype(np.float32, copy=False)
        needing = "augment" if self.augment else f"features {self.features!r}"
        side = math.isqrt(x.shape[1])
        if side * side != x.shape[1]:
            raise ValueError(
                f"{needing} needs square images, one a row; {x.shape[1]} columns are no square number"
            )
        if not redraws:
            return x.astype(np.float32, copy=False).reshape(-1, side, side)
        if (x != np.clip(np.floor(x), 0, 255)).any():
            raise ValueError(f"{needing} needs images with whole numbers from 0 to 255; X has other values")
        return x.astype(np.uint8).reshape(-1, side, side)

    def _objective(
        self,
        x: Floats,
        labels: NDArray[np.intp],
        rows: NDArray[np.intp],
        weights: Floats | None,
        config: TrainConfig,
    ) -> Objective:
        if weights is not None:
            weights = weights / weights[rows].mean()
        if self._features is not None:
            images, features = precompute(self._features, self._inputs(x))
            return Objective(features, images, labels, rows, config.l2, config.seed, sample_weights=weights)
        scaled = ((x - self._mean) / self._scale).astype(x.dtype)
        l2 = (config.l2 / self._scale**2)[:, None]
        features = FeatureMap((x.shape[1],), (), pixel_scale=1.0)
        return Objective(features, scaled, labels, rows, l2, config.seed, sample_weights=weights)

    def _solve(self, objective: Objective, config: TrainConfig) -> Step:
        """Return the last step of the solver; set `n_iter_` and `converged_`."""
        step = None
        stops = SOLVERS[config.solver].tolerance is not None
        solver = solver_module(config.solver)
        for number, step in enumerate(
            solver.solve(objective, config, SolverStart(self._model, self._velocity, 0)), 1
        ):
            self.n_iter_ = np.array([number])
            if stops:
                self.converged_ = step.distance is not None and step.distance <= self.tol
                if self.converged_:
                    break
        assert step is not None  # nothing stops the solver
        if self.converged_ is False:
            warnings.warn(
                f"{self.solver} did not converge in {self.n_iter_[0]} iterations (tol {self.tol:g}); "
                "raise max_iter, tol or l2",
                ConvergenceWarning,
                stacklevel=3,
            )
        return step

    def _adopt(self, model: Model, velocity: Model) -> None:
        """Take over parameters; set `coef_` and `intercept_`, in the units of the features."""
        self._model, self._velocity = model, velocity
        weights = model.weights.astype(np.float64)
        if self._features is None:
            weights /= self._scale[:, None]
        self._coefficients = weights
        self._intercepts = model.bias - (self._mean @ weights if self._features is None else 0)
        self._publish()

    def _publish(self) -> None:
        coefficients, intercepts = self._coefficients.T, self._intercepts
        if len(self.classes_) == 2:
            coefficients, intercepts = np.diff(coefficients, axis=0), np.diff(intercepts)
        self.coef_, self.intercept_ = coefficients, intercepts

    def _cool(self, x: Floats, labels: NDArray[np.intp]) -> None:
        """Divide the parameters by the temperature that suits these samples best."""
        temperature = fit_temperature(self._evidence_of(x), labels)
        self._coefficients = self._coefficients / temperature
        self._intercepts = self._intercepts / temperature
        self._publish()

    def _evidence(self, X: ArrayLike) -> Floats:  # noqa: N803
        check_is_fitted(self)
        x = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return self._evidence_of(x)

    def _evidence_of(self, x: Floats) -> Floats:
        """Return the evidence (n, K) for rows of numbers (n, D)."""
        if self._features is None:
            return x @ self._coefficients + self._intercepts
        features, images = self._features, self._inputs(x)
        model = Model(self._coefficients * features.scale, self._intercepts)

        def compute(begin: int) -> Floats:
            return evidence(model, features.transform(features.redraw(images[begin : begin + BLOCK])))

        return np.concatenate(list(map_ordered(compute, range(0, len(images), BLOCK))))

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_coefficients")
