"""The IDX format of the MNIST files: bytes <-> uint8 arrays.

An IDX file is a big-endian header (two zero bytes, the type code 0x08 for uint8, the number of
dimensions, then one uint32 per dimension) followed by the values, last dimension fastest. Source: the
description that LeCun, Cortes and Burges published with MNIST.
"""

import gzip
import math
import mmap
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from softmax_cli.errors import DataError
from softmax_cli.files import atomic_write, chunks, inflate, open_regular

UINT8 = 0x08
NDIM = {"images": 3, "labels": 1}


def header_size(ndim: int) -> int:
    """Return the number of bytes before the values of an array with `ndim` dimensions."""
    return 4 + 4 * ndim


def read_idx(path: Path, kind: str) -> NDArray[np.uint8]:
    """Return the images (n, rows, cols) or the labels (n,) in an IDX file, by `kind`, read-only.

    A plain file is memory-mapped; one whose name ends in ``.gz`` is inflated, with its CRC checked.
    Raises `DataError`, before anything large is allocated, for every file that is not exactly what its
    header says.
    """
    if path.suffix == ".gz":
        return _read_compressed(path, NDIM[kind])
    with open_regular(path, DataError) as file:
        head = file.read(header_size(NDIM[kind]))
        shape = parse_header(head, NDIM[kind], path)
        size = file.seek(0, 2)
        _check_size(size, len(head) + math.prod(shape), path)
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.frombuffer(mapped, np.uint8, offset=len(head)).reshape(shape)


def read_header(path: Path, kind: str) -> bytes:
    """Return the header of an IDX file, plain or ``.gz``; raise `DataError` if it is none."""
    size = header_size(NDIM[kind])
    with open_regular(path, DataError) as file:
        is_gzip = path.suffix == ".gz"
        head = _inflated_head(file.read(1024), size, path) if is_gzip else file.read(size)
    parse_header(head, NDIM[kind], path)
    return head


def parse_header(head: bytes, ndim: int, source: object) -> tuple[int, ...]:
    """Return the shape that an IDX header declares; raise `DataError` naming `source` if it is not one."""
    expected = bytes([0, 0, UINT8, ndim])
    if len(head) < header_size(ndim):
        raise DataError(f"{source} is too short for an IDX file: {len(head)} bytes")
    if head[:4] != expected:
        raise DataError(
            f"{source} starts with {head[:4].hex()}, expected {expected.hex()}: {_guess(head[:4], ndim)}"
        )
    shape = struct.unpack(f">{ndim}I", head[4 : header_size(ndim)])
    if 0 in shape:
        raise DataError(f"{source} is empty: its dimensions are {_times(shape)}")
    return shape


def encode_header(shape: tuple[int, ...]) -> bytes:
    """Return the IDX header for a uint8 array of this shape."""
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, UINT8, len(shape), *shape)


def write_idx(path: Path, array: NDArray[np.uint8]) -> None:
    """Write a uint8 array as an IDX file.

    Where the name ends in ``.gz`` it is compressed, without a date: the same Python writes the same bytes.
    Raises `OutputError` where the file cannot be written; whatever was there is then still there.
    """
    content = encode_header(array.shape) + array.tobytes()
    with atomic_write(path) as file:
        file.write(gzip.compress(content, 9, mtime=0) if path.suffix == ".gz" else content)


def _read_compressed(path: Path, ndim: int) -> NDArray[np.uint8]:
    with open_regular(path, DataError) as file:
        head = _inflated_head(file.read(1024), header_size(ndim), path)
        shape = parse_header(head, ndim, path)
        expected = len(head) + math.prod(shape)
        if expected > 1100 * path.stat().st_size:  # deflate shrinks no further than 1032 to 1
            raise DataError(f"{path} is too small to hold the {expected:,} bytes that its header promises")
        file.seek(0)
        content = np.empty(expected, np.uint8)
        filled = 0
        try:
            for piece in inflate(chunks(file), expected):
                room = expected - filled
                content[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)[:room]
                filled += len(piece)
        except ValueError as error:
            raise DataError(f"{path} {error}; get it again") from error
    _check_size(filled, expected, path)
    content.flags.writeable = False
    return content[len(head) :].reshape(shape)


def _inflated_head(compressed: bytes, size: int, path: Path) -> bytes:
    """Return the first `size` inflated bytes, from the first bytes of a gzip file."""
    head = b""
    try:
        for piece in inflate([compressed], size):
            head += piece
    except ValueError as error:
        if len(head) < size:
            raise DataError(f"{path} {error}; get it again") from error
    return head[:size]


def _check_size(found: int, expected: int, source: object) -> None:
    if found != expected:
        raise DataError(f"{source} holds {found:,} bytes, expected {expected:,}; get it again")


def _guess(magic: bytes, ndim: int) -> str:
    if magic[::-1] == bytes([0, 0, UINT8, ndim]):
        return "it is little-endian, and IDX is big-endian"
    if magic == bytes([0, 0, UINT8, 1]):
        return "it holds labels where images should be"
    if magic == bytes([0, 0, UINT8, 3]):
        return "it holds images where labels should be"
    if magic[:2] == b"\x1f\x8b":
        return "it is gzip-compressed, so its name should end in .gz"
    return "it is not an IDX file of unsigned bytes"


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
