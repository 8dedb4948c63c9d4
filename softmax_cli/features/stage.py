"""The interface of a feature stage: one step from images to features."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from softmax_cli.config import TrainConfig
from softmax_cli.model import Floats

Shape = tuple[int, ...]


def intensities(x: NDArray[Any]) -> NDArray[np.float32]:
    """Return values as float32; uint8 values are divided by 255."""
    if x.dtype == np.uint8:
        scaled: NDArray[np.float32] = np.multiply(x, np.float32(1 / 255), dtype=np.float32)
        return scaled
    values: NDArray[np.float32] = x.astype(np.float32, copy=False)
    return values


@dataclass(frozen=True)
class Stage:
    """One step of the feature pipeline, fitted once, on training images.

    A stage that redraws images maps uint8 (n, rows, cols) to uint8 (n, rows, cols). Any other stage maps
    its inputs (n, ...) to float32 (n, D). A stage without parameters needs only `title` and `transform`, and
    `backward` unless it redraws images.

    Attributes:
        shape: Shape of one output: (rows, cols) if the stage redraws images, else (D,).
        is_stored: The outputs are computed once for all epochs if they are the same in each; False for
            stages whose outputs are many and quickly computed.
        action: What the stage does to an image, such as "deskewed", for the steps that `softmax predict`
            lists; only for stages that redraw images.
    """

    shape: Shape

    is_stored: ClassVar[bool] = True
    action: ClassVar[str] = ""

    @property
    def scale(self) -> float:
        """Factor that `transform` leaves out if the stage is the last one."""
        return 1.0

    @property
    def gain(self) -> float:
        """Factor of the learning rate of the weights if the stage is the last one."""
        return 1.0

    @classmethod
    def fit(cls, images: NDArray[Any], config: TrainConfig, seed: int) -> Self:
        """Return the stage, fitted on its inputs (n, ...) for up to 5,000 training images.

        By default, the outputs have the shape of the inputs.

        Raises:
            ConfigError: The inputs or the options do not suit the stage.
        """
        return cls(images.shape[1:])

    @classmethod
    def array_shapes(cls, config: TrainConfig, input_shape: Shape) -> dict[str, Shape]:
        """Return the shapes of the stage's float32 arrays in a checkpoint, by name."""
        return {}

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, NDArray[np.float32]], config: TrainConfig, input_shape: Shape
    ) -> Self:
        """Return the stage that has these arrays (see `array_shapes`)."""
        return cls(input_shape)

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Return the arrays that a checkpoint holds for the stage."""
        return {}

    def browser_arrays(self) -> dict[str, NDArray[np.float32]] | None:
        """Return the arrays from which the script of the report computes the stage; None if it does not.

        A stage that has them is in `STAGES` of report/static/model.js, too.
        """
        return None

    def title(self, inputs: str) -> str:
        """Return a description of the outputs, given that of the inputs.

        No two pipelines have the same description.
        """
        raise NotImplementedError(f"{type(self).__name__} has no title")

    def transform(
        self,
        x: NDArray[Any],
        out: NDArray[np.float32] | None = None,
        generator: "np.random.Generator | None" = None,
    ) -> NDArray[Any]:
        """Return the outputs for inputs (n, ...), without `scale`.

        If `out` is given, its first n rows are filled and returned.

        `generator` is given only to stages that redraw images, in training with augmentation: they add the
        random displacement of `softmax_cli.augment` to where they read pixels.
        """
        raise NotImplementedError(f"{type(self).__name__} has no transform")

    def backward(self, x: NDArray[Any], gradient: Floats) -> Floats:
        """Return the gradient by the inputs x (n, ...), given that by the outputs (n, D).

        The outputs are ``scale`` times those of `transform`. For uint8 inputs, the result is the gradient
        by the intensities x/255.
        """
        raise NotImplementedError(f"{type(self).__name__} has no backward")


@dataclass(frozen=True)
class Stored(Stage):
    """A stage whose outputs are its inputs: it stands for stages that were computed before.

    Attributes:
        stored_gain: The gain of the last of these stages.
    """

    stored_gain: float

    @property
    def gain(self) -> float:
        """Factor of the learning rate of the weights."""
        return self.stored_gain

    def transform(
        self,
        x: NDArray[Any],
        out: NDArray[np.float32] | None = None,
        generator: "np.random.Generator | None" = None,
    ) -> NDArray[np.float32]:
        """Return x itself, or a copy in `out`."""
        if out is None:
            return x
        out[: len(x)] = x
        return out[: len(x)]
