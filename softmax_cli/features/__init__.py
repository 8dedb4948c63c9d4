"""From images to features: a pipeline of named stages.

Stages that redraw images (uint8 to uint8, such as deskewing) come first and run once per data set:
`FeatureMap.prepare`. The others turn prepared images into features (float32), one batch at a time:
`FeatureMap.transform`. Without any, the features are the pixels x, intensities in [0, 1], row by row.

A feature is `FeatureMap.scale` times what `transform` computes. The factor is applied to the weights, which
are far fewer than the features of a batch: z = (scale · raw)·W = raw·(scale · W).

The registry of stages is `softmax_cli.config.STAGES`; the stage NAME is the `STAGE` of the module
``softmax_cli.features.NAME``.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softmax_cli.backend import Workspace, for_each, map_ordered
from softmax_cli.config import TrainConfig
from softmax_cli.errors import ConfigError, DivergenceError
from softmax_cli.features.resampling import resample
from softmax_cli.features.stage import Shape, Stage, Stored
from softmax_cli.model import Floats, Model, evidence

MEMORY_LIMIT = 2**30
"""Largest size in bytes of prepared images, and of a batch of features."""

STORED_LIMIT = 2**28
"""Bytes that features may take that are computed once for all epochs."""

FIT_SAMPLE = 5_000
"""Number of training images on which stages are fitted."""

BLOCK = 1024
"""Largest number of images in a block (see `block_size`)."""

BLOCK_VALUES = 2**23
"""Largest number of features, and of pixels, in such a block."""

_WORKSPACE = Workspace()
STORED_BLOCK = 256
"""Images whose features a core computes at a time to be stored."""

PREPARE_VALUES = 2**20
"""Pixels that a core redraws at a time; deskewing takes thirty times as many bytes."""


@dataclass(frozen=True)
class FeatureMap:
    """A fitted pipeline of feature stages.

    Attributes:
        input_shape: Shape of one input: (rows, cols) of an image, or (D,) of a row of numbers.
        stages: The stages, in order.
        pixel_scale: Factor from input values to features without stages: 1/255 for uint8 images.
        is_random: Training displaces the pixels of each image at random, anew in every epoch.
    """

    input_shape: Shape
    stages: tuple[Stage, ...] = ()
    pixel_scale: float = 1 / 255
    is_random: bool = False

    @property
    def image_stages(self) -> tuple[Stage, ...]:
        """The stages that redraw images."""
        return tuple(stage for stage in self.stages if len(stage.shape) == 2)

    @property
    def vector_stages(self) -> tuple[Stage, ...]:
        """The stages that compute features from prepared images; none for pixels."""
        return self.stages[len(self.image_stages) :]

    @property
    def dimension(self) -> int:
        """Number of features, D."""
        return math.prod(self.stages[-1].shape if self.stages else self.input_shape)

    @property
    def scale(self) -> float:
        """Factor that `transform` leaves out."""
        return self.vector_stages[-1].scale if self.vector_stages else self.pixel_scale

    @property
    def gain(self) -> float:
        """Factor of the learning rate of the weights."""
        return self.vector_stages[-1].gain if self.vector_stages else 1.0

    @property
    def title(self) -> str:
        """Description of the features."""
        if not self.stages:
            return "raw pixels"
        words = "pixels"
        for stage in self.stages:
            words = stage.title(words)
        return words

    @property
    def prepared(self) -> "FeatureMap":
        """The map to the same features from images that `prepare` has redrawn."""
        return replace(self, stages=self.vector_stages)

    def prepare(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return images (n, rows, cols) redrawn by the image stages, on all cores.

        Without image stages, the same array is returned.
        """
        if not self.image_stages:
            return images
        prepared = np.empty_like(images)
        size = max(1, PREPARE_VALUES // math.prod(self.input_shape))

        def fill(begin: int) -> None:
            block = slice(begin, begin + size)
            prepared[block] = self.redraw(images[block])

        for_each(fill, range(0, len(images), size))
        return prepared

    def redraw(
        self, images: NDArray[np.uint8], generator: "np.random.Generator | None" = None
    ) -> NDArray[np.uint8]:
        """Return images (n, rows, cols) redrawn by the image stages, on this thread.

        With a generator, they are displaced at random, as in training: by the first stage, in its one
        resampling, or by a resampling of their own if there is no stage.
        """
        if generator and not self.image_stages:
            return resample(images, generator=generator)
        for stage in self.image_stages:
            images, generator = stage.transform(images, None, generator), None
        return images

    def transform(self, images: NDArray[Any], out: Floats | None = None) -> Floats:
        """Return the features of prepared images (n, rows, cols) without `scale`, float32 (n, D).

        Without stages, inputs in float64 stay in float64.

        With `out`, a buffer of at least n rows, its first n rows are filled and returned.
        """
        *inner, last = self.vector_stages or (None,)
        x = images
        for stage in inner:
            assert stage is not None
            x = _scaled_outputs(stage, x)
        if last is not None:
            features: Floats = last.transform(x, out)
            return features
        flat = x.reshape(len(x), -1)
        if out is None:
            return flat.astype(feature_dtype(x))
        features = out[: len(flat)]
        features[...] = flat
        return features

    def gradient(self, images: NDArray[Any], gradient: Floats) -> Floats:
        """Return the gradient by the intensities of prepared images.

        `gradient` is the gradient by their features (n, D).
        """
        inputs: list[NDArray[Any]] = [images]
        for stage in self.vector_stages[:-1]:
            inputs.append(_scaled_outputs(stage, inputs[-1]))
        for stage, x in zip(reversed(self.vector_stages), reversed(inputs), strict=False):
            gradient = stage.backward(x, gradient)
        return gradient.reshape(images.shape)


def _scaled_outputs(stage: Stage, x: NDArray[Any]) -> NDArray[Any]:
    """Return the outputs of a stage that is not the last one."""
    outputs = stage.transform(x)
    return outputs if stage.scale == 1 else outputs * np.float32(stage.scale)


def precompute(features: FeatureMap, images: NDArray[Any]) -> tuple[NDArray[Any], FeatureMap]:
    """Return what is the same in every epoch, and the map from there to the same features.

    Stages that redraw images are computed once for all images (N, rows, cols), unless training is random.
    So are the stages that follow and are worth it (`Stage.is_stored`), as far as their outputs, float32
    (N, D), take at most `STORED_LIMIT` bytes.
    """
    if features.is_random:
        return images, features
    images, features = features.prepare(images), features.prepared
    count = next((i for i, stage in enumerate(features.stages) if not stage.is_stored), len(features.stages))
    while count and 4 * len(images) * math.prod(features.stages[count - 1].shape) > STORED_LIMIT:
        count -= 1
    if not count:
        return images, features
    first, rest = features.stages[:count], features.stages[count:]
    stored = _compute_all(replace(features, stages=first), images)
    shape = first[-1].shape
    return stored, replace(
        features, input_shape=shape, stages=rest or (Stored(shape, first[-1].gain),), pixel_scale=1.0
    )


def _compute_all(features: FeatureMap, images: NDArray[Any]) -> NDArray[np.float32]:
    """Return the features (N, D) of all prepared images, computed on all cores."""
    computed = np.empty((len(images), features.dimension), np.float32)

    def fill(begin: int) -> None:
        block = slice(begin, begin + STORED_BLOCK)
        features.transform(images[block], computed[block])

    for_each(fill, range(0, len(images), STORED_BLOCK))
    return computed


def feature_dtype(images: NDArray[Any]) -> Any:
    """Return the dtype of features without stages: float64 for inputs in float64, else float32."""
    return np.float64 if images.dtype == np.float64 else np.float32


def stage_class(name: str) -> type[Stage]:
    """Return the class of the feature stage of that name."""
    found: type[Stage] = import_module(f"softmax_cli.features.{name}").STAGE
    return found


def fit_features(config: TrainConfig, images: NDArray[Any], rows: NDArray[np.intp]) -> FeatureMap:
    """Return the feature map of a config, fitted on the images ``images[rows]``.

    Raises:
        ConfigError: The features would take more memory than `MEMORY_LIMIT`, or do not suit the images.
    """
    if config.augment and images.ndim != 3:
        raise ConfigError("augment needs images as its input; leave it out")
    stages: list[Stage] = []
    x = take(images, _fit_rows(rows, config.seed)) if config.stages else images[:1]
    for name in config.stages:
        if stages:
            x = _fitted_outputs(stages[-1], x)
        stages.append(stage_class(name).fit(x, config, config.seed))
    pixel_scale = 1 / 255 if images.dtype == np.uint8 else 1.0
    features = FeatureMap(tuple(images.shape[1:]), tuple(stages), pixel_scale, config.augment)
    _check_batch_memory(features, images, config.batch_size)
    return features


def _fitted_outputs(stage: Stage, x: NDArray[Any]) -> NDArray[Any]:
    """Return the outputs of a stage for the images on which the next one is fitted."""
    if len(stage.shape) == 2:
        return FeatureMap(tuple(x.shape[1:]), (stage,)).prepare(x)
    return _scaled_outputs(stage, x)


def _fit_rows(rows: NDArray[np.intp], seed: int) -> NDArray[np.intp]:
    """Return up to `FIT_SAMPLE` of the rows, in order, drawn at random.

    The generator is ``default_rng((seed, 0, 2))``.
    """
    if len(rows) <= FIT_SAMPLE:
        return rows
    chosen = np.random.default_rng((seed, 0, 2)).choice(len(rows), FIT_SAMPLE, replace=False)
    return rows[np.sort(chosen)]


def restore_features(
    config: TrainConfig,
    image_shape: Shape,
    read: Callable[[str, Shape], NDArray[np.float32]],
) -> FeatureMap:
    """Return the feature map of a checkpoint.

    ``read(member, shape)`` returns an array of the checkpoint; members are called STAGE_ARRAY.
    """
    stages: list[Stage] = []
    shape = image_shape
    for name in config.stages:
        stage = stage_class(name)
        shapes = stage.array_shapes(config, shape)
        arrays = {array: read(f"{name}_{array}", size) for array, size in shapes.items()}
        stages.append(stage.from_arrays(arrays, config, shape))
        shape = stages[-1].shape
    return FeatureMap(image_shape, tuple(stages), is_random=config.augment)


def feature_arrays(config: TrainConfig, features: FeatureMap) -> dict[str, NDArray[np.float32]]:
    """Return the arrays of the features in a checkpoint, by member name."""
    return {
        f"{name}_{array}": values
        for name, stage in zip(config.stages, features.stages, strict=True)
        for array, values in stage.arrays().items()
    }


def _check_batch_memory(features: FeatureMap, images: NDArray[Any], batch_size: int) -> None:
    """Raise `ConfigError` if images or features would exceed `MEMORY_LIMIT`.

    Prepared images and one batch of features are checked.
    """
    if features.image_stages and not features.is_random:
        check_memory(images.nbytes, f"a redrawn copy of {len(images):,} images", "use features pixels")
    size = min(batch_size, len(images))
    what = f"a batch of {size:,} images with {features.dimension:,} features"
    check_memory(4 * size * max(features.dimension, images[0].size), what, "choose a smaller --batch-size")


def check_memory(needed: int, what: str, remedy: str) -> None:
    """Raise `ConfigError` if `needed` bytes exceed `MEMORY_LIMIT`."""
    if needed > MEMORY_LIMIT:
        raise ConfigError(
            f"{what} would take {needed / 2**20:,.0f} MiB; the limit is {MEMORY_LIMIT / 2**20:,.0f} MiB; "
            f"{remedy}"
        )


def scaled(model: Model, features: FeatureMap) -> Model:
    """Return the model that is equivalent to `model` for unscaled features."""
    return Model(model.weights * model.weights.dtype.type(features.scale), model.bias)


def evidence_of(model: Model, features: FeatureMap, images: NDArray[Any]) -> Floats:
    """Return the evidence z (n, K) of a model for prepared images (n, rows, cols)."""
    return evidence(scaled(model, features), features.transform(images))


def evidence_blocks(
    model: Model, features: FeatureMap, images: NDArray[Any], rows: NDArray[np.intp]
) -> Iterator[tuple[NDArray[np.intp], Floats]]:
    """Yield blocks of `rows` (n,) and their evidence z (n, K), in order.

    The images are redrawn by the image stages first. The blocks are computed on several cores.

    Raises:
        DivergenceError: The evidence is not finite.
    """
    size = min(block_size(features, images), max(1, len(rows)))
    blocks = [rows[begin : begin + size] for begin in range(0, len(rows), size)]

    inner = scaled(model, features)

    def compute(block: NDArray[np.intp]) -> Floats:
        with np.errstate(over="ignore", invalid="ignore"):  # an overflow is reported below
            gathered = _WORKSPACE.array("images", (size, *images.shape[1:]), images.dtype)
            buffer = _WORKSPACE.array("features", (size, features.dimension), np.float32)
            x = features.transform(features.redraw(take(images, block, gathered)), buffer)
            return evidence(inner, x)

    for block, z in zip(blocks, map_ordered(compute, blocks), strict=True):
        yield block, finite(z)


def block_size(features: FeatureMap, images: NDArray[Any]) -> int:
    """Return the largest number of images in a block, which bounds the memory that a thread takes."""
    return max(1, min(BLOCK, BLOCK_VALUES // max(features.dimension, int(images[0].size))))


def finite(z: Floats) -> Floats:
    """Return the evidence; raise `DivergenceError` if a value is not finite."""
    if not np.isfinite(z).all():
        raise DivergenceError("the weights are so large that the evidence is not finite; train again")
    return z


def take(images: NDArray[Any], rows: NDArray[np.intp], out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return ``images[rows]``.

    The result is a view if the rows are consecutive, else a copy, in `out` if given.
    """
    if rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all():
        return images[rows[0] : rows[-1] + 1]
    return images.take(rows, axis=0, out=None if out is None else out[: len(rows)], mode="clip")
