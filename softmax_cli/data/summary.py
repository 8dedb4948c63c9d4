"""Descriptions of a data set: images per class, and a sheet of sample images."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from softmax_cli.data.catalog import known_dataset
from softmax_cli.data.dataset import Dataset

COLUMNS = 20
"""Largest number of images per class on a sheet."""

GAP = 2
"""Pixels between the images of a sheet."""

MAX_ROWS = 100
"""Largest number of classes on a sheet."""


def describe_dataset(train: Dataset, test: Dataset) -> dict[str, Any]:
    """Return what the two splits of a data set contain, as plain values."""
    known = known_dataset(train.digest)
    return {
        "dataset": train.name,
        "known": known.title if known else None,
        "digest": train.digest,
        "image_shape": train.image_shape,
        "preparation": train.preparation,
        "class_names": train.class_names,
        "train": _counts(train),
        "test": _counts(test),
    }


def _counts(data: Dataset) -> dict[str, Any]:
    counts = np.bincount(data.labels, minlength=len(data.class_names)).tolist()
    return {"images": len(data), "counts": counts}


def sample_sheet(data: Dataset) -> NDArray[np.uint8]:
    """Return a grey image with a row for each class, of up to `COLUMNS` of its images.

    The images of a class are evenly spaced in the data set.
    """
    rows, cols = data.image_shape
    classes = min(len(data.class_names), MAX_ROWS)
    sheet = np.full((classes * (rows + GAP) - GAP, COLUMNS * (cols + GAP) - GAP), 127, np.uint8)
    for label in range(classes):
        found = np.flatnonzero(data.labels == label)
        chosen = found[np.linspace(0, len(found) - 1, min(COLUMNS, len(found))).astype(np.intp)]
        for column, index in enumerate(chosen):
            top, left = label * (rows + GAP), column * (cols + GAP)
            sheet[top : top + rows, left : left + cols] = data.images[index]
    return sheet
