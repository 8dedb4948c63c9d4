"""From images to the numbers that the model weighs, in two steps.

`prepare` draws images anew, uint8 to uint8, once for a data set: for ``deskew`` and ``fourier`` upright and
centred (`softmax_cli.deskew`). `transform` makes prepared images into features, uint8 (n, rows, cols) to
float32 (n, D), a batch at a time:

- ``pixels`` and ``deskew``: x, the intensities in [0, 1], row by row;
- ``fourier``: φ(x) = sqrt(2/D) · cos(x·Ω + φ₀), with Ω = S·N/σ, N drawn from the standard normal
  distribution and φ₀ evenly from [0, 2π). Then φ(x)·φ(x') estimates the Gaussian kernel
  exp(−‖S·x − S·x'‖² / (2σ²)) of images that S has smoothed, with an error of the order of 1/sqrt(D). S
  spreads each pixel like a normal distribution, s pixels wide: two strokes that just miss each other are
  near. With s = 0 the kernel is that of the images themselves. σ is the bandwidth, s the smoothing. Source:
  Rahimi & Recht, Random features for large-scale kernel machines (2007).

A feature is `scale` times what `transform` computes. The scale is left to the weights, which are far fewer
than the features of a batch: z = (scale · raw)·W = raw·(scale · W).
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from softmax_cli.config import TrainConfig
from softmax_cli.deskew import deskew
from softmax_cli.errors import ConfigError
from softmax_cli.model import Floats, Labels, Model, evidence
from softmax_cli.parallel import for_each

MEMORY_LIMIT = 2**30
"""Bytes that prepared images may take, and a projection, and a batch of features."""

COLUMNS = 512
"""Fourier features that are made at a time: those of a batch fit in a cache."""

FOURIER_GAIN = 400.0
"""How much larger steps may be for many Fourier features than for pixels.

A step along the gradient may be the larger, the smaller the features are. The pixels of a digit of MNIST
have a mean squared norm of about 100; Fourier features have 1, however many there are.
"""

FEW = 1000
"""Fourier features for which steps are half as large as for many.

Few features leave the classes mixed, and there a large step goes astray. Found by trying 30 to 10,000.
"""


class FeatureMap(NamedTuple):
    """What the features are: their number D, and the factor that `transform` leaves out.

    `deskewed` says whether `prepare` has work to do. `gain` multiplies the learning rate of the weights.
    Fourier features have a `projection` Ω (pixels, D) and a `phase` φ₀ (D,).
    """

    dimension: int
    scale: float
    deskewed: bool = False
    gain: float = 1.0
    projection: NDArray[np.float32] | None = None
    phase: NDArray[np.float32] | None = None

    @property
    def kind(self) -> str:
        """The name of the features, as in `TrainConfig`."""
        if self.projection is not None:
            return "fourier"
        return "deskew" if self.deskewed else "pixels"

    @property
    def title(self) -> str:
        """What the features are, in words."""
        if self.projection is not None:
            return f"{self.dimension:,} random Fourier features of deskewed pixels"
        return "deskewed pixels" if self.deskewed else "raw pixels"

    @property
    def prepared(self) -> "FeatureMap":
        """The map to the same features from images that `prepare` has seen already."""
        return self._replace(deskewed=False)


def pixels(image_shape: tuple[int, int], deskewed: bool = False) -> FeatureMap:
    """Return the map to the intensities of the pixels, of the images as they are or deskewed."""
    return FeatureMap(math.prod(image_shape), 1 / 255, deskewed)


def fourier(projection: NDArray[np.float32], phase: NDArray[np.float32]) -> FeatureMap:
    """Return the map to the random Fourier features that have this Ω (pixels, D) and this φ₀ (D,)."""
    dimension = len(phase)
    gain = FOURIER_GAIN * dimension / (dimension + FEW)
    return FeatureMap(dimension, math.sqrt(2 / dimension), True, gain, projection, phase)


def dimension(config: TrainConfig, image_shape: tuple[int, int]) -> int:
    """Return the number of features that a config asks for."""
    return config.fourier_dimension or math.prod(image_shape)


def draw(config: TrainConfig, image_shape: tuple[int, int]) -> FeatureMap:
    """Return the map that a config asks for; what is random comes from ``default_rng((seed, 0, 1))``.

    Raises `ConfigError` where the projection would take more memory than `MEMORY_LIMIT`.
    """
    if config.features != "fourier":
        return pixels(image_shape, config.features == "deskew")
    shape = math.prod(image_shape), config.fourier_dimension
    what = f"the projection of {shape[0]:,} pixels to {shape[1]:,} features"
    _check_memory(4 * math.prod(shape), what, "choose a smaller fourier-dimension")
    generator = np.random.default_rng((config.seed, 0, 1))
    projection = generator.standard_normal(shape, np.float32)
    for begin in range(0, shape[1], COLUMNS):
        part = projection[:, begin : begin + COLUMNS]
        part[...] = smooth(part, image_shape, config.fourier_smoothing)
        part /= np.float32(config.fourier_bandwidth)
    return fourier(projection, generator.uniform(0, 2 * math.pi, shape[1]).astype(np.float32))


def smooth(columns: NDArray[np.float32], image_shape: tuple[int, int], width: float) -> NDArray[np.float32]:
    """Return S times the columns (pixels, n), each an image, row by row; outside of an image there is 0."""
    rows, cols = (_spread(side, width) for side in image_shape)
    smoothed: NDArray[np.float32] = cols @ (rows @ columns.reshape(len(rows), -1)).reshape(*image_shape, -1)
    return smoothed.reshape(columns.shape)


def _spread(side: int, width: float) -> NDArray[np.float32]:
    """Return how much of each of `side` pixels in a line goes to each other, a symmetric matrix."""
    if width < 0.1:  # of that, nothing reaches the next pixel
        return np.eye(side, dtype=np.float32)
    distance = np.subtract.outer(np.arange(side), np.arange(side))
    all_distances = np.arange(-math.ceil(8 * width), math.ceil(8 * width) + 1)
    whole = np.exp(-(all_distances**2) / (2 * width**2)).sum()
    shares: NDArray[np.float64] = np.exp(-(distance**2) / (2 * width**2)) / whole
    return shares.astype(np.float32)


def check_memory(feature_map: FeatureMap, images: NDArray[np.uint8], batch_size: int) -> None:
    """Raise `ConfigError` where prepared images, or a batch of features, would exceed `MEMORY_LIMIT`."""
    if feature_map.deskewed:
        _check_memory(images.nbytes, f"a deskewed copy of {len(images):,} images", "use features pixels")
    size = min(batch_size, len(images))
    what = f"a batch of {size:,} images with {feature_map.dimension:,} features"
    values = max(feature_map.dimension, images[0].size)
    _check_memory(4 * size * values, what, "choose a smaller batch-size")


def _check_memory(needed: int, what: str, remedy: str) -> None:
    if needed > MEMORY_LIMIT:
        raise ConfigError(
            f"{what} would take {needed / 2**20:,.0f} MiB, and may take {MEMORY_LIMIT / 2**20:,.0f}; {remedy}"
        )


def prepare(feature_map: FeatureMap, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return images (n, rows, cols) as the features see them: the same array, or deskewed ones."""
    return deskew(images) if feature_map.deskewed else images


