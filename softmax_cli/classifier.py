"""`Classifier`: predictions of a checkpoint, for arrays and for pictures."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from softmax_cli.checkpoint import Checkpoint, load_checkpoint
from softmax_cli.errors import CheckpointError, DataError, DivergenceError
from softmax_cli.explanation import Explanation, explain
from softmax_cli.features import evidence_blocks
from softmax_cli.model import Floats, softmax

if TYPE_CHECKING:
    from softmax_cli.pictures import Prepared


class Prediction(NamedTuple):
    """The prediction for one picture.

    Attributes:
        class_name: The most probable class.
        probability: Its probability.
        probabilities: The probability of each class, by name.
        prepared: The input of the model, and the steps that produced it.
    """

    class_name: str
    probability: float
    probabilities: dict[str, float]
    prepared: "Prepared"


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

    def predict_picture(self, path: str | Path, invert: bool | None = None) -> Prediction:
        """Return the prediction for a picture in a file.

        Args:
            path: A PNG or JPEG file.
            invert: True for dark on light, False for light on dark; None detects it.

        Raises:
            ImageError: The file cannot be read.
        """
        return self.predict_prepared(self.prepare(path, invert))

    def prepare(self, path: str | Path, invert: bool | None = None) -> "Prepared":
        """Return a picture drawn as an image of the data set, without redrawing by feature stages."""
        from softmax_cli.pictures import prepare_picture

        checkpoint = self.checkpoint
        return prepare_picture(Path(path), checkpoint.image_shape, checkpoint.preparation, invert)

    def predict_prepared(self, prepared: "Prepared") -> Prediction:
        """Return the answer for a prepared picture; its image is redrawn by the feature stages first."""
        probabilities = self.predict_proba(prepared.image[None])[0].tolist()
        by_name = dict(zip(self.class_names, probabilities, strict=True))
        best = max(by_name, key=lambda name: by_name[name])
        return Prediction(best, by_name[best], by_name, self.redraw(prepared))

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


def describe_prediction(path: str | Path, prediction: Prediction) -> dict[str, Any]:
    """Return a prediction as plain values, as in ``softmax predict --json``."""
    return {
        "image": str(path),
        "class": prediction.class_name,
        "probability": prediction.probability,
        "probabilities": prediction.probabilities,
        "steps": list(prediction.prepared.steps),
    }
