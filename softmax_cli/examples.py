"""Labelled images as features, block by block, and work on parts of them, here or on other machines.

A part is a slice of the rows. Parts depend on the number of rows alone, and results come in the order of the
parts, so that it does not matter where a part is computed.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from softmax_cli.backend import Workspace, map_ordered, partition
from softmax_cli.features import FeatureMap, block_size, finite, scaled, take
from softmax_cli.model import Floats, Labels, Model, evidence

Argument = TypeVar("Argument")
Result = TypeVar("Result")

Work = Callable[["Examples", Argument, slice], Result]
"""A function of examples, an argument, and a part of the rows. On other machines it must be picklable."""

_WORKSPACE = Workspace()


class Remote(Protocol):
    """Other machines that have the same examples."""

    def map(self, work: Work[Argument, Result], argument: Argument, parts: list[slice]) -> Iterator[Result]:
        """Yield ``work(examples, argument, part)`` for each part, in order."""


class Batch(NamedTuple):
    """Unscaled features (n, D), labels (n,) and optional sample weights (n,)."""

    x: Floats
    labels: Labels
    weights: Floats | None


@dataclass(frozen=True)
class Examples:
    """The images ``images[rows]``, with their labels and features.

    Attributes:
        features: The feature map. It applies to `images`: if these are prepared already, `features` is
            the map for prepared images.
        images: uint8 (N, rows, cols), or float32 or float64 (N, D).
        labels: Class of each image, (N,).
        rows: Indices of the images to use, (n,).
        sample_weights: Weights of all N images, of mean 1 over `rows`; None for equal weights.
        remote: Machines that work on the parts; None for the cores of this one.
    """

    features: FeatureMap
    images: NDArray[Any]
    labels: Labels
    rows: NDArray[np.intp]
    sample_weights: Floats | None = field(default=None, kw_only=True)
    remote: Remote | None = field(default=None, kw_only=True)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def parts(self) -> list[slice]:
        """The parts of the rows."""
        return partition(len(self))

    def map_parts(self, work: Work[Argument, Result], argument: Argument) -> Iterator[Result]:
        """Yield ``work(examples, argument, part)`` for each of `parts`, in order."""
        if self.remote is None:
            return map_ordered(partial(work, self, argument), self.parts)
        return self.remote.map(work, argument, self.parts)

    def blocks(self, rows: NDArray[np.intp]) -> Iterator[Batch]:
        """Yield batches of the rows, computed on this thread; each is valid until the next one."""
        if not len(rows):
            return
        features = self.features
        size = min(block_size(features, self.images), len(rows))
        gathered = _WORKSPACE.array("images", (size, *self.images.shape[1:]), self.images.dtype)
        buffer = _WORKSPACE.array("features", (size, features.dimension), np.float32)
        for begin in range(0, len(rows), size):
            chosen = rows[begin : begin + size]
            images = features.redraw(take(self.images, chosen, gathered))
            yield Batch(features.transform(images, buffer), self.labels[chosen], self.weights_of(chosen))

    def weights_of(self, rows: NDArray[np.intp]) -> Floats | None:
        """Return the sample weights of the rows, if there are any."""
        return None if self.sample_weights is None else self.sample_weights[rows]

    def evidence_blocks(self, model: Model, part: slice) -> Iterator[tuple[Floats, Labels]]:
        """Yield evidence z (n, K) and labels (n,) for each block of a part.

        Raises:
            DivergenceError: The evidence is not finite.
        """
        inner = scaled(model, self.features)
        for block in self.blocks(self.rows[part]):
            with np.errstate(over="ignore", invalid="ignore"):  # an overflow is reported by `finite`
                z = evidence(inner, block.x)
            yield finite(z), block.labels
