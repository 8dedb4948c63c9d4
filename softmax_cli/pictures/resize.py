"""Resize pictures and place them by their centre of mass."""

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


LANCZOS_REACH = 3
"""Reach of Lanczos interpolation, in pixels of the smaller picture."""


def fit_longest(picture: NDArray[Any], longest: int) -> Floats:
    """Resize cropped ink to `longest` pixels along its longest side, on a blank sheet.

    The proportions are kept. If ink is enlarged, Lanczos interpolation keeps strokes of one or two pixels
    even and sharp; linear interpolation makes them wavy.
    """
    scale = longest / max(picture.shape)
    height, width = (max(1, math.floor(side * scale + 0.5)) for side in picture.shape)
    if scale <= 1:
        return resize(picture, (height, width))
    from PIL import Image

    padded = Image.fromarray(np.pad(picture.astype(np.float32), LANCZOS_REACH))
    box = (LANCZOS_REACH, LANCZOS_REACH, padded.width - LANCZOS_REACH, padded.height - LANCZOS_REACH)
    enlarged = padded.resize((width, height), Image.Resampling.LANCZOS, box)
    return np.maximum(np.asarray(enlarged, np.float64), 0)


def resize(picture: NDArray[Any], shape: tuple[int, int]) -> Floats:
    """Resize a picture (h, w) to `shape`, along one axis after the other.

    An output pixel is the mean of what it covers if the axis shrinks, and interpolated linearly between
    the two nearest pixel centres if it grows.
    """
    rows, columns = (weights(old, new) for old, new in zip(picture.shape, shape, strict=True))
    resized: Floats = rows @ picture @ columns.T
    return resized


@functools.lru_cache(maxsize=32)
def weights(old: int, new: int) -> Floats:
    """Return the weights (new, old) of old pixels in new ones along one axis.

    Rows sum to 1.
    """
    scale = old / new
    index = np.arange(old)
    if new < old:  # the length of the overlap of [i·scale, (i + 1)·scale) with [j, j + 1)
        left = np.arange(new)[:, None] * scale
        shares = np.maximum(np.minimum(left + scale, index + 1) - np.maximum(left, index), 0)
    else:
        centre = np.clip((np.arange(new)[:, None] + 0.5) * scale - 0.5, 0, old - 1)
        shares = np.maximum(1 - np.abs(centre - index), 0)
    found: Floats = shares / shares.sum(axis=1, keepdims=True)
    found.flags.writeable = False
    return found


def centre_of_mass(picture: NDArray[Any]) -> tuple[float, float]:
    """Return the mean row and column of a picture (h, w) that is not black."""
    row, column = (
        float(profile @ np.arange(len(profile)) / profile.sum())
        for profile in (picture.sum(axis=1, dtype=np.float64), picture.sum(axis=0, dtype=np.float64))
    )
    return row, column


def place(picture: Floats, shape: tuple[int, int]) -> Floats:
    """Place a smaller picture on black, with its centre of mass in the middle.

    The offset is the number of whole pixels for which the centre is nearest to the middle of `shape`. The
    centre is rounded to a millionth of a pixel. Otherwise the position of a symmetric picture would depend on
    the order of summation.
    """
    canvas = np.zeros(shape)
    middle = centre_of_mass(picture)
    top, left = (
        min(max(math.ceil(round(side / 2 - 0.5 - mean, 6)), 0), side - found)
        for side, found, mean in zip(shape, picture.shape, middle, strict=True)
    )
    canvas[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return canvas


def reduced(gray: NDArray[np.uint8], longest: int) -> NDArray[np.float32]:
    """Return a picture (h, w) averaged to at most `longest` pixels per side."""
    from PIL import Image

    scale = min(1.0, longest / max(gray.shape))
    height, width = (max(1, round(side * scale)) for side in gray.shape)
    small = Image.fromarray(gray).resize((width, height), Image.Resampling.BOX)
    return np.asarray(small).astype(np.float32)


def reduced_by(gray: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Return a picture (h, w) averaged over squares of `factor` pixels."""
    from PIL import Image

    return np.asarray(Image.fromarray(gray).reduce(factor))


def enlarged(values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return values (h, w) interpolated linearly to a larger `shape`."""
    from PIL import Image

    large = Image.fromarray(values.astype(np.float32))
    return np.asarray(large.resize((shape[1], shape[0]), Image.Resampling.BILINEAR))
