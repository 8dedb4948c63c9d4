"""The IDX format: exact, or refused with what was expected and what was found."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from softmax_cli.data.idx import encode_header, read_header, read_idx, write_idx
from softmax_cli.errors import DataError, OutputError
from tests.server import bomb, run_child

IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
LABELS = np.array([3, 0, 255], np.uint8)
GOOD = encode_header((2, 3, 4)) + IMAGES.tobytes()
LARGEST = 0xFFFFFFFF


def header(*shape: int, magic: bytes = b"\0\0\x08") -> bytes:
    return magic + bytes([len(shape)]) + struct.pack(f">{len(shape)}I", *shape)


def test_header_is_as_the_format_defines_it() -> None:
    assert encode_header((60_000, 28, 28)) == bytes.fromhex("00000803 0000ea60 0000001c 0000001c")
    assert encode_header((10_000,)) == bytes.fromhex("00000801 00002710")


@pytest.mark.parametrize("name", ["data", "data.gz"])
@pytest.mark.parametrize(("kind", "array"), [("images", IMAGES), ("labels", LABELS)])
def test_written_array_is_read_back(work: Path, name: str, kind: str, array: np.ndarray) -> None:
    write_idx(Path(name), array)
    found = read_idx(Path(name), kind)
    assert (found.dtype, found.shape, found.tobytes()) == (np.uint8, array.shape, array.tobytes())
    assert read_header(Path(name), kind) == encode_header(array.shape)


def test_same_array_gives_the_same_bytes_each_time(work: Path) -> None:
    write_idx(Path("one.gz"), IMAGES)
    write_idx(Path("other.gz"), IMAGES)
    assert Path("one.gz").read_bytes() == Path("other.gz").read_bytes()
    assert Path("one.gz").read_bytes()[4:8] == bytes(4)  # no time in the gzip header


def test_array_that_cannot_be_written_is_an_output_error(work: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot write no/data\.gz"):
        write_idx(Path("no/data.gz"), IMAGES)


@pytest.mark.parametrize("name", ["data", "data.gz"])
def test_arrays_that_are_read_cannot_be_changed(work: Path, name: str) -> None:
    write_idx(Path(name), IMAGES)
    with pytest.raises(ValueError, match="read-only"):
        read_idx(Path(name), "images")[0, 0, 0] = 1


def test_plain_file_is_a_memory_map(work: Path) -> None:
    """A change of the file is a change of the array, so nothing was copied."""
    write_idx(Path("data"), IMAGES)
    array = read_idx(Path("data"), "images")
    with open("data", "r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xaa")
    assert array[-1, -1, -1] == 0xAA


BAD_HEADERS = {
    "empty": (b"", "images", "too short for an IDX file: 0 bytes"),
    "short": (GOOD[:15], "images", "too short for an IDX file: 15 bytes"),
    "page": (b"<!doctype html> and so on", "images", "starts with 3c21646f, expected 00000803"),
    "little-endian": (b"\3\x08\0\0" + GOOD[4:], "images", "expected 00000803: it is little-endian"),
    "labels": (header(24) + bytes(24), "images", "starts with 00000801, .* it holds labels where images"),
    "images": (GOOD, "labels", "starts with 00000803, expected 00000801: it holds images where labels"),
    "floats": (header(2, 3, 4, magic=b"\0\0\x0d") + GOOD[16:], "images", "starts with 00000d03, expected"),
    "no images": (header(0, 3, 4), "images", "is empty: its dimensions are 0 x 3 x 4"),
    "no rows": (header(2, 0, 4), "images", "is empty: its dimensions are 2 x 0 x 4"),
    "no labels": (header(0), "labels", "is empty: its dimensions are 0"),
}


@pytest.mark.parametrize("read", [read_idx, read_header])
@pytest.mark.parametrize("name", ["data", "data.gz"])
@pytest.mark.parametrize(("content", "kind", "reason"), BAD_HEADERS.values(), ids=BAD_HEADERS)
def test_wrong_header_is_refused(
    work: Path, read: Callable[..., object], name: str, content: bytes, kind: str, reason: str
) -> None:
    Path(name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    with pytest.raises(DataError, match=f"^{name} .*{reason}"):
        read(Path(name), kind)


def test_compressed_file_without_gz_in_its_name_is_recognised(work: Path) -> None:
    Path("data").write_bytes(gzip.compress(GOOD))
    with pytest.raises(DataError, match=r"gzip-compressed, so its name should end in \.gz"):
        read_idx(Path("data"), "images")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("data", GOOD[:-1], "^data holds 39 bytes, expected 40"),
        ("data", GOOD + b"\0", "^data holds 41 bytes, expected 40"),
        ("data.gz", GOOD[:-1], "^data.gz holds 39 bytes, expected 40"),
        ("data.gz", GOOD + b"\0", "^data.gz holds more than 40 bytes"),
    ],
)
def test_one_byte_too_few_or_too_many_is_refused(work: Path, name: str, content: bytes, reason: str) -> None:
    Path(name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    with pytest.raises(DataError, match=reason):
        read_idx(Path(name), "images")


@pytest.mark.parametrize(
    ("kind", "shape", "size"),
    [
        ("images", (LARGEST, LARGEST, LARGEST), LARGEST**3 + 16),
        ("images", (LARGEST, 28, 28), LARGEST * 784 + 16),
        ("labels", (LARGEST,), LARGEST + 8),
    ],
)
@pytest.mark.parametrize("name", ["data", "data.gz"])
def test_huge_promise_is_refused_before_anything_is_allocated(
    work: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str, shape: tuple[int, ...], size: int
) -> None:
    def allocate(*args: object) -> None:
        raise AssertionError("something was allocated")

    content = header(*shape) + bytes(100)
    Path(name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    monkeypatch.setattr(np, "empty", allocate)
    with pytest.raises(DataError, match=f"^{name} .*{size:,}"):
        read_idx(Path(name), kind)


PACKED = gzip.compress(GOOD)


@pytest.mark.parametrize(
    ("packed", "reason"),
    [
        (PACKED[: len(PACKED) // 2], "is cut short"),
        (PACKED[:-9], "is cut short"),
        (PACKED[:-1], "is cut short"),
        (PACKED[:-8] + b"\0\0\0\0" + PACKED[-4:], "is damaged"),
        (PACKED + b"garbage", "has other bytes after its end"),
        (GOOD, "is not a gzip file"),
        (b"", "is cut short"),
    ],
    ids=["half", "body", "trailer", "crc", "garbage", "plain", "empty"],
)
def test_damaged_compressed_file_is_named(work: Path, packed: bytes, reason: str) -> None:
    Path("data.gz").write_bytes(packed)
    with pytest.raises(DataError, match=f"^data.gz {reason}; get it again"):
        read_idx(Path("data.gz"), "images")


def test_compressed_file_can_be_cut_nowhere(work: Path) -> None:
    for length in range(len(PACKED)):
        Path("data.gz").write_bytes(PACKED[:length])
        with pytest.raises(DataError, match=r"^data\.gz "):
            read_idx(Path("data.gz"), "images")


def test_gzip_bomb_is_refused_within_a_gigabyte(work: Path) -> None:
    """Four gigabytes of zeros follow a header that promises a thousand labels."""
    with open("bomb.gz", "wb") as file:
        file.writelines(bomb(header(1000), megabytes=4096))
    code = (
        "from pathlib import Path\nfrom softmax_cli.data.idx import read_idx\n"
        "read_idx(Path('bomb.gz'), 'labels')"
    )
    result = run_child(code, folder=work, RLIMIT_AS=1 << 30)
    assert "DataError: bomb.gz holds more than 1,008 bytes" in result.stderr.splitlines()[-1]
