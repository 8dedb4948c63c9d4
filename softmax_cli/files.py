"""Atomic writing, safe opening, bounded inflating, and digests of files."""

import errno
import io
import os
import re
import stat
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from softmax_cli.errors import ConfigError, OutputError, SoftmaxError, reason

try:
    import fcntl
except ImportError:  # Windows has no advisory locks
    fcntl = None  # type: ignore[assignment]

CHUNK = 1 << 16
"""Number of bytes that are read at a time."""

GZIP = b"\x1f\x8b"
"""How every gzip file starts."""

DEFLATE = 1100
"""Deflate shrinks at most 1,032 to 1."""

INFLATION = 200
FREE_BYTES = 1 << 28
"""How many times its size a compressed file may hold if that is more than 256 MiB."""

STRAY_AGE = 3600.0
"""Seconds without a write after which an unlocked temporary file is removed."""

NAME_LIMIT = 200
"""Bytes of a file name that the name of its temporary file repeats."""


@contextmanager
def atomic_write(path: Path, like: Path | None = None) -> Iterator[BinaryIO]:
    """Yield a binary file that replaces `path` when the block ends without an error.

    The bytes are written to a temporary file beside the target, synced to the disk, and renamed to the
    target. At every moment, the target is either the complete old file or the complete new one. If `path`
    is a symbolic link, its target is replaced and the link kept. The new file has the mode, the owner and
    the group of `like`, by default the file that it replaces, as far as the system permits.

    Raises:
        OutputError: The system refuses an operation. The old file is intact and no temporary file is left.
    """
    target = Path(os.path.realpath(path))
    temporary = None
    try:
        status = _status(like or target)
        temporary, descriptor = _create_temporary(target, 0o600 if status else 0o666)
        with open(descriptor, "wb") as file:
            _remove_strays(target, os.fstat(descriptor).st_mtime)
            if status:
                _set_attributes(descriptor, status)
            yield file
            file.flush()
            os.fsync(descriptor)
        with _synced(target.parent):
            os.replace(temporary, target)
        temporary = None
    except OSError as error:
        raise OutputError(f"cannot write {path}: {reason(error)}") from error
    finally:
        if temporary:
            _remove(temporary)


class FileLock:
    """An advisory lock on a file that is to be written, held until `release` or the end of the process.

    The lock is a file beside the target, so that it works for processes in other containers, too. The kernel
    releases it when its owner ends, for whatever reason. On a file system without locks, nothing is locked.

    Raises:
        OutputError: Another process holds the lock. The message names it.
    """

    _descriptor = -1

    def __init__(self, path: Path):
        target = Path(os.path.realpath(path))
        self._path = target.with_name(f".{_short_name(target)}.lock")
        try:
            while self._descriptor < 0:
                self._acquire(path)
        except OSError as error:
            raise OutputError(f"cannot lock {path} with {self._path}: {reason(error)}") from error

    def _acquire(self, path: Path) -> None:
        """Lock the file; leave the lock unset if its file was removed in the meantime."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | _SAFE, 0o666)
        try:
            _lock(descriptor)
            if _is_alone_at(descriptor, self._path):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, _identity().encode())
                self._descriptor = descriptor
        except BlockingIOError as error:
            owner = os.read(descriptor, 200).decode("utf-8", "replace") or "another process"
            raise OutputError(
                f"cannot write {path}: it is being written by {owner}; wait for it, or choose another name"
            ) from error
        finally:
            if self._descriptor < 0:
                os.close(descriptor)

    def release(self) -> None:
        """Release the lock and remove its file; do nothing if it is released already."""
        if self._descriptor >= 0:
            _remove(self._path)  # before the lock is released: another process may then have its own
            os.close(self._descriptor)
            self._descriptor = -1

    __del__ = release


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
    try:
        status = _status(target)
        if status and not stat.S_ISREG(status.st_mode):
            raise OutputError(f"cannot write {path}: it is not a regular file")
        temporary, descriptor = _create_temporary(target, 0o600)
        os.close(descriptor)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {reason(error)}") from error
    _remove(temporary)


def check_replaces(path: Path, start: bytes, what: str, option: str) -> None:
    """Raise `ConfigError` if a file at `path` does not begin with `start`.

    `what` is the expected kind of file, `option` the option that names it.
    """
    if not exists(path, OutputError):
        return
    with open_regular(path, OutputError) as file:
        if file.read(len(start)) not in (b"", start):
            raise ConfigError(f"{path} exists and is not a {what}; choose another {option}")


def exists(path: Path | str, error: type[SoftmaxError]) -> bool:
    """Return whether there is something at `path`; raise `error` if the system does not tell."""
    try:
        Path(path).stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a null character
        return False
    except OSError as problem:
        raise error(f"cannot read {path}: {reason(problem)}") from problem
    return True


def check_folder(path: Path, error: type[SoftmaxError]) -> None:
    """Raise `error` for a folder that cannot be listed or entered; do nothing for other files."""
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            os.scandir(path).close()
            os.lstat(os.path.join(path, "."))  # needs the permission to enter it
    except OSError as problem:
        raise error(f"cannot read {path}: {reason(problem)}") from problem


def open_regular(path: Path, error: type[SoftmaxError]) -> BinaryIO:
    """Open an existing regular file for reading, without blocking.

    Anything else raises `error`, and so does each later read that the system refuses.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | _NONBLOCKING)
    except OSError as problem:
        if problem.errno == errno.ENXIO:  # a socket
            raise error(f"{path} is not a regular file") from problem
        raise error(f"cannot read {path}: {reason(problem)}") from problem
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return io.BufferedReader(_UserFile(descriptor, path, error))
    os.close(descriptor)
    raise error(f"{path} is {'a folder, not a file' if stat.S_ISDIR(mode) else 'not a regular file'}")


