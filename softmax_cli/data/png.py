"""Many small grey PNG files at once, several times faster than one by one.

Only the simplest files are handled: 8 bits of grey, not interlaced, with the chunks IHDR, IDAT and IEND.
Their scanlines are inflated one file at a time, and unfiltered for all files of a size together. Any other
file is left to `softmax_cli.pictures`.

Source: Portable Network Graphics (W3C, third edition), sections 9.2 for the filters and 11.2 for the chunks.
"""

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
GREY = b"\x08\0\0\0\0"
"""Bits, colour type, and methods of compression, filtering and interlacing."""

END = b"\0\0\0\0IEND\xaeB`\x82"

BLOCK = 4096
"""Number of images that are unfiltered at a time: their columns fit in a cache."""


def scanlines(content: bytes, largest_side: int) -> NDArray[np.uint8] | None:
    """Return the filtered scanlines (rows, 1 + cols) of a simple PNG file, else None.

    All checksums are verified. None stands for a larger image or a damaged file, too.
    """
    if not (content.startswith(START) and content[24:29] == GREY and content.endswith(END)):
        return None
    cols, rows = struct.unpack(">II", content[16:24])
    if not (0 < rows <= largest_side and 0 < cols <= largest_side) or _crc(content, 12, 29) is None:
        return None
    data, position = [], 33
    while position < len(content) - len(END):
        begin, length = position + 8, int.from_bytes(content[position : position + 4], "big")
        if content[position + 4 : begin] != b"IDAT" or _crc(content, position + 4, begin + length) is None:
            return None
        data.append(content[begin : begin + length])
        position = begin + length + 4
    if position != len(content) - len(END):
        return None
    return _inflated(b"".join(data), rows, cols)


def _crc(content: bytes, begin: int, end: int) -> int | None:
    """Return the checksum of a chunk's type and data if it is the one that follows them, else None."""
    found = zlib.crc32(content[begin:end])
    return found if found == int.from_bytes(content[end : end + 4], "big") else None


def _inflated(data: bytes, rows: int, cols: int) -> NDArray[np.uint8] | None:
    inflater = zlib.decompressobj()
    try:
        lines = inflater.decompress(data, rows * (1 + cols) + 1)
    except zlib.error:
        return None
    if len(lines) != rows * (1 + cols) or not inflater.eof:
        return None
    found = np.frombuffer(lines, np.uint8).reshape(rows, 1 + cols)
    return found if found[:, 0].max() <= 4 else None


def unfilter(lines: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the images (n, rows, cols) with these filtered scanlines (n, rows, 1 + cols)."""
    n, rows, cols = lines.shape[0], lines.shape[1], lines.shape[2] - 1
    images = np.empty((n, rows, cols), np.uint8)
    for begin in range(0, n, BLOCK):
        block = lines[begin : begin + BLOCK].transpose(1, 2, 0)  # (rows, 1 + cols, images)
        found = np.zeros((rows + 1, cols + 1, block.shape[2]), np.int16)  # with zeros above and to the left
        for row in range(rows):
            _unfilter_row(block[row, 0], block[row, 1:], found[row], found[row + 1])
        images[begin : begin + BLOCK] = found[1:, 1:].transpose(2, 0, 1)
    return images


def _unfilter_row(
    kind: NDArray[np.uint8], line: NDArray[np.uint8], above: NDArray[np.int16], out: NDArray[np.int16]
) -> None:
    """Fill ``out[1:]`` (cols, images) from a filtered line, by the kind of filter of each image."""
    is_kind = [kind == number for number in range(5)]
    for column, filtered in enumerate(line, 1):
        left, up, corner = out[column - 1], above[column], above[column - 1]
        predicted = np.zeros_like(left)
        if is_kind[1].any():
            predicted += left * is_kind[1]
        if is_kind[2].any():
            predicted += up * is_kind[2]
        if is_kind[3].any():
            predicted += ((left + up) >> 1) * is_kind[3]
        if is_kind[4].any():
            predicted += _paeth(left, up, corner) * is_kind[4]
        out[column] = (predicted + filtered) & 255


def _paeth(left: NDArray[np.int16], up: NDArray[np.int16], corner: NDArray[np.int16]) -> NDArray[np.int16]:
    """Return that of the three neighbours which is nearest to left + up − corner, the first of equals."""
    by_left, by_up = np.abs(up - corner), np.abs(left - corner)
    by_corner = np.abs(left + up - 2 * corner)
    up_or_corner = np.where(by_up <= by_corner, up, corner)
    return np.where((by_left <= by_up) & (by_left <= by_corner), left, up_or_corner)
