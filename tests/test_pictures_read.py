"""Picture files of all kinds are read with limits on time and memory."""

import functools
import io
import os
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from softmax_cli.data.dataset import Dataset
from softmax_cli.errors import ImageError
from softmax_cli.pictures import draw_digit, formats, prepare_picture, read_luminance
from softmax_cli.pictures.marks import find_lines
from softmax_cli.pictures.read import MAX_BYTES
from tests.drawing import encode
from tests.helpers import SOAK, unprivileged

SHAPE = (28, 28)

Gray = NDArray[np.uint8]


def enlarged(image: Gray, times: int = 10) -> Gray:
    """Return a digit as a smooth picture, `times` its size, light on black."""
    size = (times * image.shape[1], times * image.shape[0])
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


@pytest.fixture
def digit(sample_test: Dataset) -> Gray:
    """Return a digit, a 7."""
    return sample_test.images[np.flatnonzero(sample_test.labels == 7)[1]]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a path for a picture."""
    return tmp_path / "digit.png"


# Formats and modes


def modes(gray: Gray) -> dict[str, bytes]:
    """Return one picture, dark on white, as a PNG file of each mode."""
    black = np.zeros_like(gray)
    ink = 255 - gray
    palette = Image.fromarray(ink).convert("P")
    palette.putpalette([255 - index // 3 for index in range(768)])
    veiled = Image.fromarray(ink).convert("P")
    veiled.putpalette([0] * 768)
    return {
        "L": encode(Image.fromarray(gray)),
        "LA": encode(Image.fromarray(np.dstack([black, ink]))),
        "P": encode(palette),
        "P with tRNS": encode(veiled, transparency=bytes(range(256))),
        "RGB": encode(Image.fromarray(gray).convert("RGB")),
        "RGBA": encode(Image.fromarray(np.dstack([black, black, black, ink]))),
        "I;16": encode(Image.fromarray(gray.astype(np.uint16) * 257)),
    }


TRANSPARENT = ("LA", "P with tRNS", "RGBA")


@pytest.mark.parametrize("mode", ["L", "LA", "P", "P with tRNS", "RGB", "RGBA", "I;16"])
def test_i4_a_picture_is_the_same_in_every_mode(digit: Gray, mode: str) -> None:
    gray = 255 - enlarged(digit)
    content = modes(gray)[mode]
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.mode == mode.split()[0]
    luminance, steps, _ = read_luminance(content)
    assert np.abs(luminance.astype(int) - gray).max() <= 1
    assert ("ink found by transparency" in steps) == (mode in TRANSPARENT)
    found = prepare_picture(content, SHAPE, "digit").image
    assert np.abs(found.astype(int) - draw_digit(gray, SHAPE).image).max() <= 1


@pytest.mark.parametrize(("mode", "kind"), [("1", "PNG"), ("CMYK", "JPEG"), ("L", "JPEG"), ("RGB", "JPEG")])
def test_a_coarse_picture_gives_nearly_the_same_image(digit: Gray, mode: str, kind: str) -> None:
    gray = 255 - enlarged(digit)
    content = encode(Image.fromarray(gray).convert(mode), kind)
    found = prepare_picture(content, SHAPE, "digit").image
    assert np.abs(found.astype(int) - draw_digit(gray, SHAPE).image).mean() < 9


KINDS = ["PNG", "JPEG", "WebP", "GIF", "BMP", "TIFF", "AVIF"]


@pytest.mark.parametrize(
    "kind", [one.name for one in formats.FORMATS if one.name in KINDS and one.is_available()]
)
def test_all_formats_show_the_same_digit(digit: Gray, kind: str) -> None:
    gray = 255 - enlarged(digit)
    found = read_luminance(encode(Image.fromarray(gray).convert("RGB"), kind)).gray
    assert np.abs(found.astype(int) - gray).mean() < 3


def test_the_first_frame_of_an_animation_is_read(digit: Gray) -> None:
    first, second = Image.fromarray(255 - enlarged(digit)), Image.new("L", (280, 280), 9)
    for kind in ("GIF", "WebP", "PNG", "TIFF"):
        content = encode(first, kind, save_all=True, append_images=[second])
        assert np.abs(read_luminance(content).gray.astype(int) - np.asarray(first)).mean() < 3


def test_heic_without_its_extra_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats.Format, "is_available", lambda _: False)
    with pytest.raises(ImageError, match=r"which needs an extra: pip install 'softmax-regression\[heif\]'"):
        read_luminance(b"\0\0\0\x18ftypheic" + bytes(40))


def test_heic_is_read_with_its_extra(digit: Gray) -> None:
    import pillow_heif as heif

    gray, file = 255 - enlarged(digit), io.BytesIO()
    heif.from_pillow(Image.fromarray(gray).convert("RGB")).save(file)
    assert np.abs(read_luminance(file.getvalue()).gray.astype(int) - gray).mean() < 3


def test_a_path_may_be_a_string(digit: Gray, file: Path) -> None:
    Image.fromarray(digit).save(file)
    for source in (file, str(file), file.read_bytes()):
        assert np.array_equal(read_luminance(source).gray, digit)


def test_sixteen_bits_with_a_transparent_grey_are_scaled_too(digit: Gray, file: Path) -> None:
    """Only the grey that the file marks as transparent becomes white; the rest is unchanged."""
    gray = 100 + enlarged(digit) // 2
    content = encode(Image.fromarray(gray.astype(np.uint16) * 257))
    at = content.index(b"IDAT") - 4
    file.write_bytes(content[:at] + chunk(b"tRNS", struct.pack(">H", 100 * 257)) + content[at:])
    expected = np.where(gray == 100, 255, gray)
    assert np.abs(read_luminance(file).gray.astype(int) - expected).max() <= 1


def test_sixteen_bits_are_scaled_and_not_clipped(file: Path) -> None:
    values = np.arange(0, 65536, 7).astype(np.uint16)[:9216].reshape(96, 96)
    Image.fromarray(values).save(file)
    assert np.abs(read_luminance(file)[0] - values / 257).max() <= 0.5


def test_luminance_is_that_of_bt_601(file: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (20, 20, 3)).astype(np.uint8)
    Image.fromarray(colours).save(file)
    red, green, blue = np.moveaxis(colours.astype(int), -1, 0)
    expected = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16
    np.testing.assert_array_equal(read_luminance(file)[0], expected)


def test_a_large_picture_is_averaged_first(file: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (1024, 300)).astype(np.uint8)
    Image.fromarray(picture).save(file)
    means = picture.reshape(512, 2, 150, 2).mean(axis=(1, 3))
    found = read_luminance(file)[0]
    assert found.shape == (512, 150)
    assert np.abs(found - means).max() <= 0.5
    assert read_luminance(file).scale == 2


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "I;16"])
def test_bands_have_no_effect(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    values = np.random.default_rng(0).integers(0, 256, (700, 600)).astype(np.uint8)
    picture = Image.fromarray(values)
    deep = Image.fromarray(values.astype(np.uint16) * 257)
    content = encode(deep if mode == "I;16" else picture.convert(mode))
    whole = read_luminance(content).gray
    monkeypatch.setattr("softmax_cli.pictures.read.BAND_PIXELS", 5000)
    assert np.array_equal(read_luminance(content).gray, whole)


STORED = {  # for each EXIF orientation, the transformation that gives the upright picture
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WebP", "TIFF"])
@pytest.mark.parametrize("orientation", STORED)
def test_i5_a_picture_is_turned_upright(digit: Gray, orientation: int, kind: str) -> None:
    gray = np.pad(255 - enlarged(digit), ((0, 40), (0, 0)), constant_values=255)
    how, exif = STORED[orientation], Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(gray) if how is None else Image.fromarray(gray).transpose(how)
    read = read_luminance(encode(stored, kind, exif=exif))
    assert ("turned upright" in read.steps) == (orientation != 1)
    assert np.abs(read.gray.astype(int) - gray).mean() < 2


# Colours


def mixed(ink: Gray, paper: tuple[int, ...], pen: tuple[int, ...]) -> Image.Image:
    share = ink[:, :, None] / 255
    return Image.fromarray((np.array(paper) * (1 - share) + np.array(pen) * share).round().astype(np.uint8))


@pytest.mark.parametrize(
    ("paper", "pen"),
    [((200, 60, 60), (29, 131, 160)), ((60, 150, 60), (180, 90, 50)), ((120, 110, 200), (140, 115, 40))],
)
def test_ink_as_light_as_its_paper_is_found_by_colour(
    digit: Gray, paper: tuple[int, ...], pen: tuple[int, ...]
) -> None:
    read = read_luminance(encode(mixed(enlarged(digit), paper, pen)))
    assert any(step.startswith("ink found by colour") for step in read.steps)
    expected, found = draw_digit(enlarged(digit), SHAPE).image, draw_digit(read.gray, SHAPE).image
    assert np.abs(expected.astype(int) - found).mean() < 3


def test_colours_that_differ_in_lightness_are_read_as_luminance(digit: Gray) -> None:
    assert read_luminance(encode(mixed(enlarged(digit), (250, 235, 170), (20, 30, 120)))).steps == ()


@pytest.mark.parametrize("colour", [(255, 255, 255), (250, 220, 60), (0, 0, 0)])
def test_i15_ink_of_any_colour_on_a_transparent_sheet_is_read(digit: Gray, colour: tuple[int, ...]) -> None:
    ink = enlarged(digit)
    pixels = np.dstack([*(np.full_like(ink, value) for value in colour), ink])
    found = prepare_picture(encode(Image.fromarray(pixels)), SHAPE, "digit")
    assert "ink found by transparency" in found.steps
    assert np.abs(found.image.astype(int) - draw_digit(ink, SHAPE).image).max() <= 1


def test_a_sheet_with_transparent_corners_is_read_by_its_colours(digit: Gray) -> None:
    gray = 255 - enlarged(digit)
    opacity = np.full_like(gray, 255)
    opacity[:9, :9] = opacity[-9:, -9:] = 0
    read = read_luminance(encode(Image.fromarray(np.dstack([gray, opacity]))))
    assert read.steps == ("laid over white",)
    assert np.abs(read.gray.astype(int) - gray).max() <= 1


# Files that are not pictures


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return one chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, before: bytes = b"", after: bytes = b"") -> bytes:
    """Return a PNG file whose header declares a size.

    `before` and `after` are chunks around its pixels.
    """
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(bytes(10_000)))
    return b"\x89PNG\r\n\x1a\n" + header + before + rows + after + chunk(b"IEND", b"")


def inflating(kind: bytes) -> bytes:
    """Return a chunk of 100 kB that inflates to 100 MB."""
    start = {b"zTXt": b"k\0\0", b"iCCP": b"k\0\0", b"iTXt": b"k\0\1\0\0\0"}[kind]
    return chunk(kind, start + deflated_zeros())


@functools.cache
def deflated_zeros() -> bytes:
    """Return 100 MB of zeros, deflated."""
    return zlib.compress(bytes(100_000_000))


def real(side: int) -> bytes:
    """Return a complete, black PNG file of `side` pixels per side."""
    content = encode(Image.new("L", (side, side)), compress_level=9)
    assert len(content) < 100_000
    return content


def claiming_jpeg() -> bytes:
    """Return a JPEG file whose header declares 65,500 x 65,500 pixels."""
    content = encode(Image.new("L", (64, 64)), "JPEG")
    at = content.index(b"\xff\xc0") + 5
    return content[:at] + struct.pack(">HH", 65500, 65500) + content[at + 4 :]


BOMBS: dict[str, Callable[[], bytes]] = {
    "claimed": lambda: png(65535, 65535),
    "claimed by JPEG": claiming_jpeg,
    "just above the limit": lambda: png(8000, 4001),
    "real": lambda: real(9000),
    "zTXt": lambda: png(100, 99, before=inflating(b"zTXt")),
    "iTXt": lambda: png(100, 99, before=inflating(b"iTXt")),
    "iCCP": lambda: png(100, 99, before=inflating(b"iCCP")),
    "zTXt after the pixels": lambda: png(100, 99, after=inflating(b"zTXt")),
}


def scans(count: int) -> bytes:
    """Return a progressive JPEG with `count` scans.

    All scans but the first few refine nothing.
    """
    content = encode(Image.new("L", (2000, 2000)), "JPEG", progressive=True)
    start = content.rindex(b"\xff\xda")
    return content[:-2] + content[start:-2] * count + content[-2:]


def stuffed(part: bytes, count: int) -> bytes:
    """Return a JPEG file with a part repeated after its first marker."""
    content = encode(Image.new("L", (64, 64)), "JPEG")
    return content[:2] + part * count + content[2:]


def tiff_with_many_values() -> bytes:
    """Return a TIFF whose strip offsets take 40 million bytes."""
    entry = struct.pack("<HHII", 273, 4, 10_000_000, 100)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 1) + entry + bytes(40_000_000)


BOMBS |= {
    "19,607 scans": lambda: scans(19_607),
    "9 MB of padding": lambda: stuffed(b"\xff", 9_000_000),
    "2.4 million segments": lambda: stuffed(b"\xff\xfe\0\2", 2_400_000),
    "2.4 million chunks": lambda: png(100, 99, before=chunk(b"teXt", b"") * 2_400_000),
    "progressive of 40 megapixels": lambda: encode(
        Image.new("L", (8000, 5000)), "JPEG", progressive=True
    ).replace(b"\xff\xc2\0\x0b\x08\x13\x88\x1f\x40", b"\xff\xc2\0\x0b\x08\x1d\x00\x20\x00"),
    "blocks of a GIF": lambda: b"GIF89a\1\0\1\0\0\0\0" + b"!\xfe\1a\0" * 2_400_000,
    "run lengths of a BMP": lambda: b"BM" + bytes(28) + b"\1\0\0\0" + bytes(4_000_000),
    "values of a TIFF": tiff_with_many_values,
    "one pixel wide": lambda: png(1, 32_000_000),
    "canvas of a WebP": lambda: b"RIFF\0\0\0\0WEBPVP8X\n\0\0\0\0\0\0\0" + b"\xff\x3f\0" * 2 + bytes(40),
}

CHILD = """
import resource, sys
from pathlib import Path
from PIL import ImageOps, JpegImagePlugin, PngImagePlugin
from softmax_cli.errors import ImageError
from softmax_cli.pictures import prepare_picture