class _UserFile(io.FileIO):
    """A file of the user: an operation that fails raises the error that `open_regular` was given."""

    def __init__(self, descriptor: int, path: Path, error: type[SoftmaxError]):
        super().__init__(descriptor, "rb")
        self._path, self._error = path, error

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer."""
        try:
            return super().readinto(buffer)
        except OSError as problem:
            raise self._error(f"cannot read {self._path}: {reason(problem)}") from problem

    def readall(self) -> bytes:
        """Read the rest of the file."""
        try:
            return super().readall()
        except OSError as problem:
            raise self._error(f"cannot read {self._path}: {reason(problem)}") from problem


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
                foreign = "header check" in str(error) and not total
                raise ValueError("is not a gzip file" if foreign else "is damaged") from error
            total += len(piece)
            yield piece
            if total > limit:
                raise ValueError(f"holds more than {limit:,} bytes")
            chunk = inflater.unused_data or inflater.unconsumed_tail
    if not inflater.eof:
        raise ValueError("is cut short")


def inflation_limit(compressed: int) -> int:
    """Return the bytes that a file or member of this size, compressed by deflate, may hold.

    Deflate shrinks images to a tenth, and zeros to a thousandth, of which a large file cannot consist.
    """
    return min(DEFLATE * compressed, max(FREE_BYTES, INFLATION * compressed))


def zip_directory_size(file: BinaryIO) -> int:
    """Return the bytes that the list of members of an archive takes; `zipfile` itself sets no limit.

    Raises:
        ValueError: The file does not end as an archive that numpy writes, which has no comment.
    """
    file.seek(-min(98, file.seek(0, os.SEEK_END)), os.SEEK_END)
    tail = file.read()
    record, locator, end = tail[:-42], tail[-42:-22], tail[-22:]
    if end[:4] != b"PK\5\6":
        raise ValueError("it does not end as an .npz file does")
    if locator[:4] == b"PK\6\7":  # an archive of more than 4 GiB: the record before it counts
        return int.from_bytes(record[40:48], "little")
    return int.from_bytes(end[12:16], "little")


def sha256(*parts: bytes | memoryview) -> str:
    """Return the hexadecimal SHA-256 of the concatenated parts."""
    import hashlib

    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


_NONBLOCKING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
_SAFE = getattr(os, "O_NOFOLLOW", 0) | _NONBLOCKING


def _create_temporary(target: Path, mode: int) -> tuple[Path, int]:
    """Return the path and the descriptor of a new, locked temporary file with an unpredictable name."""
    while True:
        temporary = target.with_name(f".{_short_name(target)}.{os.urandom(8).hex()}.tmp")
        with suppress(FileExistsError):
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFE, mode)
            with suppress(OSError):  # without the lock, its age protects it
                _lock(descriptor)
            return temporary, descriptor


def _short_name(target: Path) -> str:
    """Return the name of a file, or a digest of it if a name that extends it would be too long."""
    encoded = os.fsencode(target.name)
    return target.name if len(encoded) <= NAME_LIMIT else sha256(encoded)[:32]


def _lock(descriptor: int) -> None:
    """Lock an open file; raise `BlockingIOError` if another process has locked it."""
    if fcntl is None:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            raise  # else, the file system has no locks


def _is_alone_at(descriptor: int, path: Path) -> bool:
    """Return whether an open file is the one at `path`; raise `OSError` if it is more than a lock file."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        raise FileExistsError(errno.EEXIST, "that is another file; remove it")
    with suppress(FileNotFoundError):
        return os.path.samestat(status, path.lstat())
    return False


def _identity() -> str:
    """Return a description of this process for messages; nothing depends on it."""
    import platform
    import time

    return f"process {os.getpid()} on {platform.node()} since {time.strftime('%Y-%m-%d %H:%M:%S')}"


def _remove_strays(target: Path, now: float) -> None:
    """Remove old, unlocked temporary files beside `target`, which ended processes left.

    `now` is the time by the clock of the file system. Names of earlier versions are recognised, too.
    """
    pattern = re.compile(rf"\.{re.escape(_short_name(target))}\.[0-9a-f]{{1,32}}\.tmp")
    with suppress(OSError):  # a folder that cannot be listed may still be written
        for path in target.parent.iterdir():
            if pattern.fullmatch(path.name) and _is_stray(path, now):
                _remove(path)


def _is_stray(path: Path, now: float) -> bool:
    """Return whether a temporary file is old, unlocked, and ours to remove."""
    with suppress(OSError):
        status = path.lstat()
        return stat.S_ISREG(status.st_mode) and now - status.st_mtime > STRAY_AGE and _is_unlocked(path)
    return False


def _is_unlocked(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDWR | _SAFE)  # network file systems lock only what can be written
    try:
        _lock(descriptor)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _status(path: Path) -> os.stat_result | None:
    """Return the attributes of a file; None if there is none."""
    with suppress(FileNotFoundError):
        return path.stat()
    return None


def _set_attributes(descriptor: int, status: os.stat_result) -> None:
    """Give an open file the owner, the group and the permissions in `status`, as far as possible.

    If the group cannot be kept, it gets the permissions of others, so that no other group gains any.
    """
    if os.name == "nt":
        return
    mode = stat.S_IMODE(status.st_mode) & 0o777
    try:
        os.fchown(descriptor, status.st_uid, status.st_gid)
    except OSError:
        try:
            os.fchown(descriptor, -1, status.st_gid)
        except OSError:
            mode = mode & 0o707 | (mode & 0o007) << 3
    with suppress(OSError):  # some file systems have no permissions
        os.fchmod(descriptor, mode)


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
