"""Principal component analysis: rotate features to the axes of largest variance, and keep the first ones.

y = (x − μ)·V, with μ the mean of the training inputs and the columns of V the eigenvectors of their
covariance matrix with the largest eigenvalues, largest first. The sign of each is chosen so that its entry of
largest magnitude is positive.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from softmax_cli.config import TrainConfig
from softmax_cli.errors import ConfigError
from softmax_cli.features import check_memory
from softmax_cli.features.stage import Shape, Stage, intensities
from softmax_cli.model import Floats

GAIN = 100.0
"""Learning rate relative to that for pixels, times the total variance of the components."""


@dataclass(frozen=True)
class PCA(Stage):
    """The stage of principal components.

    Attributes:
        mean: μ, (inputs,).
        components: V, (inputs, D).
        variances: Variances of the components, (D,).
    """

    mean: NDArray[np.float32]
    components: NDArray[np.float32]
    variances: NDArray[np.float32]

    @property
    def gain(self) -> float:
        """Factor of the learning rate, `GAIN` / total variance."""
        return GAIN / max(float(self.variances.sum()), 1e-12)

    @classmethod
    def fit(cls, images: NDArray[Any], config: TrainConfig, seed: int) -> Self:
        """Return the stage, fitted on its inputs (n, ...).

        Raises:
            ConfigError: There are fewer inputs than components, or the covariance would take too much memory.
        """
        inputs, dimension = math.prod(images.shape[1:]), config.pca_dimension
        if dimension > inputs:
            raise ConfigError(
                f"pca-dimension {dimension} is more than the number of inputs, {inputs}; choose a smaller one"
            )
        check_memory(
            8 * inputs**2, f"the covariance matrix of {inputs:,} inputs", "leave out the feature stage pca"
        )
        x = intensities(images.reshape(len(images), -1)).astype(np.float64)
        mean = x.mean(axis=0)
        x -= mean
        variances, vectors = np.linalg.eigh(x.T @ x / max(len(x) - 1, 1))
        components = vectors[:, ::-1][:, :dimension]
        components *= np.sign(components[np.abs(components).argmax(axis=0), np.arange(dimension)])
        arrays = mean, components, np.maximum(variances[::-1][:dimension], 0)
        return cls((dimension,), *(np.ascontiguousarray(array, np.float32) for array in arrays))

    @classmethod
    def array_shapes(cls, config: TrainConfig, input_shape: Shape) -> dict[str, Shape]:
        """Return the shapes of `mean`, `components` and `variances`."""
        inputs, dimension = math.prod(input_shape), config.pca_dimension
        return {"mean": (inputs,), "components": (inputs, dimension), "variances": (dimension,)}

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, NDArray[np.float32]], config: TrainConfig, input_shape: Shape
    ) -> Self:
        """Return the stage with these arrays."""
        return cls((config.pca_dimension,), arrays["mean"], arrays["components"], arrays["variances"])

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Return `mean`, `components` and `variances`."""
        return {"mean": self.mean, "components": self.components, "variances": self.variances}

    def browser_arrays(self) -> dict[str, NDArray[np.float32]]:
        """Return `mean` and `components`."""
        return {"mean": self.mean, "components": self.components}

    def title(self, inputs: str) -> str:
        """Return what the outputs are, in words."""
        return f"{self.shape[0]:,} principal components of {inputs}"

    def transform(
        self,
        x: NDArray[Any],
        out: NDArray[np.float32] | None = None,
        generator: "np.random.Generator | None" = None,
    ) -> NDArray[np.float32]:
        """Return the components, float32 (n, D)."""
        centred = intensities(x.reshape(len(x), -1)) - self.mean
        result: NDArray[np.float32] = np.matmul(
            centred, self.components, out=None if out is None else out[: len(x)]
        )
        return result

    def backward(self, x: NDArray[Any], gradient: Floats) -> Floats:
        """Return gradient · Vᵀ, shape (n, inputs)."""
        return gradient @ self.components.T.astype(gradient.dtype)


STAGE = PCA
