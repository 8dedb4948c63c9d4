"""Find the ink: its polarity, and its difference from the tone of the paper.

The tone of the paper is that of the picture with all strokes closed (for dark ink) or opened (for light
ink): a maximum over a window wider than any stroke, followed by a minimum, on a coarse grid. Gradients,
shadows and a dark desk around the paper remain in it and are therefore not ink.
"""

import functools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from softmax_cli.pictures.resize import enlarged, reduced
from softmax_cli.pictures.shapes import histogram, otsu_of_counts

Floats = NDArray[np.floating[Any]]
Gray = NDArray[np.uint8]

GRID = 64
"""Cells along the longer side of the grid on which the tone of the paper is found."""

WINDOW = 0.36
"""Side of the window as a fraction of the longer side; wider than a stroke."""

DARKEST = 40.0
"""Tone of paper, 0 to 255, below which its ink is no longer scaled up."""

SAMPLE = 160
"""Pixels a side of the grid on which it is decided whether the ink is dark."""

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
    strength = tone - gray if dark else gray - tone
    if dark:
        scale = np.maximum(tone, DARKEST)
        strength *= np.divide(255, scale, out=scale)
    ink = np.clip(np.rint(strength, out=strength), 0, 255, out=strength).astype(np.uint8)
    ink[ink <= max(noise_of(ink), LEAST)] = 0
    return Ink(ink, dark)


def border_tone(gray: Gray) -> int:
    """Return the lower median of the outermost rows and columns."""
    border = np.concatenate([gray[0], gray[-1], gray[:, 0], gray[:, -1]])
    middle = (len(border) - 1) // 2
    return int(np.partition(border, middle)[middle])


def is_dark(gray: Gray) -> bool:
    """Return whether the ink is darker than the paper.

    The third powers of the differences from a smooth surface through the picture are summed, over a grid of
    at most `SAMPLE` pixels a side.
    """
    step = -(-max(gray.shape) // SAMPLE)
    difference = gray[::step, ::step] - smooth_tone(gray, step)
    return bool((difference * difference * difference).sum() < 0)


def smooth_tone(gray: Gray, step: int = 1) -> Floats:
    """Return a quadratic surface through the tone of the paper, at every `step`-th pixel along both axes.

    It is fitted to robust weights. The fit begins at the median of the picture, in which the tone of the
    border has 30 % of the weight, and is repeated with weights 1 / (1 + (residual / 16)²).
    """
    cells = reduced(gray, 24)
    terms = _quadratic(*cells.shape)
    tones = cells.ravel().astype(np.float64)
    residual = tones - np.median(np.append(tones, np.full(3 * cells.size // 7, border_tone(gray))))
    for _ in range(4):
        weighted = terms / (1 + (residual / 16) ** 2)
        factors = np.linalg.solve(weighted @ terms.T + DAMPING, weighted @ tones)
        residual = tones - factors @ terms
    return enlarged((factors @ terms).reshape(cells.shape), gray[::step, ::step].shape)


DAMPING = np.diag([0, 0.02, 0.02, 0.02, 0.02, 0.02])
"""Keeps the surface flat where the picture does not determine it."""


@functools.lru_cache(maxsize=32)
def _quadratic(height: int, width: int) -> Floats:
    """Return 1, y, x, y², yx, x² at each place of a grid, (6, height · width); y and x are in [-1, 1]."""
    grid = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    y, x = (one.ravel() for one in grid)
    terms = np.stack([np.ones_like(x), y, x, y * y, y * x, x * x])
    terms.flags.writeable = False
    return terms


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
    most = np.full((len(values) + 2 * reach, values.shape[1]), -np.inf, values.dtype)
    most[reach : reach + len(values)] = values
    while 2 * size <= window:
        most = np.maximum(most[:-size], most[size:])
        size *= 2
    rest = window - size
    return np.asarray(np.maximum(most[: len(values)], most[rest : rest + len(values)]))


def noise_of(ink: Gray) -> float:
    """Return the largest strength of noise in ink (h, w).

    It is the median plus a multiple of the median deviation of the values below Otsu's threshold.
    """
    counts = histogram(ink)
    counts = counts[: otsu_of_counts(counts)]
    middle = _median(counts)
    deviations = np.bincount(np.abs(np.arange(len(counts)) - middle), counts)
    return middle + NOISE * _median(deviations)


def _median(counts: NDArray[Any]) -> int:
    """Return the median of integers, given the number `counts[k]` of each k."""
    total = np.cumsum(counts)
    return int(np.searchsorted(total, total[-1] / 2))
