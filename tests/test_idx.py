"""The IDX format: files are read exactly, or refused with a reason."""

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from softmax_cli.data.readers import ReadOptions
from softmax_cli.data.readers.idx import detect, encode_header, read, read_idx, write_idx
from softmax_cli.errors import DataError
from tests.server import bomb, run_child

IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
LABELS = np.array([3, 0, 255], np.uint8)
LARGEST = 0xFFFFFFFF


def header(*shape: int, code: int = 8) -> bytes:
    return bytes([0, 0, code, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)


def write(name: str, content: bytes) -> Path:
    Path(name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return Path(name)


GOOD = header(2, 3, 4) + IMAGES.tobytes()


def test_header_is_as_the_format_defines_it() -> None:
    assert encode_header((60_000, 28, 28)) == bytes.fromhex("00000803 0000ea60 0000001c 0000001c")
    assert encode_header((10_000,)) == bytes.fromhex("00000801 00002710")


@pytest.mark.parametrize("name", ["data", "data.gz"])
@pytest.mark.parametrize(("kind", "array"), [("images", IMAGES), ("images", IMAGES[:1]), ("labels", LABELS)])
def test_written_array_is_read_back(work: Path, name: str, kind: str, array: np.ndarray) -> None:
    write_idx(Path(name), array)
    np.testing.assert_array_equal(read_idx(Path(name), kind), array, strict=True)


@pytest.mark.parametrize("name", ["data", "data.gz"])
@pytest.mark.parametrize(
    ("code", "pack", "values", "dtype"),
    [
        (0x09, ">b", [1, 0, 127], np.uint8),
        (0x0B, ">h", [1, 0, 999], np.uint16),
        (0x0B, ">h", [1, 0, 2], np.uint8),
        (0x0C, ">i", [1, 0, 256], np.uint16),
        (0x0C, ">i", [1, 0, 65_536], np.uint32),
    ],
)
def test_x7_labels_of_other_types_are_read_as_the_smallest_unsigned_type(
    work: Path, name: str, code: int, pack: str, values: list[int], dtype: type
) -> None:
    write(name, header(3, code=code) + b"".join(struct.pack(pack, value) for value in values))
    np.testing.assert_array_equal(read_idx(Path(name), "labels"), np.array(values, dtype), strict=True)


def test_negative_label_is_named_with_its_index(work: Path) -> None:
    path = write("data", header(3, code=0x0B) + struct.pack(">3h", 0, 1, -2))
    with pytest.raises(DataError, match=r"^data: label 2 is -2, expected 0 or more$"):
        read_idx(path, "labels")


def test_same_array_gives_the_same_bytes_each_time(work: Path) -> None:
    write_idx(Path("one.gz"), IMAGES)
    write_idx(Path("other.gz"), IMAGES)
    assert Path("one.gz").read_bytes() == Path("other.gz").read_bytes()
    assert Path("one.gz").read_bytes()[4:8] == bytes(4)  # no time in the gzip header


@pytest.mark.parametrize("name", ["data", "data.gz"])
def test_arrays_are_read_only(work: Path, name: str) -> None:
    write_idx(Path(name), IMAGES)
    with pytest.raises(ValueError, match="read-only"):
        read_idx(Path(name), "images")[0, 0, 0] = 1


def test_plain_file_is_a_memory_map(work: Path) -> None:
    """A change of the file changes the array, because nothing was copied."""
    write_idx(Path("data"), IMAGES)
    array = read_idx(Path("data"), "images")
    with open("data", "r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xaa")
    assert array[-1, -1, -1] == 0xAA


REFUSED = {
    "empty": (b"", "images", "too short for an IDX file: 0 bytes"),
    "short": (GOOD[:15], "images", "too short for an IDX file: 15 bytes"),
    "page": (b"<!doctype html> and so on", "images", "3c21646f, expected 00000803: it is not an IDX file"),
    "two bytes": (b"ab" + GOOD[2:], "images", "starts with 61620803, .*: it is not an IDX file"),
    "no type": (b"\0\0\x07\x08" + GOOD[4:], "images", "starts with 00000708, .*: it is not an IDX file"),
    "no dimensions": (b"\0\0\x08\0" + GOOD[4:], "images", "starts with 00000800, .*: it is not an IDX file"),
    "little-endian": (b"\3\x08\0\0" + GOOD[4:], "images", "expected 00000803: it is little-endian"),
    "labels": (header(24) + bytes(24), "images", "starts with 00000801, .* it holds labels, not images"),
    "images": (GOOD, "labels", "starts with 00000803, expected 00000801: it holds images, not labels"),
    **{
        f"{name} images": (header(2, 3, code=code) + bytes(48), "images", f"{name} values in 2 dimensions")
        for code, name in [
            (8, "uint8"),
            (9, "int8"),
            (11, "int16"),
            (12, "int32"),
            (13, "float32"),
            (14, "float64"),
        ]
    },
    "float labels": (header(3, code=0x0D) + bytes(12), "labels", "float32 values in 1 dimension$"),
    "no images": (header(0, 3, 4), "images", "is empty: its dimensions are 0 x 3 x 4"),
    "no rows": (header(2, 0, 4), "images", "is empty: its dimensions are 2 x 0 x 4"),
    "no labels": (header(0), "labels", "is empty: its dimensions are 0"),
    "one byte short": (GOOD[:-1], "images", "has 39 bytes, expected 40"),
    "one int16 short": (header(3, code=0x0B) + bytes(4), "labels", "has 12 bytes, expected 14"),
    "one byte longer than 300,000": (
        header(1, 500, 600) + bytes(300_001),
        "images",
        "(has 300,017 bytes, expected|holds more than) 300,016",
    ),
    "one byte long": (GOOD + b"\0", "images", "(has 41 bytes, expected|holds more than) 40"),
}


@pytest.mark.parametrize("name", ["data", "data.gz"])
@pytest.mark.parametrize(("content", "kind", "reason"), REFUSED.values(), ids=REFUSED)
def test_x2_x4_wrong_file_is_refused(work: Path, name: str, content: bytes, kind: str, reason: str) -> None:
    with pytest.raises(DataError, match=f"^{name} .*{reason}"):
        read_idx(write(name, content), kind)


def test_compression_is_recognised_by_content(work: Path) -> None:
    Path("data").write_bytes(gzip.compress(GOOD))
    Path("plain.gz").write_bytes(GOOD)
    for name in ("data", "plain.gz"):
        np.testing.assert_array_equal(read_idx(Path(name), "images"), IMAGES)


@pytest.mark.parametrize(
    ("kind", "shape", "size"),
    [
        ("images", (LARGEST, LARGEST, LARGEST), LARGEST**3 + 16),
        ("images", (LARGEST, 28, 28), LARGEST * 784 + 16),
        ("labels", (LARGEST,), LARGEST + 8),
    ],
)
@pytest.mark.parametrize("name", ["data", "data.gz"])
def test_x3_false_size_is_refused_before_anything_is_allocated(
    work: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str, shape: tuple[int, ...], size: int
) -> None:
    def allocate(*args: object) -> None:
        raise AssertionError("something was allocated")

    path = write(name, header(*shape) + bytes(100))
    monkeypatch.setattr(np, "empty", allocate)
    with pytest.raises(DataError, match=f"^{name} .*{size:,}"):
        read_idx(path, kind)


PACKED = gzip.compress(GOOD)


@pytest.mark.parametrize(
    ("packed", "reason"),
    [
        *((PACKED[:length], "is cut short") for length in range(len(PACKED))),
        (PACKED[:-8] + b"\0\0\0\0" + PACKED[-4:], "is damaged"),
        (PACKED + b"garbage", "has other bytes after its end"),
    ],
    ids=[*(f"cut at {length}" for length in range(len(PACKED))), "crc", "garbage"],
)
def test_x1_x8_damaged_compressed_file_is_named(work: Path, packed: bytes, reason: str) -> None:
    Path("data.gz").write_bytes(packed)
    with pytest.raises(DataError, match=f"^data.gz {reason}; get it again"):
        read_idx(Path("data.gz"), "images")


def test_x6_gzip_bomb_is_refused_within_a_gigabyte(work: Path) -> None:
    """A header that declares a thousand labels is followed by four gigabytes of zeros."""
    with open("bomb.gz", "wb") as file:
        file.writelines(bomb(header(1000), megabytes=4096))
    code = (
        "from pathlib import Path\nfrom softmax_cli.data.readers.idx import read_idx\n"
        "read_idx(Path('bomb.gz'), 'labels')"
    )
    result = run_child(code, folder=work, RLIMIT_AS=1 << 30)
    assert "DataError: bomb.gz holds more than 1,008 bytes" in result.stderr.splitlines()[-1]


def write_folder(folder: Path) -> None:
    folder.mkdir(parents=True)
    for split in ("train", "t10k"):
        write_idx(folder / f"{split}-images-idx3-ubyte", IMAGES)
        write_idx(folder / f"{split}-labels-idx1-ubyte", LABELS[:2])


def test_files_are_found_in_a_folder_called_raw_and_in_no_other(work: Path) -> None:
    (work / "data").mkdir()
    (work / "data" / "notes.txt").touch()
    assert not detect(work / "data")
    write_folder(work / "data" / "other")
    assert not detect(work / "data")
    write_folder(work / "data" / "Raw")
    (work / "data" / "kmnist-train-images-idx3-ubyte").mkdir()  # a folder is no file
    assert detect(work / "data")
    np.testing.assert_array_equal(read(work / "data", "train", ReadOptions()).images, IMAGES)


def test_what_cannot_be_listed_is_not_detected(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "scandir", refuse)
    assert not detect(work)
