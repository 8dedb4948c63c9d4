"""Detect drawings that are not digits, such as lines, letters and photographs.

`outline_doubts` needs no model. A classifier can add `strangeness`, which increases with the
distance of an image from the images of the predicted class, and decreases with the confidence.
`softmax_cli.novelty` uses the distance alone, with a limit that 1 % of validation images exceed.

Measured on 870 redrawn test digits of all kinds and 200 pictures of each other kind (tests/drawing.py):

====================================  ======  =====  =========  =======  =====  ===========
flagged, in per cent                  digits  lines  scribbles  letters  faces  photographs
====================================  ======  =====  =========  =======  =====  ===========
outline                                  1.0    100         66        0    100           76
or distance, classes by raw pixels       1.3    100         95       72    100           98
or distance, classes by configs/best     1.1    100         92       74    100           99
====================================  ======  =====  =========  =======  =====  ===========

The digits that are flagged include those with a warning of separate shapes.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from softmax_cli.pictures.digit import BOX, FINE, STROKE
from softmax_cli.pictures.shapes import label

Floats = NDArray[np.floating[Any]]

MOST_PIECES, MOST_HOLES, MOST_LENGTH, MOST_ASPECT, MOST_BORDER = 3, 2, 3.8, 2.0, 0.3
"""Largest values of an `Outline` of a digit."""

LEAST_HOLE = 8
"""Smallest hole that counts, in pixels of the drawing with normalised strokes."""


class Outline(NamedTuple):
    """Properties of the strokes of a drawing.

    Attributes:
        pieces: Number of separate shapes.
        holes: Number of holes.
        length: Length of the strokes, divided by the longer side of the drawing.
        aspect: Width over height.
        border: Fraction of the border of the picture that has ink.
    """

    pieces: int
    holes: int
    length: float
    aspect: float
    border: float


def outline_of(strokes: Floats, pieces: int, border: float) -> Outline:
    """Return the outline of a drawing with normalised strokes (h, w), in [0, 1]."""
    empty, _ = label(~np.pad(strokes > 0.5, 1))
    sizes = np.bincount(empty.ravel())[1:]
    length = float(strokes.sum()) / (FINE * STROKE * FINE * BOX)
    holes = int((sizes >= LEAST_HOLE).sum()) - 1
    return Outline(pieces, holes, length, strokes.shape[1] / strokes.shape[0], border)


def outline_doubts(outline: Outline) -> list[str]:
    """Return a warning for each property that a digit does not have."""
    found = {
        f"it has {outline.pieces} pieces": outline.pieces > MOST_PIECES,
        f"it has {outline.holes} holes": outline.holes > MOST_HOLES,
        "its strokes are very long": outline.length > MOST_LENGTH,
        "it is much wider than high": outline.aspect > MOST_ASPECT,
        "it covers much of the border": outline.border > MOST_BORDER,
    }
    return [f"this may not be a digit: {reason}" for reason, holds in found.items() if holds]


class Reference(NamedTuple):
    """Statistics of a data set for `strangeness`; D numbers describe an image.

    Attributes:
        means: Mean of each class (K, D).
        directions: Directions of greatest variance within classes (D, n), orthonormal.
        variances: Variance along them (n,).
        rest: Variance along all other directions together.
    """

    means: Floats
    directions: Floats
    variances: Floats
    rest: float


def fit_reference(features: Floats, labels: NDArray[np.integer[Any]], count: int = 40) -> Reference:
    """Return the reference of features (N, D) of training images with labels (N,).

    Every class must have an image. `count` directions are kept.
    """
    totals = np.zeros((int(labels.max()) + 1, features.shape[1]))
    np.add.at(totals, labels, features)
    means = totals / np.bincount(labels)[:, None]
    within = features - means[labels]
    values, vectors = np.linalg.eigh(within.T @ within / len(within))
    order = np.argsort(-values)
    kept = order[:count]
    return Reference(means, vectors[:, kept], values[kept], float(values[order[count:]].sum()))


def strangeness(features: Floats, probabilities: Floats, reference: Reference) -> NDArray[np.float64]:
    """Return the strangeness of images, (n,); it is larger for unusual images.

    It is log(d) - log(p), where p is the greatest of the probabilities (n, K) and d the mean of two squared
    distances of the features (n, D) from the mean of that class: within the directions, scaled by their
    variances (Mahalanobis 1936), and outside of them, scaled by the rest.
    """
    difference = features - reference.means[probabilities.argmax(axis=1)]
    inside = difference @ reference.directions
    outside = (difference**2).sum(axis=1) - (inside**2).sum(axis=1)
    distance = (inside**2 / reference.variances).mean(axis=1) + outside / reference.rest
    top = np.maximum(probabilities.max(axis=1), 1e-12)
    return np.asarray(np.log(np.maximum(distance / 2, 1e-12)) - np.log(top))
