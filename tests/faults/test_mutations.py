"""Files of every input format with random changes: each is refused with one of our errors, or read.

Those of checkpoints are in tests/test_checkpoint.py.
"""

import gzip
import io
import json
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image, PngImagePlugin

from softmax_cli.config import TrainConfig, read_toml
from softmax_cli.data.dataset import Dataset
from softmax_cli.data.download import Source
from softmax_cli.data.loading import load_dataset
from softmax_cli.data.readers.idx import read_idx
from softmax_cli.errors import ConfigError, DataError, ImageError
from softmax_cli.pictures import find_digits, formats, prepare_picture
from tests.drawing import encode
from tests.helpers import SOAK, mutated

IMAGES = np.random.default_rng(0).integers(0, 256, (24, 4, 4), np.uint8)
LABELS = (np.arange(24) % 3).astype(np.uint8)


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def parquet() -> bytes:
    """Return a file as Hugging Face writes it: pictures, labels, and names of classes in the metadata."""
    features = {"info": {"features": {"label": {"names": ["a", "b", "c"], "_type": "ClassLabel"}}}}
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pictures = pa.array([{"bytes": encode(Image.fromarray(image)), "path": None} for image in IMAGES], kind)
    table = pa.table({"image": pictures, "label": pa.array(LABELS.astype(int))})
    sink = io.BytesIO()
    pyarrow.parquet.write_table(
        table.replace_schema_metadata({"huggingface": json.dumps(features)}), sink, row_group_size=10
    )
    return sink.getvalue()


def rows(quoted: bool = False) -> bytes:
    lines = [[str(label), *map(str, image.ravel())] for label, image in zip(LABELS, IMAGES, strict=True)]
    if quoted:  # what is converted value by value
        lines = [
            [f'"{value}"' if index % 3 else f"{value}.0" for index, value in enumerate(line)]
            for line in lines
        ]
    header = ["label", *(f"pixel{number}" for number in range(16))]
    return "\n".join(",".join(line) for line in [header, *lines]).encode()


def read_data(path: Path) -> None:
    load_dataset(path, "test", Source("cache", offline=True))


def read_folder(path: Path) -> None:
    """Read a folder of pictures, of which one is the changed file."""
    folder = Path("pictures")
    if not folder.exists():
        for number, image in enumerate(IMAGES):
            (folder / f"{number % 3}").mkdir(parents=True, exist_ok=True)
            (folder / f"{number % 3}" / f"{number}.png").write_bytes(encode(Image.fromarray(image)))
    shutil.copyfile(path, folder / "0" / "0.png")
    read_data(folder)


def read_config(path: Path) -> None:
    TrainConfig(**read_toml(path))


IDX = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4]) + bytes(range(24))
CONFIG = b"# comment\nepochs = 7\nfeatures = ['deskew', 'fourier']\nl2 = 1e-6\nseed = 0x1F\n"
ARRAYS = {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:6], "y_test": LABELS[:6]}

FORMATS: dict[str, tuple[str, bytes, Callable[[Path], object]]] = {
    "IDX images": ("data", IDX, lambda path: read_idx(path, "images")),
    "IDX labels": (
        "data",
        bytes([0, 0, 11, 1, 0, 0, 0, 30]) + bytes(60),
        lambda path: read_idx(path, "labels"),
    ),
    "IDX compressed": ("data.gz", gzip.compress(IDX, mtime=0), lambda path: read_idx(path, "images")),
    "npz": ("data.npz", npz(**ARRAYS), read_data),
    "csv": ("data.csv", rows(), read_data),
    "csv quoted": ("data.csv", rows(quoted=True), read_data),
    "csv compressed": ("data.csv.gz", gzip.compress(rows(), mtime=0), read_data),
    "parquet": ("data.parquet", parquet(), read_data),
    "folder": ("changed.png", encode(Image.fromarray(IMAGES[0])), read_folder),
    "config": ("run.toml", CONFIG, read_config),
}
"""Of each format: the name of a file, its content, and what reads it."""


@pytest.mark.parametrize("kind", FORMATS)
def test_x9_l10_a_mutated_file_is_refused_or_read(kind: str, work: Path) -> None:
    name, content, read = FORMATS[kind]
    Path(name).write_bytes(content)
    read(Path(name))
    generator, refused, rounds = np.random.default_rng(0), 0, 10_000 if SOAK else 100
    for _ in range(rounds):
        Path(name).write_bytes(mutated(generator, content))
        try:
            read(Path(name))
        except (DataError, ConfigError):
            refused += 1
    assert refused > rounds / 20
    print(f"{kind}: {rounds} mutations, {refused} refused, no crash")


