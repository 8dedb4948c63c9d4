"""Files: atomic writing, opening of regular files only, limited inflating."""

import gzip
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softmax_cli import files
from softmax_cli.errors import DataError, OutputError
from softmax_cli.files import atomic_write, check_writable, chunks, inflate, open_regular, sha256
from tests.helpers import names, unprivileged
from tests.server import bomb


@pytest.fixture
def _umask_027() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the current folder, with paths of each kind.

    Unlike `tmp_path`, it is open to `unprivileged` users.
    """
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        monkeypatch.chdir(folder)
        Path("file").write_bytes(b"old")
        Path("folder").mkdir()
        Path("link").symlink_to("folder")
        os.mkfifo("pipe")
        Path("secret").touch(mode=0)
        Path("closed").mkdir(mode=0)
        Path("read-only").mkdir(mode=0o555)
        yield Path(folder)


def write(path: Path, content: bytes) -> None:
    with atomic_write(path) as file:
        file.write(content)


# Writing


def test_written_file_appears_only_when_the_block_ends(work: Path) -> None:
    with atomic_write(Path("file")) as file:
        file.write(b"new")
        file.flush()
        assert not Path("file").exists()
    assert (Path("file").read_bytes(), names(work)) == (b"new", ["file"])


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
    assert (Path("file").read_bytes(), names(work)) == (b"old", ["file"])


def test_c3_write_syncs_the_whole_file_then_replaces_then_syncs_the_folder(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, replace, order = os.fsync, os.replace, []

    def note_fsync(descriptor: int) -> None:
        status = os.fstat(descriptor)
        order.append(("sync", status.st_ino, status.st_size))
        fsync(descriptor)

    def note_replace(source: Path, target: Path) -> None:
        order.append(("replace", Path(source).parent, target))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    write(Path("file"), b"new")
    file, folder = Path("file").stat(), work.stat()
    assert order[:2] == [("sync", file.st_ino, 3), ("replace", work, work / "file")]
    assert [step[:2] for step in order[2:]] == [("sync", folder.st_ino)]


@pytest.mark.parametrize("before", [b"old", None], ids=["existing", "dangling"])
def test_target_of_a_link_is_replaced_and_the_link_kept(work: Path, before: bytes | None) -> None:
    Path("there").mkdir()
    if before:
        Path("there/file").write_bytes(before)
    Path("link").symlink_to("there/file")
    check_writable(Path("link"))
    write(Path("link"), b"new")
    assert (Path("link").readlink(), Path("there/file").read_bytes()) == (Path("there/file"), b"new")
    assert names(work / "there") == ["file"]


@pytest.mark.usefixtures("_umask_027")
def test_mode_of_a_written_file_follows_the_umask(work: Path) -> None:
    write(Path("file"), b"new")
    assert Path("file").stat().st_mode & 0o777 == 0o640


def test_missing_folder_is_named_and_not_created(work: Path) -> None:
    with pytest.raises(OutputError, match="cannot write no/file: no such file or directory"):
        write(Path("no/file"), b"new")
    assert names(work) == []


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("folder", "it is a folder; give the name of a file"),
        ("link", "it is a folder; give the name of a file"),
        ("pipe", "it is not a regular file"),
        ("no/file", "does not exist; make it first"),
        ("file/new", "does not exist; make it first"),
        ("read-only/new", "permission denied"),
        ("closed/new", "permission denied"),
        ("n" * 300, "file name too long"),
    ],
)
def test_c14_output_that_cannot_be_written_is_refused_without_changes(
    shared: Path, path: str, reason: str
) -> None:
    before = names(shared)
    with unprivileged(), pytest.raises(OutputError) as caught:
        check_writable(Path(path))
    assert str(caught.value).startswith(f"cannot write {path}: ")
    assert reason in str(caught.value)
    assert (names(shared), names(shared / "folder")) == (before, [])


def test_output_that_can_be_written_is_not_changed_by_the_check(work: Path) -> None:
    Path("old").write_bytes(b"old")
    before = Path("old").stat()
    check_writable(Path("old"))
    check_writable(Path("new"))
    assert (Path("old").read_bytes(), Path("old").stat().st_mtime_ns) == (b"old", before.st_mtime_ns)
    assert names(work) == ["old"]


# Opening


@pytest.mark.usefixtures("alarm")
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("folder", "folder is a folder, not a file"),
        ("pipe", "pipe is not a regular file"),
        ("/dev/zero", "/dev/zero is not a regular file"),
        ("missing", "cannot read missing: no such file or directory"),
        ("file/new", "cannot read file/new: not a directory"),
        ("secret", "cannot read secret: permission denied"),
        ("closed/file", "cannot read closed/file: permission denied"),
        ("n" * 300, f"cannot read {'n' * 300}: file name too long"),
    ],
)
def test_only_regular_files_are_opened_and_nothing_blocks(shared: Path, path: str, message: str) -> None:
    with unprivileged(), pytest.raises(DataError) as caught:
        open_regular(Path(path), DataError)
    assert str(caught.value) == message


# Inflating


@given(st.binary(max_size=3000), st.integers(1, 60), st.integers(0, 3000))
def test_inflated_content_does_not_depend_on_the_size_of_the_chunks(
    content: bytes, size: int, spare: int
) -> None:
    compressed = gzip.compress(content)
    pieces = (compressed[i : i + size] for i in range(0, len(compressed), size))
    assert b"".join(inflate(pieces, len(content) + spare)) == content


def test_large_file_is_read_in_chunks_and_inflated(work: Path) -> None:
    content = os.urandom(5 * files.CHUNK + 7)
    Path("file.gz").write_bytes(gzip.compress(content, 1))
    with open("file.gz", "rb") as file:
        pieces = list(chunks(file))
    assert max(map(len, pieces)) == files.CHUNK
    assert b"".join(inflate(pieces, len(content))) == content


@pytest.mark.parametrize("limit", [0, 1, 999, 5_000_000])
def test_at_most_one_byte_over_the_limit_is_inflated(limit: int) -> None:
    """The stream is endless, but is read only as far as necessary."""
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
        (GOOD + b"\1", "has other bytes after its end"),
        (GOOD + GOOD[:5], "is cut short"),
        (b"<!doctype html>", "is not a gzip file"),
        (b"\x1f\x8b but no more", "is damaged"),
    ],
    ids=[
        "empty",
        "head",
        "body",
        "trailer",
        "crc",
        "length",
        "flipped",
        "after",
        "second cut",
        "page",
        "magic",
    ],
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


def test_sha256_is_that_of_the_concatenated_parts() -> None:
    """The value is the one that FIPS 180-2 publishes for "abc"."""
    assert sha256(b"a", memoryview(b"bc")) == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
