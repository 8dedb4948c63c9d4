"""Convert drawn, scanned and photographed pictures into images of a data set.

`read` turns a file into luminance, `colour`, `page` and `paper` find the ink in it, `marks` removes what is
not the digit, `segment` separates several digits, `digit` and `plain` draw the image.
"""

from softmax_cli.pictures.doubt import Reference, fit_reference, strangeness
from softmax_cli.pictures.encode import encode_png
from softmax_cli.pictures.plain import draw_plain
from softmax_cli.pictures.prepare import draw_digit, find_digits, prepare_picture, split_touching
from softmax_cli.pictures.prepared import Box, Prepared
from softmax_cli.pictures.read import Luminance, read_luminance
from softmax_cli.pictures.shapes import label

__all__ = [
    "Box",
    "Luminance",
    "Prepared",
    "Reference",
    "draw_digit",
    "draw_plain",
    "encode_png",
    "find_digits",
    "fit_reference",
    "label",
    "prepare_picture",
    "read_luminance",
    "split_touching",
    "strangeness",
]
