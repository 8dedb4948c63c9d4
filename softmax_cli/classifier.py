"""`Classifier`: predictions of a checkpoint, for arrays and for pictures."""

import functools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from softmax_cli.backend import map_processes
from softmax_cli.checkpoint import Checkpoint, load_checkpoint
from softmax_cli.errors import CheckpointError, ConfigError, DataError, DivergenceError, ImageError
from softmax_cli.explanation import Explanation, explain
from softmax_cli.features import evidence_blocks
from softmax_cli.model import Floats, softmax

if TYPE_CHECKING:
    from softmax_cli.pictures import Prepared

PictureSource = str | Path | bytes
"""A picture: the path of a file, or its content."""

UNCERTAIN = 0.5
"""Probability of the answer below which a warning is given."""


class Prediction(NamedTuple):
    """The answer for one picture, or for one of several digits in it.

    Attributes:
        class_name: The most probable class; None if the picture is blank.
        probability: Its probability; None if the picture is blank.
        probabilities: The probability of each class, by name; empty if the picture is blank.
        prepared: The image that the model saw, how it was made, and what is doubtful about it.
    """

    class_name: str | None
    probability: float | None
    probabilities: dict[str, float]
    prepared: "Prepared"


Answer = list[Prediction] | ImageError
"""The predictions for a picture, or why it could not be read."""


