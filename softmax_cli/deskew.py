"""Deskewing: shear an image so that what it shows stands upright, its centre of mass in the middle.

With the intensities as masses, μ_r and μ_c the row and the column of the centre of mass, s = cov(r, c) /
var(r) the columns by which the ink leans per row (0 where var(r) is), and (R, C) = (rows // 2, cols // 2):

    output(r, c) = input(r + μ_r − R, c + μ_c − C + s·(r − R))

linear between pixels, first from row to row, then from column to column, in float32; 0 outside of the
image; rounded half up. Moments are sums of integers, which float64 holds exactly, so that an image comes out
the same, bit for bit, in whatever company it is.

Source: the centring and deskewing of LeCun, Bottou, Bengio & Haffner, Gradient-based learning applied to
document recognition, Proc. IEEE (1998), section III.C, by moments.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from softmax_cli.parallel import for_each

BLOCK = 2**20
"""Pixels that are sheared at a time; that takes thirty times as many bytes."""


def deskew(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return uint8 images (n, rows, cols) set upright and centred; a blank one stays as it is."""
    upright = np.empty_like(images)
    size = max(1, BLOCK // (images.shape[1] * images.shape[2]))

    def shear(begin: int) -> None:
        block = slice(begin, begin + size)
        upright[block] = _shear(images[block])

    for_each(shear, range(0, len(images), size))
    return upright


def lean(images: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return, for each image, where its centre of mass is from the middle (rows, columns), and its lean s."""
    n, rows, columns = images.shape
    r, c = (axis.ravel() for axis in np.mgrid[:rows, :columns])
    r, c = r - rows // 2, c - columns // 2
    powers = np.stack([np.ones(r.size), r, c, r * r, r * c], axis=1)
    mass, *sums = (images.reshape(n, -1).astype(np.float64) @ powers).T
    row, column, squares, products = (total / np.maximum(mass, 1) for total in sums)
    variance = squares - row * row
    covariance = products - row * column
    flat = variance < 1e-9  # one row of ink, or none: it has no lean
    return row, column, np.where(flat, 0, covariance / np.where(flat, 1, variance))


def _shear(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    n, rows, columns = images.shape
    row, column, slope = lean(images)
    offsets = column[:, None] + slope[:, None] * (np.arange(rows) - rows // 2)  # (n, rows)
    centred = _shift(images, row)
    sheared = _shift(centred.reshape(n * rows, columns, 1), offsets.ravel())
    return (sheared.reshape(images.shape) + np.float32(0.5)).astype(np.uint8)


def _shift(
    stacks: NDArray[np.uint8] | NDArray[np.float32], offsets: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return out[i, j] = stacks[i, j + offsets[i]] of stacks (n, length, width), float32.

    It is linear between rows. Rows outside of a stack are 0.
    """
    n, length = stacks.shape[:2]
    offsets = np.clip(offsets, -length, length)  # farther away there is nothing, either
    whole = np.floor(offsets)
    share = (offsets - whole).astype(np.float32)[:, None, None]
    padded = np.pad(stacks, ((0, 0), (length, length + 1), (0, 0)))
    windows = sliding_window_view(padded, length + 1, axis=1)  # (n, 2·length + 1, width, length + 1)
    taken = windows[np.arange(n), whole.astype(np.intp) + length].transpose(0, 2, 1).astype(np.float32)
    shifted: NDArray[np.float32] = taken[:, :-1] * (1 - share) + taken[:, 1:] * share
    return shifted
