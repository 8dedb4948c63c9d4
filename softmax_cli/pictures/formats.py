"""Picture formats: how each is recognised, checked and stripped before decoding.

Decoding a small file can take gigabytes or minutes: it may have a profile that inflates, thousands of scans,
or millions of empty segments. Therefore a function for each format first parses the structure of the file.
It raises `UnreadableError` if a limit is exceeded, and returns only the parts that decoding needs. Texts,
colour profiles and comments are removed, so that damage in them has no effect.

Sources: PNG (W3C, third edition), JPEG (ITU-T T.81, annex B), GIF89a, TIFF 6.0, WebP (RFC 9649).
"""

import importlib
import importlib.util
import io
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

MAX_PIXELS = 32_000_000
MAX_JPEG_PIXELS = 64_000_000
MAX_CODEC_PIXELS = 12_000_000
"""Limit for decoders that hold several copies of the picture: WebP, AVIF, HEIC."""

MAX_COEFFICIENT_BYTES = 100_000_000
"""Memory for the coefficients of a JPEG with several scans, which are kept until the last scan."""

MAX_PARTS = 20_000
"""Largest number of chunks of a PNG, segments of a JPEG, or blocks of a GIF."""

MAX_SCANS = 100
MAX_SCANNED = 1_000_000_000
"""Largest total number of coefficients in all scans of a JPEG."""

MAX_PADDING = 4096
MAX_METADATA = 1_000_000
"""Largest inflated size of a text or a colour profile of a PNG, in bytes."""

MAX_TAG_VALUES = 200_000
MAX_SLOW_BYTES = 1_000_000
"""Largest size of a run-length-encoded BMP, which Pillow decodes in Python."""

DAMAGED = "is truncated or damaged; save it again"


class UnreadableError(Exception):
    """Error for a picture that exceeds a limit or is damaged.

    The message continues a sentence that begins with the name of the file.
    """


class Stripped(NamedTuple):
    """The bytes that decoding needs, and the EXIF block, empty if there is none."""

    content: bytes
    exif: bytes = b""


class Format(NamedTuple):
    """A picture format.

    `matches` decides by the first 32 bytes. `strip` checks the structure and drops metadata. `reader` is
    the module and the class of Pillow, or of a plug-in for it, that decode the format.
    """

    name: str
    matches: Callable[[bytes], bool]
    strip: Callable[[bytes], Stripped]
    reader: tuple[str, str]
    max_pixels: int = MAX_PIXELS

    def is_available(self) -> bool:
        """Return whether the module that decodes the format is installed."""
        module = self.reader[0]
        found = importlib.util.find_spec(module.partition(".")[0])
        return found is not None and importlib.util.find_spec(module) is not None

    def open(self, content: bytes) -> "ImageFile":
        """Return the picture, not yet decoded, opened by the reader of this format."""
        module, name = self.reader
        picture: ImageFile = getattr(importlib.import_module(module), name)(io.BytesIO(content))
        return picture


def find_format(content: bytes) -> Format | None:
    """Return the format of a file by its first bytes, or None."""
    return next((one for one in FORMATS if one.matches(content[:32])), None)


def too_large(why: str) -> UnreadableError:
    """Return the error for a picture that would take too much time or memory."""
    return UnreadableError(f"is too large: {why}; save a smaller copy")


# PNG

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_NEEDED = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_PNG_DEFLATED = {b"zTXt", b"iCCP", b"iTXt"}


