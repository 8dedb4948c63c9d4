"""Deskewing: shear an image so that its strokes are upright, and centre it.

With the intensities as masses, μ_r and μ_c the row and the column of the centre of mass, s = cov(r, c) /
var(r) the slant in columns per row (0 if var(r) is), and (R, C) = (rows // 2, cols // 2):

    output(r, c) = input(r + μ_r − R, c + μ_c − C + s·(r − R))

Interpolation is linear, first between rows, then between columns, in float32; values outside of the image
are 0; the result is rounded half up. The moments are sums of integers, which float64 represents exactly, so
that the result for an image does not depend on the other images of a batch.

Source: LeCun, Bottou, Bengio & Haffner, Gradient-based learning applied to document recognition, Proc. IEEE
(1998), section III.C, centres and deskews digits by moments.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from softmax_cli.config import TrainConfig
from softmax_cli.errors import ConfigError
from softmax_cli.features.resampling import Positions, resample
from softmax_cli.features.stage import Stage


@dataclass(frozen=True)
class Deskew(Stage):
    """The stage that deskews images."""

    action: ClassVar[str] = "deskewed"

    @classmethod
    def fit(cls, images: NDArray[Any], config: TrainConfig, seed: int) -> Self:
        """Return the stage; it has no parameters."""
        if images.ndim != 3:
            raise ConfigError("the feature stage deskew needs images as its input")
        return cls(images.shape[1:])

    def browser_arrays(self) -> dict[str, NDArray[np.float32]]:
        """Return no arrays: the images are enough."""
        return {}

    def title(self, inputs: str) -> str:
        """Return a description of the outputs."""
        return f"deskewed {inputs}"

    def transform(
        self,
        x: NDArray[Any],
        out: NDArray[np.float32] | None = None,
        generator: "np.random.Generator | None" = None,
    ) -> NDArray[np.uint8]:
        """Return the deskewed images, uint8 (n, rows, cols), displaced at random with a generator."""
        if generator is None:
            return deskew(x)
        row, column, slope = (values.astype(np.float32)[:, None] for values in slant(x))

        def place(block: slice, r: Positions, c: Positions) -> tuple[Positions, Positions]:
            return r + row[block], c + column[block] + slope[block] * r

        return resample(x, place, generator)


STAGE = Deskew


def deskew(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return uint8 images (n, rows, cols), deskewed and centred.

    A blank image is unchanged.
    """
    n, rows, columns = images.shape
    row, column, slope = slant(images)
    offsets = column[:, None] + slope[:, None] * (np.arange(rows) - rows // 2)  # (n, rows)
    centred = _shift(images, row)
    sheared = _shift(centred.reshape(n * rows, columns, 1), offsets.ravel())
    return (sheared.reshape(images.shape) + np.float32(0.5)).astype(np.uint8)


def slant(images: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the offsets of the centres of mass (rows, columns) and the slants s.

    Each is an array (n,); offsets are relative to the middle of the image.
    """
    n, rows, columns = images.shape
    r, c = (axis.ravel() for axis in np.mgrid[:rows, :columns])
    r, c = r - rows // 2, c - columns // 2
    powers = np.stack([np.ones(r.size), r, c, r * r, r * c], axis=1)
    mass, *sums = (images.reshape(n, -1).astype(np.float64) @ powers).T
    row, column, squares, products = (total / np.maximum(mass, 1) for total in sums)
    variance = squares - row * row
    covariance = products - row * column
    flat = variance < 1e-9  # one row of ink, or none: the slant is undefined
    return row, column, np.where(flat, 0, covariance / np.where(flat, 1, variance))


def _shift(
    stacks: NDArray[np.uint8] | NDArray[np.float32], offsets: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return out[i, j] = stacks[i, j + offsets[i]] of stacks (n, length, width).

    Interpolation between rows is linear. Rows outside of a stack are 0.
    """
    n, length = stacks.shape[:2]
    offsets = np.clip(offsets, -length, length)  # farther away, everything is 0 as well
    whole = np.floor(offsets)
    share = (offsets - whole).astype(np.float32)[:, None, None]
    padded = np.pad(stacks, ((0, 0), (length, length + 1), (0, 0)))
    windows = sliding_window_view(padded, length + 1, axis=1)  # (n, 2·length + 1, width, length + 1)
    taken = windows[np.arange(n), whole.astype(np.intp) + length].transpose(0, 2, 1).astype(np.float32)
    shifted: NDArray[np.float32] = taken[:, :-1] * (1 - share) + taken[:, 1:] * share
    return shifted
