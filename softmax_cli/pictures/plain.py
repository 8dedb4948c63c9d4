"""Draw a whole picture for other data sets: light on dark, padded and resized."""

import numpy as np

from softmax_cli.pictures.digit import rounded
from softmax_cli.pictures.paper import border_tone
from softmax_cli.pictures.prepared import Gray, Prepared
from softmax_cli.pictures.resize import resize


def draw_plain(gray: Gray, shape: tuple[int, int], invert: bool | None = None) -> Prepared:
    """Return luminance (h, w) as an image of `shape`.

    A picture that is dark on light is inverted; if `invert` is None, the tone of its border decides. It is
    padded with the tone of its border to the proportions of `shape`, and averaged down.
    """
    background = border_tone(gray)
    if invert is None:
        invert = background > 127
    light, background = (255 - gray, 255 - background) if invert else (gray, background)
    scale = max(found / side for found, side in zip(gray.shape, shape, strict=True))
    missing = [max(0, round(side * scale) - found) for side, found in zip(shape, gray.shape, strict=True)]
    padded = np.pad(light, [(side // 2, side - side // 2) for side in missing], constant_values=background)
    steps = ["inverted"] * invert + ["padded"] * any(missing) + [f"resized to {shape[1]} x {shape[0]}"]
    blank = bool(gray.min() == gray.max())
    image = rounded(resize(padded, shape))
    return Prepared(image, tuple(steps), ("the picture is blank",) if blank else (), blank)
