"""CSV files with an image in each line: a label and the pixels, row by row.

Lines are read in blocks. A block of plain whole numbers, the usual case, is converted by numpy; any other
block is converted value by value, which finds the line and the column of a wrong value.
"""

import csv
import math
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from softmax_cli.data.labels import index_labels
from softmax_cli.data.readers import ReadOptions, Split
from softmax_cli.errors import DataError
from softmax_cli.files import chunks, inflate, inflation_limit, is_gzip, open_regular

LABEL_NAMES = ("label", "labels", "class", "target", "y", "digit")
"""Names of the column with the labels; the case does not matter."""

IGNORED_NAMES = ("", "id", "index", "imageid", "image_id", "unnamed: 0")
"""Names of columns that are neither label nor pixels."""

BLOCK = 1 << 17
"""Bytes that are converted at a time: what fits in a cache is twice as fast as 1 MiB."""

LINE_LIMIT = 1 << 20
"""Largest length of a line in bytes."""

LABEL_LIMIT = 200
"""Largest length of a label in bytes."""

COMMA, NEWLINE, ZERO = 44, 10, 48
DIGITS = b"0123456789"


class Layout(NamedTuple):
    """What the columns of a file are.

    Attributes:
        columns: Number of columns.
        label: Column of the label; None if there is none.
        pixels: Columns of the pixels, (pixels,), of square images.
        has_header: The first line has the names of the columns.
        names: A name for each column.
    """

    columns: int
    label: int | None
    pixels: NDArray[np.intp]
    has_header: bool
    names: tuple[str, ...]

    @property
    def image_shape(self) -> tuple[int, int]:
        """Rows and columns of an image."""
        side = math.isqrt(len(self.pixels))
        return side, side


class Block(NamedTuple):
    """Images (n, pixels), uint8, and the text of their labels (n,), if there are any."""

    pixels: NDArray[np.uint8]
    labels: list[str]


def detect(path: Path) -> bool:
    """Return whether a path is a text file with values separated by commas, or a folder with train.csv."""
    try:
        file = _training_file(path)
        line = next(_pieces(file, 1 << 16), b"").partition(b"\n")[0]
        return b"\0" not in line and line.count(b",") > 2
    except (DataError, OSError):
        return False


def read(path: Path, split: str, options: ReadOptions) -> Split:
    """Return a split of the data set in a CSV file, plain or compressed.

    A file whose name has ``train`` in it, beside one with ``test`` instead that has labels, is the training
    split, and the other one the test split. The first line may have the names of the columns; then the
    label is the column called ``label`` (see `LABEL_NAMES`). If not, there is one column more than a square
    number, and the label is the first column, or the last one if the first has one value only.

    Raises:
        DataError: A value is not a whole number from 0 to 255; the message names line and column. Or the
            number of columns suits no square image.
    """
    train = _training_file(path)
    test = test_file(train)
    wanted = test if test and split == "test" else train
    pixels, labels = read_table(wanted)
    other = _read_labels(train if wanted is test else test) if test else []
    found = index_labels(_as_values(labels, other), _as_values(other, labels))
    return Split(pixels, *found, is_whole=not test)


