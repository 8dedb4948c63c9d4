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

    labels: NDArray[np.int32]
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


class _Runs(NamedTuple):
    """Stretches of the rows of a mask (h, w), where rows are laid end to end with a gap after each.

    Attributes:
        starts: Place of the first pixel of each run (m,).
        ends: Place after its last one (m,).
        number: Number of the shape that it belongs to, from 1 (m,).
        shapes: How many shapes there are.
    """

    starts: NDArray[np.intp]
    ends: NDArray[np.intp]
    number: NDArray[np.intp]
    shapes: int


def find_shapes(ink: NDArray[Any], threshold: int) -> Shapes:
    """Return the 8-connected shapes of ink (h, w) that is at least `threshold`."""
    mask = ink >= threshold
    runs = _find_runs(mask)
    width = mask.shape[1] + 1
    top, left = np.divmod(runs.starts, width)
    right = left + runs.ends - runs.starts
    boxes = np.zeros((runs.shapes + 1, 4), np.int64)
    boxes[1:, :2] = max(ink.shape)
    np.minimum.at(boxes[:, 0], runs.number, top)
    np.minimum.at(boxes[:, 1], runs.number, left)
    np.maximum.at(boxes[:, 2], runs.number, top + 1)
    np.maximum.at(boxes[:, 3], runs.number, right)
    strength = ink[mask].astype(np.int64)  # of all runs, one after the other
    peak = np.zeros(runs.shapes + 1, np.int64)
    mass = np.zeros(runs.shapes + 1, np.float64)
    if runs.shapes:
        first = np.cumsum(runs.ends - runs.starts) - (runs.ends - runs.starts)
        np.maximum.at(peak, runs.number, np.maximum.reduceat(strength, first))
        np.add.at(mass, runs.number, np.add.reduceat(strength, first))
    return Shapes(_labels_of(mask, runs), boxes, mass, peak)


def label(mask: Mask) -> tuple[NDArray[np.int32], int]:
    """Return the number of the 8-connected part at each pixel of a mask (h, w), and how many there are.

    Parts are numbered from 1.
    """
    runs = _find_runs(mask)
    return _labels_of(mask, runs), runs.shapes


def _labels_of(mask: Mask, runs: _Runs) -> NDArray[np.int32]:
    labels = np.zeros(mask.shape, np.int32)
    labels[mask] = np.repeat(runs.number, runs.ends - runs.starts)
    return labels


def _find_runs(mask: Mask) -> _Runs:
    """Return the runs of a mask (h, w), numbered by shape.

    Runs that touch in neighbouring rows take the smaller of their numbers until nothing changes.
    """
    width = mask.shape[1] + 1  # an empty column separates the rows once they are laid end to end
    flat = np.zeros((mask.shape[0], width + 1), bool)
    flat[:, 1:-1] = mask
    edges = np.flatnonzero(flat[:, 1:] != flat[:, :-1])
    starts, ends = edges[::2], edges[1::2]
    first = np.searchsorted(ends, starts + width)  # of the runs in the next row that touch this one
    touching = np.maximum(np.searchsorted(starts, ends + width, side="right") - first, 0)
    upper = np.repeat(np.arange(len(starts)), touching)
    lower = np.arange(touching.sum()) + np.repeat(first - np.cumsum(touching) + touching, touching)
    root = _merge(np.arange(len(starts)), upper, lower)
    roots, number = np.unique(root, return_inverse=True)
    return _Runs(starts, ends, number + 1, len(roots))


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


def histogram(levels: NDArray[np.uint8]) -> Ints:
    """Return how often each of the levels 0 to 255 occurs in a picture (h, w), (256,)."""
    from PIL import Image

    return np.array(Image.fromarray(levels).histogram(), np.int64)


def otsu(ink: NDArray[np.uint8]) -> int:
    """Return the threshold t that maximises the variance between values < t and values >= t (Otsu 1979).

    The lowest of several equal thresholds is returned.
    """
    return otsu_of_counts(histogram(ink))


def otsu_of_counts(counts: Ints) -> int:
    """Return the threshold of `otsu` for a histogram (256,)."""
    below = np.cumsum(counts)[:-1]  # [t - 1]: how many values are < t
    moments = np.cumsum(counts * np.arange(256))
    total = counts.sum()
    above = total - below
    difference = (moments[-1] * below - moments[:-1] * total).astype(np.float64)  # exact
    between = difference**2 / np.maximum(below * above, 1)  # the difference is 0 if a side is empty
    return int(np.argmax(between)) + 1


def run_lengths(mask: Mask) -> NDArray[np.int32]:
    """Return, at each pixel of a mask (h, w), the length of the vertical run that it lies in, 0 outside."""
    height = mask.shape[0]
    row = np.arange(height, dtype=np.int32)[:, None]
    above = np.maximum.accumulate(np.where(mask, np.int32(-1), row), axis=0)
    below = np.minimum.accumulate(np.where(mask, np.int32(height), row)[::-1], axis=0)[::-1]
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
