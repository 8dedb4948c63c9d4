"""`Dataset`, its identity, and the split into training and validation images."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from softmax_cli.data.catalog import combine_digests
from softmax_cli.data.readers import MAX_CLASSES, ReadOptions
from softmax_cli.data.readers.idx import encode_header
from softmax_cli.errors import ConfigError, DataError
from softmax_cli.files import sha256
from softmax_cli.model import Labels


class Origin(NamedTuple):
    """Where a split was read, so that another process can read it again.

    Attributes:
        name: Name of a known data set, or an absolute path.
        split: ``train`` or ``test``.
        folder: Absolute path of the cache, if there is one.
        reading: How pictures were read.
    """

    name: str
    split: str
    folder: Path | None
    reading: ReadOptions

    def __str__(self) -> str:
        return self.name if Path(self.name).is_absolute() else f"{self.folder}/{self.name}"


@dataclass(frozen=True)
class Dataset:
    """One split of a data set.

    Attributes:
        name: Name of the data set.
        digest: Digest of the training split, which identifies the data set (see `content_digest`).
        split_digest: Digest of this split.
        images: uint8 (n, rows, cols).
        labels: Unsigned integers (n,), which index `class_names`.
        class_names: One name per class.
        preparation: How a picture becomes an image of this data set: ``digit`` or ``plain``.
        image_names: A name for each image, if the source has such: the path of a picture.
        origin: Where `load_dataset` has read it.
    """

    name: str
    digest: str
    split_digest: str
    images: NDArray[np.uint8]
    labels: Labels
    class_names: tuple[str, ...]
    preparation: str
    image_names: tuple[str, ...] = ()
    origin: Origin | None = field(default=None, compare=False)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int]:
        """Rows and columns of each image."""
        return self.images.shape[1], self.images.shape[2]


def content_digest(images: NDArray[np.uint8], labels: Labels) -> str:
    """Return the digest of a split: SHA-256 over the shape, the pixels and the labels.

    Images and labels are hashed as the IDX files that hold them. Labels above 255 count as four big-endian
    bytes each.
    """
    encoded = labels.astype(np.uint8 if int(labels.max()) < 256 else ">u4")
    return combine_digests(
        sha256(encode_header(images.shape), np.ascontiguousarray(images).data),
        sha256(encode_header(labels.shape), encoded.tobytes()),
    )


def check_arrays(images: NDArray[np.uint8], labels: Labels, source: object) -> None:
    """Raise `DataError` unless these are the images and the labels of a split.

    `source` is the name of the data in messages.
    """
    if images.dtype != np.uint8 or images.ndim != 3 or not images.size:
        raise DataError(
            f"{source}: expected uint8 images of shape (n, rows, cols), "
            f"not {images.dtype} of shape {images.shape}"
        )
    if labels.dtype.kind != "u" or labels.ndim != 1:
        raise DataError(
            f"{source}: expected unsigned labels of shape (n,), not {labels.dtype} of shape {labels.shape}"
        )
    if len(images) != len(labels):
        raise DataError(f"{source} has {len(images):,} images but {len(labels):,} labels")


def check_dataset(data: Dataset) -> Dataset:
    """Return `data` if its parts agree.

    Raises:
        DataError: The numbers of images and labels differ, a label has no class, or there are fewer than two
            classes or more than `MAX_CLASSES`.
    """
    labels, classes = data.labels, len(data.class_names)
    check_arrays(data.images, labels, data.name)
    if classes < 2:
        raise DataError(f"{data.name} has images of one class only; a classifier needs at least two")
    if classes > MAX_CLASSES:
        raise DataError(f"{data.name} has {classes:,} classes; the limit is {MAX_CLASSES:,}")
    if int(labels.max()) >= classes:
        index = int(np.argmax(labels >= classes))
        raise DataError(f"label {index} of {data.name} is {labels[index]}, expected at most {classes - 1}")
    return data


def hold_out(labels: Labels, fraction: float, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return sorted indices to train on and to validate on, stratified by label.

    ``round(fraction * n)`` images are for validation, with the same fraction of each class (the largest
    remainders are rounded up), drawn without replacement by ``default_rng((seed, 0))``.

    Raises:
        ConfigError: One of the two parts would be empty.
    """
    n, counts = len(labels), np.bincount(labels)
    generator = np.random.default_rng((seed, 0))
    chosen = np.zeros(n, bool)
    by_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    for rows, count in zip(by_class, _shares(counts, fraction), strict=True):
        chosen[generator.permutation(rows)[:count]] = True
    if fraction and (chosen.all() or not chosen.any()):
        part = "training" if chosen.all() else "validation"
        raise ConfigError(f"validation-size {fraction} of {n:,} images leaves none for {part}")
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def _shares(counts: NDArray[np.intp], fraction: float) -> NDArray[np.intp]:
    """Return ``fraction * counts`` rounded to integers with the correct sum.

    Largest-remainder method.
    """
    exact = fraction * counts
    shares: NDArray[np.intp] = np.floor(exact).astype(np.intp)
    missing = round(fraction * int(counts.sum())) - int(shares.sum())
    shares[np.argsort(shares - exact, kind="stable")[:missing]] += 1
    return shares