def read_table(path: Path) -> tuple[NDArray[np.uint8], list[str]]:
    """Return all images (n, rows, cols) and the text of all labels (n,) of a labelled file.

    The array grows as the file is read; growing moves no memory on the usual systems.
    """
    layout = find_layout(path)
    if layout.label is None:
        raise DataError(
            f"{path} has no column with labels; expected one called label, or one column more than "
            f"a square number of pixels, but it has {layout.columns:,} columns"
        )
    labels: list[str] = []
    pixels = np.empty((0, len(layout.pixels)), np.uint8)
    for block in read_blocks(path, layout):
        count = len(labels) + len(block.pixels)
        if count > len(pixels):
            pixels.resize((count + count // 8, pixels.shape[1]), refcheck=False)
        pixels[len(labels) : count] = block.pixels
        labels += block.labels
    if not labels:
        raise DataError(f"{path} has no images")
    pixels.resize((len(labels), pixels.shape[1]), refcheck=False)
    return pixels.reshape(-1, *layout.image_shape), labels


def test_file(train: Path) -> Path | None:
    """Return the file beside a training file that has the test split with labels, if there is one."""
    name = re.sub(r"train(?!.*train)", _test_word, train.name, flags=re.IGNORECASE)
    path = train.with_name(name)
    if name == train.name or not os.path.isfile(path):
        return None
    layout, expected = find_layout(path), find_layout(train)
    if layout.label is None:
        return None
    if len(layout.pixels) != len(expected.pixels):
        raise DataError(
            f"{path} has {len(layout.pixels):,} pixels in a line, "
            f"but {train.name} has {len(expected.pixels):,}"
        )
    return path


test_file.__test__ = False  # type: ignore[attr-defined]  # no test


def _test_word(match: "re.Match[str]") -> str:
    word = match[0]
    return "TEST" if word.isupper() else "Test" if word[0].isupper() else "test"


def _training_file(path: Path) -> Path:
    """Return the file itself, or the one called ``train.csv`` or similar in a folder."""
    if not os.path.isdir(path):
        return path
    names = [name for name in sorted(os.listdir(path)) if re.search(r"train.*\.csv(\.gz)?$", name.lower())]
    if len(names) != 1:
        found = f"has {len(names)} files" if names else "has no file"
        raise DataError(f"{path} {found} with a name like train.csv; give the path of the file")
    return path / names[0]


def _as_values(labels: list[str], others: list[str]) -> NDArray[Any]:
    """Return labels (n,) as numbers if those of both splits are whole numbers, else as text."""
    if all(map(_is_number, {*labels, *others})):
        return np.array([int(float(label)) for label in labels], np.int64)
    return np.array(labels, str)


def _is_number(label: str) -> bool:
    return re.fullmatch(r"[+-]?[0-9]{1,15}(\.0*)?", label) is not None


# The layout


def find_layout(path: Path) -> Layout:
    """Return what the columns of a file are, by its first line.

    Raises:
        DataError: The number of pixels is not a square number.
    """
    head = _decode(next(_lines(path), b"").partition(b"\n")[0], path)
    first = [value.strip() for value in next(_rows([head], path), [])]
    if len(first) < 2:
        raise DataError(f"{path} is not a CSV file: expected values separated by commas")
    has_header = not all(map(_is_number, first[1:-1] or first))
    names = tuple(first if has_header else [f"column {number}" for number in range(1, len(first) + 1)])
    lower = [name.lower() for name in names]
    ignored = {index for index, name in enumerate(lower) if has_header and name in IGNORED_NAMES}
    labels = [index for name in LABEL_NAMES for index, found in enumerate(lower) if found == name]
    rest = [index for index in range(len(names)) if index not in ignored]
    label = labels[0] if labels else None
    if label is None and _is_square(len(rest) - 1):
        label = _column_of_labels(path, rest[0], rest[-1], has_header)
    pixels = np.array([index for index in rest if index != label], np.intp)
    if not _is_square(len(pixels)):
        what = f"{len(pixels):,} columns of pixels{' beside the label' * (label is not None)}"
        raise DataError(f"{path} has {what}, expected a square number such as 784")
    return Layout(len(names), label, pixels, has_header, names)


def _column_of_labels(path: Path, first: int, last: int, has_header: bool) -> int:
    """Return the first column, or the last one if the first has one value only, as corners of images do."""
    firsts: set[bytes] = set()
    lasts: set[bytes] = set()
    for number, block in enumerate(_lines(path)):
        for line in block.splitlines()[has_header and not number :]:
            firsts.update(line.split(b",", first + 1)[first : first + 1])
            lasts.add(line.rpartition(b",")[2])
            if len(firsts) > 1:
                return first
    return last if len(lasts) > 1 else first


def _is_square(number: int) -> bool:
    return number > 1 and math.isqrt(number) ** 2 == number


# The values


def read_blocks(path: Path, layout: Layout) -> Iterator[Block]:
    """Yield the images and labels of a file in blocks of lines, in new arrays.

    Raises:
        DataError: A line has another number of columns, or a value is wrong.
    """
    line = 1
    for block in _lines(path):
        if layout.has_header and line == 1:
            block, line = block.partition(b"\n")[2], 2
        if block:
            yield _convert_fast(block, layout) or _convert_slowly(block, layout, line, path)
        line += block.count(b"\n")


def _convert_fast(block: bytes, layout: Layout) -> Block | None:
    """Return the values of a block of lines if all pixels are 1 to 3 digits, else None."""
    values = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero((values == COMMA) | (values == NEWLINE))
    if len(ends) % layout.columns:
        return None
    line_ends = values[ends].reshape(-1, layout.columns) == NEWLINE
    if not line_ends[:, -1].all() or line_ends[:, :-1].any():
        return None
    labels = [] if layout.label is None else _cut_out(block, ends, layout)
    others = len(ends) + sum(len(label.translate(None, DIGITS)) for label in labels)
    numbers, is_wrong, found = _numbers_at(values)
    chosen, last_digits = _as_slice(layout.pixels), ends.reshape(-1, layout.columns) - 1
    wrong = is_wrong.take(last_digits)[:, chosen].any()
    if found != others or wrong or not all(map(_is_simple, labels)):
        return None
    pixels = numbers.take(last_digits)[:, chosen]
    return Block(pixels, [sys.intern(label.strip().decode()) for label in labels])


def _cut_out(block: bytes, ends: NDArray[np.intp], layout: Layout) -> list[bytes]:
    """Return the text of each label, given where all values end."""
    assert layout.label is not None
    line_begins = np.concatenate([[0], ends[layout.columns - 1 : -1 : layout.columns] + 1])
    begins = ends[layout.label - 1 :: layout.columns] + 1 if layout.label else line_begins
    label_ends = ends[layout.label :: layout.columns]
    return [block[begin:end] for begin, end in zip(begins.tolist(), label_ends.tolist(), strict=True)]


def _is_simple(label: bytes) -> bool:
    return 0 < len(label) <= LABEL_LIMIT and label.isascii() and b'"' not in label and bool(label.strip())


def _as_slice(columns: NDArray[np.intp]) -> "slice | NDArray[np.intp]":
    """Return adjacent columns as a slice, which makes a view, else the columns."""
    adjacent = columns[-1] - columns[0] == len(columns) - 1
    return slice(int(columns[0]), int(columns[-1]) + 1) if adjacent else columns


def _numbers_at(values: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.bool_], int]:
    """Return for each byte the number of 1 to 3 digits that ends there, modulo 256.

    Also return whether it is wrong, that is, there is no digit, or it has more digits or is above 255; and
    the count of bytes that are no digits.
    """
    digits = np.concatenate([np.full(3, COMMA, np.uint8), values]) - np.uint8(ZERO)
    is_digit = digits <= 9
    digits *= is_digit
    ones, tens, hundreds = digits[3:], digits[2:-1] * np.uint8(10), digits[1:-2] * is_digit[2:-1]
    tens += ones
    is_wrong = (hundreds > 2) | (hundreds == 2) & (tens > 55) | ~is_digit[3:]
    is_wrong |= is_digit[2:-1] & is_digit[1:-2] & is_digit[:-3]
    tens += hundreds * np.uint8(100)
    return tens, is_wrong, len(values) - int(np.count_nonzero(is_digit[3:]))


def _convert_slowly(block: bytes, layout: Layout, line: int, path: Path) -> Block:
    """Return the values of a block of lines whose first has that number, with quotes, spaces or ``12.0``."""
    pixels, labels = [], []
    for number, row in enumerate(_rows(_decode(block, path).splitlines(), path), line):
        if not row:
            continue
        if len(row) != layout.columns:
            raise DataError(f"{path}, line {number}: {len(row):,} columns, expected {layout.columns:,}")
        if layout.label is not None:
            labels.append(_label(row[layout.label], number, layout, path))
        pixels.append([_pixel(row[column], number, column, layout, path) for column in layout.pixels])
    return Block(np.array(pixels, np.uint8).reshape(-1, len(layout.pixels)), labels)


def _rows(lines: list[str], path: Path) -> Iterator[list[str]]:
    try:
        yield from csv.reader(lines)
    except csv.Error as error:
        raise DataError(f"{path} is not a CSV file: {error}") from error


def _label(text: str, line: int, layout: Layout, path: Path) -> str:
    text = text.strip()
    if not text or len(text) > LABEL_LIMIT:
        column = layout.names[layout.label or 0]
        raise DataError(f"{path}, line {line}, {column}: the label is {'too long' if text else 'missing'}")
    return sys.intern(text)


def _pixel(text: str, line: int, column: int, layout: Layout, path: Path) -> int:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (0 <= value <= 255 and value == int(value)):
        raise DataError(
            f"{path}, line {line}, {layout.names[column] or column + 1}: {text.strip()[:40]!r} is not a "
            "whole number from 0 to 255"
        )
    return int(value)


def _read_labels(path: Path) -> list[str]:
    """Return the text of all labels of a file, without converting its pixels."""
    layout = find_layout(path)
    assert layout.label is not None
    labels: list[str] = []
    for number, block in enumerate(_lines(path)):
        lines = _decode(block, path).splitlines()
        for row in lines[layout.has_header and not number :]:
            before = row.split(",", layout.label + 1)
            if len(before) > layout.label:
                labels.append(before[layout.label].strip().strip('"'))
    return labels


# The text


def _lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file in blocks of whole lines that end in a newline, without a byte order mark."""
    rest, is_first = b"", True
    for piece in _pieces(path, BLOCK):
        block = rest + piece
        if is_first:
            block, is_first = block.removeprefix(b"\xef\xbb\xbf"), False
        end = block.rfind(b"\n") + 1
        rest = block[end:]
        if len(rest) > LINE_LIMIT:
            raise DataError(f"{path} has a line of more than {LINE_LIMIT:,} bytes; it is not a CSV of images")
        if end:
            yield block[:end].replace(b"\r\n", b"\n")
    if rest.strip():
        yield rest.replace(b"\r\n", b"\n") + b"\n"


def _pieces(path: Path, size: int) -> Iterator[bytes]:
    """Yield the content of a file, inflated if it is compressed, in pieces of about `size` bytes."""
    with open_regular(path, DataError) as file:
        compressed = is_gzip(file.read(2), path.name)
        file.seek(0)
        if not compressed:
            while piece := file.read(size):
                yield piece
            return
        gathered: list[bytes] = []
        length = 0
        try:
            for piece in inflate(chunks(file), inflation_limit(path.stat().st_size)):
                gathered.append(piece)
                length += len(piece)
                if length >= size:
                    yield b"".join(gathered)
                    gathered, length = [], 0
        except ValueError as error:
            yield b"".join(gathered)  # so that what is before the damage can be recognised
            raise DataError(f"{path} {error}; get it again") from error
        yield b"".join(gathered)


def _decode(block: bytes, path: Path) -> str:
    try:
        return block.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text in UTF-8: {error.reason}") from error
