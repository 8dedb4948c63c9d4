"""The IDX format of the MNIST files, and folders of four such files, under the names that are in use.

An IDX file is a big-endian header (two zero bytes, a type code, the number of dimensions, then one uint32
per dimension) followed by the values, last dimension fastest. Images have the type code 0x08, uint8; labels
may also be 0x09, int8, 0x0B, int16, or 0x0C, int32. Source: the description that LeCun, Cortes and Burges
published with MNIST.
"""

import gzip
import math
import mmap
import os
import re
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from softmax_cli.data.catalog import FILE_NAMES, SPLITS
from softmax_cli.data.labels import index_labels
from softmax_cli.data.readers import ReadOptions, Split
from softmax_cli.errors import DataError
from softmax_cli.files import atomic_write, chunks, inflate, inflation_limit, is_gzip, open_regular
from softmax_cli.model import Labels

UINT8 = 0x08
TYPES = {"images": {UINT8: "u1"}, "labels": {UINT8: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4"}}
"""For each kind of file, its type codes with the numpy dtypes."""

NDIM = {"images": 3, "labels": 1}


class Header(NamedTuple):
    """Shape and dtype of an IDX header, and the size of the file in bytes."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    size: int


def detect(path: Path) -> bool:
    """Return whether a path is a folder with at least one file that has the name of an IDX file of MNIST."""
    try:
        return os.path.isdir(path) and bool(_candidates(path))
    except OSError:
        return False


def read(path: Path, split: str, options: ReadOptions) -> Split:
    """Return a split of the data set in a folder with four IDX files, plain or compressed.

    Besides the names of the MNIST files, those with a dot (``train-images.idx3-ubyte``), in upper case, with
    ``test`` for ``t10k`` and with a prefix (``emnist-letters-``) are found, also in the folder ``raw`` or in
    a folder of the same name. The classes are the labels that occur in one of the splits.

    Raises:
        DataError: A file is missing, damaged, or not what its header declares.
    """
    paths = _find_files(path)
    labels = {name: read_idx(paths[name], "labels") for _, name in SPLITS.values()}
    image_name, label_name = SPLITS[split]
    images = read_idx(paths[image_name], "images")
    return Split(images, *index_labels(labels.pop(label_name), *labels.values()))


_NAME = re.compile(
    r"(.*?)(train|t10k|test)[-_.](images|labels)[-_.]idx([13])[-_.]ubyte(\.gz)?", re.IGNORECASE
)


def _find_files(folder: Path) -> dict[str, Path]:
    """Return the paths of the four files by their names in `FILE_NAMES`."""
    candidates = _candidates(folder)
    prefixes = sorted({prefix for prefix, _ in candidates})
    if len(prefixes) > 1:
        listed = ", ".join(repr(prefix) for prefix in prefixes)
        raise DataError(
            f"{folder} holds several data sets, with names that start with {listed}; expected one"
        )
    found = {name: path for (_, name), path in candidates.items()}
    missing = [name for name in FILE_NAMES if name not in found]
    if missing:
        raise DataError(
            f"{folder} has neither {missing[0]} nor {missing[0]}.gz; a data set needs {', '.join(FILE_NAMES)}"
        )
    return found


def _candidates(folder: Path) -> dict[tuple[str, str], Path]:
    """Return the paths of IDX files by prefix and name; of two for one name, the first, plain before .gz."""
    found: dict[tuple[str, str], Path] = {}
    for place in _places(folder):
        for name in sorted(os.listdir(place), key=lambda name: (name.lower().endswith(".gz"), name)):
            match = _NAME.fullmatch(name)
            if match and not os.path.isdir(place / name):
                split = "train" if match[2].lower() == "train" else "t10k"
                canonical = f"{split}-{match[3].lower()}-idx{match[4]}-ubyte"
                found.setdefault((match[1].lower(), canonical), place / name)
    return found


def _places(folder: Path) -> list[Path]:
    """Return the folders in which the files of a data set may be: this one, and some inside of it."""
    inside = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    near = [folder / name for name in inside if name.lower() == "raw" or _NAME.fullmatch(name)]
    torchvision = [folder / name / "raw" for name in inside if os.path.isdir(folder / name / "raw")]
    return [folder, *near, *torchvision]


def kind_of(name: str) -> str:
    """Return the kind of an IDX file by its name: ``images`` or ``labels``."""
    return "images" if "images" in name else "labels"


def header_size(ndim: int) -> int:
    """Return the number of bytes before the values of an array with `ndim` dimensions."""
    return 4 + 4 * ndim


def read_idx(path: Path, kind: str) -> NDArray[Any]:
    """Return the images or the labels in an IDX file, read-only.

    `kind` is ``images``, shape (n, rows, cols), or ``labels``, shape (n,).

    A plain file of uint8 is memory-mapped. A gzip file, recognised by its content, is inflated, with
    its CRC checked. Labels come in the smallest unsigned type that holds them.

    Raises:
        DataError: The file is not exactly what its header declares. Nothing large is allocated before that
            is known.
    """
    with open_regular(path, DataError) as file:
        compressed = is_gzip(file.read(2), path.name)
    header, content = _read_compressed(path, kind) if compressed else _map(path, kind)
    values = np.frombuffer(content, header.dtype, offset=header_size(len(header.shape)))
    values.flags.writeable = False
    return values.reshape(header.shape) if kind == "images" else _unsigned(values, path)


def _map(path: Path, kind: str) -> tuple[Header, mmap.mmap]:
    with open_regular(path, DataError) as file:
        header = parse_header(file.read(header_size(NDIM[kind])), kind, path)
        _check_size(file.seek(0, 2), header.size, path)
        return header, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _unsigned(labels: NDArray[Any], path: Path) -> Labels:
    """Return labels in the smallest unsigned type.

    Raises:
        DataError: A label is negative.
    """
    if labels.dtype == np.uint8:
        return labels
    if int(labels.min()) < 0:
        index = int(np.argmax(labels < 0))
        raise DataError(f"{path}: label {index} is {labels[index]}, expected 0 or more")
    return labels.astype(np.min_scalar_type(int(labels.max())))


def parse_header(head: bytes, kind: str, source: object) -> Header:
    """Return the content of an IDX header.

    Raises:
        DataError: It is not valid; the message names `source`.
    """
    ndim, types = NDIM[kind], TYPES[kind]
    if len(head) < header_size(ndim):
        raise DataError(f"{source} is too short for an IDX file: {len(head)} bytes")
    if head[:2] != b"\0\0" or head[2] not in types or head[3] != ndim:
        expected = bytes([0, 0, UINT8, ndim]).hex()
        raise DataError(
            f"{source} starts with {head[:4].hex()}, expected {expected}: {_guess(head[:4], ndim)}"
        )
    shape = struct.unpack(f">{ndim}I", head[4 : header_size(ndim)])
    if 0 in shape:
        raise DataError(f"{source} is empty: its dimensions are {' x '.join(map(str, shape))}")
    dtype = np.dtype(types[head[2]])
    return Header(shape, dtype, header_size(ndim) + dtype.itemsize * math.prod(shape))


def encode_header(shape: tuple[int, ...]) -> bytes:
    """Return the IDX header for a uint8 array of this shape."""
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, UINT8, len(shape), *shape)


def write_idx(path: Path, array: NDArray[np.uint8]) -> None:
    """Write a uint8 array as an IDX file.

    If the name ends in ``.gz``, it is compressed, without a date: the same Python writes the same bytes.

    Raises:
        OutputError: The file cannot be written; an older file is unchanged.
    """
    content = encode_header(array.shape) + array.tobytes()
    with atomic_write(path) as file:
        file.write(gzip.compress(content, 9, mtime=0) if path.suffix == ".gz" else content)


def _read_compressed(path: Path, kind: str) -> tuple[Header, NDArray[np.uint8]]:
    with open_regular(path, DataError) as file:
        head = _inflated_head(file.read(1024), header_size(NDIM[kind]), path)
        header = parse_header(head, kind, path)
        if header.size > inflation_limit(path.stat().st_size):
            raise DataError(f"{path} is too small to hold the {header.size:,} bytes that its header declares")
        file.seek(0)
        content = np.empty(header.size, np.uint8)
        filled = 0
        try:
            for piece in inflate(chunks(file), header.size):
                room = header.size - filled
                content[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)[:room]
                filled += len(piece)
        except ValueError as error:
            raise DataError(f"{path} {error}; get it again") from error
    _check_size(filled, header.size, path)
    return header, content


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
        raise DataError(f"{source} has {found:,} bytes, expected {expected:,}; get it again")


def _guess(magic: bytes, ndim: int) -> str:
    if magic[::-1] == bytes([0, 0, UINT8, ndim]):
        return "it is little-endian, and IDX is big-endian"
    if magic == bytes([0, 0, UINT8, 1]):
        return "it holds labels, not images"
    if magic == bytes([0, 0, UINT8, 3]):
        return "it holds images, not labels"
    if magic[:2] == b"\0\0" and magic[2] in _TYPE_NAMES and magic[3]:
        dimensions = "1 dimension" if magic[3] == 1 else f"{magic[3]} dimensions"
        return f"it holds {_TYPE_NAMES[magic[2]]} values in {dimensions}"
    return "it is not an IDX file of unsigned bytes"


_TYPE_NAMES = {0x08: "uint8", 0x09: "int8", 0x0B: "int16", 0x0C: "int32", 0x0D: "float32", 0x0E: "float64"}
