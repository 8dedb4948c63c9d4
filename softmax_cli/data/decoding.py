"""Pictures to images of a common size, on all cores.

Decoding a small picture is mostly work of the interpreter, which threads do not share. The work is therefore
done by child processes, which run this module: each reads a pickled call from its standard input and writes
the pickled results to its standard output. `backend.map_processes` would not do: if it cannot fork, it runs
the main module of the caller again, which may be a script that loads data and trains.
"""

import logging
import os
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from softmax_cli.backend import cores, map_ordered
from softmax_cli.data.png import scanlines, unfilter
from softmax_cli.data.readers import LARGEST_SIDE, ReadOptions
from softmax_cli.errors import DataError, ImageError
from softmax_cli.files import open_regular
from softmax_cli.pictures import draw_plain, prepare_picture, read_luminance

log = logging.getLogger(__name__)

FEW = 1500
"""Number of pictures for which starting a process does not pay."""

NAMED = 3
"""Number of unreadable pictures that a message names."""

SMALL_FILE = 1 << 13
"""Size in bytes of a file that is read at once to see whether it is a simple PNG file."""

LIGHT = 127
"""Tone of the border above which a picture is dark on light."""

Gray = NDArray[np.uint8]
Picture = Path | bytes


class Look(NamedTuple):
    """What is known of a picture before the common size is.

    Attributes:
        size: Rows and columns.
        is_light: Its border is light.
        gray: Its luminance (rows, cols), if it is small.
        problem: Why it cannot be read, if so.
    """

    size: tuple[int, int] = (0, 0)
    is_light: bool = False
    gray: Gray | None = None
    problem: str = ""


def decode_pictures(sources: Sequence[Picture], options: ReadOptions) -> tuple[Gray, NDArray[np.bool_]]:
    """Return images (n, rows, cols) of the pictures that can be read, and which these are, (N,).

    `sources` are paths or contents of files. Their common size is ``options.image_size``, or the most
    frequent size, scaled down if a side exceeds `LARGEST_SIDE`. Colour becomes grey. With the preparation
    ``plain``, pictures are padded and resized, and if most of them have a light border, all are inverted, so
    that the images are light on dark; with ``digit``, each is drawn as MNIST would.

    Raises:
        DataError: A picture cannot be read and ``options.skip_bad`` is not set, or none can be read.
    """
    looks: list[Look] = _map_processes(_look_at_all, sources)
    readable = _check(sources, looks, options.skip_bad)
    kept = [index for index, good in enumerate(readable) if good]
    size = options.image_size or common_size([looks[index].size for index in kept])
    images = np.empty((len(kept), *size), np.uint8)
    is_digit = options.preparation == "digit"
    later = []
    for row, index in enumerate(kept):
        gray = looks[index].gray
        if is_digit or gray is None or gray.shape != size:
            later.append(row)
        else:
            images[row] = gray
    draw = partial(_draw_all, size=size, is_digit=is_digit)
    for row, image in zip(later, _map_processes(draw, [sources[kept[row]] for row in later]), strict=True):
        images[row] = image
    if not is_digit and 2 * sum(looks[index].is_light for index in kept) > len(kept):
        np.subtract(255, images, out=images)
    return images, readable


def find_size(sources: Sequence[Picture]) -> tuple[int, int]:
    """Return the common size of the pictures that can be read (see `common_size`)."""
    sizes = [look.size for look in _look_at_all(sources) if not look.problem]
    if not sizes:
        raise DataError(f"none of {len(sources):,} pictures can be read")
    return common_size(sizes)


def common_size(sizes: list[tuple[int, int]]) -> tuple[int, int]:
    """Return the most frequent size, the smaller of equals, scaled down to at most `LARGEST_SIDE`."""
    counts = Counter(sizes)
    rows, cols = min(counts, key=lambda size: (-counts[size], size))
    scale = min(1, LARGEST_SIDE / max(rows, cols))
    return max(1, round(rows * scale)), max(1, round(cols * scale))


