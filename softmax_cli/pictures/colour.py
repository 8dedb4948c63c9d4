"""Convert colours and transparency to one grey plane that shows the ink.

Luminance is L = (19595 R + 38470 G + 7471 B + 32768) >> 16 (ITU-R BT.601).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Gray = NDArray[np.uint8]

OPAQUE = 200
"""Smallest opacity, of 255, of pixels that count as opaque."""

ONE_COLOUR = 80
"""Largest range of luminance of ink of one colour."""

WORTH = 2.0
"""Factor by which the contrast of another plane must exceed that of luminance."""


Plane = NDArray[np.int16]

PLANES: dict[str, Callable[[Plane, Plane, Plane], Plane]] = {
    "red": lambda red, green, blue: red,
    "green": lambda red, green, blue: green,
    "blue": lambda red, green, blue: blue,
    "red minus green": lambda red, green, blue: (255 + red - green) // 2,
    "blue minus yellow": lambda red, green, blue: (510 + 2 * blue - red - green) // 4,
}
"""Planes that are tried if luminance has little contrast."""


def ink_plane(planes: NDArray[np.uint8]) -> tuple[Gray, tuple[str, ...]]:
    """Return planes (h, w, n) as one grey plane (h, w), and the steps.

    n is 1 for grey, 3 for RGB and 4 for RGBA.
    """
    if planes.shape[2] == 1:
        return planes[:, :, 0], ()
    if planes.shape[2] == 3:
        return _colours(planes)
    opacity = planes[:, :, 3]
    gray = luminance(planes[:, :, :3])
    if _is_ink(gray, opacity):
        return 255 - opacity, ("ink found by transparency",)
    if opacity.min() == 255:
        return _colours(planes[:, :, :3])
    share = opacity / np.float32(255)
    return np.rint(gray * share + 255 * (1 - share)).astype(np.uint8), ("laid over white",)


def luminance(colours: NDArray[np.uint8]) -> Gray:
    """Return the luminance (h, w) of colours (h, w, 3)."""
    from PIL import Image

    return np.asarray(Image.fromarray(np.ascontiguousarray(colours)).convert("L"))


def _is_ink(gray: Gray, opacity: Gray) -> bool:
    """Return whether a picture is ink of one colour on a transparent sheet."""
    opaque = gray[opacity >= OPAQUE]
    if not opaque.size or (opacity < 128).mean() < 0.2:
        return False
    low, high = np.percentile(opaque, (1, 99))
    return bool(high - low <= ONE_COLOUR)


def _colours(colours: NDArray[np.uint8]) -> tuple[Gray, tuple[str, ...]]:
    """Return the luminance, or another plane if its contrast is far higher."""
    gray = luminance(colours)
    coarse = colours[::3, ::3].astype(np.int16)
    if _contrast(gray[::3, ::3]) * WORTH > 128:  # no plane can have more
        return gray, ()
    contrasts = {name: _contrast(plane(*np.moveaxis(coarse, -1, 0))) for name, plane in PLANES.items()}
    best = max(contrasts, key=lambda name: contrasts[name])
    if contrasts[best] < WORTH * max(_contrast(gray[::3, ::3]), 4):
        return gray, ()
    found = PLANES[best](*np.moveaxis(colours.astype(np.int16), -1, 0))
    return found.astype(np.uint8), (f"ink found by colour: {best}",)


def _contrast(plane: NDArray[np.integer]) -> float:
    """Return the mean distance from the median of the outermost 1 % of the values."""
    distance = np.abs(plane.ravel().astype(np.int16) - np.int16(np.median(plane)))
    count = max(1, len(distance) // 100)
    return float(np.partition(distance, -count)[-count:].mean())
