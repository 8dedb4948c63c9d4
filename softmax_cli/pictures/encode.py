"""Write images as PNG files."""

import io

import numpy as np
from numpy.typing import NDArray


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Return pixels as the bytes of a PNG file.

    The pixels are grey (h, w), or red, green, blue and opacity (h, w, 4).
    """
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return file.getvalue()
