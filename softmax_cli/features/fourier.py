"""Random Fourier features, whose products approximate a Gaussian kernel.

φ(x) = sqrt(2/D) · cos((x − μ)·Ω + φ₀), with Ω = S·N/σ, N drawn from the standard normal distribution, φ₀
uniformly from [0, 2π), and μ the mean of the training inputs. Then φ(x)·φ(x') approximates the Gaussian
kernel exp(−‖S·x − S·x'‖² / (2σ²)) of images that S has smoothed, with an error of the order of 1/sqrt(D).
S is a Gaussian blur with a standard deviation of s pixels: strokes that narrowly miss each other then count
as similar. With s = 0, or for inputs that are not images, S is the identity.

σ is the bandwidth times the root-mean-square distance between two training inputs, sqrt(2 · Σ var(S·x)), so
that one bandwidth suits inputs of any scale and number. s is the smoothing. The phase holds φ₀ − μ·Ω.

Source: Rahimi & Recht, Random features for large-scale kernel machines (2007).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from softmax_cli.config import TrainConfig
from softmax_cli.features import check_memory
from softmax_cli.features.stage import Shape, Stage, intensities
from softmax_cli.model import Floats

COLUMNS = 512
"""Number of features that are computed at a time: those of a batch fit in a cache."""

GAIN = 400.0
"""Learning rate for many Fourier features, relative to that for pixels.

The largest stable learning rate is inversely proportional to the squared norm of the features. The pixels of
an MNIST digit have a mean squared norm of about 100; Fourier features have 1, whatever their number.
"""

FEW = 1000
"""Number of features for which the learning rate is half of that for many.

With few features the classes overlap more, and a large learning rate diverges. Found by trying 30 to 10,000.
"""


@dataclass(frozen=True)
class Fourier(Stage):
    """The stage of random Fourier features: `projection` Ω (inputs, D) and `phase` φ₀ − μ·Ω (D,)."""

    projection: NDArray[np.float32]
    phase: NDArray[np.float32]

    is_stored: ClassVar[bool] = False

    @property
    def scale(self) -> float:
        """The factor sqrt(2/D)."""
        return math.sqrt(2 / len(self.phase))

    @property
    def gain(self) -> float:
        """Factor of the learning rate, `GAIN` · D / (D + `FEW`)."""
        return GAIN * len(self.phase) / (len(self.phase) + FEW)

    @classmethod
    def fit(cls, images: NDArray[Any], config: TrainConfig, seed: int) -> Self:
        """Draw the features by ``default_rng((seed, 0, 1))``, with σ and μ from the inputs (n, ...).

        Raises:
            ConfigError: The projection would take more memory than may be used.
        """
        shape = math.prod(images.shape[1:]), config.fourier_dimension
        what = f"the projection of {shape[0]:,} inputs to {shape[1]:,} features"
        check_memory(4 * math.prod(shape), what, "choose a smaller --fourier-dimension")
        generator = np.random.default_rng((seed, 0, 1))
        projection = generator.standard_normal(shape, np.float32)
        inputs = intensities(images.reshape(len(images), -1))
        width = config.fourier_smoothing if images.ndim == 3 else 0.0
        smoothed = smooth(inputs.T, images.shape[1:], width).T if width else inputs
        sigma = config.fourier_bandwidth * (root_mean_square_distance(smoothed) or 1.0)
        for begin in range(0, shape[1], COLUMNS):
            part = projection[:, begin : begin + COLUMNS]
            if width:
                part[...] = smooth(part, images.shape[1:], width)
            part /= np.float32(sigma)
        phase = generator.uniform(0, 2 * math.pi, shape[1])
        phase -= inputs.mean(axis=0, dtype=np.float64) @ projection
        return cls((shape[1],), projection, phase.astype(np.float32))

    @classmethod
    def array_shapes(cls, config: TrainConfig, input_shape: Shape) -> dict[str, Shape]:
        """Return the shapes of `projection` and `phase`."""
        dimension = config.fourier_dimension
        return {"projection": (math.prod(input_shape), dimension), "phase": (dimension,)}

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, NDArray[np.float32]], config: TrainConfig, input_shape: Shape
    ) -> Self:
        """Return the stage with these arrays."""
        return cls(arrays["phase"].shape, arrays["projection"], arrays["phase"])

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Return `projection` and `phase`."""
        return {"projection": self.projection, "phase": self.phase}

    def browser_arrays(self) -> dict[str, NDArray[np.float32]]:
        """Return `projection` and `phase`."""
        return self.arrays()

    def title(self, inputs: str) -> str:
        """Return what the outputs are, in words."""
        return f"{len(self.phase):,} random Fourier features of {inputs}"

    def transform(
        self,
        x: NDArray[Any],
        out: NDArray[np.float32] | None = None,
        generator: "np.random.Generator | None" = None,
    ) -> NDArray[np.float32]:
        """Return cos(x·Ω + φ₀), float32 (n, D), a block of columns at a time."""
        inputs = intensities(x.reshape(len(x), -1))
        features = np.empty((len(x), len(self.phase)), np.float32) if out is None else out[: len(x)]
        for begin in range(0, len(self.phase), COLUMNS):
            columns = slice(begin, begin + COLUMNS)
            part = features[:, columns]
            np.matmul(inputs, self.projection[:, columns], out=part)
            part += self.phase[columns]
            np.cos(part, out=part)
        return features

    def backward(self, x: NDArray[Any], gradient: Floats) -> Floats:
        """Return −sqrt(2/D) · (g · sin(x·Ω + φ₀))·Ωᵀ, shape (n, inputs), in the precision of `gradient`."""
        projection = self.projection.astype(gradient.dtype, copy=False)
        inputs = x.reshape(len(x), -1).astype(gradient.dtype)
        if x.dtype == np.uint8:
            inputs /= 255
        result: Floats = -self.scale * (gradient * np.sin(inputs @ projection + self.phase)) @ projection.T
        return result


STAGE = Fourier


def root_mean_square_distance(x: NDArray[np.float32]) -> float:
    """Return the root-mean-square distance of two independent rows of x (n, D): sqrt(2 · Σ_j var(x_j))."""
    return math.sqrt(2 * float(x.var(axis=0, dtype=np.float64).sum()))


def smooth(columns: NDArray[np.float32], image_shape: Shape, width: float) -> NDArray[np.float32]:
    """Return S times the columns (pixels, n), each an image, row by row; outside of an image it is 0."""
    rows, cols = (_blur_matrix(side, width) for side in image_shape)
    smoothed: NDArray[np.float32] = cols @ (rows @ columns.reshape(len(rows), -1)).reshape(*image_shape, -1)
    return smoothed.reshape(columns.shape)


def _blur_matrix(side: int, width: float) -> NDArray[np.float32]:
    """Return the symmetric matrix (side, side) of a one-dimensional Gaussian blur."""
    if width < 0.1:  # narrower than a pixel: no weight reaches the next one
        return np.eye(side, dtype=np.float32)
    distance = np.subtract.outer(np.arange(side), np.arange(side))
    all_distances = np.arange(-math.ceil(8 * width), math.ceil(8 * width) + 1)
    whole = np.exp(-(all_distances**2) / (2 * width**2)).sum()
    weights: NDArray[np.float64] = np.exp(-(distance**2) / (2 * width**2)) / whole
    return weights.astype(np.float32)
