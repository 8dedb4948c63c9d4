"""Find the sheet of paper in a photograph that also shows the desk around it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from softmax_cli.pictures.resize import enlarged, reduced
from softmax_cli.pictures.shapes import Mask, find_shapes, grown, otsu

Gray = NDArray[np.uint8]

SMALLEST = 40
"""Smallest side, in pixels, of a picture in which a sheet is searched for."""

LEAST_CONTRAST = 50
"""Smallest difference in tone between sheet and desk."""

LEAST_AREA, LEAST_FILL = 0.15, 0.88
"""Smallest fractions of the picture and of its bounding rectangle that a sheet fills."""

CELLS = 64
"""Cells along the longer side of the coarse grid."""

STROKE = 3
"""Half of the widest stroke, in cells."""

MOST_BORDER = 0.3
"""Largest fraction of the border of the picture that is light."""

LEAST_BRIGHT = 0.75
"""Smallest fraction of the sheet that is paper, not ink."""


def crop_page(gray: Gray) -> Gray | None:
    """Return the sheet of paper in a picture (h, w), or None.

    The area outside of the sheet is filled with its tone.
    """
    if min(gray.shape) < SMALLEST:
        return None
    cells = np.rint(reduced(gray, CELLS)).astype(np.uint8)
    if int(cells.max()) - int(cells.min()) < LEAST_CONTRAST:
        return None
    for tones in (cells, 255 - cells):
        page = find_page(tones)
        if page is not None:
            return fill_outside(gray, enlarged(inner(page), gray.shape) > 0.5)
    return None


def find_page(cells: Gray) -> Mask | None:
    """Return the mask of a bright, rectangular sheet on a coarse grid (h, w), or None."""
    split = otsu(cells)
    light = cells >= split
    border = np.concatenate([light[0], light[-1], light[:, 0], light[:, -1]])
    if border.mean() > MOST_BORDER or light.mean() < LEAST_AREA / 2:
        return None
    bright = closed(light, STROKE)
    if bright.all() or cells[bright].mean() - cells[~bright].mean() < LEAST_CONTRAST:
        return None
    shapes = find_shapes(bright, 1)
    page = shapes.labels == 1 + shapes.mass[1:].argmax()
    if page.mean() < LEAST_AREA or rectangularity(page) < LEAST_FILL:
        return None
    inside = cells[inner(page)]
    has_ink = inside.size and int(inside.max()) - int(inside.min()) >= LEAST_CONTRAST // 2
    return page if has_ink and (inside >= split).mean() >= LEAST_BRIGHT else None


def closed(mask: Mask, reach: int) -> Mask:
    """Return a mask (h, w) in which gaps up to 2 `reach` wide are closed.

    Gaps along the border stay open.
    """
    for _ in range(reach):
        mask = grown(mask)
    padded = ~np.pad(mask, 1)
    for _ in range(reach):
        padded = grown(padded)
    return np.asarray(~padded[1:-1, 1:-1])


def inner(page: Mask) -> Mask:
    """Return a mask (h, w) without its outermost pixels."""
    padded = np.pad(page, 1)
    return np.asarray(page & padded[2:, 1:-1] & padded[:-2, 1:-1] & padded[1:-1, 2:] & padded[1:-1, :-2])


def rectangularity(mask: Mask) -> float:
    """Return the fraction of its bounding rectangle that a mask (h, w) fills.

    The rectangle is the smallest one, turned by up to 45°.
    """
    rows, columns = np.nonzero(mask)
    angle = np.deg2rad(np.arange(-45, 46, 3))[:, None]
    x, y = columns * np.cos(angle) + rows * np.sin(angle), rows * np.cos(angle) - columns * np.sin(angle)
    area: NDArray[Any] = (np.ptp(x, axis=1) + 1) * (np.ptp(y, axis=1) + 1)
    return float(len(rows) / area.min())


def fill_outside(gray: Gray, page: Mask) -> Gray:
    """Return the bounding box of a sheet (h, w).

    The area outside of the sheet gets its median tone.
    """
    rows, columns = np.flatnonzero(page.any(axis=1)), np.flatnonzero(page.any(axis=0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.where(page[box], gray[box], np.median(gray[page])).astype(np.uint8)
