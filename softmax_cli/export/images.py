"""Nodes of the stages that redraw images: whole numbers from 0 to 255, (n, rows, cols), to the same.

They do what the stages do, in the same order and precision, so that the images are the same, to the bit.
"""

from typing import NamedTuple

import numpy as np

from softmax_cli.export.graph import Graph
from softmax_cli.features.deskew import Deskew
from softmax_cli.features.normalize import Normalize

HALF, ONE = np.float32(0.5), np.float32(1)


def add_deskew(graph: Graph, stage: Deskew, x: str) -> str:
    """Add the deskewing of images, as `softmax_cli.features.deskew` does it."""
    rows, cols = stage.shape
    moments = _moments(graph, x, (rows, cols))
    lines = (np.arange(rows) - rows // 2).astype(np.float64)[None]
    offsets = graph.node("Add", moments.column, graph.node("Mul", moments.slant, lines))  # (n, rows)
    centred = _shift(graph, x, graph.reshape(moments.row, 1, 1), 1, (rows, cols))
    sheared = _shift(graph, centred, graph.reshape(offsets, rows, 1), 2, (rows, cols))
    return graph.node("Floor", graph.node("Add", sheared, HALF))


def _shift(graph: Graph, x: str, offsets: str, axis: int, shape: tuple[int, int]) -> str:
    """Add out[..., j, ...] = x[..., j + offset, ...] along an axis of images, for offsets (n, 1 or rows, 1).

    Interpolation is linear, and values outside of an image are 0.
    """
    length = shape[axis - 1]
    offsets = graph.node("Clip", offsets, np.float64(-length), np.float64(length))
    whole = graph.node("Floor", offsets)
    share = graph.cast(graph.node("Sub", offsets, whole), np.float32)
    pads = np.zeros((2, 3), np.int64)
    pads[:, axis] = length, length + 1
    padded = graph.node("Pad", x, pads.ravel())
    places = np.indices(shape, np.int32)[None, axis - 1] + np.int32(length)
    index = graph.node("Add", graph.cast(whole, np.int32), places)
    following = graph.node("Add", index, np.int32(1))
    first, second = (graph.node("GatherElements", padded, one, axis=axis) for one in (index, following))
    rest = graph.node("Sub", ONE, share)
    return graph.node("Add", graph.node("Mul", first, rest), graph.node("Mul", second, share))


def add_normalize(graph: Graph, stage: Normalize, x: str) -> str:
    """Add the normalisation of images by moments, as `softmax_cli.features.normalize` does it."""
    rows, cols = stage.shape
    moments = _moments(graph, x, (rows, cols))
    row, column, slant, size = (
        graph.cast(one, np.float32)
        for one in (moments.row, moments.column, moments.slant, _size(graph, moments))
    )
    zoom = graph.node("Div", size, stage.size)
    r, c = (axis.reshape(1, -1).astype(np.float32) for axis in np.mgrid[:rows, :cols])
    r, c = r - rows // 2, c - cols // 2
    sheared = graph.node("Add", c, graph.node("Mul", slant, r))
    at_row = graph.node("Add", graph.node("Mul", zoom, r), row)
    at_column = graph.node("Add", graph.node("Mul", zoom, sheared), column)
    at_row = graph.node("Add", at_row, np.float32(rows // 2))
    at_column = graph.node("Add", at_column, np.float32(cols // 2))
    return _interpolate(graph, x, at_row, at_column, (rows, cols))


def _interpolate(graph: Graph, x: str, at_row: str, at_column: str, shape: tuple[int, int]) -> str:
    """Add the values of images at positions (n, rows · cols), as `resampling.interpolate` does."""
    rows, cols = shape
    width = cols + 3
    padded = graph.node("Pad", x, np.array([0, 1, 1, 0, 2, 2]))
    flat = graph.reshape(padded, (rows + 3) * width)
    row, down = _split(graph, at_row, rows)
    column, right = _split(graph, at_column, cols)
    index = graph.node("Add", graph.node("Mul", row, np.int32(width)), column)
    lines = []
    for offset in (0, width):  # the line above a position, and the one below
        left, value = (
            graph.node("GatherElements", flat, graph.node("Add", index, np.int32(offset + step)), axis=1)
            for step in (0, 1)
        )
        lines.append(_between(graph, left, value, right))
    drawn = graph.node("Floor", graph.node("Add", _between(graph, lines[0], lines[1], down), HALF))
    return graph.reshape(drawn, rows, cols)


def _between(graph: Graph, first: str, second: str, share: str) -> str:
    """Add first + share · (second − first)."""
    return graph.node("Add", graph.node("Mul", graph.node("Sub", second, first), share), first)


def _split(graph: Graph, positions: str, side: int) -> tuple[str, str]:
    """Add the pixel before each position, an index into the padded axis, and the share of the next one."""
    inside = graph.node("Add", graph.node("Clip", positions, np.float32(-1), np.float32(side)), ONE)
    whole = graph.node("Floor", inside)
    return graph.cast(whole, np.int32), graph.node("Sub", inside, whole)


class Moments(NamedTuple):
    """Names of moments of images, each float64 (n, 1).

    Attributes:
        row: Row of the centre of mass, relative to the middle of the image.
        column: Its column.
        height: Variance of the rows.
        both: Covariance of rows and columns.
        slant: Columns per row.
        columns_squared: Mean square of the columns.
    """

    row: str
    column: str
    height: str
    both: str
    slant: str
    columns_squared: str


def _moments(graph: Graph, x: str, shape: tuple[int, int]) -> Moments:
    """Add the moments of images; sums of whole numbers are exact in float64."""
    r, c = (np.indices(shape)[axis].reshape(-1, 1) - shape[axis] // 2 for axis in (0, 1))
    flat = graph.cast(graph.reshape(x, r.size), np.float64)
    powers = (np.ones_like(r), r, c, r * r, r * c, c * c)
    mass, *sums = (graph.node("MatMul", flat, power.astype(np.float64)) for power in powers)
    mass = graph.node("Max", mass, np.float64(1))
    row, column, rr, rc, cc = (graph.node("Div", total, mass) for total in sums)
    height = graph.node("Sub", rr, graph.node("Mul", row, row))
    both = graph.node("Sub", rc, graph.node("Mul", row, column))
    is_flat = graph.node("Less", height, np.float64(1e-9))
    divisor = graph.node("Where", is_flat, np.float64(1), height)
    slant = graph.node("Where", is_flat, np.float64(0), graph.node("Div", both, divisor))
    return Moments(row, column, height, both, slant, cc)


def _size(graph: Graph, moments: Moments) -> str:
    """Add the size of images, (n, 1), the root of the summed variances of the upright image."""
    square = graph.node("Mul", moments.column, moments.column)
    width = graph.node("Sub", moments.columns_squared, square)
    total = graph.node("Add", moments.height, width)
    upright = graph.node("Sub", total, graph.node("Mul", moments.slant, moments.both))
    return graph.node("Sqrt", graph.node("Max", upright, np.float64(1)))
