"""Prepare pictures for a model: one digit, several digits, or a whole picture."""

import math

import numpy as np

from softmax_cli.pictures.digit import (
    BOX,
    FINE,
    crop,
    draw_ink,
    draw_strokes,
    looks_drawn,
    normalise_stroke,
)
from softmax_cli.pictures.doubt import outline_doubts, outline_of
from softmax_cli.pictures.marks import Cleaned, remove_marks
from softmax_cli.pictures.page import crop_page
from softmax_cli.pictures.paper import border_tone, find_ink
from softmax_cli.pictures.plain import draw_plain
from softmax_cli.pictures.prepared import Box, Gray, Prepared
from softmax_cli.pictures.read import Luminance, PictureSource, read_luminance
from softmax_cli.pictures.resize import reduced_by
from softmax_cli.pictures.segment import (
    Confidence,
    box_of,
    find_lines_of_digits,
    may_be_two,
    split_narrowest,
)
from softmax_cli.pictures.shapes import grown

BLACK = 8
"""Largest tone of the border of a picture that is light on black."""

SMALLEST = 8
"""Smallest side, in pixels, of a picture without a warning."""

FAINT = 32
"""Smallest strength of ink without a warning."""

SIDE = 256
"""Longest side, in pixels, of a picture in which a single digit is first searched for."""

PAGE_SIDE = 1024
"""Longest side, in pixels, of a picture that is searched for several digits."""

CERTAIN, DOUBTFUL = 0.9, 0.6
"""Smallest confidence of the parts, and largest of the whole, of a shape that is split."""

BLANK = "the picture is blank"


def prepare_picture(
    source: PictureSource, shape: tuple[int, int], preparation: str, invert: bool | None = None
) -> Prepared:
    """Read a picture and draw it as the images of a data set.

    Args:
        source: Path of a file, or its content.
        shape: Rows and columns of the model's images.
        preparation: ``digit`` for data sets drawn as MNIST is, ``plain`` for others.
        invert: True for dark on light, False for light on dark; None detects it.

    Raises:
        ImageError: The file cannot be read, is not a picture, is damaged, or exceeds a limit.
    """
    gray, steps, _ = read_luminance(source)
    if gray.shape == shape and invert is None and _is_ready(gray, preparation):
        done = f"used as it is: {shape[1]} x {shape[0]}, light on black"
        return Prepared(gray, (*steps, done), ())
    drawn = DRAW[preparation](gray, shape, invert)
    doubts = drawn.warnings
    if not doubts and min(gray.shape) < SMALLEST:
        doubts = (f"the picture has only {gray.shape[1]} x {gray.shape[0]} pixels",)
    return drawn._replace(steps=(*steps, *drawn.steps), warnings=doubts)


def _is_ready(gray: Gray, preparation: str) -> bool:
    """Return whether luminance of the right size looks like an image of the data set."""
    if border_tone(gray) > BLACK:
        return False
    return looks_drawn(gray) if preparation == "digit" else bool(gray.any())


def draw_digit(gray: Gray, shape: tuple[int, int], invert: bool | None = None) -> Prepared:
    """Return luminance (h, w) drawn as MNIST draws its digits.

    A large picture is first reduced to `SIDE` pixels. If the digit is then small, or not found, the picture
    is used at its full size.
    """
    factor = math.ceil(max(gray.shape) / SIDE)
    if factor > 1:
        drawn, longest = _draw_one(reduced_by(gray, factor), shape, invert)
        if longest >= FINE * BOX:
            return drawn
    return _draw_one(gray, shape, invert)[0]


def _draw_one(gray: Gray, shape: tuple[int, int], invert: bool | None) -> tuple[Prepared, int]:
    """Return luminance (h, w) drawn as MNIST draws its digits, and the longest side of its ink."""
    cleaned, steps = _clean(gray, invert)
    if not cleaned.kept.any():
        return _blank(gray, shape, invert, steps), 0
    ink, _ = _ink_of(cleaned, np.flatnonzero(cleaned.kept).tolist())
    digits = sum(map(len, find_lines_of_digits(cleaned.shapes, cleaned.kept)))
    doubts = ["the ink is very faint"] * bool(ink.max() < FAINT)
    doubts += [f"there are {digits} separate shapes; --many reads each as a digit"] * (digits > 1)
    cropped = crop(ink)
    if cropped.shape != gray.shape:
        steps += (f"cropped to {cropped.shape[1]} x {cropped.shape[0]}",)
    strokes = normalise_stroke(cropped)
    if not doubts:
        doubts = outline_doubts(outline_of(strokes, int(cleaned.kept.sum()), _border_share(cleaned)))
    return Prepared(draw_strokes(strokes, shape), (*steps, *DRAWN), tuple(doubts)), max(cropped.shape)


