"""Calibration of probabilities by one temperature for all evidence.

softmax(z / T) ranks the classes as softmax(z) does, with less confidence for T > 1 and more for T < 1. The
cross-entropy of z·β, with β = 1/T, is convex in β: its derivative is the mean of Σ_k y_k z_k − z_label, its
second derivative the mean variance of z under y. Source: Guo, Pleiss, Sun & Weinberger, On calibration of
modern neural networks (2017), section 4.2.
"""

import numpy as np

from softmax_cli.model import Floats, Labels, Model, softmax

STEPS = 100
"""Largest number of steps; enough even if each of them only halves the interval."""

COLDEST, HOTTEST = 0.01, 100.0
"""Range of the temperature; values beyond it mean that there are too few images."""


def fit_temperature(z: Floats, labels: Labels) -> float:
    """Return the temperature T that minimises the cross-entropy of z / T (n, K).

    If there is no minimum, because every image is classified correctly or the model is no better than
    chance, the result is 1. A step of Newton's method that leaves the interval known to contain the
    optimum is replaced by a bisection.
    """
    z = z.astype(np.float64)
    z -= z.max(axis=1, keepdims=True)  # changes no probability, and keeps the squares small
    truth = z[np.arange(len(z)), labels]
    if (truth >= 0).all() or truth.mean() <= z.mean():
        return 1.0
    low, high, inverse = 1 / HOTTEST, 1 / COLDEST, 1.0
    for _ in range(STEPS):
        y = softmax(z * inverse)
        expected = (y * z).sum(axis=1)
        slope = float((expected - truth).mean())
        curvature = float(((y * z * z).sum(axis=1) - expected**2).mean())
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        following = inverse - slope / curvature if curvature > 0 else low
        if abs(following - inverse) <= 1e-9 * inverse:
            break
        inverse = following if low < following < high else (low + high) / 2
    return 1 / inverse


def tempered(model: Model, temperature: float) -> Model:
    """Return the model whose evidence is that of `model` divided by the temperature."""
    return Model(*(part / part.dtype.type(temperature) for part in model)) if temperature != 1 else model
