"""Text for a terminal: escaped names, tables, bars and half-block images."""

import os
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BAR_WIDTH = 40

BLACK = 232
"""Number of the first of 24 greys among the 256 terminal colours."""

BLUES, REDS = (17, 18, 20, 26, 33, 75), (52, 88, 124, 160, 196, 203)
"""Blues and reds among the 256 colours, from dark to bright."""


def escape(text: str) -> str:
    """Return text with control characters escaped; names are not trusted."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def escape_lines(message: str) -> str:
    """Return a message of several lines with all other control characters escaped."""
    return "\n".join(map(escape, message.split("\n")))


def table(header: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = None) -> str:
    """Return a table with the first column aligned left and the others aligned right.

    If it is wider than `width`, by default that of the terminal (80 if there is none), the columns are
    divided into several tables that repeat the first column.
    """
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    width = width or (shutil.get_terminal_size().columns if sys.stdout.isatty() else 80)
    groups: list[list[int]] = [[]]
    room = width - widths[0]
    for index in range(1, len(columns)):
        room -= 2 + widths[index]
        if room < 0 and groups[-1]:
            groups.append([])
            room = width - widths[0] - 2 - widths[index]
        groups[-1].append(index)
    return "\n\n".join(_aligned([columns[i] for i in (0, *group)]) for group in groups)


def _aligned(columns: Sequence[Sequence[str]]) -> str:
    """Return columns as lines, the first aligned left and the others aligned right."""
    widths = [max(map(len, column)) for column in columns]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in zip(*columns, strict=True)
    )


def bars(shares: dict[str, float]) -> str:
    """Return a bar for each name, whose length is proportional to its fraction of 1."""
    width = max(map(len, shares))
    full = "█" if _can_print("█") else "#"
    return "\n".join(
        f"{name.rjust(width)}  {100 * share:6.2f} %  {full * round(BAR_WIDTH * share)}".rstrip()
        for name, share in shares.items()
    )


def half_blocks(image: "NDArray[np.uint8]") -> str:
    """Return a uint8 image (rows, cols) as text, two rows a line.

    In shades of grey if stdout is a terminal with colour, else in two tones, white from 128 on.
    """
    import numpy as np

    padded = np.pad(image, ((0, len(image) % 2), (0, 0)))
    pairs = [
        list(zip(upper, lower, strict=True)) for upper, lower in zip(padded[::2], padded[1::2], strict=True)
    ]
    if _has_colour():
        return "\n".join("".join(_grey_pair(int(a), int(b)) for a, b in line) + "\033[0m" for line in pairs)
    marks = " ▀▄█" if _can_print("▀▄█") else " '.#"
    return "\n".join("".join(marks[(a > 127) + 2 * (b > 127)] for a, b in line).rstrip() for line in pairs)


def signed_picture(image: "NDArray[np.uint8]", values: "NDArray[np.float64]") -> str:
    """Return an image (rows, cols) as text, coloured by the sign of `values`.

    Positive values are blue, negative values red.

    Without colour, one character per pixel: ``+`` and ``-``, ``.`` for ink with little effect, else a space.
    """
    import numpy as np

    strength = values / max(float(np.abs(values).max()), 1e-300)
    if _has_colour():
        colours = np.pad(_tinted(image, strength), ((0, len(image) % 2), (0, 0)), constant_values=BLACK)
        return "\n".join(
            "".join(f"\033[38;5;{a};48;5;{b}m▀" for a, b in zip(*pair, strict=True)) + "\033[0m"
            for pair in zip(colours[::2].tolist(), colours[1::2].tolist(), strict=True)
        )
    marks = np.where(image > 0, ".", " ")
    marks[strength > 1 / 8], marks[strength < -1 / 8] = "+", "-"
    return "\n".join("".join(line).rstrip() for line in marks.tolist())


def signs_of(winner: str, runner_up: str) -> str:
    """Return the legend of `signed_picture`."""
    marks = ("blue", "red", "grey") if _has_colour() else ("+", "-", ".")
    return f"{marks[0]} for {winner}, {marks[1]} for {runner_up}, {marks[2]} little effect"


def _tinted(image: "NDArray[np.uint8]", strength: "NDArray[np.float64]") -> "NDArray[np.int64]":
    """Return a colour per pixel: blue or red by strength in [-1, 1], else grey."""
    import numpy as np

    steps = (
        np.ceil(len(BLUES) * np.sqrt(np.abs(strength))).astype(int) - 1
    )  # the root makes weak values visible
    tint = np.where(strength > 0, np.take(BLUES, steps), np.take(REDS, steps))
    greys = BLACK + image.astype(np.int64) * 24 // 256
    return np.where(np.abs(strength) > 1 / 100, tint, greys)


def _grey_pair(upper: int, lower: int) -> str:
    greys = (BLACK + level * 24 // 256 for level in (upper, lower))
    return "\033[38;5;{};48;5;{}m▀".format(*greys)


def _has_colour() -> bool:
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stdout.isatty() and not plain and _can_print("▀")


def _can_print(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