@dataclass(frozen=True)
class Classifier:
    """A trained model that predicts classes and probabilities.

    Example:
        >>> classifier = Classifier.load("model.npz")
        >>> classifier.predict_picture("digit.png").class_name
        '7'
    """

    checkpoint: Checkpoint

    @classmethod
    def load(cls, path: str | Path) -> "Classifier":
        """Return the classifier in a checkpoint file.

        Raises:
            CheckpointError: The file is not a valid checkpoint.
        """
        return cls(load_checkpoint(path))

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the columns of `predict_proba`."""
        return self.checkpoint.class_names

    def evidence_blocks(
        self, images: NDArray[np.uint8], rows: NDArray[np.intp] | None = None
    ) -> Iterator[tuple[NDArray[np.intp], Floats]]:
        """Yield row numbers (n,) and evidence (n, K) for ``images[rows]``, in blocks.

        By default, for all images.

        Raises:
            DataError: The images have another shape than those of the training data.
            CheckpointError: The evidence is not finite.
        """
        state = self.checkpoint.state
        if images.shape[1:] != self.checkpoint.image_shape or images.dtype != np.uint8:
            expected = " x ".join(map(str, self.checkpoint.image_shape))
            raise DataError(
                f"expected uint8 images of shape (n, {expected.replace(' x ', ', ')}), "
                f"not {images.dtype} of shape {images.shape}"
            )
        rows = np.arange(len(images)) if rows is None else rows
        try:
            yield from evidence_blocks(state.model, state.features, images, rows)
        except DivergenceError as error:
            raise CheckpointError(str(error)) from error

    def predict_proba(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return the class probabilities (n, K) for images (n, rows, cols)."""
        blocks = [softmax(z.astype(np.float64)) for _, z in self.evidence_blocks(images)]
        return np.concatenate([np.empty((0, len(self.class_names))), *blocks])

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.intp]:
        """Return the index of the most probable class of each image, (n,)."""
        blocks = [z.argmax(axis=1) for _, z in self.evidence_blocks(images)]
        return np.concatenate([np.empty(0, np.intp), *blocks])

    def predict_picture(self, source: PictureSource, invert: bool | None = None) -> Prediction:
        """Return the answer for a picture.

        Args:
            source: Path of a file, or its content.
            invert: The picture is dark on light (True) or light on dark (False); None detects it.

        Raises:
            ImageError: The picture cannot be read.
        """
        return self.predict_prepared(self.prepare(source, invert))

    def predict_digits(self, source: PictureSource, invert: bool | None = None) -> list[Prediction]:
        """Return the predictions for all digits in a picture, line by line, left to right.

        The attribute `prepared` of each has the `box` and the `line` of the digit.

        Raises:
            ImageError: The picture cannot be read.
            ConfigError: The model was not trained on digits.
        """
        from softmax_cli.pictures import find_digits

        checkpoint = self.checkpoint
        if checkpoint.preparation != "digit":
            raise ConfigError(f"several digits are read by models of digits, not of {checkpoint.dataset}")
        with _enough_memory(source):
            found = find_digits(source, checkpoint.image_shape, invert, self._confidence)
        return [self.predict_prepared(one) for one in found]

    def _confidence(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        return np.asarray(self.predict_proba(images).max(axis=1))

    def prepare(self, source: PictureSource, invert: bool | None = None) -> "Prepared":
        """Return a picture drawn as an image of the data set, without redrawing by feature stages."""
        from softmax_cli.pictures import prepare_picture

        checkpoint = self.checkpoint
        with _enough_memory(source):
            return prepare_picture(source, checkpoint.image_shape, checkpoint.preparation, invert)

    def predict_prepared(self, prepared: "Prepared") -> Prediction:
        """Return the answer for a prepared picture; its image is redrawn by the feature stages first."""
        if prepared.blank:
            return Prediction(None, None, {}, prepared)
        probabilities = self.predict_proba(prepared.image[None])[0]
        doubts = self._doubts(prepared, probabilities)
        by_name = dict(zip(self.class_names, probabilities.tolist(), strict=True))
        best = max(by_name, key=lambda name: by_name[name])
        seen = self.redraw(prepared)._replace(warnings=(*prepared.warnings, *doubts))
        return Prediction(best, by_name[best], by_name, seen)

    def _doubts(self, prepared: "Prepared", probabilities: NDArray[np.float64]) -> list[str]:
        """Return why a picture may be none of the classes, unless there is another warning already."""
        if prepared.warnings or self.checkpoint.preparation != "digit":
            return []
        novelty = self.checkpoint.novelty
        if novelty is not None and novelty.is_novel(prepared.image[None], probabilities[None])[0]:
            return ["this may not be a digit: it is unlike the training images"]
        return ["the answer is uncertain"] * bool(probabilities.max() < UNCERTAIN)

    def redraw(self, prepared: "Prepared") -> "Prepared":
        """Return a prepared picture as the features see it, with what was done to it."""
        features = self.checkpoint.state.features
        actions = [stage.action for stage in features.image_stages]
        image = features.redraw(prepared.image[None])[0]
        return prepared._replace(image=image, steps=(*prepared.steps, *actions))

    def explain(self, prediction: Prediction) -> Explanation:
        """Explain a prediction: the most probable class against the second one."""
        state = self.checkpoint.state
        return explain(state.model, state.features.prepared, prediction.prepared.image)


@contextmanager
def _enough_memory(source: PictureSource) -> Iterator[None]:
    """Raise `ImageError` if the block runs out of memory."""
    try:
        yield
    except MemoryError as error:
        name = "the picture" if isinstance(source, bytes) else str(source)
        raise ImageError(f"{name} is too large for the memory of this machine") from error


def predict_pictures(
    classifier: Classifier,
    sources: Iterable[PictureSource],
    invert: bool | None = None,
    many: bool = False,
    workers: int = 1,
) -> Iterator[Answer]:
    """Yield the predictions for each picture, or why it could not be read, in order.

    Args:
        classifier: The classifier.
        sources: Path or content of each picture.
        invert: As in `Classifier.predict_picture`.
        many: Read all digits in each picture (see `Classifier.predict_digits`), not one.
        workers: Number of processes to share the pictures between. The result does not depend on it.
    """
    answer = functools.partial(_answer, classifier, invert, many)
    return map_processes(answer, sources, _lost, workers)


def _answer(classifier: Classifier, invert: bool | None, many: bool, source: PictureSource) -> Answer:
    try:
        if many:
            return classifier.predict_digits(source, invert)
        return [classifier.predict_picture(source, invert)]
    except ImageError as error:
        return error


def _lost(source: PictureSource) -> Answer:
    name = "the picture" if isinstance(source, bytes) else str(source)
    return ImageError(f"{name} could not be read: the process that read it was ended, out of memory perhaps")


def describe_answer(name: str | Path, answer: Answer) -> list[dict[str, Any]]:
    """Return all predictions for a picture as plain values; one without a class if there are none.

    A picture that could not be read is one item with ``image`` and ``error``.
    """
    if isinstance(answer, ImageError):
        return [{"image": str(name), "error": str(answer)}]
    from softmax_cli.pictures import Prepared

    nothing = Prediction(None, None, {}, Prepared(np.zeros((0, 0), np.uint8), (), ("no digit found",), True))
    return [describe_prediction(name, prediction) for prediction in answer or [nothing]]


def describe_prediction(name: str | Path, prediction: Prediction) -> dict[str, Any]:
    """Return an answer as plain values, as ``softmax predict --json`` prints it."""
    prepared = prediction.prepared
    described: dict[str, Any] = {
        "image": str(name),
        "class": prediction.class_name,
        "probability": prediction.probability,
        "probabilities": prediction.probabilities,
        "steps": list(prepared.steps),
        "warnings": list(prepared.warnings),
    }
    if prepared.box is not None:
        top, left, bottom, right = prepared.box
        described |= {"box": [left, top, right, bottom], "line": prepared.line}
    return described