DRAWN = ("stroke width normalised", "resized", "centred by mass")
DRAW = {"digit": draw_digit, "plain": draw_plain}


def find_digits(
    source: PictureSource,
    shape: tuple[int, int],
    invert: bool | None = None,
    confidence: Confidence | None = None,
) -> list[Prepared]:
    """Return the digits in a picture, in lines from top to bottom, left to right.

    Args:
        source: Path of a file, or its content.
        shape: Rows and columns of the model's images.
        invert: True for dark on light, False for light on dark; None detects it.
        confidence: Function from images (n, rows, cols) to their confidence (n,). If it is given, a wide
            shape is split if the confidence of both parts is higher than that of the whole.

    Raises:
        ImageError: As in `prepare_picture`.
    """
    read = read_luminance(source, PAGE_SIDE)
    cleaned, steps = _clean(read.gray, invert)
    found = []
    for number, line in enumerate(find_lines_of_digits(cleaned.shapes, cleaned.kept)):
        for group in line:
            ink, (top, left) = _ink_of(cleaned, group)
            for part in split_touching(ink, shape, confidence):
                rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
                box = (top + rows[0], left + columns[0], top + rows[-1] + 1, left + columns[-1] + 1)
                found.append(_one_of_many(part, shape, _full_size(box, read), number, read.steps + steps))
    return found


def split_touching(
    ink: Gray, shape: tuple[int, int], confidence: Confidence | None, depth: int = 2
) -> list[Gray]:
    """Return the ink (h, w) of one digit, or of the digits that it consists of.

    Wide ink is split at its narrowest place if the confidence of both parts is at least `CERTAIN` and higher
    than that of the whole, which is at most `DOUBTFUL`. Up to 2 ** `depth` digits are separated.
    """
    if confidence is None or not depth or not may_be_two(crop(ink)):
        return [ink]
    halves = split_narrowest(ink)
    if halves is None or not all(half.any() for half in halves):
        return [ink]
    whole, *parts = confidence(np.stack([draw_ink(crop(one), shape) for one in (ink, *halves)]))
    if min(parts) < CERTAIN or whole > DOUBTFUL or min(parts) <= whole:
        return [ink]
    return [part for half in halves for part in split_touching(half, shape, confidence, depth - 1)]


def _clean(gray: Gray, invert: bool | None) -> tuple[Cleaned, tuple[str, ...]]:
    """Return the ink of a picture (h, w) without marks, and the steps."""
    page = crop_page(gray) if invert is None else None
    found = find_ink(gray if page is None else page, invert)
    cleaned = remove_marks(found.strength)
    steps = ("cut to the sheet of paper",) * (page is not None) + ("inverted",) * found.dark
    return cleaned, steps + cleaned.steps


def _border_share(cleaned: Cleaned) -> float:
    """Return the fraction of the picture's border that has ink of kept shapes."""
    labels = cleaned.shapes.labels
    border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    return float(cleaned.kept[border].mean())


def _ink_of(cleaned: Cleaned, group: list[int]) -> tuple[Gray, tuple[int, int]]:
    """Return the ink (h, w) of shapes with soft outlines, and its top left corner."""
    top, left, bottom, right = box_of(group, cleaned.shapes).tolist()
    top, left = max(0, top - 1), max(0, left - 1)
    box = np.s_[top : bottom + 1, left : right + 1]
    labels = cleaned.shapes.labels[box]
    wanted = np.zeros(len(cleaned.kept), bool)
    wanted[group] = True
    shapes = wanted[labels]
    outline = grown(shapes) & (labels == 0)
    return np.where(shapes | outline, cleaned.ink[box], 0).astype(np.uint8), (top, left)


def _one_of_many(ink: Gray, shape: tuple[int, int], box: Box, line: int, steps: tuple[str, ...]) -> Prepared:
    doubts = ("the ink is very faint",) if ink.max() < FAINT else ()
    return Prepared(draw_ink(crop(ink), shape), (*steps, *DRAWN), doubts, False, box, line)


def _full_size(box: tuple[int, int, int, int], read: Luminance) -> Box:
    """Return a box of the reduced picture in pixels of the file."""
    return Box(*(round(float(side) * read.scale) for side in box))


def _blank(gray: Gray, shape: tuple[int, int], invert: bool | None, steps: tuple[str, ...]) -> Prepared:
    doubt = BLANK
    if invert is not None and gray.min() < gray.max():
        doubt = f"no ink was found in the picture; try without --{'no-' * (not invert)}invert"
    return Prepared(np.zeros(shape, np.uint8), (*steps, "left blank"), (doubt,), blank=True)
