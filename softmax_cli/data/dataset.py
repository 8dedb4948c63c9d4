"""A data set, and `load`, which finds it: in the cache, on a mirror, in the package, in a folder."""

import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from softmax_cli.data.catalog import CATALOG, FILE_NAMES, MNIST, SAMPLE, SPLITS, Entry, IdxFile
from softmax_cli.data.download import Source, fetch
from softmax_cli.data.idx import encode_header, read_header, read_idx
from softmax_cli.errors import ConfigError, DataError, DownloadError, OutputError
from softmax_cli.files import atomic_write, chunks, inflate, open_regular, sha256

log = logging.getLogger(__name__)

IMPATIENT = 3.0
"""Seconds that a mirror has to answer when the bundled sample can stand in."""


@dataclass(frozen=True)
class Dataset:
    """One split of a data set: uint8 images (n, rows, cols) and labels (n,), which index `class_names`."""

    name: str
    digest: str
    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    class_names: tuple[str, ...]
    preparation: str

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int]:
        """Rows and columns of each image."""
        return self.images.shape[1], self.images.shape[2]


def cache_folder() -> Path:
    """Return the folder that data sets are kept in, from the environment; it need not exist.

    It is ``SOFTMAX_CACHE_DIR``, else ``$XDG_CACHE_HOME/softmax`` where that is absolute, as the XDG Base
    Directory Specification asks, else ``~/.cache/softmax``. Raises `ConfigError` where there is no home.
    """
    if chosen := os.environ.get("SOFTMAX_CACHE_DIR"):
        return Path(chosen)
    if (xdg := Path(os.environ.get("XDG_CACHE_HOME", ""))).is_absolute():
        return xdg / "softmax"
    try:
        return Path.home() / ".cache" / "softmax"
    except RuntimeError as error:
        raise ConfigError("there is no home folder to keep data in; set SOFTMAX_CACHE_DIR") from error


def load(name: str, split: str, source: Source) -> Dataset:
    """Return the ``train`` or ``test`` split of a data set: a name in the catalog, ``auto``, or a folder.

    ``auto`` is MNIST where the cache or a mirror has it, else the bundled sample, with one warning.
    Files of the catalog are checked against their SHA-256. Raises `ConfigError` for a name that is
    neither known nor a folder, and `DataError` for data that cannot be had or is not as it should be.
    """
    if name == "auto":
        return _load_auto(split, source)
    if name in CATALOG:
        return _load_entry(CATALOG[name], split, source)
    if Path(name).is_dir():
        return _load_folder(Path(name), split)
    raise ConfigError(f"dataset {name!r} is neither a folder nor one of auto, {', '.join(CATALOG)}")


def ensure(entry: Entry, source: Source, names: tuple[str, ...] = FILE_NAMES) -> None:
    """Download every file of a data set that is missing from the cache, if one of `names` is missing.

    Raises `DownloadError` naming the files where they are missing and ``source.offline`` forbids it.
    """
    folder = source.folder / entry.name
    missing = [name for name in FILE_NAMES if not _in_cache(folder / name)]
    if not set(names) & set(missing):
        return
    if source.offline:
        raise DownloadError(
            f"{entry.title} is not complete in {folder}, and --offline forbids a download: "
            f"{', '.join(missing)} missing; place them there (.gz will do), or leave --offline out"
        )
    log.info("downloading %s (%s) to %s", entry.title, entry.credit, folder)
    fetch(entry, missing, source)


def verified(entry: Entry, name: str, source: Source) -> NDArray[np.uint8]:
    """Return one file of the catalog, checked; a damaged one in the cache is fetched again, with a warning.

    Raises `DataError` for a damaged file when offline: damaged data are never used.
    """
    if entry.bundled:
        return _read_verified(entry.bundled / f"{name}.gz", entry.file(name))
    path = source.folder / entry.name / name
    try:
        return _read_cached(path, entry.file(name))
    except DataError as error:
        if source.offline:
            raise DataError(f"{error} (it is damaged; without --offline it is downloaded again)") from error
        log.warning("%s; downloading it again", error)
        fetch(entry, [name], source)
        return _read_cached(path, entry.file(name))


