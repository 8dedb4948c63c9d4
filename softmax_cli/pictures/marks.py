"""Remove everything but the digit: ruled lines, frames, scanner edges, specks.

Marks are removed only if something else remains. Lengths are fractions of the picture's sides.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from softmax_cli.pictures.shapes import Ints, Mask, Shapes, find_shapes, otsu, run_lengths

Gray = NDArray[np.uint8]

WEAKEST = 0.5
"""Smallest ink of a shape, as a fraction of Otsu's threshold; its largest ink reaches the threshold."""

STEEPEST = 0.3
"""Largest slope of a line relative to an axis."""

COVERAGE = 0.55
"""Smallest fraction of the columns in which a ruled line is visible."""

ENDS = 0.08
"""Largest distance of the ends of a ruled line from the sides, as a fraction of the width."""

THICKEST = 0.025
FAINT_RULE = 0.75
"""Largest strength of a single line that is removed, as a fraction of that of the other ink."""

FEWEST = 3
"""Smallest number of lines, as strong as the ink, that are removed."""

MOST_LINES = 250
"""Largest number of lines that are searched for in each direction, more than squared paper has."""

RIM = 0.12
"""Width of the rim of a box that holds nearly all ink of a frame, as a fraction of the box."""

BAND = 0.15
"""Largest depth of a band along the border of the picture."""

LEAST_HEIGHT, LEAST_MASS = 0.04, 0.1
"""A mark is removed if the other shapes at least this high have this fraction of its ink."""

SPECK = 0.03
"""A shape with less than this fraction of the ink of the largest is a speck."""

FAR_SPECK = 0.12
"""Largest mass and length, as fractions, of a speck that is far from all larger shapes."""


MOST_SPECKS = 500
"""Largest number of shapes whose distance to larger ones is computed."""


class Cleaned(NamedTuple):
    """Ink (h, w) without marks, its shapes, which are kept (n + 1,), and the steps."""

    ink: Gray
    shapes: Shapes
    kept: Mask
    steps: tuple[str, ...]


def remove_marks(ink: Gray) -> Cleaned:
    """Return the ink of a picture (h, w) without marks.

    Marks are ruled lines, frames, bands along the border, and specks.
    """
    steps: tuple[str, ...] = ()
    strong = otsu(ink)
    unruled = erase_rules(ink, _weak(strong))
    if unruled is not None:
        ink, strong, steps = unruled, otsu(unruled), ("ruled lines removed",)
    shapes = find_shapes(ink, _weak(strong))
    kept = shapes.peak >= strong
    kept[0] = False
    for name, find in MARKS.items():
        marks = find(shapes, kept, ink.shape)
        if marks.any():
            kept = kept & ~marks
            steps += (f"{name} removed",)
    return Cleaned(ink, shapes, kept, steps)


def _weak(threshold: int) -> int:
    return max(1, round(WEAKEST * threshold))


# Ruled lines


def erase_rules(ink: Gray, threshold: int) -> Gray | None:
    """Return ink (h, w) without lines that cross the picture; None if it has none.

    Strokes that cross a line are kept: only vertical runs about as long as the line is thick are erased.
    """
    mask = ink >= threshold
    if not _may_cross(mask) and not _may_cross(mask.T):
        return None
    across, down = find_lines(mask), find_lines(mask.T)
    lines = across | down.T
    if not lines.any():
        return None
    rest = mask & ~lines
    if not rest.any() or not _spans(rest):
        return None
    is_faint = np.median(ink[lines]) <= FAINT_RULE * np.percentile(ink[rest], 75)
    if not is_faint and _count(across) + _count(down) < FEWEST:
        return None
    return np.where(lines, 0, ink).astype(np.uint8)


def _spans(mask: Mask) -> bool:
    """Return whether a shape remains that is large enough to be read."""
    shapes = find_shapes(mask, 1)
    return bool(np.maximum(shapes.heights, shapes.widths)[1:].max() >= FAR_SPECK * min(mask.shape))


