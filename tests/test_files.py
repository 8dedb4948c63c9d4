"""Files that are never half there, and gzip streams that are never trusted."""

import gzip
import itertools
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softmax_cli import files
from softmax_cli.errors import DataError, OutputError
from softmax_cli.files import atomic_write, check_writable, chunks, inflate, open_regular, sha256
from tests.server import bomb


@pytest.fixture
def _umask_027() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def write(path: Path, content: bytes) -> None:
    with atomic_write(path) as file:
        file.write(content)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_written_file_appears_only_when_the_block_ends(work: Path) -> None:
    with atomic_write(Path("file")) as file:
        file.write(b"new")
        file.flush()
        assert not Path("file").exists()
    assert (Path("file").read_bytes(), names(work)) == (b"new", {"file"})


@pytest.mark.parametrize("problem", [ValueError, KeyboardInterrupt, SystemExit])
def test_error_in_the_block_leaves_the_old_file_and_no_temporary(
    work: Path, problem: type[BaseException]
) -> None:
    def fail() -> None:
        with atomic_write(Path("file")) as file:
            file.write(b"new")
            raise problem

    write(Path("file"), b"old")
    with pytest.raises(problem):
        fail()
    assert (Path("file").read_bytes(), names(work)) == (b"old", {"file"})


@pytest.mark.parametrize("operation", ["fsync", "replace"])
def test_refusal_by_the_system_is_an_output_error_and_the_old_file_stays(
    work: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    def refuse(*args: object) -> None:
        raise OSError(28, "No space left on device")

    write(Path("file"), b"old")
    monkeypatch.setattr(os, operation, refuse)
    with pytest.raises(OutputError, match="cannot write file: no space left on device"):
        write(Path("file"), b"new")
    assert (Path("file").read_bytes(), names(work)) == (b"old", {"file"})


def test_write_syncs_the_file_then_replaces_then_syncs_the_folder(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, replace, order = os.fsync, os.replace, []

    def note_fsync(descriptor: int) -> None:
        order.append("sync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync file")
        fsync(descriptor)

    def note_replace(source: Path, target: Path) -> None:
        order.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    write(Path("file"), b"new")
    assert order == ["sync file", "replace", "sync folder"]


@pytest.mark.parametrize("before", [b"old", None], ids=["existing", "dangling"])
def test_target_of_a_link_is_replaced_and_the_link_kept(work: Path, before: bytes | None) -> None:
    Path("there").mkdir()
    if before:
        Path("there/file").write_bytes(before)
    Path("link").symlink_to("there/file")
    write(Path("link"), b"new")
    assert (Path("link").readlink(), Path("there/file").read_bytes()) == (Path("there/file"), b"new")
    assert names(work / "there") == {"file"}


@pytest.mark.usefixtures("_umask_027")
def test_mode_of_a_written_file_follows_the_umask(work: Path) -> None:
    write(Path("file"), b"new")
    assert Path("file").stat().st_mode & 0o777 == 0o640


def test_temporaries_of_processes_that_are_gone_are_swept_and_no_others(work: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    kept = {f".file.{os.getppid()}.tmp", ".file.1.tmp", ".file.x.tmp", f".other.{gone.pid}.tmp", ".file.tmp"}
    for name in {*kept, f".file.{gone.pid}.tmp", f".file.{10**30}.tmp"}:
        Path(name).touch()
    write(Path("file"), b"new")
    assert names(work) == {"file", *kept}


def test_missing_folder_is_named_and_not_made(work: Path) -> None:
    with pytest.raises(OutputError, match="cannot write no/file: no such file or directory"):
        write(Path("no/file"), b"new")
    assert not names(work)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("folder", "it is a folder"),
        ("no/file", "no does not exist; make it first"),
        ("old/file", "old does not exist; make it first"),
        (os.devnull, "it is not a regular file"),
    ],
)
def test_path_that_cannot_be_written_is_found_beforehand(work: Path, path: str, reason: str) -> None:
    Path("folder").mkdir()
    Path("old").touch()
    with pytest.raises(OutputError, match=reason):
        check_writable(Path(path))


def test_refusal_is_found_beforehand(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files, "open", refuse, raising=False)
    with pytest.raises(OutputError, match="cannot write file: permission denied"):
        check_writable(Path("file"))


def test_check_changes_nothing(work: Path) -> None:
    Path("old").write_bytes(b"old")
    check_writable(Path("old"))
    check_writable(Path("new"))
    assert (Path("old").read_bytes(), names(work)) == (b"old", {"old"})


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("folder", "is a folder"),
        ("pipe", "is not a regular file"),
        ("/dev/zero", "is not a regular file"),
        ("missing", "no such file"),
        ("x" * 300, "file name too long"),
    ],
)
def test_only_regular_files_are_opened_and_nothing_blocks(work: Path, path: str, reason: str) -> None:
    Path("folder").mkdir()
    os.mkfifo("pipe")
    with pytest.raises(DataError, match=reason):
        open_regular(Path(path), DataError)


