"""Folders of pictures: a sub-folder for each class, or folders for training and testing with such inside."""

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from softmax_cli.data.decoding import decode_pictures
from softmax_cli.data.labels import as_labels, natural_key
from softmax_cli.data.readers import ReadOptions, Split
from softmax_cli.data.readers.npz import read_arrays
from softmax_cli.errors import DataError, OutputError
from softmax_cli.files import atomic_write, open_regular, sha256

log = logging.getLogger(__name__)

SPLIT_NAMES = {"train": ("train", "training"), "test": ("test", "testing")}
"""The names of sub-folders that are splits; the case does not matter."""

MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF")
"""How pictures start."""

FORMAT = b"1"
"""Version of the cached images: raise it if the same pictures give other images."""

TRIED = 20
"""Files that `detect` looks at in a folder."""


class Picture(NamedTuple):
    """A picture of a folder: the name of its class, the name of its file, and its path."""

    class_name: str
    name: str
    path: str


def detect(path: Path) -> bool:
    """Return whether a path is a folder with sub-folders that hold pictures."""
    try:
        folders = _split_folders(path)
        return any(
            starts_as_picture(file)
            for folder in folders.values()
            for class_folder in _folders(folder)
            for file in _files(class_folder)[:TRIED]
        )
    except (DataError, OSError):
        return False


def read(path: Path, split: str, options: ReadOptions) -> Split:
    """Return a split of a folder of pictures, made into images of a common size.

    The classes are the sub-folders of the folder itself, or of ``train`` and ``test`` inside of it. Images
    are ordered by file name over all classes; numbers in names count as numbers. Hidden files are ignored.
    All images are cached by the names, sizes and times of the files.

    Raises:
        DataError: A picture cannot be read and ``options.skip_bad`` is not set, or there are none.
    """
    folders = _split_folders(path)
    parts = {name: list_pictures(folder) for name, folder in folders.items()}
    for name, part in parts.items():
        if not part:
            raise DataError(f"{folders[name]} has no pictures; expected a sub-folder for each class")
    pictures = [picture for part in parts.values() for picture in part]
    images, readable = _read_all(path, pictures, options)
    names = tuple(sorted({picture.class_name for picture in pictures}, key=natural_key))
    index = {name: number for number, name in enumerate(names)}
    labels = as_labels([index[picture.class_name] for picture in pictures])[readable]
    border = int(readable[: len(parts["train"])].sum())
    is_whole = "test" not in folders
    rows = slice(0, border) if split == "train" or is_whole else slice(border, None)
    found = [os.path.relpath(one.path, path) for one, good in zip(pictures, readable, strict=True) if good]
    preparation = options.preparation or "plain"
    return Split(images[rows], labels[rows], names, preparation, is_whole, tuple(found[rows]))


def list_pictures(folder: Path) -> list[Picture]:
    """Return the files in the sub-folders of a folder, which are the classes, in the order of their names."""
    found = []
    for class_folder in _folders(folder):
        rank = natural_key(class_folder.name)
        for path in _files(class_folder):
            name = Path(path).name
            found.append((natural_key(name), rank, Picture(class_folder.name, name, path)))
    return [picture for *_, picture in sorted(found, key=lambda one: one[:2])]


def pictures_to_predict(path: Path) -> list[Path]:
    """Return the pictures of the test split, or of the whole folder if it has none, in order."""
    folders = _split_folders(path)
    return [Path(picture.path) for picture in list_pictures(folders.get("test", folders["train"]))]


def list_files(folder: Path) -> list[Path]:
    """Return the files in a folder itself, in the order of their names."""
    return sorted(map(Path, _files(folder)), key=lambda path: natural_key(path.name))


def _split_folders(path: Path) -> dict[str, Path]:
    """Return the folders of the splits, which hold class folders: ``train``, and perhaps ``test``."""
    by_name = {folder.name.lower(): folder for folder in _folders(path)}
    found = {
        split: by_name[name]
        for split, names in SPLIT_NAMES.items()
        for name in names
        if name in by_name and _folders(by_name[name])
    }
    return found if "train" in found else {"train": path}


def _folders(path: Path) -> list[Path]:
    return [Path(entry.path) for entry in os.scandir(path) if entry.is_dir() and _is_shown(entry.name)]


def _files(path: Path) -> list[str]:
    return [entry.path for entry in os.scandir(path) if entry.is_file() and _is_shown(entry.name)]


def _is_shown(name: str) -> bool:
    return not name.startswith((".", "__")) and name not in ("Thumbs.db", "desktop.ini")


def starts_as_picture(path: str | Path) -> bool:
    """Return whether a file starts as one in a usual format of pictures."""
    with open_regular(Path(path), DataError) as file:
        return file.read(4).startswith(MAGIC)


# The cache


def _read_all(
    path: Path, pictures: list[Picture], options: ReadOptions
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return the images (n, rows, cols) of all pictures that can be read, and which these are, (N,)."""
    if options.cache is None:
        return decode_pictures([Path(picture.path) for picture in pictures], options)
    place = options.cache / "pictures" / f"{sha256(os.fsencode(path.resolve()))[:32]}.npz"
    key = np.frombuffer(_fingerprint(pictures, options).encode(), np.uint8)
    with suppress(DataError):
        cached = read_arrays(place, ("key", "images", "readable"))
        images, readable = cached["images"], cached["readable"].astype(bool)
        is_whole = readable.shape == (len(pictures),) and images.shape[:1] == (int(readable.sum()),)
        if np.array_equal(cached["key"], key) and is_whole and images.ndim == 3 and images.dtype == np.uint8:
            return images, readable
    log.info("reading %s pictures in %s", f"{len(pictures):,}", path)
    images, readable = decode_pictures([Path(picture.path) for picture in pictures], options)
    if options.skip_bad and not readable.all():
        return images, readable  # not cached, so that each run says what it leaves out
    with suppress(OutputError, OSError):  # without a cache, the pictures are read each time
        place.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(place) as file:
            np.savez(file, key=key, images=images, readable=readable.astype(np.uint8))
    return images, readable


def _fingerprint(pictures: list[Picture], options: ReadOptions) -> str:
    """Return a digest of the names, sizes and times of the files, and of how they are read."""
    parts = [repr((FORMAT, options.image_size, options.preparation)).encode()]
    for picture in pictures:
        facts = os.stat(picture.path)  # noqa: PTH116  # no Path for each of many files
        parts.append(b"\0".join([os.fsencode(picture.path), f"{facts.st_size} {facts.st_mtime_ns}".encode()]))
    return sha256(b"\n".join(parts))
