"""The mathematics of softmax regression.

Shapes: n images, D features, K classes; features x (n, D), weights W (D, K), bias b (K,),
evidence z (n, K), probabilities y (n, K), labels (n,) of integers in 0 .. K - 1, and t, the labels as
one-hot rows (n, K). The dtype follows the data: float32 to train, float64 to check.

Source of the formulas: Bishop, Pattern Recognition and Machine Learning (2006), section 4.3.4; the
shift by the maximum is the log-sum-exp trick of Blanchard, Higham & Higham, IMA J. Numer. Anal. (2021).
"""

from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]


class Model(NamedTuple):
    """Weights (D, K) and bias (K,), or a gradient or a velocity of the two."""

    weights: Floats
    bias: Floats

    @classmethod
    def zeros(cls, features: int, classes: int, dtype: Any = np.float32) -> Self:
        """Return a model with all parameters 0: uniform probabilities for any input."""
        return cls(np.zeros((features, classes), dtype), np.zeros(classes, dtype))


def evidence(model: Model, x: Floats) -> Floats:
    """Return z = x·W + b, the evidence (logits) for each class, shape (n, K).

    The result is in Fortran order: reductions over the classes of each image are several times faster on
    long columns than on short rows.
    """
    product = x @ model.weights
    z: Floats = np.empty_like(product, order="F")
    return np.add(product, model.bias, out=z)


def softmax(z: Floats) -> Floats:
    """Return the softmax of the evidence z over the last axis.

    y_k = exp(z_k − m) / Σ_j exp(z_j − m) with m = max_j z_j.

    The shift by m does not change the result and keeps every exponential in [0, 1]. Evidence of minus
    infinity gives a probability of 0 if another class of the row has finite evidence.
    """
    y: Floats = np.exp(z - z.max(axis=-1, keepdims=True))
    y /= y.sum(axis=-1, keepdims=True)
    return y


def log_softmax(z: Floats) -> Floats:
    """Return the logarithm of the softmax of z over the last axis.

    log y_k = (z_k − m) − log Σ_j exp(z_j − m) with m = max_j z_j.
    """
    shifted: Floats = z - z.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def cross_entropy(z: Floats, labels: Labels) -> float:
    """Return the mean cross-entropy −log y_label, in nats, of the evidence z (n, K)."""
    return -float(log_softmax(z)[np.arange(len(z)), labels].mean())


def cross_entropy_gradient(z: Floats, labels: Labels, weights: Floats | None = None) -> tuple[float, Floats]:
    """Return the cross-entropy and its gradient by the evidence, (n, K).

    The gradient is ∂loss/∂z = (y − t) / n.

    With sample weights s (n,), the loss is (1/n) Σ_i s_i · loss_i, and row i of the gradient has the factor
    s_i.
    """
    log_y = log_softmax(z)
    true = np.arange(len(z)), labels
    losses = -log_y[true]
    loss = float(losses.mean() if weights is None else weights @ losses / len(z))
    residual: Floats = np.exp(log_y, out=log_y)
    residual[true] -= 1
    residual /= len(z)
    if weights is not None:
        residual *= weights[:, None]
    return loss, residual


def squared_error_gradient(z: Floats, labels: Labels) -> tuple[float, Floats]:
    """Return the squared error and its gradient by the evidence, for comparison.

    The loss is the mean over images of Σ_k (y_k − t_k)².

    By the chain rule through the Jacobian, ∂/∂z_j = 2 y_j (r_j − Σ_k r_k y_k) / n with r = y − t. If
    the model is confident and wrong, y_j is close to 0 or 1 and the gradient vanishes: learning stalls on a
    plateau. Cross-entropy has no such plateau.
    """
    y = softmax(z)
    r = y.copy()
    r[np.arange(len(z)), labels] -= 1
    loss = float((r * r).sum(axis=-1).mean())
    gradient: Floats = 2 * y * (r - (r * y).sum(axis=-1, keepdims=True)) / len(z)
    return loss, gradient


def softmax_jacobian(y: Floats) -> Floats:
    """Return the Jacobian of the softmax, (K, K), for one row y (K,).

    ∂y_i/∂z_j = y_i (δ_ij − y_j).
    """
    jacobian: Floats = np.diag(y) - np.outer(y, y)
    return jacobian


def loss_and_gradient(
    model: Model, x: Floats, labels: Labels, weights: Floats | None = None
) -> tuple[float, Model]:
    """Return the cross-entropy and its gradient by weights and bias.

    The sample weights (n,) are optional.

    ∂/∂W = xᵀ · ∂loss/∂z, ∂/∂b = the sum of the rows of ∂loss/∂z.
    """
    loss, residual = cross_entropy_gradient(evidence(model, x), labels, weights)
    by_class = residual.T @ x  # (K, D): a fifth faster than xᵀ · residual, even with the copy
    return loss, Model(np.ascontiguousarray(by_class.T), residual.sum(axis=0))


def penalty(model: Model, l2: float | Floats) -> float:
    """Return the regularization term l2/2 · ‖W‖²; the bias is not regularized.

    With a factor for each feature, l2 (D, 1), it is the sum of l2_d/2 · ‖W_d‖² over the features.
    """
    if isinstance(l2, np.ndarray):
        with np.errstate(over="ignore"):  # the objective is then infinite
            return float((l2 * model.weights * model.weights).sum()) / 2
    flat = model.weights.ravel()
    return l2 / 2 * float(flat @ flat)
