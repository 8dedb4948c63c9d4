"""Read a picture file as luminance, with limits on time and memory.

EXIF orientation is applied, 16 bits are scaled to 8, and a large picture is averaged over squares of
ceil(longest side / `side`) pixels. Pictures are converted in horizontal bands, so that only one copy of the
full size is in memory.
"""

import math
import os
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from softmax_cli.errors import ImageError
from softmax_cli.files import open_regular
from softmax_cli.pictures import formats
from softmax_cli.pictures.colour import ink_plane

if TYPE_CHECKING:
    from PIL import Image
    from PIL.ImageFile import ImageFile

MAX_BYTES = 50_000_000
WORKING_SIDE = 512
"""Longest side, in pixels, of a picture that is searched for a single digit."""

MAX_SIDE = 100_000
BAND_PIXELS = 1_000_000
ORIENTATION = 0x0112
"""EXIF tag of the orientation."""

Gray = NDArray[np.uint8]
PictureSource = str | Path | bytes


class Luminance(NamedTuple):
    """Luminance (h, w), the steps to obtain it, and pixels of the file per pixel."""

    gray: Gray
    steps: tuple[str, ...]
    scale: float = 1.0


def read_luminance(source: PictureSource, side: int = WORKING_SIDE) -> Luminance:
    """Return the luminance of a picture.

    Args:
        source: Path of a file, or its content.
        side: Longest side of the result, in pixels; larger pictures are averaged down.

    Raises:
        ImageError: The file cannot be read, is not a picture, is damaged, or exceeds a limit.
    """
    planes, turned, longest = _read_planes(source, side)
    gray, steps = ink_plane(planes)
    return Luminance(gray, ("turned upright",) * turned + steps, longest / max(gray.shape))


def read_colours(source: PictureSource, side: int) -> tuple[NDArray[np.uint8], float]:
    """Return the colours (h, w, 3) of a picture over white, and pixels of the file per pixel.

    Arguments and errors are those of `read_luminance`.
    """
    planes, _, longest = _read_planes(source, side)
    if planes.shape[2] == 4:
        share = planes[:, :, 3:] / np.float32(255)
        planes = np.rint(planes[:, :, :3] * share + 255 * (1 - share)).astype(np.uint8)
    return np.repeat(planes, 3 // planes.shape[2], axis=2), longest / max(planes.shape[:2])


def _read_planes(source: PictureSource, side: int) -> tuple[NDArray[np.uint8], bool, int]:
    """Return what `_decode` returns for a file; raise `ImageError` if it cannot be read."""
    name = "the picture" if isinstance(source, bytes) else str(source)
    content = _read_bytes(source, name)
    kind = formats.find_format(content)
    if kind is None or not kind.is_available():
        raise ImageError(_refusal(name, kind))
    try:
        return _decode(content, kind, side)
    except formats.UnreadableError as error:
        raise ImageError(f"{name} {error}") from error
    except MemoryError as error:
        raise ImageError(f"{name} is too large for the memory of this machine") from error
    except _DAMAGED as error:
        raise ImageError(f"{name} {formats.DAMAGED}") from error


_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    RuntimeError,
    ZeroDivisionError,
    struct.error,
)
"""Errors that Pillow raises for damaged files."""


def _read_bytes(source: PictureSource, name: str) -> bytes:
    if isinstance(source, bytes):
        content = source
    else:
        with open_regular(Path(source), ImageError) as file:
            content = file.read(MAX_BYTES + 1)
    if not content:
        raise ImageError(f"{name} is empty")
    if len(content) > MAX_BYTES:
        raise ImageError(f"{name} is too large: more than {MAX_BYTES:,} bytes; save a smaller copy")
    return content


def _refusal(name: str, kind: formats.Format | None) -> str:
    """Return the message for an unknown format or a missing decoder."""
    if kind is not None and kind.name == "HEIC":
        return f"{name} is HEIC, which needs an extra: pip install 'softmax-regression[heif]'"
    if kind is not None:
        return f"{name} is {kind.name}, which needs a newer Pillow: pip install --upgrade pillow"
    names = [one.name for one in formats.FORMATS]
    return f"{name} is not a picture in a known format ({', '.join(names[:-1])} or {names[-1]})"


