"""What every solver is given, and what it yields."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from softmax_cli.config import TrainConfig
from softmax_cli.features import FeatureMap, batches
from softmax_cli.model import Floats, Labels, Model


class Problem(NamedTuple):
    """What is to be learned: the rows ``images[indices]`` and ``labels[indices]``, seen as features.

    `on_batch` is called after each batch of work; when it returns True, the solver ends at once and
    forgets what it had not yielded.
    """

    feature_map: FeatureMap
    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    indices: NDArray[np.intp]
    config: TrainConfig
    on_batch: Callable[[], bool]

    def batches(self, rows: NDArray[np.intp], size: int) -> Iterator[tuple[Floats, Labels]]:
        """Yield unscaled features (size, D) and labels (size,) of `rows`, in their order."""
        return batches(self.feature_map, self.images, self.labels, rows, size)


class Step(NamedTuple):
    """What a solver has reached after an epoch.

    `train_loss` is the mean cross-entropy over the training images, without the l2 term; `rate` is the
    learning rate or the length of the step. A solver that can tell gives the norm of the gradient and
    the estimated `distance` of the loss from the optimum, relative to the loss.
    """

    model: Model
    velocity: Model
    train_loss: float
    rate: float
    gradient_norm: float | None = None
    distance: float | None = None
