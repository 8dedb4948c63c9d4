"""Group shapes into digits and digits into lines, and split digits that touch.

Lengths are fractions of the reference height: the median height of the shapes, weighted with their ink.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softmax_cli.pictures.shapes import Ints, Mask, Shapes

Gray = NDArray[np.uint8]
Groups = list[list[int]]
Confidence = Callable[[NDArray[np.uint8]], NDArray[Any]]
"""Function from images (n, rows, cols) to their confidence, (n,)."""

PIECE = 0.75
"""A shape lower than this may be a piece of a broken digit."""

LOWEST = 0.4
"""A digit that is lower than this is dropped."""

FLAT = 1.3
"""Width over height above which a shape is taken to be a piece of a digit."""

MOST_SHAPES = 300
WIDE = 0.9
"""Width over height from which a shape may be two digits that touch."""

SLANTS = np.linspace(-0.5, 0.5, 11)
"""Slopes of the cut between two digits, in columns per row."""


def find_lines_of_digits(shapes: Shapes, kept: Mask) -> list[Groups]:
    """Return lines of digits; each digit is a list of shape numbers.

    Lines are in order from top to bottom, digits from left to right.
    """
    numbers = np.flatnonzero(kept)
    if not len(numbers):
        return []
    numbers = numbers[np.argsort(-shapes.mass[numbers], kind="stable")[:MOST_SHAPES]]
    reference = reference_height(shapes, numbers)
    groups = merge_pieces([[int(number)] for number in numbers], shapes, reference)
    boxes = [box_of(group, shapes) for group in groups]
    high = [at for at, box in enumerate(boxes) if box[2] - box[0] >= LOWEST * reference]
    return in_lines([groups[at] for at in high], shapes)


def reference_height(shapes: Shapes, numbers: Ints) -> float:
    """Return the median height of shapes, weighted with their ink."""
    order = numbers[np.argsort(shapes.heights[numbers], kind="stable")]
    total = np.cumsum(shapes.mass[order])
    return float(shapes.heights[order][np.searchsorted(total, total[-1] / 2)])


def box_of(group: list[int], shapes: Shapes) -> Ints:
    """Return top, left, bottom, right of the shapes of a group (4,)."""
    boxes = shapes.boxes[group]
    return np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])


def merge_pieces(groups: Groups, shapes: Shapes, reference: float) -> Groups:
    """Return groups in which the pieces of broken digits are together.

    In each round, two groups are merged if each is the nearest to the other.
    """
    while len(groups) > 1:
        gaps = mergeable(np.stack([box_of(group, shapes) for group in groups]), reference)
        nearest = gaps.argmin(axis=1)
        index = np.arange(len(groups))
        pairs = (nearest[nearest] == index) & (nearest > index) & np.isfinite(gaps[index, nearest])
        if not pairs.any():
            break
        for first in np.flatnonzero(pairs):
            groups[first] = groups[first] + groups[nearest[first]]
        merged = set(nearest[pairs].tolist())
        groups = [group for at, group in enumerate(groups) if at not in merged]
    return groups


def mergeable(boxes: Ints, reference: float) -> NDArray[np.float64]:
    """Return the gaps (n, n) between boxes that may be pieces of one digit.

    All other gaps are infinite.
    """
    high, wide = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    first, second = boxes[:, None], boxes[None]
    overlap = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])
    union = np.maximum(first[..., 2:], second[..., 2:]) - np.minimum(first[..., :2], second[..., :2])
    down, across = overlap[..., 0], overlap[..., 1]
    lower, narrower = np.minimum(high[:, None], high), np.minimum(wide[:, None], wide)
    gap = np.maximum(0, -overlap.min(axis=2))
    is_inside = (across >= 0.8 * narrower) & (down >= 0.8 * lower)
    fits = (union[..., 0] <= 1.25 * np.maximum(reference, np.maximum(high[:, None], high))) & (
        union[..., 1] <= np.maximum(union[..., 0], reference)
    )
    is_near = ((across >= 0.3 * narrower) & (gap < 0.35 * reference)) | (
        (down > 0) & (gap < 0.12 * reference)
    )
    flat = wide > FLAT * high  # not a whole digit, but perhaps its top or its base
    is_stacked = (flat[:, None] | flat) & (across >= 0.2 * narrower) & (gap <= 0.25 * union[..., 0])
    is_stacked &= (union[..., 1] <= FLAT * union[..., 0]) & (
        union[..., 0] <= 2.5 * np.maximum(high[:, None], high)
    )
    merge = is_inside | ((lower < PIECE * reference) & fits & is_near) | is_stacked
    np.fill_diagonal(merge, val=False)
    return np.where(merge, gap, np.inf)


def in_lines(groups: Groups, shapes: Shapes) -> list[Groups]:
    """Return groups in lines.

    Two groups are in one line if their boxes overlap by half of the smaller height.
    """
    boxes = {id(group): box_of(group, shapes) for group in groups}
    lines: list[Groups] = []
    for group in sorted(groups, key=lambda one: boxes[id(one)][[0, 2]].sum()):
        box = boxes[id(group)]
        for line in lines:
            near = boxes[id(min(line, key=lambda one: abs(boxes[id(one)][1] - box[1])))]
            overlap = min(box[2], near[2]) - max(box[0], near[0])
            if overlap >= 0.5 * min(box[2] - box[0], near[2] - near[0]):
                line.append(group)
                break
        else:
            lines.append([group])
    return [sorted(line, key=lambda one: boxes[id(one)][[1, 3]].sum()) for line in lines]


def may_be_two(ink: Gray) -> bool:
    """Return whether cropped ink (h, w) is wide enough for two digits that touch."""
    return bool(ink.shape[1] >= WIDE * ink.shape[0] and min(ink.shape) >= 6)


def split_narrowest(ink: Gray) -> tuple[Gray, Gray] | None:
    """Return the left and the right part of ink (h, w), cut at its narrowest place.

    None is returned if the cut crosses more than one stroke: then it does not separate two digits.

    The cut passes through the middle half of the width and may lean to either side. Ink farther from the
    middle has a larger weight, up to 1.5.
    """
    rows, columns = np.nonzero(ink)
    strength, (low, width) = ink[rows, columns], (columns.min(), np.ptp(columns) + 1)
    middle = float(rows.mean())
    best = (np.inf, 0.0, low + width // 2)
    for slant in SLANTS:
        place = np.rint(columns - slant * (rows - middle)).astype(np.int64) - low
        inside = (place >= width // 4) & (place <= 3 * width // 4)
        profile = np.bincount(place[inside], strength[inside], minlength=3 * width // 4 + 1)[width // 4 :]
        profile = profile * (1 + np.abs(np.arange(len(profile)) / len(profile) - 0.5))
        at = int(profile.argmin())
        best = min(best, (float(profile[at]), float(slant), int(low + width // 4 + at)))
    _, slant, at = best
    row, column = np.indices(ink.shape)
    left = column - slant * (row - middle) < at
    strokes = (
        np.diff((left[:, :-1] & ~left[:, 1:] & (ink[:, :-1] > 0)).any(axis=1).astype(int), prepend=0) > 0
    )
    if strokes.sum() > 1:
        return None
    return np.where(left, ink, 0).astype(np.uint8), np.where(left, 0, ink).astype(np.uint8)
