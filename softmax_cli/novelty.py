"""`Novelty`: detect images that are unlike the training images.

It is a reference (`softmax_cli.pictures.doubt`) that is fitted to some training images when a run starts,
and the strangeness that few validation images exceed. Only distances count, not probabilities, so that it
does not change during training.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softmax_cli.backend import map_ordered
from softmax_cli.data.dataset import Dataset
from softmax_cli.features.deskew import deskew
from softmax_cli.features.gradients import directions, pooling, sobel
from softmax_cli.pictures import Reference, fit_reference, strangeness

Floats = NDArray[np.float32]

SAMPLE = 700
"""Number of images to which the reference is fitted, and of those for which the limit is chosen."""

BLOCK = 128
"""Number of images that a core works on at a time."""

QUANTILE = 0.99
"""Share of the validation images that are below the limit."""

DIRECTIONS = 40
"""Number of directions of the reference."""

GRID, SIGMA = 5, 2.5
"""Regions along each side of an image, and their width in pixels of 28."""


@dataclass(frozen=True)
class Novelty:
    """A reference and the strangeness from which an image is novel.

    Attributes:
        reference: The training images, in float32.
        limit: The largest strangeness of an image that is not novel.
    """

    reference: Reference
    limit: float

    def is_novel(self, images: NDArray[np.uint8], probabilities: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which images (n, rows, cols) are far from their most probable class, (n,)."""
        return np.asarray(_distances(images, probabilities.argmax(axis=1), self.reference) > self.limit)


def fit_novelty(
    data: Dataset, rows: NDArray[np.intp], validation: NDArray[np.intp], seed: int
) -> Novelty | None:
    """Return the novelty for images of digits; None for other data sets, and for very small ones.

    Args:
        data: The training split.
        rows: Indices of the images to train on.
        validation: Indices of the images to validate on; if there are none, training images are used.
        seed: Seed of the run.
    """
    if data.preparation != "digit" or min(data.image_shape) < 2 * GRID:
        return None
    generator = np.random.default_rng((seed, 0, 4))
    fitted, checked = (_draw(generator, some) for some in (rows, validation if len(validation) else rows))
    if not np.bincount(data.labels[fitted], minlength=len(data.class_names)).all():
        return None
    found = fit_reference(edges(data.images[fitted]), data.labels[fitted], DIRECTIONS)
    means, directions, variances = (np.asarray(part, np.float32) for part in found[:3])
    reference = Reference(means, directions, variances, float(np.float32(found.rest)))
    if not min(reference.variances.min(), reference.rest) > 0:
        return None
    distances = _distances(data.images[checked], data.labels[checked], reference)
    return Novelty(reference, float(np.float32(np.quantile(distances, QUANTILE))))


def _draw(generator: np.random.Generator, rows: NDArray[np.intp]) -> NDArray[np.intp]:
    return np.sort(generator.choice(rows, min(SAMPLE, len(rows)), replace=False))


def edges(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the directions of edges in regions of deskewed images (n, rows, cols), (n, 8 · GRID²).

    They are the averages of `softmax_cli.features.gradients`; their roots are scaled to length 1.
    """
    blocks = [images[begin : begin + BLOCK] for begin in range(0, len(images), BLOCK)]
    return np.concatenate(list(map_ordered(_edges, blocks)))


def _edges(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    maps = directions(*sobel(deskew(images))).reshape(8 * len(images), -1)
    weights = pooling((images.shape[1], images.shape[2]), GRID, SIGMA, 1 / 255)
    means = (maps @ weights).reshape(8, len(images), -1).swapaxes(0, 1).reshape(len(images), -1)
    shares = means.astype(np.float64) / np.maximum(means.sum(axis=1, keepdims=True), 1e-6)
    return np.asarray(np.sqrt(shares))


def _distances(
    images: NDArray[np.uint8], classes: NDArray[np.integer], reference: Reference
) -> NDArray[np.float64]:
    """Return the strangeness of images with full confidence in their classes (n,)."""
    certain = np.eye(len(reference.means))[classes]
    return strangeness(edges(images), certain, reference)


def novelty_shapes(classes: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the arrays in a checkpoint, by name."""
    features = 8 * GRID**2
    return {
        "edges_means": (classes, features),
        "edges_directions": (features, DIRECTIONS),
        "edges_variances": (DIRECTIONS,),
        "edges_limits": (2,),
    }


def novelty_arrays(novelty: Novelty) -> dict[str, Floats]:
    """Return the arrays that a checkpoint holds, by name; the limits are the rest and the limit."""
    means, directions, variances, rest = novelty.reference
    limits = np.array([rest, novelty.limit], np.float32)
    arrays = (means, directions, variances, limits)
    return {
        name: np.ascontiguousarray(array, np.float32)
        for name, array in zip(novelty_shapes(1), arrays, strict=True)
    }


def restore_novelty(arrays: dict[str, Floats]) -> Novelty:
    """Return the novelty in arrays by name; raise `ValueError` if a variance is not positive."""
    means, directions, variances, (rest, limit) = arrays.values()
    if not min(variances.min(), rest) > 0:
        raise ValueError("a variance of its novelty is not positive")
    return Novelty(Reference(means, directions, variances, float(rest)), float(limit))
