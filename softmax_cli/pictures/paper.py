"""Find the ink: its polarity, and its difference from the tone of the paper.

The tone of the paper is that of the picture with all strokes closed (for dark ink) or opened (for light
ink): a maximum over a window wider than any stroke, followed by a minimum, on a coarse grid. Gradients,
shadows and a dark desk around the paper remain in it and are therefore not ink.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from softmax_cli.pictures.resize import enlarged, reduced
from softmax_cli.pictures.shapes import otsu

Floats = NDArray[np.floating[Any]]
Gray = NDArray[np.uint8]

GRID = 64
"""Cells along the longer side of the grid on which the tone of the paper is found."""

WINDOW = 0.36
"""Side of the window as a fraction of the longer side; wider than a stroke."""

DARKEST = 40.0
"""Tone of paper, 0 to 255, below which its ink is no longer scaled up."""

NOISE = 4.5
"""Threshold of ink, in median deviations of the paper's tone."""


LEAST = 2
"""Largest strength of ink, 0 to 255, that is due to the rounding of the paper's tone."""


class Ink(NamedTuple):
    """Strength of the ink (h, w), 0 to 255, and whether it is darker than the paper."""

    strength: Gray
    dark: bool


def find_ink(gray: Gray, invert: bool | None = None) -> Ink:
    """Return the ink of a picture (h, w).

    `invert` is True for dark ink and False for light ink; None detects it.

    If `invert` contradicts the detection, gaps between strokes are not ink: the tone is a smooth surface.
    """
    found = is_dark(gray)
    dark = found if invert is None else invert
    tone = paper_tone(gray, dark) if dark == found else smooth_tone(gray)
    # A shadow darkens paper and ink by the same factor, so that dark ink is relative to its paper.
    strength = (tone - gray) * (255 / np.maximum(tone, DARKEST)) if dark else gray - tone
    ink = np.clip(np.rint(strength), 0, 255).astype(np.uint8)
    return Ink(np.where(ink > max(noise_of(ink), LEAST), ink, 0).astype(np.uint8), dark)


def border_tone(gray: Gray) -> int:
    """Return the lower median of the outermost rows and columns."""
    border = np.concatenate([gray[0], gray[-1], gray[:, 0], gray[:, -1]])
    middle = (len(border) - 1) // 2
    return int(np.partition(border, middle)[middle])


def is_dark(gray: Gray) -> bool:
    """Return whether the ink is darker than the paper.

    The sign of the sum of the third powers of the differences from a smooth surface decides.
    """
    difference = gray - smooth_tone(gray)
    return bool((difference * difference * difference).sum() < 0)


def smooth_tone(gray: Gray) -> Floats:
    """Return a quadratic surface (h, w) that fits the tone of the paper.

    The fit is robust. It begins at the median of the picture, in which the tone of the border has 30 % of the
    weight, and is repeated with weights 1 / (1 + (residual / 16)²).
    """
    cells = reduced(gray, 24)
    y, x = (np.linspace(-1, 1, side) for side in cells.shape)
    terms = _quadratic(y, x)
    residual = cells.ravel() - np.median(np.append(cells, np.full(3 * cells.size // 7, border_tone(gray))))
    for _ in range(4):
        weight = 1 / (1 + (residual / 16) ** 2)
        normal = (terms * weight[:, None]).T @ terms + 0.02 * np.eye(6) * [0, 1, 1, 1, 1, 1]
        factors = np.linalg.solve(normal, (terms * weight[:, None]).T @ cells.ravel())
        residual = cells.ravel() - terms @ factors
    return enlarged((terms @ factors).reshape(cells.shape), gray.shape)


def _quadratic(y: Floats, x: Floats) -> Floats:
    """Return 1, y, x, y², yx, x² at each place of a grid, (len(y) · len(x), 6)."""
    y, x = (one.ravel() for one in np.meshgrid(y, x, indexing="ij"))
    return np.stack([np.ones_like(x), y, x, y * y, y * x, x * x], axis=1)


def paper_tone(gray: Gray, dark: bool) -> Floats:
    """Return the tone (h, w) of the paper, also under and between the strokes."""
    cells = reduced(gray, GRID)
    reach = max(1, round(WINDOW * max(cells.shape) / 2))
    tone = cells if dark else -cells
    tone = -windowed_maximum(-windowed_maximum(tone, reach), reach)
    return enlarged(tone if dark else -tone, gray.shape)


def windowed_maximum(values: Floats, reach: int) -> Floats:
    """Return the maximum of values (h, w) within `reach` along both axes."""
    for _ in range(2):
        values = _maximum_down(values, reach).T
    return values


def _maximum_down(values: Floats, reach: int) -> Floats:
    """Return the maximum within `reach` along the columns.

    The size of the windows is doubled in each step.
    """
    window, size = 2 * reach + 1, 1
    most = np.pad(values, ((reach, reach), (0, 0)), constant_values=-np.inf)
    while 2 * size <= window:
        most = np.maximum(most[:-size], most[size:])
        size *= 2
    rest = window - size
    return np.asarray(np.maximum(most[: len(values)], most[rest : rest + len(values)]))


def noise_of(ink: Gray) -> float:
    """Return the largest strength of noise in ink (h, w).

    It is the median plus a multiple of the median deviation of the values below Otsu's threshold.
    """
    counts = np.bincount(ink.ravel(), minlength=256)[: otsu(ink)]
    middle = _median(counts)
    deviations = np.bincount(np.abs(np.arange(len(counts)) - middle), counts)
    return middle + NOISE * _median(deviations)


def _median(counts: NDArray[Any]) -> int:
    """Return the median of integers, given the number `counts[k]` of each k."""
    total = np.cumsum(counts)
    return int(np.searchsorted(total, total[-1] / 2))
