"""Connected shapes of a mask: their numbers, boxes and sizes."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Ints = NDArray[np.int64]


class Shapes(NamedTuple):
    """The shapes of a mask (h, w).

    Index 0 of each array stands for the area outside of the mask.

    Attributes:
        labels: Number of the shape at each pixel (h, w), 0 outside.
        boxes: Top, left, bottom, right (n + 1, 4); the last two are the first row and column outside.
        mass: Sum of the ink (n + 1,).
        peak: Strongest ink (n + 1,).
    """

    labels: NDArray[np.intp]
    boxes: Ints
    mass: NDArray[np.float64]
    peak: Ints

    @property
    def heights(self) -> Ints:
        """Height of each shape in pixels."""
        return np.asarray(self.boxes[:, 2] - self.boxes[:, 0])

    @property
    def widths(self) -> Ints:
        """Width of each shape in pixels."""
        return np.asarray(self.boxes[:, 3] - self.boxes[:, 1])


def find_shapes(ink: NDArray[Any], threshold: int) -> Shapes:
    """Return the 8-connected shapes of ink (h, w) that is at least `threshold`."""
    labels, count = label(ink >= threshold)
    rows, columns = np.nonzero(labels)
    number, strength = labels[rows, columns], ink[rows, columns].astype(np.int64)
    boxes = np.zeros((count + 1, 4), np.int64)
    boxes[1:, :2] = max(ink.shape)
    peak = np.zeros(count + 1, np.int64)
    np.minimum.at(boxes[:, 0], number, rows)
    np.minimum.at(boxes[:, 1], number, columns)
    np.maximum.at(boxes[:, 2], number, rows + 1)
    np.maximum.at(boxes[:, 3], number, columns + 1)
    np.maximum.at(peak, number, strength)
    mass = np.bincount(number, strength, minlength=count + 1).astype(np.float64)
    return Shapes(labels, boxes, mass, peak)


def label(mask: Mask) -> tuple[NDArray[np.intp], int]:
    """Return the number of the 8-connected part at each pixel, and how many there are.

    Parts are numbered from 1. The work is done on runs, the stretches of a row that lie in the mask: runs
    that touch in neighbouring rows take the smaller of their numbers until nothing changes.
    """
    width = mask.shape[1] + 1  # an empty column separates the rows once they are laid end to end
    flat = np.pad(mask, ((0, 0), (0, 1))).ravel()
    edges = np.flatnonzero(np.diff(flat, prepend=False))
    starts, ends = edges[::2], edges[1::2]
    first = np.searchsorted(ends, starts + width)  # of the runs in the next row that touch this one
    touching = np.maximum(np.searchsorted(starts, ends + width, side="right") - first, 0)
    upper = np.repeat(np.arange(len(starts)), touching)
    lower = np.arange(touching.sum()) + np.repeat(first - np.cumsum(touching) + touching, touching)
    root = _merge(np.arange(len(starts)), upper, lower)
    roots, number = np.unique(root, return_inverse=True)
    labels = np.zeros(len(flat), np.intp)
    labels[flat] = np.repeat(number + 1, ends - starts)
    return labels.reshape(-1, width)[:, :-1], len(roots)


def _merge(root: NDArray[np.intp], a: NDArray[np.intp], b: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return roots that are the same for all runs that are connected.

    Runs a[i] and b[i] touch. The root is the smallest one of all connected runs.
    """
    while True:
        smaller = np.minimum(root[a], root[b])
        merged = root.copy()
        np.minimum.at(merged, root[a], smaller)
        np.minimum.at(merged, root[b], smaller)
        merged = merged[merged]
        if np.array_equal(merged, root):
            return root
        root = merged


def otsu(ink: NDArray[np.integer[Any]]) -> int:
    """Return Otsu's threshold (1979).

    It is the t that maximises the variance between the values < t and the values >= t.

    `ink` is in 0..255. The lowest of several equal thresholds is returned.
    """
    counts = np.bincount(ink.ravel(), minlength=256)
    below = np.cumsum(counts)[:-1]  # [t - 1]: number of values < t
    moments = np.cumsum(counts * np.arange(256))
    above = ink.size - below
    with np.errstate(divide="ignore", invalid="ignore"):
        difference = (moments[-1] * below - moments[:-1] * ink.size).astype(np.float64)  # exact
        between = difference**2 / (below * above)
    return int(np.argmax(np.nan_to_num(between, posinf=0))) + 1


def run_lengths(mask: Mask) -> Ints:
    """Return the length of the vertical run at each pixel of a mask (h, w).

    The length is 0 outside of the mask.
    """
    height = mask.shape[0]
    row = np.arange(height)[:, None]
    above = np.maximum.accumulate(np.where(mask, -1, row), axis=0)
    below = np.minimum.accumulate(np.where(mask, height, row)[::-1], axis=0)[::-1]
    return np.where(mask, below - above - 1, 0)


def grown(mask: Mask) -> Mask:
    """Return a mask (h, w) with the eight neighbours of each of its pixels."""
    wide = mask.copy()
    wide[:, 1:] |= mask[:, :-1]
    wide[:, :-1] |= mask[:, 1:]
    tall = wide.copy()
    tall[1:] |= wide[:-1]
    tall[:-1] |= wide[1:]
    return tall
