"""`load_dataset`: find a data set in the cache, on a mirror, or at a path."""

import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from softmax_cli.data.cache import ensure, remember_path, remembered, verified
from softmax_cli.data.catalog import CATALOG, MNIST, SAMPLE, SPLITS, Entry, known_dataset
from softmax_cli.data.dataset import Dataset, Origin, check_arrays, check_dataset, content_digest, hold_out
from softmax_cli.data.download import Source
from softmax_cli.data.readers import ReadOptions, Split, find_reader
from softmax_cli.errors import ConfigError, DataError, DownloadError, OutputError, SoftmaxError
from softmax_cli.files import check_folder, exists

log = logging.getLogger(__name__)

IMPATIENT = 3.0
"""Timeout of all mirrors in seconds if the bundled sample can be used instead."""

DARK = 32
"""Brightest pixel, of 255, up to which the values of a data set probably have another scale."""

TEST_FRACTION = 1 / 6
"""Fraction of the images for testing if a source has no test split."""


def load_dataset(name: str | Path, split: str = "train", source: Source | None = None) -> Dataset:
    """Return the ``train`` or ``test`` split of a data set.

    ``auto`` is MNIST if the cache or a mirror has it, else the bundled sample, with a warning. The files of
    known data sets are checked against their SHA-256. Data at a path whose content is that of a known data
    set is that data set.

    Args:
        name: A known name, ``auto``, or the path of data that a reader recognises.
        split: ``train`` or ``test``.
        source: Cache, mirrors, and how pictures are read; by default, the user's cache.

    If data at a path have no test split, a stratified sixth of each class is set aside for it, and a message
    is logged.

    Raises:
        ConfigError: The name is neither known nor a path.
        DataError: The data are not available or damaged.
    """
    source = source or Source()
    if name == "auto":
        return _load_auto(split, source)
    if name in CATALOG:
        return _load_known(CATALOG[str(name)], split, source)
    if name and exists(name, DataError):
        return _load_path(Path(name), split, source)
    raise ConfigError(
        f"dataset {str(name)!r} is neither a path that exists nor one of auto, {', '.join(CATALOG)}"
        f"{_suggestion(str(name))}"
    )


