"""Archives of numpy arrays, as Keras and others ship data sets: ``x_train``, ``y_train``, and so on.

Nothing is ever unpickled. The size of an array is checked against its header and against what its
compressed bytes can hold, before it is read.
"""

import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from softmax_cli.data.labels import index_labels
from softmax_cli.data.readers import ReadOptions, Split
from softmax_cli.errors import DataError
from softmax_cli.files import inflation_limit, open_regular, zip_directory_size

NAMES = {
    "train": (("x_train", "y_train"), ("train_images", "train_labels"), ("images", "labels")),
    "test": (("x_test", "y_test"), ("test_images", "test_labels"), ("images", "labels")),
}
"""For each split, the names of the arrays with its images and labels, in the order of trial."""

ZIP = b"PK\x03\x04"
"""How archives start."""

HEADER_LIMIT = 1 << 12
"""Bytes that the header of an array may take."""

DIRECTORY_LIMIT = 1 << 16
"""Bytes that the list of members may take."""


def detect(path: Path) -> bool:
    """Return whether a path is an archive with the arrays of a data set, of which one may be missing."""
    try:
        with open_regular(path, DataError) as file:
            if file.read(4) != ZIP:
                return False
        members = _member_names(path)
        return any(set(pair) & members for pairs in NAMES.values() for pair in pairs)
    except DataError:
        return False


def read(path: Path, split: str, options: ReadOptions) -> Split:
    """Return a split of the data set in an archive.

    Images are uint8 (n, rows, cols), (n, rows, cols, 1 or 3), or (n, pixels) of square images; colour becomes
    grey. Labels are whole numbers or text, (n,) or (n, 1).

    Raises:
        DataError: The archive is damaged, or has no such arrays.
    """
    members = _member_names(path)
    images, labels = _find(path, members, split)
    _, others = _find(path, members, "test" if split == "train" else "train")
    arrays = read_arrays(path, (images, labels, others))
    found = index_labels(_labels(arrays[labels], labels, path), _labels(arrays[others], others, path))
    pixels = as_images(arrays[images], images, path)
    if len(pixels) != len(found[0]):
        raise DataError(
            f"{path} has {len(pixels):,} images in {images}, but {len(found[0]):,} labels in {labels}"
        )
    return Split(pixels, *found, is_whole=labels == others)


def _find(path: Path, members: set[str], split: str) -> tuple[str, str]:
    """Return the names of the arrays of a split; those for training if there are none for testing."""
    for pair in (*NAMES[split], *(NAMES["train"] if split == "test" else ())):
        if len(missing := set(pair) - members) == 0:
            return pair[0], pair[1]
        if len(missing) == 1:
            raise DataError(f"{path} lacks the array {missing.pop()}; it has {', '.join(sorted(members))}")
    raise DataError(f"{path} has no arrays called {' and '.join(NAMES[split][0])}")


def as_images(array: NDArray[Any], name: str, source: object) -> NDArray[np.uint8]:
    """Return images (n, rows, cols) from an array in one of the shapes that `read` accepts."""
    if array.ndim == 4 and array.shape[3] in (1, 3):
        array = array[..., 0] if array.shape[3] == 1 else _grey(array)
    if array.ndim == 2 and math.isqrt(array.shape[1]) ** 2 == array.shape[1]:
        array = array.reshape(len(array), math.isqrt(array.shape[1]), -1)
    if array.ndim != 3 or not array.size:
        raise DataError(f"{source}: {name} has the shape {array.shape}, expected (n, rows, cols)")
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind in "iu" and array.min() >= 0 and array.max() <= 255:
        return array.astype(np.uint8)
    raise DataError(f"{source}: {name} is {array.dtype}, expected uint8 with values from 0 to 255")


def _grey(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the luminance of red, green and blue, by ITU-R BT.601 in integers as Pillow rounds it."""
    grey = np.empty(array.shape[:3], np.uint8)
    for begin in range(0, len(array), 1024):
        block = array[begin : begin + 1024].astype(np.uint32)
        grey[begin : begin + 1024] = (block @ np.array([19595, 38470, 7471], np.uint32) + 32768) >> 16
    return grey


def _labels(array: NDArray[Any], name: str, path: Path) -> NDArray[Any]:
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in "iuU" or not len(array):
        expected = "whole numbers or text of shape (n,)"
        raise DataError(f"{path}: {name} is {array.dtype} of shape {array.shape}, expected {expected}")
    return array


# Archives


class _Header(NamedTuple):
    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype[Any]


_DAMAGED = (
    *(zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, struct.error, tokenize.TokenError),
    *(NotImplementedError, RuntimeError, EOFError, OSError, KeyError, ValueError, TypeError, SyntaxError),
    *(OverflowError, MemoryError),
)
"""Errors of the standard library and of numpy for damaged archives, and for headers of arrays in them."""


def read_arrays(path: Path, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """Return arrays of an archive by name, each checked before it is read.

    Raises:
        DataError: The archive is damaged, or an array is not there or is none of numbers or text.
    """
    with _archive(path) as archive:
        return {name: _read_member(archive, name, path) for name in dict.fromkeys(names)}


def _member_names(path: Path) -> set[str]:
    with _archive(path) as archive:
        return {name.removesuffix(".npy") for name in archive.namelist()}


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Yield an archive that is open for reading; raise `DataError` for what is damaged in it."""
    with open_regular(path, DataError) as file:
        try:
            _check_directory(file, path)
            with zipfile.ZipFile(file) as archive:
                yield archive
        except _DAMAGED as error:
            raise DataError(f"{path} is not an .npz file, or is damaged: {error}") from error


def _check_directory(file: BinaryIO, path: Path) -> None:
    """Raise `DataError` for a list of members that is too long to be read."""
    if zip_directory_size(file) > DIRECTORY_LIMIT:
        raise DataError(f"{path} has a list of members of more than {DIRECTORY_LIMIT:,} bytes")


def _read_member(archive: zipfile.ZipFile, name: str, path: Path) -> NDArray[Any]:
    info = archive.getinfo(f"{name}.npy")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
        raise DataError(f"{path}: {name} is encrypted or compressed in an unusual way")
    with archive.open(info) as member:
        header = _read_header(member, name, path)
        size = math.prod(header.shape) * header.dtype.itemsize
        room = inflation_limit(min(info.compress_size, path.stat().st_size))
        if member.tell() + size != info.file_size or info.file_size > room + HEADER_LIMIT:
            raise DataError(
                f"{path}: {name} declares {size:,} bytes of {header.dtype} {header.shape}, "
                f"but holds {min(info.file_size - member.tell(), room):,}"
            )
        content = bytearray(size)
        filled = 0
        while filled < size and (count := member.readinto(memoryview(content)[filled:])):  # type: ignore[attr-defined]
            filled += count
        if filled < size or member.read(1):  # the end, where the CRC is checked
            raise DataError(f"{path}: {name} is cut short")
    order: Any = "F" if header.is_fortran else "C"
    return np.frombuffer(content, header.dtype).reshape(header.shape, order=order)


def _read_header(member: Any, name: str, path: Path) -> _Header:
    version = np.lib.format.read_magic(member)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read_header is None:
        raise DataError(f"{path}: {name} has the .npy version {version}, expected (1, 0) or (2, 0)")
    header = _Header(*read_header(member, max_header_size=HEADER_LIMIT))
    if header.dtype.kind not in "biufU":
        what = "objects, which would have to be unpickled" if header.dtype.hasobject else str(header.dtype)
        raise DataError(f"{path}: {name} is an array of {what}; expected numbers")
    return header
