"""Atomic writing, safe opening, bounded inflating, and digests of files."""

import os
import re
import stat
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from softmax_cli.errors import ConfigError, OutputError, SoftmaxError, reason

CHUNK = 1 << 16
"""Number of bytes that are read at a time."""

GZIP = b"\x1f\x8b"
"""How every gzip file starts."""


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Yield a binary file that replaces `path` when the block ends without an error.

    The bytes are written to a temporary file beside the target, synced to the disk, and renamed to the
    target. At every moment, the target is either the complete old file or the complete new one. If `path`
    is a symbolic link, its target is replaced and the link kept.

    Raises:
        OutputError: The system refuses an operation. The old file is intact and no temporary file is left.
    """
    target = Path(os.path.realpath(path))
    temporary = _temporary(target)
    try:
        _sweep(target)
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with _synced(target.parent):
            os.replace(temporary, target)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {reason(error)}") from error
    finally:
        _remove(temporary)


def check_writable(path: Path) -> None:
    """Raise `OutputError` unless a file could be written at `path`; change nothing."""
    target = Path(os.path.realpath(path))
    if os.path.isdir(target):
        raise OutputError(f"cannot write {path}: it is a folder; give the name of a file")
    if not os.path.isdir(target.parent):
        try:
            target.parent.stat()
        except PermissionError as error:
            raise OutputError(f"cannot write {path}: {reason(error)}") from error
        except OSError:
            pass  # reported below
        raise OutputError(f"cannot write {path}: the folder {target.parent} does not exist; make it first")
    if os.path.exists(target) and not os.path.isfile(target):
        raise OutputError(f"cannot write {path}: it is not a regular file")
    temporary = _temporary(target)
    try:
        open(temporary, "wb").close()
    except OSError as error:
        raise OutputError(f"cannot write {path}: {reason(error)}") from error
    finally:
        _remove(temporary)


def check_replaces(path: Path, start: bytes, what: str, option: str) -> None:
    """Raise `ConfigError` if a file at `path` does not begin with `start`.

    `what` is the expected kind of file, `option` the option that names it.
    """
    if not path.exists():
        return
    with open_regular(path, OutputError) as file:
        if file.read(len(start)) not in (b"", start):
            raise ConfigError(f"{path} exists and is not a {what}; choose another {option}")


def open_regular(path: Path, error: type[SoftmaxError]) -> BinaryIO:
    """Open an existing regular file for reading, without blocking.

    Anything else raises `error`.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise error(f"{path} is a folder, not a file")
        if not stat.S_ISREG(mode):
            raise error(f"{path} is not a regular file")
        return open(path, "rb")
    except OSError as problem:
        raise error(f"cannot read {path}: {reason(problem)}") from problem


def chunks(file: BinaryIO) -> Iterator[bytes]:
    """Yield the rest of a file in pieces of at most `CHUNK` bytes."""
    while chunk := file.read(CHUNK):
        yield chunk


def is_gzip(head: bytes, name: str = "") -> bool:
    """Return whether a file that starts with `head` is compressed with gzip.

    A file of one byte or none does not tell; then the end of its name does.
    """
    return head[:2] == GZIP if len(head) > 1 else GZIP.startswith(head) and name.endswith(".gz")


def inflate(compressed: Iterable[bytes], limit: int) -> Iterator[bytes]:
    """Yield the content of a gzip file in small pieces, at most `limit` + 1 bytes.

    A file may have several members, with zeros after each, as `gzip` reads it. The CRC and the length in the
    trailer of each member are checked.

    Raises:
        ValueError: The stream is not gzip, damaged, cut short, longer than `limit`, or followed by other
            bytes; the message is a short predicate.
    """
    inflater = zlib.decompressobj(wbits=31)  # 31: gzip header and trailer
    total = 0
    for chunk in compressed:
        while chunk:
            if inflater.eof:
                if not (chunk := chunk.lstrip(b"\0")):
                    break
                if chunk[:1] != GZIP[:1]:
                    raise ValueError("has other bytes after its end")
                inflater = zlib.decompressobj(wbits=31)
            try:
                piece = inflater.decompress(chunk, min(4 * CHUNK, limit + 1 - total))
            except zlib.error as error:
                foreign = "header check" in str(error)
                raise ValueError("is not a gzip file" if foreign else "is damaged") from error
            total += len(piece)
            yield piece
            if total > limit:
                raise ValueError(f"holds more than {limit:,} bytes")
            chunk = inflater.unused_data or inflater.unconsumed_tail
    if not inflater.eof:
        raise ValueError("is cut short")


def sha256(*parts: bytes | memoryview) -> str:
    """Return the hexadecimal SHA-256 of the concatenated parts."""
    import hashlib

    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _temporary(target: Path) -> Path:
    return target.with_name(f".{target.name}.{os.getpid()}.tmp")


def _sweep(target: Path) -> None:
    """Remove temporary files that processes left beside `target` before they ended."""
    pattern = re.compile(rf"\.{re.escape(target.name)}\.(\d+)\.tmp")
    for path in target.parent.iterdir():
        if (match := pattern.fullmatch(path.name)) and not _is_running(int(match[1])):
            _remove(path)


def _is_running(process: int) -> bool:
    if os.name == "nt":  # there, signal 0 is a real signal; keep the file
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


@contextmanager
def _synced(folder: Path) -> Iterator[None]:
    """Sync `folder` after the block, so that a rename in it survives a power cut.

    If the folder cannot be synced, the rename has happened nevertheless; this is not an error.
    """
    if os.name == "nt":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    with suppress(OSError):  # in a folder that cannot be written there is no temporary file
        path.unlink(missing_ok=True)
