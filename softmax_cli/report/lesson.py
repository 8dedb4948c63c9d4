"""The images that the page trains on in the browser: a few hundred of each split, in one picture each."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from softmax_cli.data.dataset import Dataset
from softmax_cli.model import Labels
from softmax_cli.report.pictures import tiled

COUNTS = (500, 300, 200, 100)
"""Images of each split: the first number whose pictures stay within `LIMIT`."""

LIMIT = 300_000
"""Bytes that the two pictures may take."""

MOST_CLASSES = 50


class Part(NamedTuple):
    """Some images of a split: their row numbers, their labels and one picture of all of them."""

    rows: NDArray[np.intp]
    labels: Labels
    picture: bytes


class Lesson(NamedTuple):
    """What the browser trains on, and what it tests on."""

    train: Part
    test: Part


def choose_lesson(train: Dataset, test: Dataset) -> Lesson | str:
    """Return the images to train and to test on in the browser, or why the page has none."""
    classes = len(train.class_names)
    if classes > MOST_CLASSES:
        return f"{classes} classes are too many for the few hundred images that fit the page."
    if train.image_shape != test.image_shape:
        return "The training images do not have the shape of the test images."
    for count in COUNTS:
        lesson = Lesson(*(_part(data, choose_rows(data.labels, count)) for data in (train, test)))
        if sum(len(part.picture) for part in lesson) <= LIMIT:
            return lesson
    rows, columns = train.image_shape
    return f"Images of {rows} x {columns} pixels are too large for the page to hold a few hundred of them."


def choose_rows(labels: Labels, count: int) -> NDArray[np.intp]:
    """Return up to `count` row numbers in order: the first images of each class, as many of each."""
    present = np.unique(labels)
    each = math.ceil(count / len(present))
    rows = np.concatenate([np.flatnonzero(labels == label)[:each] for label in present])
    return np.sort(rows)[:count]


def describe_lesson(lesson: Lesson) -> dict[str, Any]:
    """Return the labels as plain values; the pictures are embedded on their own."""
    return {name: getattr(lesson, name).labels.tolist() for name in lesson._fields}


def _part(data: Dataset, rows: NDArray[np.intp]) -> Part:
    return Part(rows, data.labels[rows], tiled(data.images[rows]))
