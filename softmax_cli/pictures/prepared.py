"""The result of preparing a picture."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Gray = NDArray[np.uint8]


class Box(NamedTuple):
    """A rectangle in a picture, in pixels.

    `bottom` and `right` are the first row and column outside.
    """

    top: int
    left: int
    bottom: int
    right: int


class Prepared(NamedTuple):
    """A picture prepared as the input of a model.

    Attributes:
        image: uint8 (rows, cols), light on black.
        steps: The steps of the preparation, in order.
        warnings: Possible problems of the picture.
        blank: Whether the picture is blank; then `image` has no ink.
        box: Box of the digit in the upright picture, in pixels of the file; None for a whole picture.
        line: Number of the line of digits, from 0; None for a whole picture.
    """

    image: Gray
    steps: tuple[str, ...]
    warnings: tuple[str, ...]
    blank: bool = False
    box: Box | None = None
    line: int | None = None
