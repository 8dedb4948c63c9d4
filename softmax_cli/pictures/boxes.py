"""Draw boxes and answers into a copy of a picture."""

import io
from collections.abc import Iterable

from softmax_cli.pictures.prepared import Box
from softmax_cli.pictures.read import PictureSource, read_colours

SIDE = 2048
"""Longest side of the copy, in pixels; larger pictures are reduced."""

COLOUR = (214, 39, 40)


def draw_boxes(source: PictureSource, marks: Iterable[tuple[Box, str]]) -> bytes:
    """Return an upright copy of a picture, with boxes and a text above each, as the bytes of a PNG file.

    Args:
        source: Path of a file, or its content.
        marks: Boxes in pixels of the upright picture, and their texts.

    Raises:
        ImageError: The picture cannot be read.
    """
    from PIL import Image, ImageDraw, ImageFont

    colours, scale = read_colours(source, SIDE)
    copy = Image.fromarray(colours)
    draw = ImageDraw.Draw(copy)
    font = ImageFont.load_default(max(12, round(max(copy.size) / 40)))
    for box, text in marks:
        top, left, bottom, right = (round(side / scale) for side in box)
        draw.rectangle((left - 2, top - 2, right + 1, bottom + 1), outline=COLOUR, width=2)
        height = draw.textbbox((0, 0), text, font)[3]
        draw.text((left, max(0, top - height - 4)), text, COLOUR, font)
    file = io.BytesIO()
    copy.save(file, "PNG")
    return file.getvalue()
