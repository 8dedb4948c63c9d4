"""Moment normalisation: set an image upright, centre it and bring it to the mean size, in one resampling.

With the intensities as masses, μ_r and μ_c the row and the column of the centre of mass, s = cov(r, c) /
var(r) the slant (0 if var(r) is), and the size t = √(var(r) + var(c) − s · cov(r, c)), the root of the summed
variances of the upright image, the output is

    output(R + r, C + c) = input(μ_r + z·r, μ_c + z·(c + s·r)),  z = t / mean t of the training images,

where (R, C) = (rows // 2, cols // 2). The size is at least one pixel. The moments are exact sums of integers,
so that the result for an image does not depend on the other images of a batch.

Source: Liu, Nakashima, Sako & Fujisawa, Handwritten digit recognition: investigation of normalization and
feature extraction techniques, Pattern Recognition (2004), section 2, moment normalisation.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from softmax_cli.config import TrainConfig
from softmax_cli.errors import ConfigError
from softmax_cli.features.resampling import Positions, resample
from softmax_cli.features.stage import Shape, Stage


class Moments(NamedTuple):
    """Offset of the centre of mass from the middle, slant and size of images; each (n,), in pixels."""

    row: NDArray[np.float64]
    column: NDArray[np.float64]
    slant: NDArray[np.float64]
    size: NDArray[np.float64]


@dataclass(frozen=True)
class Normalize(Stage):
    """The stage that normalises images by their moments; `size` (1,) is the mean size, in pixels."""

    size: NDArray[np.float32]

    action: ClassVar[str] = "normalised by moments"

    @classmethod
    def fit(cls, images: NDArray[Any], config: TrainConfig, seed: int) -> Self:
        """Return the stage with the mean size of the images."""
        if images.ndim != 3:
            raise ConfigError("the feature stage normalize needs images as its input")
        return cls(images.shape[1:], moments(images).size.mean(keepdims=True).astype(np.float32))

    @classmethod
    def array_shapes(cls, config: TrainConfig, input_shape: Shape) -> dict[str, Shape]:
        """Return the shape of `size`."""
        return {"size": (1,)}

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, NDArray[np.float32]], config: TrainConfig, input_shape: Shape
    ) -> Self:
        """Return the stage with this size, for images of this shape."""
        return cls(input_shape, arrays["size"])

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Return `size`."""
        return {"size": self.size}

    def browser_arrays(self) -> dict[str, NDArray[np.float32]]:
        """Return `size`."""
        return self.arrays()

    def title(self, inputs: str) -> str:
        """Return what the outputs are, in words."""
        return f"moment-normalised {inputs}"

    def transform(
        self,
        x: NDArray[Any],
        out: NDArray[np.float32] | None = None,
        generator: "np.random.Generator | None" = None,
    ) -> NDArray[np.uint8]:
        """Return the normalised images, uint8 (n, rows, cols), displaced at random with a generator."""
        row, column, slant, size = (values.astype(np.float32)[:, None] for values in moments(x))
        zoom = size / self.size

        def place(block: slice, r: Positions, c: Positions) -> tuple[Positions, Positions]:
            c += slant[block] * r
            return zoom[block] * r + row[block], zoom[block] * c + column[block]

        return resample(x, place, generator)


STAGE = Normalize


def moments(images: NDArray[np.uint8]) -> Moments:
    """Return the moments of images (n, rows, cols); a blank image has none, and the size 1."""
    n, rows, columns = images.shape
    r, c = (axis.ravel() for axis in np.mgrid[:rows, :columns])
    r, c = r - rows // 2, c - columns // 2
    powers = np.stack([np.ones(r.size), r, c, r * r, r * c, c * c], axis=1)
    mass, *sums = (images.reshape(n, -1).astype(np.float64) @ powers).T
    row, column, rr, rc, cc = (total / np.maximum(mass, 1) for total in sums)
    height, both, width = rr - row * row, rc - row * column, cc - column * column
    flat = height < 1e-9  # one row of ink, or none: the slant is undefined
    slant = np.where(flat, 0, both / np.where(flat, 1, height))
    return Moments(row, column, slant, np.sqrt(np.maximum(height + width - slant * both, 1)))