def _count(lines: Mask) -> int:
    """Return the number of lines that cross the middle column."""
    strip = lines[:, lines.shape[1] // 3 : 2 * lines.shape[1] // 3].mean(axis=1) > 0.3
    return int((np.diff(strip.astype(int), prepend=0) == 1).sum())


def find_lines(mask: Mask) -> Mask:
    """Return the mask (h, w) of lines from the left to the right side of a mask.

    The mask does not contain strokes that cross the lines.
    """
    height, width = mask.shape
    if not _may_cross(mask):
        return np.zeros_like(mask)
    thickest = max(2, round(THICKEST * min(height, width)))
    lengths = run_lengths(mask)
    starts = mask & ~np.pad(mask, ((1, 0), (0, 0)))[:-1] & (lengths <= thickest)
    rows, columns = np.nonzero(starts)
    found = np.zeros_like(mask)
    if len(np.unique(columns)) < COVERAGE * width or width < 8:
        return found
    thickness = lengths[rows, columns]
    middle = rows + (thickness - 1) / 2
    for slope, offset in _peaks(middle, columns - width / 2, width):
        on = np.abs(middle - slope * (columns - width / 2) - offset) <= 2
        if _crosses(columns[on], width):
            thick = 2 * float(np.median(thickness[on])) + 1
            found |= _near(mask.shape, slope, offset, thick / 2 + 1) & mask & (lengths <= thick)
    return found


def _may_cross(mask: Mask) -> bool:
    """Return whether a mask (h, w) can contain a line from side to side.

    It must reach both sides and enough columns.
    """
    columns = np.asarray(mask.any(axis=0))
    ends = int(ENDS * len(columns)) + 1
    return bool(columns[:ends].any() and columns[-ends:].any() and columns.mean() >= COVERAGE)


def _peaks(rows: NDArray[Any], columns: NDArray[Any], width: int) -> list[tuple[float, float]]:
    """Return the slope of lines through many points, and their height at the middle.

    The method is the Hough transform. `columns` are relative to the middle. Lines that pass within three
    pixels of a better one are left out.
    """
    slopes = np.arange(-STEEPEST, STEEPEST, 2 / width)
    low = int(rows.min() - STEEPEST * width) - 2
    bins = int(rows.max() + STEEPEST * width) - low + 3
    counts = np.zeros((len(slopes), bins), np.int64)
    for slope, count in zip(slopes, counts, strict=True):  # all at once would take gigabytes for noise
        offsets = np.rint(rows - slope * columns).astype(np.int64) - low
        count[...] = np.bincount(offsets, minlength=bins)
    counts = counts + np.roll(counts, 1, axis=1) + np.roll(counts, -1, axis=1)
    found: list[tuple[float, float]] = []
    while counts.max() >= COVERAGE * width and len(found) < MOST_LINES:
        slope, offset = np.unravel_index(counts.argmax(), counts.shape)
        found.append((float(slopes[slope]), float(offset + low)))
        counts[:, max(0, offset - 3) : offset + 4] = 0
    return found


def _crosses(columns: Ints, width: int) -> bool:
    """Return whether points in these columns cover a line across the picture."""
    return bool(
        len(np.unique(columns)) >= COVERAGE * width
        and columns.min() <= ENDS * width
        and columns.max() >= (1 - ENDS) * width - 1
    )


def _near(shape: tuple[int, int], slope: float, offset: float, reach: float) -> Mask:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return np.asarray(np.abs(rows - slope * (columns - shape[1] / 2) - offset) <= reach)


# Shapes that are marks


def frames(shapes: Shapes, kept: Mask, shape: tuple[int, int]) -> Mask:
    """Return which shapes are frames or L-shaped edges around others, (n + 1,)."""
    marks = np.zeros_like(kept)
    large = (shapes.heights >= 0.6 * shape[0]) & (shapes.widths >= 0.6 * shape[1])
    for number in np.flatnonzero(kept & large):
        top, left, bottom, right = shapes.boxes[number]
        down, across = (max(1, round(RIM * side)) for side in (bottom - top, right - left))
        inner = shapes.labels[top + down : bottom - down, left + across : right - across]
        pixels = (shapes.labels[top:bottom, left:right] == number).sum()
        marks[number] = (inner == number).sum() <= 0.03 * pixels
    return _if_something_remains(marks, shapes, kept, shape)


def bands(shapes: Shapes, kept: Mask, shape: tuple[int, int]) -> Mask:
    """Return which shapes are bands along the border or lines across, (n + 1,)."""
    touches = _touches(shapes, shape)
    height, width = shape
    lying = (shapes.heights <= BAND * height) & (shapes.widths >= 0.3 * width)
    standing = (shapes.widths <= BAND * width) & (shapes.heights >= 0.3 * height)
    marks = (touches[:, [0, 2]].any(axis=1) & lying) | (touches[:, [1, 3]].any(axis=1) & standing)
    return _if_something_remains(marks & kept, shapes, kept, shape)


def border_bits(shapes: Shapes, kept: Mask, shape: tuple[int, int]) -> Mask:
    """Return which shapes are small and touch the border, (n + 1,).

    They have less than half of the ink of the largest shape that does not touch it.
    """
    touches = _touches(shapes, shape).any(axis=1)
    inner = shapes.mass[kept & ~touches].max(initial=0)
    return np.asarray(kept & touches & (shapes.mass < 0.5 * inner))


def specks(shapes: Shapes, kept: Mask, shape: tuple[int, int]) -> Mask:
    """Return which shapes are very small, or small and isolated, (n + 1,)."""
    most = shapes.mass[kept].max(initial=0)
    marks = kept & (shapes.mass < SPECK * most)
    rest = kept & ~marks
    length = np.maximum(shapes.heights, shapes.widths)
    longest = length[rest].max(initial=0)
    small = rest & (shapes.mass < FAR_SPECK * most) & (length < FAR_SPECK * longest)
    large = shapes.boxes[rest & ~small]
    for number in np.flatnonzero(small)[:MOST_SPECKS]:
        apart = np.maximum(large[:, :2] - shapes.boxes[number, 2:], shapes.boxes[number, :2] - large[:, 2:])
        marks[number] = apart.max(axis=1).min(initial=longest) > 0.05 * longest
    return np.asarray(marks)


MARKS = {"frame": frames, "edge": bands, "marks at the border": border_bits, "specks": specks}


def _touches(shapes: Shapes, shape: tuple[int, int]) -> Mask:
    """Return which shapes are near the top, left, bottom and right border (n + 1, 4)."""
    near = max(1, round(0.01 * min(shape)))
    low, high = shapes.boxes[:, :2] < near, shapes.boxes[:, 2:] > np.array(shape) - near
    return np.concatenate([low, high], axis=1)


def _if_something_remains(marks: Mask, shapes: Shapes, kept: Mask, shape: tuple[int, int]) -> Mask:
    """Return the marks that may be removed because enough other ink remains."""
    rest = kept & ~marks & (shapes.heights >= LEAST_HEIGHT * min(shape))
    return np.asarray(marks & (LEAST_MASS * shapes.mass <= shapes.mass[rest].sum()))
