"""Any picture -> the uint8 image that the model's data set would have drawn.

A picture is first read as luminance: EXIF orientation applied, 16 bits scaled to 8, transparency laid
over white, then L = (19595 R + 38470 G + 7471 B + 32768) >> 16 (ITU-R BT.601). One whose longest side
is above 512 is averaged over squares of ceil(longest / 512) pixels.

``digit``, for data sets drawn as MNIST is, to an image of `rows` x `cols`, all in integers until 6:

1. A picture that has the size already, and a border whose median is at most 8, is used as it is.
2. Background: the lower median of the outermost rows and columns. Noise: three times the lower median
   of their distance from it.
3. Polarity: dark ink if the squares of (L - background) sum to more below the background than above.
   Ink is the distance from the background on that side; at most the noise, it is 0.
4. Threshold: Otsu's, over all values of ink (the lowest of equals; at or above it is foreground). Ink
   that is 8-connected to none at or above the threshold is removed.
5. Crop to the box round the ink that has at least a third of the strongest: the halo of a blurred edge
   lies outside. Where no ink is left, the image is blank, all 0.
6. Resize so that the longest side is 20/28 of the shorter side of the image (the other side rounded
   half up, at least 1), one axis after the other: an output pixel is the mean of what it covers when
   shrinking, and linear between the two nearest pixel centres when enlarging.
7. Shift by whole pixels until the centre of mass is in [rows/2 - 1/2, rows/2 + 1/2), and likewise for
   the columns, without leaving the image.
8. Stretch the brightest pixel to 255 and round half up.

In 7 and 8 what is within 1e-9 of a half is a half.

``plain``, for other data sets: dark on light (the border's lower median above 127) is inverted; the
picture is padded with its background to the image's proportions, resized as above, and rounded.

Sources: the description of the digits by LeCun, Cortes and Burges; Otsu, IEEE Trans. SMC (1979).
"""

import io
import math
import struct
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from softmax_cli.errors import ImageError
from softmax_cli.files import open_regular

if TYPE_CHECKING:
    from PIL import Image

MAX_BYTES = 10_000_000
MAX_PIXELS = 32_000_000
WORKING_SIDE = 512
"""Longest side, in pixels, of the picture that is looked at for ink."""

BLACK = 8
"""Up to this border luminance, a picture of the model's size is taken as it is."""

PNG = b"\x89PNG"
"""What every PNG file starts with."""

SMALLEST = 8
"""A picture with a shorter side than this can hardly show anything."""

FAINT = 32
"""Ink whose darkest is below this is probably not ink."""

TIE = 1e-9
"""What is as near as this to a half is one: whoever adds up in another order must come to the same image."""

ORIENTATION = 0x0112
"""The EXIF tag that says how the camera was held."""

Gray = NDArray[np.uint8]


class Prepared(NamedTuple):
    """The uint8 image (rows, cols) that the model sees, what was done, and what looks doubtful."""

    image: Gray
    steps: tuple[str, ...]
    warnings: tuple[str, ...]


def prepare_picture(
    path: str | Path, shape: tuple[int, int], preparation: str, invert: bool | None = None
) -> Prepared:
    """Read a PNG or JPEG file and draw it as the data set would have, as the module's text defines.

    `shape` is the (rows, cols) of the model's images, `preparation` ``digit`` or ``plain``. `invert`
    says that the picture is dark on light (True) or light on dark (False); None finds out. Raises
    `ImageError` for a file that is no such picture, is damaged, or is too large.
    """
    gray, steps = read_luminance(Path(path))
    if gray.shape == shape and invert is None and _background(gray) <= BLACK:
        steps.append(f"used as it is: {shape[1]} x {shape[0]}, light on black")
        return Prepared(gray, tuple(steps), () if gray.any() else ("the picture is blank",))
    draw = draw_digit if preparation == "digit" else draw_plain
    image, done, doubts = draw(gray, shape, invert)
    if not doubts and min(gray.shape) < SMALLEST:
        doubts = (f"the picture has only {gray.shape[1]} x {gray.shape[0]} pixels",)
    return Prepared(image, (*steps, *done), doubts)