resource.setrlimit(resource.RLIMIT_CPU, (10, 10))
if sys.platform == "linux":  # other systems do not enforce the limit
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[2]),) * 2)
try:
    print(prepare_picture(sys.argv[1], (28, 28), "digit").steps)
except ImageError as error:
    print(error)
"""


def prepared_in_a_child(file: Path, memory: int) -> str:
    """Return the output of a child process that prepares a picture.

    `memory` is the additional memory of the process in bytes.
    """
    line = [sys.executable, "-c", CHILD, str(file), str(memory)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("bomb", BOMBS)
def test_i1_i10_a_decompression_bomb_is_refused_within_limits_of_time_and_memory(
    file: Path, bomb: str
) -> None:
    file.write_bytes(BOMBS[bomb]())
    said = prepared_in_a_child(file, 60_000_000 + 2 * file.stat().st_size)
    assert f"{file} is t" in said
    assert "too large" in said or bomb == "9 MB of padding"


def large(width: int, height: int, mode: str, kind: str = "PNG") -> Callable[[], bytes]:
    """Return a function that writes a picture, black on white or transparent.

    The picture is fast to write.
    """

    def write() -> bytes:
        clear = {"1": 1, "L": 255, "P": 0, "RGB": (255,) * 3, "RGBA": (0,) * 4, "I;16": 65535}[mode]
        picture = Image.new(mode, (width, height), clear)
        ink = {"P": 1, "RGB": (0,) * 3, "RGBA": (0, 0, 0, 255)}.get(mode, 0)
        if mode == "P":
            picture.putpalette([255] * 3 + [0] * 3)
        picture.paste(ink, (width // 3, height // 3, width // 3 + max(1, width // 9), 2 * height // 3))
        return encode(picture, kind, **({"compress_level": 1} if kind == "PNG" else {}))

    return write


LARGE = {
    "RGBA": large(6000, 5200, "RGBA"),
    "16 bits": large(6000, 5200, "I;16"),
    "palette": large(6000, 5200, "P"),
    "one bit": large(8000, 4000, "1"),
    "JPEG of 63 megapixels": large(9000, 7000, "RGB", "JPEG"),
    "GIF": large(6000, 5200, "P", "GIF"),
    "BMP": large(8000, 4000, "L", "BMP"),
    "WebP": large(3900, 3000, "RGB", "WebP"),
}


@pytest.mark.parametrize("name", LARGE if SOAK else ["RGBA", "JPEG of 63 megapixels", "GIF"])
def test_i11_the_largest_pictures_take_less_than_300_megabytes(file: Path, name: str) -> None:
    """The process has about 60 MB at its start; the rest of the 300 MB is available for a picture."""
    file.write_bytes(LARGE[name]())
    assert "centred by mass" in prepared_in_a_child(file, 235_000_000)


def test_i11_noise_takes_no_more_memory_than_a_page() -> None:
    """A checkerboard may contain a line through any of its squares."""
    mask = np.indices((600, 600)).sum(axis=0) % 2 > 0
    tracemalloc.start()
    find_lines(mask)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * mask.size


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_i2_a_file_cut_at_any_place_is_refused(digit: Gray, kind: str) -> None:
    """The file is cut at all places from the signature to the end of the pixels."""
    content = encode(Image.fromarray(enlarged(digit, 3)), kind)
    end = len(content) - (12 if kind == "PNG" else 2)  # the rest is an empty end marker
    for size in np.linspace(4, end - 1, 30).astype(int):
        with pytest.raises(ImageError, match="is truncated or damaged; save it again"):
            prepare_picture(content[:size], SHAPE, "digit")


@pytest.mark.parametrize("kind", [b"IHDR", b"IDAT", b"IEND"])
def test_a_wrong_checksum_is_refused(digit: Gray, kind: bytes) -> None:
    content = bytearray(encode(Image.fromarray(digit)))
    at = content.index(kind)
    content[at + 4 + struct.unpack(">I", content[at - 4 : at])[0]] ^= 1
    with pytest.raises(ImageError, match="is truncated or damaged; save it again"):
        prepare_picture(bytes(content), SHAPE, "digit")


def test_i12_damaged_metadata_are_ignored(digit: Gray) -> None:
    """Before the pixels are a text with a wrong checksum and an invalid profile or EXIF block."""
    picture = Image.fromarray(enlarged(digit))
    plain = encode(picture)
    at = plain.index(b"IDAT") - 4
    wrong = chunk(b"tEXt", b"Title")[:-1] + b"?"
    for extra in (
        wrong,
        chunk(b"iCCP", b"p\0\0nonsense"),
        chunk(b"eXIf", b"nonsense"),
        chunk(b"zTXt", b"k\0\0x"),
    ):
        found = read_luminance(plain[:at] + extra + plain[at:])
        assert np.array_equal(found.gray, np.asarray(picture))
    jpeg = encode(picture, "JPEG")
    expected = read_luminance(jpeg).gray
    for marker, data in (
        (0xE1, b"Exif\0\0nonsense"),
        (0xE2, b"ICC_PROFILE\0\1\2nonsense"),
        (0xED, b"8BIM"),
        (0xFE, b""),
    ):
        segment = struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data
        assert np.array_equal(read_luminance(jpeg[:2] + segment + jpeg[2:]).gray, expected)


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script><path d="M0 0L9 9"/></svg>'
PSD = b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 1, 1, 1, 8, 1) + bytes(12) + b"\0\0\0"
FOREIGN: dict[str, tuple[bytes, bool]] = {  # content, and whether Pillow supports it
    "text": (b"This is a seven.\n", False),
    "page": (b"<!DOCTYPE html><title>404 Not Found</title>", False),
    "SVG": (SVG, False),
    "PDF": (encode(Image.new("L", (9, 9)), "PDF"), False),
    "EPS": (encode(Image.new("L", (9, 9)), "EPS"), True),
    "PSD": (PSD, True),
    "ICO": (encode(Image.new("L", (16, 16)), "ICO"), True),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_i3_other_formats_are_refused_without_starting_a_program(
    file: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    started: list[object] = []
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **_: started.append(args))
    monkeypatch.setattr(os, "system", started.append)
    content, known = FOREIGN[kind]
    file.write_bytes(content)
    with pytest.raises(ImageError) as caught:
        prepare_picture(file, SHAPE, "digit")
    names = "PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF or HEIC"
    assert str(caught.value) == f"{file} is not a picture in a known format ({names})"
    assert not started
    assert opens(file) == known


def opens(path: Path) -> bool:
    """Return whether Pillow opens a file without a restriction of the format."""
    try:
        Image.open(path).close()
    except Image.UnidentifiedImageError:
        return False
    return True


@pytest.mark.usefixtures("alarm")
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("empty", "empty is empty"),
        ("folder", "folder is a folder, not a file"),
        ("pipe", "pipe is not a regular file"),
        ("/dev/zero", "/dev/zero is not a regular file"),
        ("missing.png", "cannot read missing.png: no such file or directory"),
        ("secret", "cannot read secret: permission denied"),
        ("long", "long is too large: more than 50,000,000 bytes; save a smaller copy"),
        ("n" * 300, f"cannot read {'n' * 300}: file name too long"),
    ],
)
def test_i6_paths_that_are_not_picture_files_are_refused(work: Path, name: str, reason: str) -> None:
    (work / "empty").touch()
    (work / "folder").mkdir()
    os.mkfifo(work / "pipe")
    (work / "secret").touch(mode=0)
    with open(work / "long", "wb") as file:
        file.write(b"\x89PNG")
        file.truncate(MAX_BYTES + 1)
    work.chmod(0o755)
    with unprivileged(), pytest.raises(ImageError) as caught:
        prepare_picture(Path(name), SHAPE, "digit")
    assert str(caught.value) == reason
