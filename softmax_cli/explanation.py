"""Why a model prefers one class to another: its evidence, attributed to pixels.

If the features are the pixels, z_k = b_k + Σ_p w_pk x_p, so that pixel p contributes (w_pi − w_pj)·x_p to the
difference z_i − z_j; these contributions and the difference of the biases add up to it exactly. For other
features there is no such sum; instead, the gradient ∂(z_i − z_j)/∂x_p shows the effect of slightly
more ink at p.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from softmax_cli.features import FeatureMap
from softmax_cli.model import Model


class Explanation(NamedTuple):
    """Why a model prefers class `winner` to `runner_up`, in float64.

    Attributes:
        winner: Class with the largest evidence.
        runner_up: Class with the second largest evidence.
        evidence: z, of shape (K,), biases included.
        bias: The biases, (K,).
        pixels: (rows, cols), the contributions of the pixels if `adds_up`, else the gradient by the
            intensities, which lie in [0, 1].
        adds_up: Whether contributions and biases add up to the evidence.
    """

    winner: int
    runner_up: int
    evidence: NDArray[np.float64]
    bias: NDArray[np.float64]
    pixels: NDArray[np.float64]
    adds_up: bool

    @property
    def difference(self) -> float:
        """The evidence for the winner minus that for the runner-up."""
        return float(self.evidence[self.winner] - self.evidence[self.runner_up])

    @property
    def bias_difference(self) -> float:
        """The part of the difference that is due to the biases, for any image."""
        return float(self.bias[self.winner] - self.bias[self.runner_up])


def explain(model: Model, features: FeatureMap, image: NDArray[np.uint8]) -> Explanation:
    """Explain why a model prefers the most probable class of an image to the next.

    The image (rows, cols) is prepared.
    """
    weights, bias = (part.astype(np.float64) for part in model)
    phi = features.scale * features.transform(image[None]).astype(np.float64)[0]
    evidence = phi @ weights + bias
    winner, runner_up = np.argsort(-evidence, kind="stable")[:2].tolist()
    margin = weights[:, winner] - weights[:, runner_up]
    adds_up = not features.vector_stages
    pixels = margin * phi if adds_up else features.gradient(image[None], margin[None])[0]
    return Explanation(winner, runner_up, evidence, bias, pixels.reshape(image.shape), adds_up)
