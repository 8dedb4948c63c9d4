"""Readers of data formats: each is a module with `detect` and `read`."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from softmax_cli.errors import DataError
from softmax_cli.model import Labels

READERS = {"idx": "a folder with four IDX files"}
"""The registry: the module ``softmax_cli.data.readers.NAME`` and what it reads, in the order of trial."""


MAX_CLASSES = 1000
"""Largest number of classes."""


class Split(NamedTuple):
    """One split as a reader finds it.

    Attributes:
        images: uint8 (n, rows, cols).
        labels: Unsigned integers (n,), which index `class_names`.
        class_names: The names of all classes of the data set, the same for both splits.
        preparation: How a picture becomes an image of this data set: ``plain``, or ``digit`` if the
            images are centred like those of MNIST.
    """

    images: NDArray[np.uint8]
    labels: Labels
    class_names: tuple[str, ...]
    preparation: str = "plain"


class Reader(Protocol):
    """The interface of a reader's module."""

    def detect(self, path: Path) -> bool:
        """Return whether the data at an existing path look like this format; never raise."""

    def read(self, path: Path, split: str) -> Split:
        """Return the ``train`` or ``test`` split.

        Raises:
            DataError: The data are damaged or incomplete; the message names the file.
        """


def numbered_classes(source: object, *labels: Labels) -> tuple[str, ...]:
    """Return the class names 0 to the largest label.

    Raises:
        DataError: There are too many classes; the message names `source`.
    """
    count = 1 + max(int(values.max()) for values in labels)
    if count > MAX_CLASSES:
        raise DataError(f"{source}: the largest label is {count - 1:,}; the limit is {MAX_CLASSES:,} classes")
    return tuple(map(str, range(count)))


def readers() -> Iterator[Reader]:
    """Yield the readers in the order in which they are tried."""
    for name in READERS:
        reader: Reader = import_module(f"softmax_cli.data.readers.{name}")
        yield reader


def recognises(path: Path) -> bool:
    """Return whether a reader recognises the data at an existing path."""
    return any(reader.detect(path) for reader in readers())


def find_reader(path: Path) -> Reader:
    """Return the first reader that recognises the data at a path.

    Raises:
        DataError: No reader recognises them.
    """
    for reader in readers():
        if reader.detect(path):
            return reader
    raise DataError(f"{path} is not a data set; expected {' or '.join(READERS.values())}")
