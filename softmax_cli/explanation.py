"""Why one class rather than another: the evidence, taken apart.

Of pixels, z_k = b_k + Σ_p w_pk x_p, so that what pixel p says for class i rather than j is
(w_pi − w_pj)·x_p; these contributions, and the difference of the biases, add up to z_i − z_j exactly.
Of other features they do not; there the gradient ∂(z_i − z_j)/∂x_p says what a little more ink at p would
do. For φ(x) = s·cos(x·Ω + φ₀) it is −s·Ω·((w_i − w_j) · sin(x·Ω + φ₀)).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from softmax_cli.features import FeatureMap
from softmax_cli.model import Model


class Explanation(NamedTuple):
    """Why class `winner` and not `runner_up`, in float64.

    `evidence` (K,) is z, of which the biases are a part. `pixels` (rows, cols) holds the contributions where
    `adds_up`, else the gradient by the intensities, which lie in [0, 1].
    """

    winner: int
    runner_up: int
    evidence: NDArray[np.float64]
    bias: NDArray[np.float64]
    pixels: NDArray[np.float64]
    adds_up: bool

    @property
    def difference(self) -> float:
        """The evidence for the winner less that for the runner-up."""
        return float(self.evidence[self.winner] - self.evidence[self.runner_up])

    @property
    def bias_difference(self) -> float:
        """The part of the difference that the biases make, whatever the image."""
        return float(self.bias[self.winner] - self.bias[self.runner_up])


def explain(model: Model, features: FeatureMap, image: NDArray[np.uint8]) -> Explanation:
    """Return why a model takes a prepared image (rows, cols) for what it does, and not for the next best."""
    x = image.ravel() / 255
    weights, bias = (part.astype(np.float64) for part in model)
    if features.projection is None or features.phase is None:
        phi, slopes = x, None
    else:
        projection = features.projection.astype(np.float64)
        angles = x @ projection + features.phase
        phi, slopes = features.scale * np.cos(angles), -features.scale * np.sin(angles)
    evidence = phi @ weights + bias
    winner, runner_up = np.argsort(-evidence, kind="stable")[:2].tolist()
    margin = weights[:, winner] - weights[:, runner_up]
    pixels = margin * x if slopes is None else projection @ (slopes * margin)
    return Explanation(winner, runner_up, evidence, bias, pixels.reshape(image.shape), slopes is None)