def _decode(content: bytes, kind: formats.Format, side: int) -> tuple[NDArray[np.uint8], bool, int]:
    """Return planes (h, w, 1 to 4), if they were turned, and the file's longest side."""
    content, exif = kind.strip(content)
    with _quiet(kind):
        picture = _open(kind, content)
        longest = max(picture.size)
        factor = math.ceil(longest / side)
        if factor > 1 and kind.name == "JPEG":
            picture.draft(None, (max(1, picture.width // factor), max(1, picture.height // factor)))
            factor = math.ceil(max(picture.size) / side)
        stored = _orientation(picture, exif)
        picture.load()
        orientation = _orientation(picture, exif)  # the reader of TIFF has turned the picture already
        planes = np.concatenate(list(_bands(picture, factor)))
    return _upright(planes, orientation), stored != 1, longest


def _open(kind: formats.Format, content: bytes) -> "ImageFile":
    """Return a picture that is not yet decoded and not larger than its format may be."""
    from PIL.Image import DecompressionBombError

    try:
        picture = kind.open(content)
    except DecompressionBombError as error:
        raise formats.too_large(f"more than {kind.max_pixels:,} pixels") from error
    if picture.width * picture.height > kind.max_pixels:
        raise formats.too_large(f"more than {kind.max_pixels:,} pixels")
    if max(picture.size) > MAX_SIDE:
        raise formats.too_large(f"more than {MAX_SIDE:,} pixels on one side")
    return picture


_quieting = threading.Lock()


@contextmanager
def _quiet(kind: formats.Format) -> Iterator[None]:
    """Ignore warnings of readers about metadata.

    All threads share the state of `warnings`.
    """
    if kind.name in ("PNG", "JPEG"):
        yield
        return
    with _quieting, warnings.catch_warnings(action="ignore"), _without_stderr(kind.name == "TIFF"):
        yield


@contextmanager
def _without_stderr(is_needed: bool) -> Iterator[None]:
    """Drop what libraries in C print to standard error: libtiff reports each damaged value there."""
    try:
        kept = os.dup(2) if is_needed else -1
    except OSError:  # it is closed
        kept = -1
    if kept < 0:
        yield
        return
    try:
        with open(os.devnull, "wb") as null:
            os.dup2(null.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _bands(picture: "Image.Image", factor: int) -> Iterator[NDArray[np.uint8]]:
    """Yield horizontal bands of a picture as planes.

    Each value is the mean over a square of `factor` pixels.
    """
    rows = max(1, BAND_PIXELS // (picture.width * factor)) * factor
    for top in range(0, picture.height, rows):
        band = picture.crop((0, top, picture.width, min(top + rows, picture.height)))
        plain = _to_planes(band, picture)
        planes = np.asarray(plain.reduce(factor) if factor > 1 else plain)
        yield planes[:, :, None] if planes.ndim == 2 else planes


def _to_planes(band: "Image.Image", picture: "Image.Image") -> "Image.Image":
    """Return a picture in any mode as L, RGB, or, if it has transparency, RGBA."""
    if band.mode[0] in "IF":
        return _from_numbers(np.asarray(band), picture.info.get("transparency"))
    if picture.has_transparency_data:
        return band.convert("RGBA")
    if band.mode in ("L", "1"):
        return band.convert("L")
    return band.convert("RGB")


def _from_numbers(values: NDArray[np.generic], transparent: object) -> "Image.Image":
    """Return 16-bit or floating-point grey as L.

    If one value is transparent, the result is RGBA.
    """
    from PIL import Image

    numbers = np.nan_to_num(values.astype(np.float32), posinf=0, neginf=0)
    most = 1.0 if values.dtype.kind == "f" and numbers.max() <= 1 else 65535.0
    gray = Image.fromarray((np.clip(numbers / most, 0, 1) * 255 + 0.5).astype(np.uint8))
    if not isinstance(transparent, int):
        return gray
    gray = gray.convert("RGBA")
    gray.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return gray


def _orientation(picture: "Image.Image", exif: bytes) -> int:
    """Return the EXIF orientation, 1 to 8, or 1 if it is missing or invalid."""
    try:
        if picture.format in ("PNG", "JPEG"):  # stripped, so that Pillow would search in vain
            value = _exif_orientation(exif) if exif else 1
        else:
            value = picture.getexif().get(ORIENTATION, 1)
    except _DAMAGED:
        return 1
    return value if value in range(2, 9) else 1


def _exif_orientation(exif: bytes) -> int:
    """Return the orientation in an EXIF block, which has the structure of a TIFF file."""
    block = exif.removeprefix(b"Exif\0\0")
    order = "<" if block.startswith(b"II") else ">"
    (at,) = struct.unpack_from(f"{order}I", block, 4)
    (count,) = struct.unpack_from(f"{order}H", block, at)
    for index in range(count):
        tag, _, _, value = struct.unpack_from(f"{order}HHIH", block, at + 2 + 12 * index)
        if tag == ORIENTATION:
            return int(value)
    return 1


def _upright(planes: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Return planes (h, w, n) turned and mirrored by the EXIF orientation."""
    if orientation >= 5:
        planes = planes.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        planes = planes[:, ::-1]
    if orientation in (3, 4, 7, 8):
        planes = planes[::-1]
    return np.ascontiguousarray(planes)
