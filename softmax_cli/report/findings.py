"""What the report tells: scores, mistakes and mean images, found in one pass over the images."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from softmax_cli.data.dataset import Dataset
from softmax_cli.features import prepare
from softmax_cli.metrics import Scores, score, total
from softmax_cli.model import Labels, softmax
from softmax_cli.training import State, judge


class Mistake(NamedTuple):
    """The image of that index, of class `true`, taken for `guess`, and the probabilities of the two."""

    image: int
    true: int
    guess: int
    probability: float
    true_probability: float


@dataclass(frozen=True)
class Findings:
    """What a model makes of a set of images.

    `mistakes` come with the most confident first. `means` (K, rows, cols) are the mean prepared image of
    each class, `samples` the index of one image of each class that has any, rightly told where one is.
    """

    scores: Scores
    mistakes: tuple[Mistake, ...]
    means: NDArray[np.float64]
    samples: tuple[int, ...]

    def by_cell(self, count: int) -> dict[tuple[int, int], list[Mistake]]:
        """Return up to `count` of the most confident mistakes for each (true class, predicted class)."""
        cells: dict[tuple[int, int], list[Mistake]] = {}
        for mistake in self.mistakes:
            cell = cells.setdefault((mistake.true, mistake.guess), [])
            if len(cell) < count:
                cell.append(mistake)
        return cells


def find(
    state: State,
    data: Dataset,
    indices: NDArray[np.intp],
    on_block: Callable[[int], object] = lambda images: None,
) -> Findings:
    """Judge a model on ``data.images[indices]``; call `on_block` with the number of images in each block."""
    scores, mistakes = [], []
    classes = state.model.weights.shape[1]
    sums, counts = np.zeros((classes, *data.image_shape)), np.zeros(classes)
    samples: dict[int, tuple[bool, int]] = {}
    begin = 0
    data = replace(data, images=prepare(state.features, data.images))
    for z, labels in judge(state.model, state.features.prepared, data, indices):
        rows = indices[begin : begin + len(labels)]
        begin += len(labels)
        scores.append(score(z, labels))
        y, guesses = softmax(z.astype(np.float64)), z.argmax(axis=1)
        for at in np.flatnonzero(guesses != labels):
            true, guess = int(labels[at]), int(guesses[at])
            mistakes.append(Mistake(int(rows[at]), true, guess, float(y[at, guess]), float(y[at, true])))
        _add_images(sums, counts, data.images[rows], labels)
        _choose_samples(samples, rows, labels, guesses == labels)
        on_block(len(labels))
    mistakes.sort(key=lambda mistake: (-mistake.probability, mistake.image))
    chosen = tuple(samples[label][1] for label in sorted(samples))
    means = sums / np.maximum(counts, 1)[:, None, None]
    return Findings(total(scores), tuple(mistakes), means, chosen)


def _add_images(
    sums: NDArray[np.float64],
    counts: NDArray[np.float64],
    images: NDArray[np.uint8],
    labels: Labels,
) -> None:
    """Add the images of each class to its sum, and how many they are to its count, in place."""
    for label in np.unique(labels):
        of_class = images[labels == label]
        sums[label] += of_class.sum(axis=0)
        counts[label] += len(of_class)


def _choose_samples(
    samples: dict[int, tuple[bool, int]],
    rows: NDArray[np.intp],
    labels: Labels,
    right: NDArray[np.bool_],
) -> None:
    """Note, for each class, its first image that is told rightly, or its first until then, in place."""
    for label in np.unique(labels).tolist():
        if samples.get(label, (False, 0))[0]:
            continue
        of_class = labels == label
        if (of_class & right).any():
            samples[label] = True, int(rows[np.argmax(of_class & right)])
        else:
            samples.setdefault(label, (False, int(rows[np.argmax(of_class)])))
