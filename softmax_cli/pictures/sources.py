"""Find the pictures that a name stands for: a file, or all pictures in a folder."""

import re
import shlex
from pathlib import Path

from softmax_cli.errors import ImageError, reason
from softmax_cli.files import open_regular
from softmax_cli.pictures.formats import find_format

SUFFIXES = frozenset(
    [".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif"]
)
"""Endings of the names of files that are taken to be pictures, whatever is in them."""

URL = re.compile(r"[a-z]+://", re.IGNORECASE)


def find_pictures(name: str | Path) -> list[Path]:
    """Return the path of a file, or those of all pictures in a folder, sorted by name.

    A file in a folder is a picture if its name or its first bytes are those of one; hidden files and
    folders in it are skipped.

    Raises:
        ImageError: It is a URL, or a folder without pictures or that cannot be read.
    """
    check_is_local(str(name))
    path = Path(name)
    try:
        if not path.is_dir():
            return [path]
        entries = sorted(path.iterdir())
    except OSError as error:
        raise ImageError(f"cannot read {path}: {reason(error)}") from error
    found = [entry for entry in entries if _is_picture(entry)]
    if not found:
        raise ImageError(f"there are no pictures in the folder {path}")
    return found


def check_is_local(name: str) -> None:
    """Raise `ImageError` for a URL, with the command that reads it."""
    if URL.match(name):
        raise ImageError(f"{name} is a URL; run: curl -sSL {shlex.quote(name)} | softmax predict -")


def _is_picture(path: Path) -> bool:
    if path.name.startswith("."):
        return False
    try:
        if not path.is_file():
            return False
        if path.suffix.lower() in SUFFIXES:
            return True
        with open_regular(path, ImageError) as file:
            return find_format(file.read(32)) is not None
    except (ImageError, OSError):
        return False