def _strip_png(content: bytes) -> Stripped:
    kept, exif = [_PNG], b""
    for kind, start, end in _png_chunks(content):
        if kind in _PNG_NEEDED:
            if zlib.crc32(content[start - 4 : end]) != int.from_bytes(content[end : end + 4], "big"):
                raise UnreadableError(DAMAGED)
            kept.append(content[start - 8 : end + 4])
        elif kind == b"eXIf":
            exif = content[start:end]
        elif kind in _PNG_DEFLATED and _inflates_too_far(content[start:end]):
            raise too_large(f"a text or a colour profile in it inflates to over {MAX_METADATA:,} bytes")
    return Stripped(b"".join(kept), exif)


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the type of each chunk, and the start and the end of its data."""
    at = len(_PNG)
    for _ in range(MAX_PARTS):
        start = at + 8
        end = start + int.from_bytes(content[at : at + 4], "big")
        if end + 4 > len(content):
            raise UnreadableError(DAMAGED)
        yield content[at + 4 : start], start, end
        if content[at + 4 : start] == b"IEND":
            return
        at = end + 4
    raise too_large(f"more than {MAX_PARTS:,} chunks")


def _inflates_too_far(data: bytes) -> bool:
    """Return whether the deflated part of a metadata chunk exceeds its limit.

    The part begins after a keyword and some fields of varying length, with one of zlib's first bytes.
    """
    start = data.find(b"\x78", data.find(b"\0"))
    inflater = zlib.decompressobj()
    try:
        return start >= 0 and len(inflater.decompress(data[start:], MAX_METADATA + 1)) > MAX_METADATA
    except zlib.error:
        return False


# JPEG

_JPEG_NEEDED = {*range(0xC0, 0xD0), 0xDA, 0xDB, 0xDD, 0xEE}
"""Frames, tables, scans, the restart interval, and Adobe's segment, which says how colours are stored."""

_JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_SCAN_END = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_PADDING = re.compile(rb"\xff{1,%d}(?!\xff)" % MAX_PADDING)


def _strip_jpeg(content: bytes) -> Stripped:
    kept, exif, scans, frame = [b"\xff\xd8"], b"", 0, b""
    for marker, start, end in _jpeg_segments(content):
        if marker in _JPEG_NEEDED:
            kept.append(b"\xff" + content[start - 1 : end])
        elif marker == 0xE1 and content[start + 2 : start + 6] == b"Exif" and not exif:
            exif = content[start + 2 : end]
        if marker in _JPEG_FRAMES:
            frame = content[start - 1 : end]
        scans += marker == 0xDA
        if scans > MAX_SCANS:
            raise too_large(f"more than {MAX_SCANS} scans")
    _check_frame(frame, scans)
    return Stripped(b"".join(kept), exif)


