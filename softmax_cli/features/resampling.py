"""Bilinear resampling of images, with random displacements in training."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from softmax_cli.augment import displacements

Positions = NDArray[np.float32]

Placement = Callable[[slice, Positions, Positions], tuple[Positions, Positions]]
"""Maps positions (n, rows · cols), relative to the middle, of a block of images to where they are read."""

BLOCK = 32
"""Number of images that are resampled at a time, so that the intermediate arrays fit in a cache."""


def resample(
    images: NDArray[np.uint8],
    placement: Placement | None = None,
    generator: "np.random.Generator | None" = None,
) -> NDArray[np.uint8]:
    """Return uint8 images (n, rows, cols) redrawn: output(r, c) = input(placement((r, c) + displacement)).

    Positions are relative to the pixel (rows // 2, cols // 2). Values between pixels are interpolated
    linearly along both axes; pixels outside of the image are 0; the result is rounded half up. There is one
    interpolation, whatever the placement.

    Args:
        images: The images.
        placement: Maps positions of the output to positions of the input; the identity by default.
        generator: Draws the displacements (see `softmax_cli.augment`); none by default.
    """
    n, rows, columns = images.shape
    r, c = (axis.ravel().astype(np.float32) for axis in np.mgrid[:rows, :columns])
    moved = displacements(n, (rows, columns), generator) if generator else None
    drawn = np.empty_like(images)
    for begin in range(0, n, BLOCK):
        block = slice(begin, min(begin + BLOCK, n))
        at = [np.tile(axis - side // 2, (block.stop - begin, 1)) for axis, side in ((r, rows), (c, columns))]
        if moved is not None:
            at = [axis + move[block] for axis, move in zip(at, moved, strict=True)]
        placed = placement(block, at[0], at[1]) if placement else (at[0], at[1])
        drawn[block] = interpolate(images[block], placed[0] + rows // 2, placed[1] + columns // 2)
    return drawn


def interpolate(images: NDArray[np.uint8], rows: Positions, columns: Positions) -> NDArray[np.uint8]:
    """Return the values of images (n, height, width) at positions (n, height · width), in the same shape."""
    n, height, width = images.shape
    padded = np.zeros((n, height + 3, width + 3), np.float32)  # by 1 before, by 2 after
    padded[:, 1:-2, 1:-2] = images
    row, down = _split(rows, height)
    column, right = _split(columns, width)
    row *= width + 3
    row += column
    index = row + np.arange(n)[:, None] * ((height + 3) * (width + 3))
    flat, lines = padded.ravel(), []
    for offset in (0, width + 3):
        left, value = (flat[offset + step :].take(index, mode="clip") for step in (0, 1))
        value -= left
        value *= right
        value += left
        lines.append(value)
    top, bottom = lines
    bottom -= top
    bottom *= down
    bottom += top
    bottom += np.float32(0.5)
    drawn: NDArray[np.uint8] = bottom.astype(np.uint8)
    return drawn.reshape(images.shape)


def _split(positions: Positions, side: int) -> tuple[NDArray[np.int32], Positions]:
    """Return the pixel before each position, as an index into the padded axis, and the share of the next."""
    inside = np.minimum(positions, np.float32(side))  # farther away, everything is 0 as well
    np.maximum(inside, np.float32(-1), out=inside)
    inside += 1
    whole = np.floor(inside)
    inside -= whole
    return whole.astype(np.int32), inside
