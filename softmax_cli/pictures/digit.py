"""Draw ink like the digits of MNIST: stroke width, box, centre and brightness.

The digits of MNIST were fitted into a box of 20 pixels and centred by mass in 28 (LeCun, Cortes and
Burges). Their strokes are about 2.4 pixels wide. Other pens have other widths, and a thin line turns grey
when it is averaged down. Therefore the width is changed first, by means of the signed Euclidean distance to
the outline of the ink. The distance is exact (Felzenszwalb and Huttenlocher, Theory of Computing, 2012).
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softmax_cli.pictures.resize import centre_of_mass, fit_longest, place

Floats = NDArray[np.float64]
Gray = NDArray[np.uint8]

BOX, SHEET = 20, 28
"""Sides of the box and of the image of MNIST."""

STROKE = 2.4
"""Stroke width of the result, in pixels of the box; it reproduces the amount of ink in MNIST."""

FINE = 3
"""Resolution at which the width is changed, in pixels per pixel of the box."""

MARGIN = 2 * FINE
THINNEST = 0.3
"""Largest fraction of its width that a stroke loses on each side."""

SOFTNESS = 1.5
"""Width of the soft outline of a stroke, in fine pixels."""


def draw_ink(ink: NDArray[Any], shape: tuple[int, int]) -> Gray:
    """Return ink (h, w), not all 0, as an image (rows, cols) of the data set."""
    return draw_strokes(normalise_stroke(crop(ink)), shape)


def draw_strokes(strokes: Floats, shape: tuple[int, int]) -> Gray:
    """Return strokes of normal width (h, w) as an image (rows, cols) of the data set."""
    small = fit_longest(strokes, box_side(shape))
    return rounded(place(small, shape) * (255 / small.max()))


def box_side(shape: tuple[int, int]) -> int:
    """Return the longest side of a digit in an image of `shape`: 20 in 28."""
    return max(1, math.floor(min(shape) * BOX / SHEET + 0.5))


def looks_drawn(gray: Gray) -> bool:
    """Return whether an image has the box, centre and brightness of MNIST's digits."""
    rows, columns = np.flatnonzero(gray.any(axis=1)), np.flatnonzero(gray.any(axis=0))
    if not len(rows) or gray.max() < 200:
        return False
    edges = np.concatenate([gray[0], gray[-1], gray[:, 0], gray[:, -1]])
    box = max(np.ptp(rows), np.ptp(columns)) + 1
    middle = [side / 2 - 0.5 for side in gray.shape]
    offset = np.abs(np.subtract(centre_of_mass(gray), middle)).max()
    return bool(not edges.any() and abs(box - box_side(gray.shape)) <= 1 and offset <= 1)


def crop(ink: NDArray[Any]) -> NDArray[Any]:
    """Return ink (h, w) cropped to the pixels with at least a third of the maximum."""
    strong = 3 * ink.astype(np.float64) >= ink.max()
    rows, columns = np.flatnonzero(strong.any(axis=1)), np.flatnonzero(strong.any(axis=0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def normalise_stroke(ink: NDArray[Any]) -> Floats:
    """Return cropped ink (h, w) with the stroke width of MNIST, in [0, 1].

    The result is about 60 pixels long.
    """
    full = np.pad(fit_longest(ink, FINE * BOX), MARGIN)
    body = np.percentile(full[full > 0.3 * full.max()], 75)
    mask = np.clip(4 * (np.clip(full / body, 0, 1) - 0.5) + 0.5, 0, 1)
    width = stroke_width(mask)
    growth = max((FINE * STROKE - width) / 2, -THINNEST * width)
    distance = signed_distance(mask >= 0.5, math.ceil(abs(growth) + SOFTNESS) + 1)
    drawn = np.clip(0.5 - (distance - growth) / SOFTNESS, 0, 1)
    rows, columns = np.flatnonzero(drawn.max(axis=1) > 0.3), np.flatnonzero(drawn.max(axis=0) > 0.3)
    if not len(rows):
        return np.asarray(mask)
    return np.asarray(drawn[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


def stroke_width(mask: Floats) -> float:
    """Return the mean width of strokes (h, w) in [0, 1].

    It is twice the area divided by the length of the outline. The length is the total variation, the integral
    of the gradient's magnitude.
    """
    down, right = np.gradient(mask)
    return float(2 * mask.sum() / max(np.hypot(down, right).sum(), 1e-6))


def signed_distance(mask: NDArray[np.bool_], reach: int) -> Floats:
    """Return the distance in pixels to the outline of a mask (h, w), negative inside.

    The outline lies half a pixel from the nearest pixel on the other side. Distances are exact up to
    `reach` and at least `reach` - 1/2 beyond.
    """
    outside, inside = distance_to(np.stack([mask, ~mask]), reach)
    return np.asarray(np.where(mask, 0.5 - inside, outside - 0.5))


def distance_to(masks: NDArray[np.bool_], reach: int) -> Floats:
    """Return the distance from each pixel to the nearest one in its mask (n, h, w).

    Distances above `reach` are returned as `reach`. Along the rows the distance follows from running
    maxima; then d² = min over rows r of (row distance)² + r².
    """
    far = 2 * reach
    n, height, width = masks.shape
    column = np.arange(width, dtype=np.int32)
    before = np.maximum.accumulate(np.where(masks, column, np.int32(-far)), axis=2)
    last = np.int32(width - 1 + far)
    after = np.minimum.accumulate(np.where(masks, column, last)[:, :, ::-1], axis=2)[:, :, ::-1]
    squares = np.full((n, height + 2 * reach, width), far**2, np.float32)
    best = np.square(np.minimum(column - before, after - column), dtype=np.float32)
    squares[:, reach : reach + height] = best
    for shift in range(1, reach + 1):
        above = squares[:, reach - shift : reach - shift + height]
        below = squares[:, reach + shift : reach + shift + height]
        best = np.minimum(best, np.minimum(above, below) + np.float32(shift**2))
    return np.minimum(np.sqrt(best.astype(np.float64)), reach)


def rounded(values: Floats) -> Gray:
    """Return values as grey levels 0 to 255."""
    return np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8)
