"""Data files that hold more than their size, refer to other files, or lie in the cache."""

import gzip
import io
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from softmax_cli import files
from softmax_cli.checkpoint import load_checkpoint
from softmax_cli.data.cache import remembered
from softmax_cli.data.download import Source
from softmax_cli.data.loading import load_dataset
from softmax_cli.data.readers import ReadOptions
from softmax_cli.data.readers.idx import encode_header, read_idx
from softmax_cli.data.readers.npz import read_arrays
from softmax_cli.errors import CheckpointError, DataError
from tests.drawing import encode
from tests.helpers import names

IMAGES = np.zeros((6000, 4, 4), np.uint8)
LABELS = (np.arange(6000) % 2).astype(np.uint8)


# Lists of members


def archive(wide: bool, comment: bytes = b"") -> bytes:
    """Return an archive with 2,000 members, whose size is, if wide, in a record before the end."""
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", 20, 3, 20, 0, 0, 0, 0, 33, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0)
    members, start = 2000 * (entry + b"a.npy"), b"PK\3\4" + bytes(26)
    end = len(start) + len(members)
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 2000, 2000, len(members), len(start))
    wide_end = record + struct.pack("<4sLQL", b"PK\6\7", 0, end, 1) if wide else b""
    size = 100 if wide else len(members)
    last = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 2000, 2000, size, len(start), len(comment))
    return start + members + wide_end + last + comment


@pytest.mark.parametrize("content", [archive(False), archive(True), archive(False, b"x")])
def test_c7_x6_a_long_list_of_members_is_never_read(
    content: bytes, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(zipfile.ZipFile(io.BytesIO(content)).namelist()) == 2000
    Path("data.npz").write_bytes(content)
    monkeypatch.setattr(zipfile.ZipFile, "_RealGetContents", lambda _: pytest.fail("it was read"))
    with pytest.raises(CheckpointError, match=r"list of members is far too long|does not end as an \.npz"):
        load_checkpoint("data.npz")
    with pytest.raises(DataError, match=r"list of members of more than|does not end as an \.npz"):
        read_arrays(Path("data.npz"), ("a",))


# Content that inflates


def write_idx() -> Path:
    Path("images.gz").write_bytes(gzip.compress(encode_header(IMAGES.shape) + IMAGES.tobytes()))
    return Path("images.gz")


def write_npz() -> Path:
    np.savez_compressed("data.npz", images=IMAGES, labels=LABELS)
    return Path("data.npz")


def write_csv() -> Path:
    rows = "".join(f"{label}{',0' * 16}\n" for label in LABELS)
    Path("data.csv.gz").write_bytes(gzip.compress(rows.encode()))
    return Path("data.csv.gz")


def write_parquet(picture: bytes | str = b"") -> Path:
    pictures = [picture or encode(pillow(IMAGES[0]))] * len(LABELS)
    pyarrow.parquet.write_table(pa.table({"image": pictures, "label": LABELS.astype(int)}), "data.parquet")
    return Path("data.parquet")


def pillow(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image)


def read_data(path: Path) -> object:
    return load_dataset(path, "train", Source("cache", offline=True))


INFLATING: dict[str, tuple[Callable[[], Path], Callable[[Path], object], str]] = {
    "IDX": (write_idx, lambda path: read_idx(path, "images"), "is too small to hold"),
    "npz": (write_npz, read_data, "declares 96,000 bytes"),
    "CSV": (write_csv, read_data, "holds more than"),
    "parquet": (write_parquet, read_data, "is too small to hold its pictures"),
}


@pytest.mark.parametrize("kind", INFLATING)
def test_x6_content_that_inflates_far_is_refused(
    kind: str, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to 256 MiB it may inflate as far as deflate can; the limit is lower here."""
    write, read, message = INFLATING[kind]
    path = write()
    monkeypatch.setattr(files, "INFLATION", 3)
    monkeypatch.setattr(files, "FREE_BYTES", 5000)
    with pytest.raises(DataError, match=message):
        read(path)
    monkeypatch.setattr(files, "FREE_BYTES", 1 << 20)
    read(path)


# Other files


@pytest.mark.parametrize("place", ["../secret.png", "{work}/secret.png", "a/../../secret.png"])
def test_x10_a_parquet_file_refers_to_no_file_outside_of_its_folder(place: str, work: Path) -> None:
    Path("secret.png").write_bytes(encode(pillow(IMAGES[0])))
    Path("own").mkdir()
    os.chdir("own")
    path = write_parquet(place.format(work=work))
    with pytest.raises(DataError, match="which is outside of its folder"):
        read_data(path)


# The cache

NOTES = [
    b"[" * 5000,
    b"[]",
    b"1",
    b'{"image_size": "ab"}',
    b'{"x": 1}',
    b'{"preparation": []}',
    b"\xff",
    b"{",
]


@pytest.mark.parametrize("options", NOTES)
def test_x11_a_note_in_the_cache_that_is_not_ours_is_ignored(options: bytes, work: Path) -> None:
    Path("cache/paths").mkdir(parents=True)
    Path("cache/paths", "0" * 64).write_bytes(b"own\0" + options)
    assert remembered("0" * 64, Source("cache")) == (None, ReadOptions())


CACHED: dict[str, Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]] = {
    "fewer images": lambda images, readable: {"images": images[1:], "readable": readable},
    "fewer marks": lambda images, readable: {"images": images, "readable": readable[1:]},
    "floats": lambda images, readable: {"images": images / 2, "readable": readable},
    "pixels": lambda images, readable: {"images": images.reshape(len(images), -1), "readable": readable},
}


@pytest.mark.parametrize("change", CACHED)
def test_x11_images_in_the_cache_that_do_not_fit_are_ignored(change: str, work: Path) -> None:
    generator = np.random.default_rng(0)
    for number in range(24):
        folder = Path("own", str(number % 2))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(encode(pillow(generator.integers(0, 99, (4, 4), np.uint8))))
    expected = load_dataset("own", "train", Source("cache"))
    (place,) = Path("cache/pictures").iterdir()
    with np.load(place) as found:
        arrays = dict(found)
    np.savez(place, key=arrays["key"], **CACHED[change](arrays["images"], arrays["readable"]))
    assert np.array_equal(load_dataset("own", "train", Source("cache")).images, expected.images)
    assert names(Path("cache/pictures")) == [place.name]
