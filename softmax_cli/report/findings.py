"""The findings of the report: scores, mistakes and mean images, from one pass over the images."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from softmax_cli.classifier import Classifier
from softmax_cli.data.dataset import Dataset
from softmax_cli.metrics import Scores, score, total
from softmax_cli.model import Labels, softmax


class Mistake(NamedTuple):
    """The image of that index, of class `true`, classified as `guess`, and the probabilities of both."""

    image: int
    true: int
    guess: int
    probability: float
    true_probability: float


@dataclass(frozen=True)
class Findings:
    """The results of a model on a data set.

    Attributes:
        scores: The scores.
        mistakes: The misclassified images, those with the highest confidence first.
        means: Mean prepared image of each class, (K, rows, cols).
        samples: The index of one image of each class that has any, correctly classified if there is one.
        largest_evidence: Mean over the images of the largest absolute evidence.
    """

    scores: Scores
    mistakes: tuple[Mistake, ...]
    means: NDArray[np.float64]
    samples: tuple[int, ...]
    largest_evidence: float

    def by_cell(self, count: int) -> dict[tuple[int, int], list[Mistake]]:
        """Return up to `count` of the most confident mistakes for each (true class, predicted class)."""
        cells: dict[tuple[int, int], list[Mistake]] = {}
        for mistake in self.mistakes:
            cell = cells.setdefault((mistake.true, mistake.guess), [])
            if len(cell) < count:
                cell.append(mistake)
        return cells


def find_mistakes(
    classifier: Classifier,
    data: Dataset,
    on_block: Callable[[int], object] = lambda images: None,
) -> Findings:
    """Evaluate a classifier on a data set; call `on_block` with the number of images in each block."""
    scores, mistakes = [], []
    classes, features = len(classifier.class_names), classifier.checkpoint.state.features
    sums, counts = np.zeros((classes, *data.image_shape)), np.zeros(classes)
    samples: dict[int, tuple[bool, int]] = {}
    largest = 0.0
    for rows, z in classifier.evidence_blocks(data.images):
        labels = data.labels[rows]
        scores.append(score(z, labels))
        y, guesses = softmax(z.astype(np.float64)), z.argmax(axis=1)
        for at in np.flatnonzero(guesses != labels):
            true, guess = int(labels[at]), int(guesses[at])
            mistakes.append(Mistake(int(rows[at]), true, guess, float(y[at, guess]), float(y[at, true])))
        _add_images(sums, counts, features.redraw(data.images[rows]), labels)
        largest += float(np.abs(z).max(axis=1).sum())
        _choose_samples(samples, rows, labels, guesses == labels)
        on_block(len(labels))
    mistakes.sort(key=lambda mistake: (-mistake.probability, mistake.image))
    chosen = tuple(samples[label][1] for label in sorted(samples))
    means = sums / np.maximum(counts, 1)[:, None, None]
    return Findings(total(scores), tuple(mistakes), means, chosen, largest / len(data))


def _add_images(
    sums: NDArray[np.float64],
    counts: NDArray[np.float64],
    images: NDArray[np.uint8],
    labels: Labels,
) -> None:
    """Add the images of each class to its sum, and their number to its count, in place."""
    for label in np.unique(labels):
        of_class = images[labels == label]
        sums[label] += of_class.sum(axis=0)
        counts[label] += len(of_class)


def _choose_samples(
    samples: dict[int, tuple[bool, int]],
    rows: NDArray[np.intp],
    labels: Labels,
    correct: NDArray[np.bool_],
) -> None:
    """Store, for each class, its first correctly classified image, or its first one, in place."""
    for label in np.unique(labels).tolist():
        if samples.get(label, (False, 0))[0]:
            continue
        of_class = labels == label
        if (of_class & correct).any():
            samples[label] = True, int(rows[np.argmax(of_class & correct)])
        else:
            samples.setdefault(label, (False, int(rows[np.argmax(of_class)])))
