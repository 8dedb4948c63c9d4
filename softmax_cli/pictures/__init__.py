"""Convert drawn, scanned and photographed pictures into images of a data set.

`read` turns a file into luminance, `colour`, `page` and `paper` find the ink in it, `marks` removes what is
not the digit, `segment` separates several digits, `digit` and `plain` draw the image. `sources` finds the
pictures in a folder, and `boxes` shows where digits were found.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from softmax_cli.pictures.boxes import draw_boxes as draw_boxes
    from softmax_cli.pictures.doubt import Reference as Reference
    from softmax_cli.pictures.doubt import fit_reference as fit_reference
    from softmax_cli.pictures.doubt import strangeness as strangeness
    from softmax_cli.pictures.encode import encode_png as encode_png
    from softmax_cli.pictures.plain import draw_plain as draw_plain
    from softmax_cli.pictures.prepare import draw_digit as draw_digit
    from softmax_cli.pictures.prepare import find_digits as find_digits
    from softmax_cli.pictures.prepare import prepare_picture as prepare_picture
    from softmax_cli.pictures.prepare import split_touching as split_touching
    from softmax_cli.pictures.prepared import Box as Box
    from softmax_cli.pictures.prepared import Prepared as Prepared
    from softmax_cli.pictures.read import MAX_BYTES as MAX_BYTES
    from softmax_cli.pictures.read import Luminance as Luminance
    from softmax_cli.pictures.read import read_luminance as read_luminance
    from softmax_cli.pictures.shapes import label as label
    from softmax_cli.pictures.sources import find_pictures as find_pictures

_MODULES = {
    "boxes": ("draw_boxes",),
    "doubt": ("Reference", "fit_reference", "strangeness"),
    "encode": ("encode_png",),
    "plain": ("draw_plain",),
    "prepare": ("draw_digit", "find_digits", "prepare_picture", "split_touching"),
    "prepared": ("Box", "Prepared"),
    "read": ("MAX_BYTES", "Luminance", "read_luminance"),
    "shapes": ("label",),
    "sources": ("find_pictures",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a name when it is first used: commands without pictures do not need these modules."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