# Pictures

SHAPE = (28, 28)


def pictures(kind: str, gray: np.ndarray) -> list[bytes]:
    """Return pictures of a format with optional parts: text, EXIF, transparency, palette, 16 bits, frames."""
    picture, exif, text = Image.fromarray(gray), Image.Exif(), PngImagePlugin.PngInfo()
    colour, black = picture.convert("RGB"), Image.new("L", picture.size)
    clear = Image.merge("LA", (black, Image.fromarray(255 - gray))).convert("RGBA")
    exif[0x0112], exif[0x010E] = 6, "a seven"
    text.add_text("Title", "seven" * 9, zip=True)
    match kind:
        case "PNG":
            numbers = Image.fromarray(gray.astype(np.uint16) * 257)
            palette = encode(picture.quantize(8), transparency=0)
            return [encode(picture, pnginfo=text, exif=exif), palette, encode(clear), encode(numbers)]
        case "JPEG":
            progressive = encode(picture, kind, progressive=True)
            marked = encode(colour, kind, exif=exif, comment=b"seven")
            return [marked, progressive, encode(picture.convert("CMYK"), kind, exif=exif)]
        case "WebP":
            lossless = encode(picture, kind, lossless=True)
            return [
                lossless,
                encode(colour, kind, exif=exif),
                encode(clear, kind),
                frames(kind, colour, black),
            ]
        case "GIF":
            return [
                encode(picture, kind, comment=b"seven"),
                encode(clear, kind),
                frames(kind, picture, black),
            ]
        case "BMP":
            return [encode(one, kind) for one in (picture, colour, picture.quantize(8), picture.convert("1"))]
        case "TIFF":
            packed = [
                encode(picture, kind, compression=f"tiff_{name}") for name in ("lzw", "deflate", "jpeg")
            ]
            numbers = Image.fromarray(gray.astype(np.uint16) * 257)
            others = [encode(picture.convert("1"), kind, compression="group4"), encode(numbers, kind)]
            return [*packed, *others, encode(clear, kind, exif=exif), frames(kind, picture, black)]
        case "AVIF":
            return [encode(picture, kind), encode(colour, kind, exif=exif), encode(clear, kind)]
        case _:
            import pillow_heif as heif

            files = [io.BytesIO(), io.BytesIO()]
            heif.from_pillow(colour).save(files[0], exif=exif.tobytes())
            heif.from_pillow(clear).save(files[1])
            return [file.getvalue() for file in files]


def frames(kind: str, first: Image.Image, second: Image.Image) -> bytes:
    return encode(first, kind, save_all=True, append_images=[second.convert(first.mode)])


def with_checksums(content: bytes) -> bytes:
    """Return a PNG file in which every chunk has the right CRC, so that its content is read."""
    data, at = bytearray(content), 8
    while at + 12 <= len(data):
        end = at + 8 + struct.unpack(">I", data[at : at + 4])[0]
        if end + 4 > len(data):
            break
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[at + 4 : end]))
        at = end + 4
    return bytes(data)


@pytest.mark.parametrize("kind", [one.name for one in formats.FORMATS if one.is_available()])
def test_i8_a_mutated_picture_is_refused_or_gives_a_result(kind: str, sample_test: Dataset) -> None:
    """No other error than `ImageError` and no warning occurs."""
    seven = sample_test.images[np.flatnonzero(sample_test.labels == 7)[1]]
    originals = pictures(kind, np.asarray(Image.fromarray(255 - seven).resize((56, 56))))
    for content in originals:
        prepare_picture(content, SHAPE, "digit")
    generator, refused, rounds = np.random.default_rng(0), 0, 10_000 if SOAK else 100
    for number in range(rounds):
        content = mutated(generator, originals[number % len(originals)])
        if kind == "PNG" and number // len(originals) % 2:
            content = with_checksums(content)
        try:
            prepared = prepare_picture(content, SHAPE, "digit")
            if number % 10 == 0:
                find_digits(content, SHAPE)
        except ImageError:
            refused += 1
        else:
            assert (prepared.image.shape, prepared.image.dtype) == (SHAPE, np.uint8)
    assert 0.05 * rounds < refused < rounds
    print(f"{kind}: {rounds} mutations, {refused} refused, no crash")