def hold_out(
    labels: NDArray[np.uint8], fraction: float, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return two sorted arrays of indices, to train on and to validate on, stratified by label.

    ``round(fraction * n)`` images are held out, from each class its share (the largest remainders are
    rounded up), drawn without replacement by ``default_rng((seed, 0))``. Raises `ConfigError` where one
    of the two parts would be empty.
    """
    n = len(labels)
    generator = np.random.default_rng((seed, 0))
    held = np.zeros(n, bool)
    for label, count in enumerate(_shares(np.bincount(labels), fraction)):
        held[generator.permutation(np.flatnonzero(labels == label))[:count]] = True
    if fraction and (held.all() or not held.any()):
        part = "training" if held.all() else "validation"
        raise ConfigError(f"validation-size {fraction} of {n:,} images leaves none for {part}")
    return np.flatnonzero(~held), np.flatnonzero(held)


def _shares(counts: NDArray[np.intp], fraction: float) -> NDArray[np.intp]:
    """Round ``fraction * counts`` so that the sum is right, too (the largest-remainder method)."""
    exact = fraction * counts
    shares: NDArray[np.intp] = np.floor(exact).astype(np.intp)
    missing = round(fraction * int(counts.sum())) - int(shares.sum())
    shares[np.argsort(shares - exact, kind="stable")[:missing]] += 1
    return shares


def _load_auto(split: str, source: Source) -> Dataset:
    count = len(source.mirrors) + len(MNIST.mirrors)
    impatient = replace(source, wait=min(IMPATIENT, 3 * IMPATIENT / count))
    try:
        return _load_entry(MNIST, split, impatient)
    except DownloadError:
        bounds = (*SAMPLE.reference["pixels"], *MNIST.reference["pixels"])
        log.warning(
            "MNIST is not in the cache and could not be downloaded, so the bundled sample of 6,000 of its "
            "digits is used; expect %.0f to %.0f %% on the test set instead of %.0f to %.1f %%. "
            "The reason is shown by: softmax download",
            *(100 * bound for bound in bounds),
        )
        return _load_entry(SAMPLE, split, source)


def _load_entry(entry: Entry, split: str, source: Source) -> Dataset:
    if not entry.bundled:
        ensure(entry, source, SPLITS[split])
    images, labels = (verified(entry, name, source) for name in SPLITS[split])
    return _checked(Dataset(entry.name, entry.digest, images, labels, entry.class_names, entry.preparation))


def _load_folder(folder: Path, split: str) -> Dataset:
    paths = {name: _plain_or_compressed(folder, name) for name in FILE_NAMES}
    labels = {name: read_idx(paths[name], "labels") for _, name in SPLITS.values()}
    images = {name: read_idx(paths[name], "images") for name in SPLITS[split][:1]}
    count = 1 + max(int(values.max()) for values in labels.values())
    if count < 2:
        raise DataError(f"{folder} holds images of one class only; two are needed to tell apart")
    identity = [read_header(path, _kind(name)) for name, path in paths.items()]
    digest = sha256(*identity, *(values.data for values in labels.values()))
    image_name, label_name = SPLITS[split]
    names = tuple(map(str, range(count)))
    name = folder.resolve().name
    return _checked(Dataset(name, digest, images[image_name], labels[label_name], names, "plain"))


def _plain_or_compressed(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if os.path.exists(path):
            return path
    raise DataError(f"{folder} holds neither {name} nor {name}.gz; a data set needs {', '.join(FILE_NAMES)}")


def _in_cache(path: Path) -> bool:
    return os.path.exists(path) or os.path.exists(f"{path}.gz")


def _read_cached(path: Path, file: IdxFile) -> NDArray[np.uint8]:
    compressed = path.with_name(f"{path.name}.gz")
    try:
        if os.path.exists(path) or not os.path.exists(compressed):
            return _read_verified(path, file)
    except DataError:
        if not os.path.exists(compressed):
            raise
    try:
        _unpack(compressed, path, file.size)
    except OutputError:  # a cache that cannot be written still works, at the price of inflating each time
        return _read_verified(compressed, file)
    return _read_verified(path, file)


def _unpack(compressed: Path, path: Path, size: int) -> None:
    try:
        with open_regular(compressed, DataError) as file, atomic_write(path) as out:
            for piece in inflate(chunks(file), size):
                out.write(piece)
    except ValueError as error:
        raise DataError(f"{compressed} {error}; get it again") from error


def _read_verified(path: Path, file: IdxFile) -> NDArray[np.uint8]:
    array = read_idx(path, _kind(file.name))
    found = sha256(encode_header(array.shape), array.data)
    if found != file.sha256:
        raise DataError(f"{path} has SHA-256 {found}, expected {file.sha256}")
    return array


def _kind(name: str) -> str:
    return "images" if "images" in name else "labels"


def _checked(data: Dataset) -> Dataset:
    """Return `data` if its parts fit together; raise `DataError` if they do not."""
    images, labels, classes = data.images, data.labels, len(data.class_names)
    if len(images) != len(labels):
        raise DataError(f"{data.name} holds {len(images):,} images but {len(labels):,} labels")
    if int(labels.max()) >= classes:
        index = int(np.argmax(labels >= classes))
        raise DataError(f"label {index} of {data.name} is {labels[index]}, expected at most {classes - 1}")
    return data