@given(st.binary(max_size=3000), st.integers(1, 60), st.integers(0, 3000))
def test_inflate_gives_the_content_however_it_is_cut_up(content: bytes, size: int, spare: int) -> None:
    compressed = gzip.compress(content)
    pieces = (compressed[i : i + size] for i in range(0, len(compressed), size))
    assert b"".join(inflate(pieces, len(content) + spare)) == content


def test_chunks_and_inflate_give_a_large_file(work: Path) -> None:
    content = os.urandom(5 * files.CHUNK + 7)
    Path("file.gz").write_bytes(gzip.compress(content, 1))
    with open("file.gz", "rb") as file:
        pieces = list(chunks(file))
    assert max(map(len, pieces)) == files.CHUNK
    assert b"".join(inflate(pieces, len(content))) == content


@pytest.mark.parametrize("limit", [0, 1, 999, 5_000_000])
def test_inflate_stops_one_byte_after_the_limit(limit: int) -> None:
    """An endless stream is read only as far as that takes."""
    found: list[int] = []
    with pytest.raises(ValueError, match=f"^holds more than {limit:,} bytes$"):
        found.extend(map(len, inflate(bomb(b"x"), limit)))
    assert sum(found) == limit + 1


def test_inflated_pieces_are_small() -> None:
    assert max(map(len, itertools.islice(inflate(bomb(), 1 << 40), 100))) <= 4 * files.CHUNK


GOOD = gzip.compress(bytes(range(256)) * 8, mtime=0)


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (b"", "is cut short"),
        (GOOD[:5], "is cut short"),
        (GOOD[:-20], "is cut short"),
        (GOOD[:-1], "is cut short"),
        (GOOD[:-8] + b"\0\0\0\0" + GOOD[-4:], "is damaged"),
        (GOOD[:-4] + b"\0\0\0\1", "is damaged"),
        (GOOD[:12] + b"\xff" + GOOD[13:], "is damaged"),
        (GOOD + b"\0", "has other bytes after its end"),
        (GOOD + GOOD, "has other bytes after its end"),
        (b"<!doctype html>", "is not a gzip file"),
        (b"\x1f\x8b but no more", "is damaged"),
    ],
    ids=["empty", "head", "body", "trailer", "crc", "length", "flipped", "after", "twice", "page", "magic"],
)
@pytest.mark.parametrize("size", [1, 1 << 16], ids=["bytewise", "at once"])
def test_damaged_stream_is_refused_with_its_reason(stream: bytes, reason: str, size: int) -> None:
    pieces = [stream[i : i + size] for i in range(0, len(stream), size)]
    with pytest.raises(ValueError, match=f"^{reason}$"):
        list(inflate(pieces, 10_000))


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
@settings(max_examples=200)
def test_one_changed_byte_never_gives_other_content(position: int, change: int) -> None:
    stream = bytearray(GOOD)
    stream[position] ^= change
    try:
        content = b"".join(inflate([bytes(stream)], 10_000))
    except ValueError:
        return
    assert content == gzip.decompress(GOOD)


def test_sha256_is_that_of_the_parts_in_a_row() -> None:
    """The value is the one that FIPS 180-2 publishes for "abc"."""
    assert sha256(b"a", memoryview(b"bc")) == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
