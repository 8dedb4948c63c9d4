"""The cache: verified files of known data sets, remembered paths of others."""

import json
import logging
import os
import re
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from softmax_cli.data.catalog import FILE_NAMES, Entry, IdxFile
from softmax_cli.data.download import Source, fetch
from softmax_cli.data.readers import ReadOptions
from softmax_cli.data.readers.idx import encode_header, kind_of, read_idx
from softmax_cli.errors import ConfigError, DataError, DownloadError, OutputError
from softmax_cli.files import atomic_write, chunks, exists, inflate, open_regular, sha256

log = logging.getLogger(__name__)

PATH_LIMIT = 1 << 14
"""Largest size of a remembered path in bytes."""


def ensure(entry: Entry, source: Source, names: tuple[str, ...] = FILE_NAMES) -> None:
    """Download the missing files of a data set if one of `names` is missing.

    Raises:
        DownloadError: Files are missing and ``source.offline`` is set, or no mirror has them.
    """
    folder = source.cache / entry.name
    missing = [name for name in FILE_NAMES if not _in_cache(folder / name)]
    if not set(names) & set(missing):
        return
    if source.offline:
        raise DownloadError(
            f"{entry.title} is not complete in {folder}, and --offline forbids a download: "
            f"{', '.join(missing)} missing; place the files there (also as .gz), or run without --offline"
        )
    log.info("downloading %s (%s) to %s", entry.title, entry.credit, folder)
    fetch(entry, missing, source)


def verified(entry: Entry, name: str, source: Source) -> NDArray[np.uint8]:
    """Return the content of one file of a known data set, checked by its SHA-256.

    A damaged file in the cache is downloaded again, with a warning.

    Raises:
        DataError: The file is damaged and ``source.offline`` is set.
    """
    if entry.bundled:
        return _read_verified(entry.bundled / f"{name}.gz", entry.file(name))
    path = source.cache / entry.name / name
    try:
        return _read_cached(path, entry.file(name))
    except DataError as error:
        if source.offline:
            raise DataError(f"{error} (it is damaged; without --offline it is downloaded again)") from error
        log.warning("%s; downloading it again", error)
        fetch(entry, [name], source)
        return _read_cached(path, entry.file(name))


def remember_path(digest: str, path: Path, source: Source) -> None:
    """Store where and how the data set of that digest was read, if the cache can be written."""
    with suppress(OSError, OutputError, ConfigError, ValueError):
        note = _path_note(digest, source)
        note.parent.mkdir(parents=True, exist_ok=True)
        reading = {name: getattr(source.reading, name) for name in _REMEMBERED}
        with atomic_write(note) as file:
            file.write(os.fsencode(Path(path).resolve()) + b"\0" + json.dumps(reading).encode())


def remembered(digest: str, source: Source) -> tuple[Path | None, ReadOptions]:
    """Return where the data set of that digest was last read from, which may be gone, and how.

    The path is None if it is not known.
    """
    with (
        suppress(OSError, DataError, ConfigError, *_INVALID),
        open_regular(_path_note(digest, source), DataError) as file,
    ):
        path, _, options = file.read(PATH_LIMIT).partition(b"\0")
        found = json.loads(options or b"{}")
        if size := found.get("image_size"):
            found["image_size"] = tuple(size)
        return Path(os.fsdecode(path)), ReadOptions(**found)
    return None, ReadOptions()


_INVALID = (ValueError, TypeError, AttributeError, RecursionError)
"""Errors for notes that are not what `remember_path` writes."""

_REMEMBERED = ("image_size", "preparation", "skip_bad")


def _path_note(digest: str, source: Source) -> Path:
    if not re.fullmatch("[0-9a-f]{64}", digest):  # it may come from a checkpoint
        raise ValueError(digest)
    return source.cache / "paths" / digest


def _in_cache(path: Path) -> bool:
    return exists(path, DataError) or exists(f"{path}.gz", DataError)


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
    except OutputError:  # a read-only cache still works, but the file is inflated each time
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
    array = read_idx(path, kind_of(file.name))
    found = sha256(encode_header(array.shape), array.data)
    if found != file.sha256:
        raise DataError(f"{path} has SHA-256 {found}, expected {file.sha256}")
    return array