def read_luminance(path: Path) -> tuple[Gray, list[str]]:
    """Return the luminance (h, w) of a PNG or JPEG file, and what was done to get it.

    Raises `ImageError` as `prepare` does.
    """
    with open_regular(path, ImageError) as file:
        content = file.read(MAX_BYTES + 1)
    if not content:
        raise ImageError(f"{path} is empty")
    if len(content) > MAX_BYTES:
        raise ImageError(f"{path} is too large: more than {MAX_BYTES:,} bytes; save a smaller copy")
    try:
        return _decode(content, path)
    except _DAMAGED as error:
        if "too large" in str(error).lower():
            raise ImageError(
                f"{path} is too large: a text or a colour profile in it inflates without end"
            ) from error
        if content.startswith((PNG, b"\xff\xd8")):
            raise ImageError(f"{path} is truncated or damaged; save it again") from error
        raise ImageError(f"{path} is not a PNG or JPEG picture") from error


def encode_png(pixels: Gray) -> bytes:
    """Return grey (h, w) or red, green, blue, opacity (h, w, 4) as the bytes of a PNG file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return file.getvalue()


_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
)
"""What Pillow raises on files that are not whole."""


def _decode(content: bytes, path: Path) -> tuple[Gray, list[str]]:
    from PIL import ImageOps

    with warnings.catch_warnings(action="ignore"):  # what is odd but harmless, such as unknown EXIF tags
        picture = _open(content)
        width, height = picture.size
        if width * height > MAX_PIXELS:
            raise ImageError(f"{path} is too large: more than {MAX_PIXELS:,} pixels; save a smaller copy")
        picture.verify()  # every checksum of a PNG; a picture that was verified has to be opened again
        picture = _open(content)
        picture.load()
        steps = ["turned upright"] if picture.getexif().get(ORIENTATION, 1) in range(2, 9) else []
        upright = ImageOps.exif_transpose(picture)
    steps += ["laid over white"] * ("transparency" in upright.info or upright.has_transparency_data)
    gray = _to_gray(upright)
    factor = math.ceil(max(gray.size) / WORKING_SIDE)
    return np.asarray(gray.reduce(factor) if factor > 1 else gray), steps


def _open(content: bytes) -> "Image.Image":
    """Open a PNG or JPEG file: without the search among all formats, which would import a dozen readers."""
    if content.startswith(PNG):
        from PIL.PngImagePlugin import PngImageFile

        return PngImageFile(io.BytesIO(content))
    from PIL.JpegImagePlugin import JpegImageFile

    return JpegImageFile(io.BytesIO(content))


def _to_gray(picture: "Image.Image") -> "Image.Image":
    """Return the luminance of a picture in any mode, transparency laid over white."""
    from PIL import Image

    if picture.mode.startswith("I"):  # 16 bits of grey, of which one value may stand for transparent
        values = np.asarray(picture).astype(np.uint32)
        gray = (values * 255 + 32767) // 65535
        return Image.fromarray(
            np.where(values == picture.info.get("transparency"), 255, gray).astype(np.uint8)
        )
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture.convert("RGBA"))
    return picture if picture.mode == "L" else picture.convert("RGB").convert("L")


def draw_digit(gray: Gray, shape: tuple[int, int], invert: bool | None = None) -> Prepared:
    """Return luminance (h, w) drawn as MNIST draws its digits: steps 2 to 8 of the module's text."""
    ink, dark = _ink(gray, invert)
    shapes, kept = _connected_ink(ink)
    steps = ["inverted"] if dark else []
    if not kept.any():
        doubt = "the picture is blank"
        if invert is not None and gray.min() < gray.max():
            doubt = f"no ink is left of the picture; is it right to give --{'no-' * (not invert)}invert?"
        return Prepared(np.zeros(shape, np.uint8), (*steps, "left blank"), (doubt,))
    ink = np.where(kept, ink, 0)
    doubts = []
    if ink.max() < FAINT:
        doubts.append("the ink is very faint")
    if shapes > 1:
        doubts.append(f"there are {shapes} separate shapes; one digit to a picture is expected")
    cropped = _crop(ink)
    if cropped.shape != gray.shape:
        steps.append(f"cropped to {cropped.shape[1]} x {cropped.shape[0]}")
    small = _fit(cropped.astype(np.float64), round(min(shape) * 20 / 28))
    steps += [f"resized to {small.shape[1]} x {small.shape[0]}", "centred by mass"]
    return Prepared(_round(_centre(small, shape) * (255 / small.max())), tuple(steps), tuple(doubts))


