"""`load_dataset`: find a data set in the cache, on a mirror, in the package, or at a path."""

import logging
import os
from dataclasses import replace
from pathlib import Path

from softmax_cli.data.cache import ensure, remember_path, remembered_path, verified
from softmax_cli.data.catalog import CATALOG, MNIST, SAMPLE, SPLITS, Entry, known_dataset
from softmax_cli.data.dataset import Dataset, check_arrays, check_dataset, content_digest
from softmax_cli.data.download import Source
from softmax_cli.data.readers import find_reader
from softmax_cli.errors import ConfigError, DataError, DownloadError, OutputError, SoftmaxError
from softmax_cli.files import check_folder, exists

log = logging.getLogger(__name__)

IMPATIENT = 3.0
"""Seconds that the mirrors have to answer if the bundled sample can be used instead."""


def load_dataset(name: str | Path, split: str = "train", source: Source | None = None) -> Dataset:
    """Return the ``train`` or ``test`` split of a data set.

    ``auto`` is MNIST if the cache or a mirror has it, else the bundled sample, with a warning. The files of
    known data sets are checked against their SHA-256. Data at a path whose content is that of a known data
    set is that data set.

    Args:
        name: A known name, ``auto``, or the path of data that a reader recognises.
        split: ``train`` or ``test``.
        source: Cache and mirrors; by default, the user's cache.

    Raises:
        ConfigError: The name is neither known nor a path.
        DataError: The data cannot be had, or are damaged.
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
            other data by now.
    """
    if known := known_dataset(digest):
        return load_dataset(known.name, split, source)
    path = remembered_path(digest, source)
    if path and os.path.exists(path):
        try:
            data = load_dataset(path, split, source)
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
        )
    )


def _load_path(path: Path, split: str, source: Source) -> Dataset:
    check_folder(path, DataError)
    reader = find_reader(path)
    part = train = reader.read(path, "train")
    check_arrays(train.images, train.labels, f"{path}, train")
    part_digest = digest = content_digest(train.images, train.labels)
    if split != "train":
        part = reader.read(path, split)
        check_arrays(part.images, part.labels, f"{path}, {split}")
        part_digest = content_digest(part.images, part.labels)
    data = Dataset(path.resolve().name, digest, part_digest, *part)
    if known := known_dataset(digest):
        data = replace(data, name=known.name, class_names=known.class_names, preparation=known.preparation)
    check_dataset(data)
    if not known:
        remember_path(digest, path, source)
    return data
