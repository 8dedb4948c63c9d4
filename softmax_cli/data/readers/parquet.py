"""Parquet files as Hugging Face stores image data sets: a column of pictures and one of labels.

pyarrow, which the extra ``[parquet]`` installs, is imported here only.
"""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from softmax_cli.data.decoding import decode_pictures, find_size
from softmax_cli.data.labels import as_labels, index_labels
from softmax_cli.data.readers import ReadOptions, Split
from softmax_cli.errors import ConfigError, DataError
from softmax_cli.files import inflation_limit, open_regular

MAGIC = b"PAR1"
IMAGE_NAMES = ("image", "img", "picture")
LABEL_LIMIT = 200
"""Largest length of a label; numpy gives every label the room of the longest one."""

LEAST = 64
"""Bytes that a picture counts at least."""

SAMPLE = 1000
"""Number of training images whose most frequent size is the size of all."""

LABEL_NAMES = ("label", "labels", "class", "target", "fine_label", "digit")
"""Names of the columns with the images and with the labels, in the order of trial."""


def detect(path: Path) -> bool:
    """Return whether a path is a parquet file, or a folder with some for training."""
    try:
        with open_regular(next(iter(_files(path, "train")), path), DataError) as file:
            return file.read(4) == MAGIC
    except (DataError, OSError):
        return False


def read(path: Path, split: str, options: ReadOptions) -> Split:
    """Return a split of the data set in a parquet file, or in those of a folder.

    A picture is the content of a file, or a struct of it (``bytes``) and of its ``path``. Labels are whole
    numbers or text; names of classes are taken from the metadata that Hugging Face writes. Files whose name
    starts with ``test`` beside those that start with ``train`` are the test split.

    Raises:
        ConfigError: pyarrow is not installed.
        DataError: The file is damaged or lacks the columns, or a picture cannot be read.
    """
    train, test = _files(path, "train"), _files(path, "test")
    wanted, others = (test, train) if test and split == "test" else (train, test)
    pictures, values, names = _read_columns(wanted)
    images, readable = decode_pictures(pictures, _with_size(options, train))
    if names and values.dtype.kind in "iu":
        if int(values.min()) < 0 or int(values.max()) >= len(names):
            raise DataError(f"{wanted[0]} has a label that none of its {len(names)} class names has")
        labels = as_labels(values)
    else:
        other = [_read_labels(one) for one in others]
        labels, names = index_labels(values, *other)
    return Split(images, labels[readable], names, options.preparation or "plain", is_whole=not test)


def _with_size(options: ReadOptions, train: list[Path]) -> ReadOptions:
    """Return the options with the size of the first training images, if none is given."""
    if options.image_size:
        return options
    return replace(options, image_size=find_size(_read_columns(train, SAMPLE)[0]))


def _files(path: Path, split: str) -> list[Path]:
    """Return the files of a split: the path itself or those beside it, or those in a folder."""
    if not os.path.isdir(path):
        if split == "train":
            return [path]
        name = re.sub("train", "test", path.name, count=1)
        return [path.with_name(name)] if name != path.name and os.path.isfile(path.with_name(name)) else []
    folders = [path, path / "data", *(path / name for name in sorted(os.listdir(path)))]
    for folder in (one for one in folders if os.path.isdir(one)):
        names = sorted(name for name in os.listdir(folder) if name.endswith(".parquet"))
        if any(name.startswith("train") for name in names):
            return [folder / name for name in names if name.startswith(split)]
    return []


def _read_columns(
    paths: list[Path], limit: int | None = None
) -> tuple[list[bytes | Path], "np.ndarray[Any, Any]", tuple[str, ...]]:
    """Return the pictures (n), the values of the labels (n,), and the names of the classes, if known.

    With a limit, only about so many.
    """
    pictures: list[bytes | Path] = []
    labels = []
    names: tuple[str, ...] = ()
    for path in paths:
        with _open(path) as file:
            image, label = (_find(file, wanted, path) for wanted in (IMAGE_NAMES, LABEL_NAMES))
            names = names or _class_names(file, label)
            room = inflation_limit(path.stat().st_size)
            for batch in _batches(file, [image, label]):
                found = [_picture(value, path) for value in batch.column(0).to_pylist()]
                room -= sum(max(LEAST, len(one)) if isinstance(one, bytes) else LEAST for one in found)
                if room < 0:
                    raise DataError(f"{path} is too small to hold its pictures: it repeats or inflates them")
                pictures += found
                labels.append(_values(batch.column(1), path))
                if limit and len(pictures) >= limit:
                    return pictures, np.concatenate(labels), names
    if not pictures:
        raise DataError(f"{paths[0]} has no images")
    return pictures, np.concatenate(labels), names


def _read_labels(path: Path) -> "np.ndarray[Any, Any]":
    with _open(path) as file:
        label = _find(file, LABEL_NAMES, path)
        return np.concatenate([_values(batch.column(0), path) for batch in _batches(file, [label])])


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    """Yield a parquet file that is open; raise `DataError` for what is damaged in it."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError(
            f"reading {path} needs pyarrow, which the extra [parquet] installs: "
            f"pip install 'softmax-regression[parquet]' ({error})"
        ) from error
    open_regular(path, DataError).close()
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            yield file
    except (pyarrow.ArrowException, *_DAMAGED) as error:
        raise DataError(f"{path} is not a parquet file, or is damaged: {_first_line(error)}") from error


_DAMAGED = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RuntimeError,
    ArithmeticError,
    MemoryError,
)
"""Errors that pyarrow raises for damaged files besides its own."""


def _batches(file: Any, columns: list[str]) -> Iterator[Any]:
    for batch in file.iter_batches(batch_size=4096, columns=columns):
        yield batch.select(columns)


def _find(file: Any, wanted: tuple[str, ...], path: Path) -> str:
    names: list[str] = file.schema_arrow.names
    for name in wanted:
        if name in names:
            return name
    raise DataError(f"{path} has no column {wanted[0]}; its columns are {', '.join(names)}")


def _class_names(file: Any, label: str) -> tuple[str, ...]:
    """Return the names of the classes in the metadata that Hugging Face writes, or none."""
    try:
        features = json.loads(file.schema_arrow.metadata[b"huggingface"])["info"]["features"]
        names = features[label]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return ()
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _picture(value: Any, path: Path) -> bytes | Path:
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str):
        inside = Path(value)
        if inside.is_absolute() or ".." in inside.parts:
            raise DataError(f"{path} refers to {value!r}, which is outside of its folder")
        return path.parent / inside
    if isinstance(value, bytes):
        return value
    raise DataError(f"{path} has an image that is neither the content of a file nor its path")


def _values(column: Any, path: Path) -> "np.ndarray[Any, Any]":
    if column.null_count:
        raise DataError(f"{path} has an image without a label")
    values: np.ndarray[Any, Any] = column.to_numpy(zero_copy_only=False)
    if values.dtype.kind == "O":
        if not all(type(text) is str and len(text) <= LABEL_LIMIT for text in values.tolist()):
            raise DataError(f"{path} has a label that is no text of at most {LABEL_LIMIT} characters")
        values = values.astype(str)
    if values.dtype.kind not in "iuU":
        raise DataError(f"{path} has labels of type {column.type}, expected whole numbers or text")
    return values


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
