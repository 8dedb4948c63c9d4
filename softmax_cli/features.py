"""From images to the numbers that the model weighs: uint8 (n, rows, cols) -> float32 (n, D).

A feature is `scale` times what `transform` computes. The scale is left to the weights, which are far
fewer than the features of a batch: z = (scale · raw)·W = raw·(scale · W).
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from softmax_cli.model import Floats, Labels, Model, evidence


class FeatureMap(NamedTuple):
    """What the features are: their kind, their number D, and the factor that `transform` leaves out."""

    kind: str
    dimension: int
    scale: float


def pixels(image_shape: tuple[int, int]) -> FeatureMap:
    """Return the map to the intensities of the pixels, in [0, 1], row by row."""
    rows, columns = image_shape
    return FeatureMap("pixels", rows * columns, 1 / 255)


def transform(
    feature_map: FeatureMap, images: NDArray[np.uint8], out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Return the features of images (n, rows, cols) without their scale, float32 (n, D).

    With `out`, a buffer of at least n rows, its first n rows are filled and returned.
    """
    flat = images.reshape(len(images), -1)
    if out is None:
        return flat.astype(np.float32)
    features = out[: len(flat)]
    features[...] = flat
    return features


def scaled(model: Model, feature_map: FeatureMap) -> Model:
    """Return the model that finds in unscaled features what `model` finds in features."""
    return Model(model.weights * model.weights.dtype.type(feature_map.scale), model.bias)


def evidence_of(
    model: Model, feature_map: FeatureMap, images: NDArray[np.uint8], out: NDArray[np.float32] | None = None
) -> Floats:
    """Return the evidence (n, K) that a model finds in images (n, rows, cols); `out` as for `transform`."""
    return evidence(scaled(model, feature_map), transform(feature_map, images, out))


def batches(
    feature_map: FeatureMap, images: NDArray[np.uint8], labels: Labels, rows: NDArray[np.intp], size: int
) -> Iterator[tuple[Floats, Labels]]:
    """Yield unscaled features (size, D) and labels (size,) of ``images[rows]``, `size` at a time, in order.

    The features are valid until the next batch is asked for: two buffers serve for all of them.
    """
    gathered = np.empty((min(size, len(rows)), *images.shape[1:]), np.uint8)
    buffer = np.empty((len(gathered), feature_map.dimension), np.float32)
    for begin in range(0, len(rows), size):
        chosen = rows[begin : begin + size]
        yield transform(feature_map, _take(images, chosen, gathered), buffer), labels[chosen]


def _take(images: NDArray[np.uint8], rows: NDArray[np.intp], out: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return ``images[rows]``: a view where the rows follow each other, else a copy in `out`."""
    if rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all():
        return images[rows[0] : rows[-1] + 1]
    return images.take(rows, axis=0, out=out[: len(rows)], mode="clip")