def _look_at_all(sources: Sequence[Picture]) -> list[Look]:
    """Return what is known of each picture; simple PNG files are decoded together."""
    looks: list[Look | None] = [None] * len(sources)
    simple: dict[tuple[int, ...], tuple[list[int], list[Gray]]] = {}
    for index, source in enumerate(sources):
        lines = scanlines(_content(source), LARGEST_SIDE)
        if lines is None:
            looks[index] = _look(source)
        else:
            indices, found = simple.setdefault(lines.shape, ([], []))
            indices.append(index)
            found.append(lines)
    for indices, found in simple.values():
        for index, gray in zip(indices, unfilter(np.stack(found)), strict=True):
            looks[index] = _describe(gray)
    return [look for look in looks if look is not None]


def _content(source: Picture) -> bytes:
    """Return the beginning of a file that may be a small picture; nothing if it cannot be read."""
    if isinstance(source, bytes):
        return source[:SMALL_FILE]
    try:
        with open_regular(Path(source), ImageError) as file:
            return file.read(SMALL_FILE)
    except (ImageError, OSError):
        return b""  # `_look` reports the reason


def _look(source: Picture) -> Look:
    try:
        return _describe(np.asarray(read_luminance(source).gray))
    except ImageError as error:
        return Look(problem=str(error))


def _describe(gray: Gray) -> Look:
    border = np.concatenate([gray[0], gray[-1], gray[:, 0], gray[:, -1]])
    is_light = 2 * np.count_nonzero(border > LIGHT) > len(border)
    size = gray.shape[0], gray.shape[1]
    return Look(size, bool(is_light), gray if max(size) <= LARGEST_SIDE else None)


def _draw_all(sources: Sequence[Picture], size: tuple[int, int], is_digit: bool) -> list[Gray]:
    return [_draw(source, size, is_digit) for source in sources]


def _draw(source: Picture, size: tuple[int, int], is_digit: bool) -> Gray:
    if is_digit:
        return prepare_picture(source, size, "digit").image
    return draw_plain(np.asarray(read_luminance(source).gray), size, invert=False).image


def _check(sources: Sequence[Picture], looks: list[Look], skip_bad: bool) -> NDArray[np.bool_]:
    """Return which pictures can be read, (N,); raise `DataError` if that is not enough."""
    problems = [look.problem for look in looks if look.problem]
    if problems:
        text = f"{len(problems):,} of {len(looks):,} pictures cannot be read: {'; '.join(problems[:NAMED])}"
        text += f"; and {len(problems) - NAMED:,} more" if len(problems) > NAMED else ""
        if not skip_bad or len(problems) == len(looks):
            raise DataError(f"{text}; repair or remove them, or leave them out with --skip-bad")
        log.warning("%s; they are left out", text)
    return np.array([not look.problem for look in looks])


def _map_processes(
    function: Callable[[Sequence[Picture]], list[Any]], sources: Sequence[Picture]
) -> list[Any]:
    """Return the results of a function of this module, computed by a process per core if that pays."""
    count = min(cores(), -(-len(sources) // FEW))
    if count < 2 or not sys.executable:
        return function(sources)
    bounds = [len(sources) * part // count for part in range(count + 1)]
    parts = [sources[begin:end] for begin, end in pairwise(bounds)]
    return [result for results in map_ordered(partial(_run_child, function), parts) for result in results]


def _run_child(function: Callable[[Sequence[Picture]], list[Any]], sources: Sequence[Picture]) -> list[Any]:
    line = [sys.executable, "-c", f"from {__name__} import serve; serve()"]
    call = pickle.dumps((function, list(sources)))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(line, input=call, stdout=subprocess.PIPE, check=True, env=environment)
    results: list[Any] = pickle.loads(done.stdout)
    return results


def serve() -> None:
    """Answer the call on standard input: the work of a child process."""
    function, sources = pickle.loads(sys.stdin.buffer.read())
    pickle.dump(function(sources), sys.stdout.buffer)
