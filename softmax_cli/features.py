"""From images to the numbers that the model weighs: uint8 (n, rows, cols) -> float32 (n, D)."""

import numpy as np
from numpy.typing import NDArray


def pixels(images: NDArray[np.uint8], out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Return the intensities of images (n, rows, cols), in [0, 1], one row (rows * cols) per image.

    With `out`, a buffer of at least n rows, its first n rows are filled and returned.
    """
    flat = images.reshape(len(images), -1)
    if out is None:
        out = np.empty(flat.shape, np.float32)
    features = out[: len(flat)]
    features[...] = flat
    features *= np.float32(1 / 255)
    return features
