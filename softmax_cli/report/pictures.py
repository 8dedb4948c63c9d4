"""The pictures in the report: as many as fit, those of the most confident mistakes first."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softmax_cli.data.dataset import Dataset
from softmax_cli.pictures import encode_png
from softmax_cli.report.findings import Findings, Mistake
from softmax_cli.training import State

MOST_CONFIDENT = 40
PER_CELL = 12
"""Mistakes that are shown of all, and of each cell of the confusion matrix."""

ATLAS_COLUMNS = 16
"""Pictures side by side in one that holds many."""

ATLAS_LIMIT, MISTAKES_LIMIT, CLASSES_LIMIT = 130_000, 60_000, 120_000
"""Bytes for the pictures of the cells, of the most confident mistakes, and of the classes.

With the images to train on, and a third more for base64, they leave room for a model in a page of 1.5 MB.
"""

FOR, AGAINST = (37, 105, 235), (216, 58, 52)
"""Blue and red, for weights above and below zero."""


def of_classes(state: State, findings: Findings) -> list[dict[str, Any]]:
    """Return, for each class, its mean image and, where it has one, the picture of its weights."""
    shape = findings.means.shape[1:]
    scale = max(float(np.abs(state.model.weights).max()), 1e-30)
    images = findings.scores.confusion.sum(axis=1)
    pictures, room = [], CLASSES_LIMIT
    for index, mean in enumerate(findings.means):
        one: dict[str, Any] = {"class": index, "mean": None, "weights": None}
        if images[index]:
            one["mean"] = encode_png(np.rint(mean).astype(np.uint8))
        if not state.features.vector_stages:
            one["weights"] = encode_png(signed_pixels(state.model.weights[:, index].reshape(shape) / scale))
        room -= sum(len(one[kind] or b"") for kind in ("mean", "weights"))
        if room < 0:
            break
        pictures.append(one | {"bias": float(state.model.bias[index])})
    return pictures


def signed_pixels(strength: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Return values in [-1, 1] as pixels (rows, cols, 4): blue above zero, red below, clear at zero."""
    pixels = np.empty((*strength.shape, 4), np.uint8)
    pixels[..., :3] = np.where(strength[..., None] > 0, FOR, AGAINST)
    pixels[..., 3] = np.rint(255 * np.abs(strength))
    return pixels


def of_mistakes(findings: Findings, data: Dataset) -> list[dict[str, Any]]:
    """Return the most confident mistakes, each with the picture of its image."""
    shown, room = [], MISTAKES_LIMIT
    for mistake in findings.mistakes[:MOST_CONFIDENT]:
        picture = encode_png(np.asarray(data.images[mistake.image]))
        room -= len(picture)
        if room < 0:
            break
        shown.append({"picture": picture, **mistake._asdict()})
    return shown


def atlas(findings: Findings, data: Dataset) -> tuple[bytes | None, dict[str, list[Any]]]:
    """Return one picture with the images of the cells, `ATLAS_COLUMNS` side by side, and what is where.

    Up to `PER_CELL` of each cell, or fewer, so that the picture stays within `ATLAS_LIMIT`. If one of each
    is too much, only the cells with the most confident mistakes have one.
    """
    for count in (PER_CELL, 8, 5, 3, 2, 1):
        cells = findings.by_cell(count)
        shown = [mistake for cell in cells.values() for mistake in cell]
        picture = _tiled(shown, data)
        if len(picture) <= ATLAS_LIMIT:
            break
    while len(picture) > ATLAS_LIMIT:
        shown = shown[: len(shown) * ATLAS_LIMIT // (len(picture) + 1)]
        picture = _tiled(shown, data)
    places: dict[str, list[Any]] = {}
    for at, one in enumerate(shown):
        entry = [at, one.image, one.probability, one.true_probability]
        places.setdefault(f"{one.true},{one.guess}", []).append(entry)
    return picture or None, places


def tiled(images: NDArray[np.uint8]) -> bytes:
    """Return one picture of images (n, rows, cols), `ATLAS_COLUMNS` side by side, row by row."""
    count, rows, columns = images.shape
    lines = -(-count // ATLAS_COLUMNS)
    tiles = np.zeros((lines * ATLAS_COLUMNS, rows, columns), np.uint8)
    tiles[:count] = images
    grid = tiles.reshape(lines, ATLAS_COLUMNS, rows, columns).swapaxes(1, 2)
    return encode_png(grid.reshape(lines * rows, ATLAS_COLUMNS * columns))


def _tiled(mistakes: Sequence[Mistake], data: Dataset) -> bytes:
    return tiled(data.images[[mistake.image for mistake in mistakes]]) if mistakes else b""