def draw_plain(gray: Gray, shape: tuple[int, int], invert: bool | None = None) -> Prepared:
    """Return luminance (h, w) inverted where it is dark on light, padded and resized to `shape`."""
    background = _background(gray)
    if invert is None:
        invert = background > 127
    light = (255 - gray if invert else gray).astype(np.float64)
    background = 255 - background if invert else background
    height, width = gray.shape
    scale = max(height / shape[0], width / shape[1])
    missing = [max(0, round(side * scale) - found) for side, found in zip(shape, gray.shape, strict=True)]
    padded = np.pad(light, [(side // 2, side - side // 2) for side in missing], constant_values=background)
    steps = ["inverted"] * invert + ["padded"] * any(missing) + [f"resized to {shape[1]} x {shape[0]}"]
    doubts = ("the picture is blank",) if gray.min() == gray.max() else ()
    return Prepared(_round(_resize(padded, shape)), tuple(steps), doubts)


def _border(gray: Gray) -> NDArray[np.int64]:
    edges = (gray[0], gray[-1], gray[:, 0], gray[:, -1])
    return np.concatenate(edges).astype(np.int64)


def _lower_median(values: NDArray[Any]) -> int:
    middle = (len(values) - 1) // 2
    return int(np.partition(values, middle)[middle])


def _background(gray: Gray) -> int:
    return _lower_median(_border(gray))


def _ink(gray: Gray, invert: bool | None) -> tuple[NDArray[np.int64], bool]:
    """Return each pixel's distance from the background on the side of the ink, and whether that is dark."""
    border = _border(gray)
    background = _lower_median(border)
    noise = 3 * _lower_median(np.abs(border - background))
    lighter = gray.astype(np.int64) - background
    if invert is None:
        squares = lighter * lighter
        invert = bool(squares[lighter < 0].sum() > squares[lighter > 0].sum())
    ink = -lighter if invert else lighter
    return np.where(ink > noise, ink, 0), invert


def _otsu(ink: NDArray[np.int64]) -> int:
    """Return the threshold t that maximises the variance between values < t and values >= t (Otsu 1979)."""
    counts = np.bincount(ink.ravel(), minlength=256)
    below = np.cumsum(counts)[:-1]  # [t - 1]: how many values are < t
    moments = np.cumsum(counts * np.arange(256))
    above = ink.size - below
    with np.errstate(divide="ignore", invalid="ignore"):
        difference = (moments[-1] * below - moments[:-1] * ink.size).astype(np.float64)  # exact
        between = difference**2 / (below * above)
    return int(np.argmax(np.nan_to_num(between, posinf=0))) + 1


def _connected_ink(ink: NDArray[np.int64]) -> tuple[int, NDArray[np.bool_]]:
    """Return the number of separate shapes, and where the ink is that belongs to one.

    A shape is 8-connected ink that somewhere reaches Otsu's threshold. One with less than a tenth of the
    ink of the largest is kept, but not counted: dust, or the gap in a stroke.
    """
    labels, count = label(ink > 0)
    strongest = np.zeros(count + 1, np.int64)
    np.maximum.at(strongest, labels, ink)
    is_shape = strongest >= _otsu(ink)
    is_shape[0] = False  # label 0 is the background
    mass = np.bincount(labels.ravel(), ink.ravel(), minlength=count + 1) * is_shape
    return int((10 * mass >= mass.max()).sum() if is_shape.any() else 0), is_shape[labels]


def label(mask: NDArray[np.bool_]) -> tuple[NDArray[np.intp], int]:
    """Number the 8-connected parts of a mask (h, w) from 1; return the numbers (h, w) and how many there are.

    Works on runs, the stretches of a row that lie in the mask: runs that touch in neighbouring rows take
    the smaller of their numbers until nothing changes.
    """
    width = mask.shape[1] + 1  # a column of nothing keeps the rows apart once they are laid end to end
    flat = np.pad(mask, ((0, 0), (0, 1))).ravel()
    edges = np.flatnonzero(np.diff(flat, prepend=False))
    starts, ends = edges[::2], edges[1::2]
    first = np.searchsorted(ends, starts + width)  # of the runs in the next row that touch this one
    touching = np.maximum(np.searchsorted(starts, ends + width, side="right") - first, 0)
    upper = np.repeat(np.arange(len(starts)), touching)
    lower = np.arange(touching.sum()) + np.repeat(first - np.cumsum(touching) + touching, touching)
    root = _merge(np.arange(len(starts)), upper, lower)
    roots, number = np.unique(root, return_inverse=True)
    painted = np.zeros(len(flat) + 1, np.intp)
    np.add.at(painted, starts, number + 1)
    np.add.at(painted, ends, -(number + 1))
    return np.cumsum(painted)[:-1].reshape(-1, width)[:, :-1], len(roots)


def _merge(root: NDArray[np.intp], a: NDArray[np.intp], b: NDArray[np.intp]) -> NDArray[np.intp]:
    """Give every two runs a[i] and b[i] that touch the same root, the smallest of all that hang together."""
    while True:
        smaller = np.minimum(root[a], root[b])
        merged = root.copy()
        np.minimum.at(merged, root[a], smaller)
        np.minimum.at(merged, root[b], smaller)
        merged = merged[merged]
        if np.array_equal(merged, root):
            return root
        root = merged


def _crop(ink: NDArray[np.int64]) -> NDArray[np.int64]:
    strong = 3 * ink >= ink.max()
    rows, columns = np.flatnonzero(strong.any(axis=1)), np.flatnonzero(strong.any(axis=0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _fit(picture: NDArray[np.float64], longest: int) -> NDArray[np.float64]:
    """Resize so that the longest side becomes `longest`, in proportion."""
    height, width = picture.shape
    scale = longest / max(height, width)
    return _resize(picture, (max(1, _half_up(height * scale)), max(1, _half_up(width * scale))))


def _resize(picture: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float64]:
    rows, columns = (_weights(old, new) for old, new in zip(picture.shape, shape, strict=True))
    resized: NDArray[np.float64] = rows @ picture @ columns.T
    return resized


def _weights(old: int, new: int) -> NDArray[np.float64]:
    """Return the share (new, old) of each old pixel in each new one, along one axis; rows sum to 1."""
    scale = old / new
    index = np.arange(old)
    if new < old:  # the length of the overlap of [i·scale, (i + 1)·scale) with [j, j + 1)
        left = np.arange(new)[:, None] * scale
        overlap = np.minimum(left + scale, index + 1) - np.maximum(left, index)
        shares = np.maximum(overlap, 0)
    else:  # linear between the centres of pixels
        centre = np.clip((np.arange(new)[:, None] + 0.5) * scale - 0.5, 0, old - 1)
        shares = np.maximum(1 - np.abs(centre - index), 0)
    weights: NDArray[np.float64] = shares / shares.sum(axis=1, keepdims=True)
    return weights


def _centre(picture: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float64]:
    """Place a smaller picture so that its centre of mass is at the middle of `shape`, by whole pixels."""
    canvas = np.zeros(shape)
    corner = []
    for axis, (side, found) in enumerate(zip(shape, picture.shape, strict=True)):
        profile = picture.sum(axis=1 - axis)
        mass = float(profile @ np.arange(found) / profile.sum())
        corner.append(min(max(math.ceil(side / 2 - 0.5 - mass - TIE), 0), side - found))
    top, left = corner
    canvas[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return canvas


def _half_up(value: float) -> int:
    return math.floor(value + 0.5)


def _round(values: NDArray[np.float64]) -> Gray:
    return np.clip(np.floor(values + (0.5 + TIE)), 0, 255).astype(np.uint8)