def _suggestion(name: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name.lower(), CATALOG, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def find_dataset(name: str, digest: str, split: str, source: Source) -> Dataset:
    """Return a split of the data set that has this digest, as a checkpoint names it.

    Raises:
        ConfigError: It is not a known data set, and the path where it was last read is not known or holds
            other data now.
    """
    path, reading = remembered(digest, source)
    if known := known_dataset(digest):
        if not (path and os.path.exists(path)):
            return load_dataset(known.name, split, source)
        try:
            return load_dataset(known.name, split, replace(source, offline=True))
        except DownloadError:
            pass  # not in the cache: read it from the path
    if path and os.path.exists(path):
        try:
            data = load_dataset(path, split, replace(source, reading=reading))
        except SoftmaxError as error:
            raise ConfigError(f"{error}; give the path of {name!r} with --dataset") from error
        if data.digest == digest:
            return data
    problem = f"{path} does not hold it any more" if path else "its path is not known here"
    raise ConfigError(
        f"the checkpoint was trained on the data set {name!r}, and {problem}; give its path with --dataset"
    )


def _load_auto(split: str, source: Source) -> Dataset:
    count = len(source.mirrors) + len(MNIST.mirrors)
    impatient = replace(source, wait=min(IMPATIENT, 3 * IMPATIENT / max(count, 1)))
    try:
        return _load_known(MNIST, split, impatient)
    except (DownloadError, OutputError, ConfigError) as error:
        if source.folder is not None and not isinstance(error, DownloadError):
            raise  # the user chose a folder that cannot be used
        (low, high, _), (full_low, full_high, _) = SAMPLE.reference["pixels"], MNIST.reference["pixels"]
        log.warning(
            "MNIST is not in the cache and could not be downloaded. Using the bundled sample of 6,000 of its "
            "digits: expect %.0f to %.0f %% on the test set instead of %.0f to %.1f %%. "
            "To see the reason, run: softmax download",
            *(100 * bound for bound in (low, high, full_low, full_high)),
        )
        return _load_known(SAMPLE, split, source)


def _load_known(entry: Entry, split: str, source: Source) -> Dataset:
    if not entry.bundled:
        ensure(entry, source, SPLITS[split])
    images, labels = (verified(entry, name, source) for name in SPLITS[split])
    return check_dataset(
        Dataset(
            entry.name,
            entry.digest,
            entry.split_digest(split),
            images,
            labels,
            entry.class_names,
            entry.preparation,
            origin=_origin(entry.name, split, source),
        )
    )


def reread_dataset(origin: Origin, digests: tuple[str, str]) -> Dataset:
    """Return a split again from where it was read.

    Data at a path get the given digests, that of the training split and that of the split, without a check:
    the caller checks the content that it uses.

    Raises:
        ConfigError: There is nothing at the path.
        DataError: The data are damaged.
    """
    source = Source(origin.folder, offline=True, reading=origin.reading)
    if origin.name in CATALOG or not exists(origin.name, DataError):
        return load_dataset(origin.name, origin.split, source)
    path = Path(origin.name)
    _, chosen = _checked_splits(path, origin.split, source)
    return _at_path(path, chosen, digests, origin)


def _load_path(path: Path, split: str, source: Source) -> Dataset:
    train, chosen = _checked_splits(path, split, source)
    if split == "train":
        _warn_of_dark_images(train.images, path)
    digest = content_digest(train.images, train.labels)
    part_digest = digest if chosen is train else content_digest(chosen.images, chosen.labels)
    origin = _origin(str(path.resolve()), split, source)
    data = _at_path(path, chosen, (digest, part_digest), origin)
    known = known_dataset(digest)
    if not (known and known.bundled):
        remember_path(digest, path, source)
    return data


def _checked_splits(path: Path, split: str, source: Source) -> tuple[Split, Split]:
    """Return the training split and the one that is wanted, with arrays of the expected types and shapes."""
    check_folder(path, DataError)
    reading = replace(source.reading, cache=_writable_cache(source))
    train, chosen = _read_splits(path, split, reading)
    for name, part in (("train", train), (split, chosen)):
        check_arrays(part.images, part.labels, f"{path}, {name}")
    return train, chosen


def _at_path(path: Path, chosen: Split, digests: tuple[str, str], origin: Origin) -> Dataset:
    """Return the data set at a path; if it is a known one, with its name, class names and preparation."""
    images, labels, class_names, preparation, _, names = chosen
    name, (digest, part_digest) = path.resolve().name, digests
    parts = images, labels, class_names, preparation, names, origin
    data = check_dataset(Dataset(name, digest, part_digest, *parts))
    known = known_dataset(data.digest)
    if known and len(known.class_names) < len(data.class_names):
        raise DataError(
            f"{path} has the training images of {known.title}, but {len(data.class_names)} classes, expected "
            f"at most {len(known.class_names)}"
        )
    if known:
        data = replace(data, name=known.name, class_names=known.class_names, preparation=known.preparation)
    return data


def _origin(name: str, split: str, source: Source) -> Origin:
    cache = _writable_cache(source)
    return Origin(name, split, cache and cache.resolve(), source.reading)


def _warn_of_dark_images(images: NDArray[np.uint8], path: Path) -> None:
    brightest = int(images[:: -(-len(images) // 1000)].max())
    if brightest <= DARK:
        log.warning(
            "the brightest pixel in %s is %d of 255, and gradient descent learns slowly from dark images; "
            "scale the values to 0 to 255, or use --solver newton",
            *(path, brightest),
        )


def _writable_cache(source: Source) -> Path | None:
    """Return the folder of the cache, or None if there is none."""
    try:
        return source.cache
    except ConfigError:
        return None


def _read_splits(path: Path, split: str, reading: ReadOptions) -> tuple[Split, Split]:
    """Return the training split and the one that is wanted, which may be the same object."""
    reader = find_reader(path)
    train = reader.read(path, "train", reading)
    if train.is_whole:
        train, test = divide(train, path)
        return train, train if split == "train" else test
    return train, train if split == "train" else reader.read(path, split, reading)


def divide(whole: Split, path: Path) -> tuple[Split, Split]:
    """Return the training and the test split of a source that has none: a stratified sixth is for testing.

    The sixth is drawn by ``default_rng((0, 0))``, so that it is the same each time. The images of `whole` may
    be overwritten: a copy of the training images would need as much memory again.

    Raises:
        DataError: The source has too few images.
    """
    try:
        rows, test_rows = hold_out(whole.labels, TEST_FRACTION, 0)
    except ConfigError as error:
        count = f"{len(whole.labels):,} image{'s' * (len(whole.labels) != 1)}"
        raise DataError(f"{path} has {count}, too few to set a sixth of them aside for testing") from error
    log.info(
        "%s has no test split: %s of its %s images, a sixth of each class, are set aside for it",
        *(path, f"{len(test_rows):,}", f"{len(whole.labels):,}"),
    )
    test = _part(whole, whole.images[test_rows], test_rows)
    return _part(whole, _compacted(whole.images, rows), rows), test


def _part(whole: Split, images: NDArray[np.uint8], rows: NDArray[np.intp]) -> Split:
    """Return the split with these images, which are those of `rows`."""
    names = tuple(whole.image_names[row] for row in rows) if whole.image_names else ()
    return whole._replace(images=images, labels=whole.labels[rows], image_names=names)


def _compacted(images: NDArray[np.uint8], rows: NDArray[np.intp]) -> NDArray[np.uint8]:
    """Return ``images[rows]`` for ascending rows, in place if the images can be overwritten."""
    if not images.flags.writeable:
        return images[rows]
    for begin in range(0, len(rows), 1024):
        block = rows[begin : begin + 1024]
        images[begin : begin + len(block)] = images[block]
    return images[: len(rows)]