def transform(
    feature_map: FeatureMap, images: NDArray[np.uint8], out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Return the features of prepared images (n, rows, cols) without their scale, float32 (n, D).

    With `out`, a buffer of at least n rows, its first n rows are filled and returned.
    """
    flat = images.reshape(len(images), -1)
    features = np.empty((len(flat), feature_map.dimension), np.float32) if out is None else out[: len(flat)]
    if feature_map.projection is None or feature_map.phase is None:
        features[...] = flat
    else:
        _cosines(flat, feature_map.projection, feature_map.phase, features)
    return features


def _cosines(
    flat: NDArray[np.uint8],
    projection: NDArray[np.float32],
    phase: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Fill `out` (n, D) with cos(x·Ω + φ₀); the cores share out the columns."""
    x = np.multiply(flat, np.float32(1 / 255), dtype=np.float32)

    def fill(begin: int) -> None:
        columns = slice(begin, begin + COLUMNS)
        part = out[:, columns]
        np.matmul(x, projection[:, columns], out=part)
        part += phase[columns]
        np.cos(part, out=part)

    for_each(fill, range(0, out.shape[1], COLUMNS))


def scaled(model: Model, feature_map: FeatureMap) -> Model:
    """Return the model that finds in unscaled features what `model` finds in features."""
    return Model(model.weights * model.weights.dtype.type(feature_map.scale), model.bias)


def evidence_of(
    model: Model, feature_map: FeatureMap, images: NDArray[np.uint8], out: NDArray[np.float32] | None = None
) -> Floats:
    """Return the evidence (n, K) that a model finds in prepared images (n, rows, cols).

    `out` is a buffer, as for `transform`.
    """
    return evidence(scaled(model, feature_map), transform(feature_map, images, out))


def batches(
    feature_map: FeatureMap, images: NDArray[np.uint8], labels: Labels, rows: NDArray[np.intp], size: int
) -> Iterator[tuple[Floats, Labels]]:
    """Yield unscaled features (size, D) and labels (size,) of ``images[rows]``, `size` at a time, in order.

    The images are prepared ones. The features are valid until the next batch is asked for: two buffers
    serve for all of them.
    """
    gathered = np.empty((min(size, len(rows)), *images.shape[1:]), np.uint8)
    buffer = np.empty((len(gathered), feature_map.dimension), np.float32)
    for begin in range(0, len(rows), size):
        chosen = rows[begin : begin + size]
        yield transform(feature_map, take(images, chosen, gathered), buffer), labels[chosen]


def take(
    images: NDArray[np.uint8], rows: NDArray[np.intp], out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Return ``images[rows]``: a view where the rows follow each other, else a copy, in `out` if given."""
    if rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all():
        return images[rows[0] : rows[-1] + 1]
    return images.take(rows, axis=0, out=None if out is None else out[: len(rows)], mode="clip")