def _jpeg_segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the marker, the start of the data and the end of each segment.

    The coded data of a scan belong to its segment. The last one includes the marker that ends the file.
    """
    at = 2
    for _ in range(MAX_PARTS):
        padding = _PADDING.match(content, at)
        start = padding.end() + 1 if padding else len(content)
        end = start + int.from_bytes(content[start : start + 2], "big")
        if start >= len(content) or content[start - 1] < 0xC0 or not start + 2 <= end <= len(content):
            raise UnreadableError(DAMAGED)
        marker = content[start - 1]
        last = False
        if marker == 0xDA:
            found = _SCAN_END.search(content, end)
            last = found is None or found[0] == b"\xff\xd9"
            end = len(content) if found is None else found.end() if last else found.start()
        yield marker, start, end
        if last:
            return
        at = end
    raise too_large(f"more than {MAX_PARTS:,} segments")


def _check_frame(frame: bytes, scans: int) -> None:
    """Raise `UnreadableError` if a JPEG is too large (T.81, B.2.2).

    The limit is lower for a JPEG with several scans.
    """
    if len(frame) < 9 or len(frame) < 9 + 3 * frame[8]:
        raise UnreadableError(DAMAGED)
    height, width = struct.unpack(">HH", frame[4:8])
    if width * height > MAX_JPEG_PIXELS:
        raise too_large(f"more than {MAX_JPEG_PIXELS:,} pixels")
    factors = [(byte >> 4) * (byte & 15) for byte in frame[10 : 9 + 3 * frame[8] : 3]]
    coefficients = width * height * sum(factors) // max(factors, default=1)
    is_progressive = frame[0] in (0xC2, 0xC6, 0xCA, 0xCE)
    if (is_progressive or scans > 1) and (
        2 * coefficients > MAX_COEFFICIENT_BYTES or scans * coefficients > MAX_SCANNED
    ):
        raise too_large("it has several scans, which all have to be kept in memory")


# GIF


def _strip_gif(content: bytes) -> Stripped:
    """Return the first frame of a GIF, with its transparent colour."""
    at = 13 + (3 << (content[10] & 7) + 1 if content[10] & 0x80 else 0) if len(content) > 13 else 0
    kept = [content[:at]]
    for _ in range(MAX_PARTS):
        kind = content[at : at + 1]
        if kind == b",":
            return Stripped(b"".join([*kept, content[at:]]))
        if kind != b"!":
            raise UnreadableError(DAMAGED)
        end = _after_blocks(content, at + 2)
        if content[at + 1] == 0xF9:
            kept.append(content[at:end])
        at = end
    raise too_large(f"more than {MAX_PARTS:,} extensions")


def _after_blocks(content: bytes, at: int) -> int:
    """Return the position after a chain of data blocks.

    Each block begins with its length.
    """
    for _ in range(MAX_PARTS):
        if at >= len(content):
            raise UnreadableError(DAMAGED)
        length = content[at]
        at += length + 1
        if not length:
            return at
    raise too_large(f"more than {MAX_PARTS:,} blocks")


# BMP, TIFF, WebP, AVIF, HEIC


def _strip_bmp(content: bytes) -> Stripped:
    if content[30:34] in (b"\1\0\0\0", b"\2\0\0\0") and len(content) > MAX_SLOW_BYTES:
        raise too_large(f"run-length encoding is read up to {MAX_SLOW_BYTES:,} bytes")
    return Stripped(content)


def _strip_tiff(content: bytes) -> Stripped:
    """Check that the tags of the first page hold no more values than a picture needs."""
    order = "<" if content[:2] == b"II" else ">"
    try:
        (at,) = struct.unpack_from(f"{order}I", content, 4)
        (count,) = struct.unpack_from(f"{order}H", content, at)
        tags = [struct.unpack_from(f"{order}HHI", content, at + 2 + 12 * index) for index in range(count)]
    except struct.error as error:
        raise UnreadableError(DAMAGED) from error
    if count > 1000 or sum(values for _, kind, values in tags if kind not in (1, 2, 6, 7)) > MAX_TAG_VALUES:
        raise too_large("its tags hold too many values")
    return Stripped(content)


def _strip_webp(content: bytes) -> Stripped:
    """Check the size of the canvas.

    The decoder allocates it when the file is opened.
    """
    kind = content[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(content[at : at + 3], "little") + 1 for at in (24, 27))
    elif kind == b"VP8L":
        bits = int.from_bytes(content[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (int.from_bytes(content[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    if width * height > MAX_CODEC_PIXELS:
        raise too_large(f"more than {MAX_CODEC_PIXELS:,} pixels")
    return Stripped(content)


def _has_brand(*brands: bytes) -> Callable[[bytes], bool]:
    """Return a test for ISO media files whose major brand is one of `brands`."""
    return lambda start: start[4:8] == b"ftyp" and start[8:12] in brands


FORMATS = (
    Format("PNG", lambda start: start.startswith(b"\x89PNG"), _strip_png,
           ("PIL.PngImagePlugin", "PngImageFile")),
    Format("JPEG", lambda start: start.startswith(b"\xff\xd8"), _strip_jpeg,
           ("PIL.JpegImagePlugin", "JpegImageFile"), MAX_JPEG_PIXELS),
    Format("WebP", lambda start: start[:4] == b"RIFF" and start[8:12] == b"WEBP", _strip_webp,
           ("PIL.WebPImagePlugin", "WebPImageFile"), MAX_CODEC_PIXELS),
    Format("GIF", lambda start: start[:6] in (b"GIF87a", b"GIF89a"), _strip_gif,
           ("PIL.GifImagePlugin", "GifImageFile")),
    Format("BMP", lambda start: start.startswith(b"BM"), _strip_bmp,
           ("PIL.BmpImagePlugin", "BmpImageFile")),
    Format("TIFF", lambda start: start[:4] in (b"II*\0", b"MM\0*"), _strip_tiff,
           ("PIL.TiffImagePlugin", "TiffImageFile")),
    Format("AVIF", _has_brand(b"avif", b"avis"), Stripped,
           ("PIL.AvifImagePlugin", "AvifImageFile"), MAX_CODEC_PIXELS),
    Format("HEIC", _has_brand(b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1"), Stripped,
           ("pillow_heif.as_plugin", "HeifImageFile"), MAX_CODEC_PIXELS),
)  # fmt: skip
"""All formats, in the order in which messages name them."""
