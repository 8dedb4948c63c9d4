"""Readers of data formats: each is a module with `detect` and `read`."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from softmax_cli.errors import ConfigError, DataError
from softmax_cli.model import Labels

READERS = {
    "idx": "a folder with four IDX files",
    "folder": "a folder of pictures with a sub-folder for each class",
    "npz": "an .npz file with x_train and y_train or images and labels",
    "parquet": "a parquet file with images",
    "csv": "a CSV file with a label and pixels in each line",
}
"""The registry: the module ``softmax_cli.data.readers.NAME`` and what it reads, in the order of trial."""

LARGEST_SIDE = 64
"""Largest side, in pixels, of an image that is made from a picture."""

PREPARATIONS = ("plain", "digit")


@dataclass(frozen=True)
class ReadOptions:
    """How pictures become the images of a data set; other formats need no options.

    Attributes:
        image_size: Rows and columns of the images; None for the most frequent size of the pictures.
        preparation: ``plain`` or ``digit``; None for ``plain``.
        skip_bad: Leave out pictures that cannot be read, with a warning, instead of raising `DataError`.
        cache: Folder in which images made from a folder of pictures are kept; None to keep none.

    Raises:
        ConfigError: A side is not in 1 to `LARGEST_SIDE`, or the preparation is not known.
    """

    image_size: tuple[int, int] | None = None
    preparation: str | None = None
    skip_bad: bool = False
    cache: Path | None = None

    def __post_init__(self) -> None:
        if self.image_size and not all(1 <= side <= LARGEST_SIDE for side in self.image_size):
            size = " x ".join(map(str, self.image_size))
            raise ConfigError(f"the image size {size} must be from 1 x 1 to {LARGEST_SIDE} x {LARGEST_SIDE}")
        if self.preparation not in (None, *PREPARATIONS):
            raise ConfigError(f"preparation must be {' or '.join(PREPARATIONS)}, not {self.preparation!r}")

    def with_defaults(self, image_shape: tuple[int, int], preparation: str) -> "ReadOptions":
        """Return the options with the size and the preparation of a model's images where none are given."""
        fits = max(image_shape) <= LARGEST_SIDE
        size = self.image_size or (image_shape if fits else None)
        return replace(self, image_size=size, preparation=self.preparation or preparation)


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
        is_whole: The source has no test split, and these are all of its images.
        image_names: A name for each image, if the source has such: the path of a picture.
    """

    images: NDArray[np.uint8]
    labels: Labels
    class_names: tuple[str, ...]
    preparation: str = "plain"
    is_whole: bool = False
    image_names: tuple[str, ...] = ()


class Reader(Protocol):
    """The interface of a reader's module."""

    def detect(self, path: Path) -> bool:
        """Return whether the data at an existing path look like this format; never raise."""

    def read(self, path: Path, split: str, options: ReadOptions) -> Split:
        """Return the ``train`` or ``test`` split; all images for both if the source has no test split.

        Raises:
            DataError: The data are damaged or incomplete; the message names the file.
        """


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
    raise DataError(f"{path} is not a data set; expected one of: {'; '.join(READERS.values())}")
