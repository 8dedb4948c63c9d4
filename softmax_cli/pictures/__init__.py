"""Convert drawn, scanned and photographed pictures into images of a data set.

`read` turns a file into luminance, `colour`, `page` and `paper` find the ink in it, `marks` removes what is
not the digit, `segment` separates several digits, `digit` and `plain` draw the image. `sources` finds the
pictures in a folder, and `boxes` shows where digits were found.
"""

from softmax_cli.pictures.boxes import draw_boxes
from softmax_cli.pictures.doubt import Reference, fit_reference, strangeness
from softmax_cli.pictures.encode import encode_png
from softmax_cli.pictures.plain import draw_plain
from softmax_cli.pictures.prepare import draw_digit, find_digits, prepare_picture, split_touching
from softmax_cli.pictures.prepared import Box, Prepared
from softmax_cli.pictures.read import MAX_BYTES, Luminance, read_luminance
from softmax_cli.pictures.shapes import label
from softmax_cli.pictures.sources import find_pictures

__all__ = [
    "MAX_BYTES",
    "Box",
    "Luminance",
    "Prepared",
    "Reference",
    "draw_boxes",
    "draw_digit",
    "draw_plain",
    "encode_png",
    "find_digits",
    "find_pictures",
    "fit_reference",
    "label",
    "prepare_picture",
    "read_luminance",
    "split_touching",
    "strangeness",
]
