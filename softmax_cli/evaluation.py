"""Evaluation of a classifier on a data set, and comparison of two classifiers."""

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from softmax_cli.classifier import Classifier
from softmax_cli.cluster import Cluster
from softmax_cli.comparison import Comparison, compare
from softmax_cli.data.catalog import usual_accuracy
from softmax_cli.data.dataset import Dataset
from softmax_cli.data.download import Source
from softmax_cli.data.labels import as_labels
from softmax_cli.data.loading import find_dataset, load_dataset
from softmax_cli.errors import CheckpointError, ConfigError, DataError, DivergenceError
from softmax_cli.examples import Examples
from softmax_cli.features import FeatureMap, feature_arrays
from softmax_cli.metrics import Scores, score, total
from softmax_cli.model import Model
from softmax_cli.training import split_rows

log = logging.getLogger(__name__)

EVALUATED = "evaluated"
"""The name of the examples of an evaluation."""


class Evaluation(NamedTuple):
    """The result of an evaluation.

    Attributes:
        scores: The scores.
        before: The scores without calibration; None if the model is not calibrated.
        correct: For each image, whether the prediction is correct, (n,).
    """

    scores: Scores
    before: Scores | None
    correct: NDArray[np.bool_]


def evaluate(
    classifier: Classifier,
    data: Dataset,
    rows: NDArray[np.intp] | None = None,
    cluster: Cluster | None = None,
) -> Evaluation:
    """Evaluate a classifier on ``data.images[rows]``, by default on all of them.

    With a cluster, its machines read the images. The result does not depend on it.

    Raises:
        DataError: The images or the classes do not suit the classifier.
        ClusterError: The cluster cannot be used.
    """
    check_data(classifier, data)
    state = classifier.checkpoint.state
    if rows is not None and np.array_equal(rows, np.arange(len(data))):
        rows = None  # which takes no message
    build = partial(_make_examples, state.features, data.class_names, rows)
    examples = build(data) if cluster is None else cluster.share(data, build)
    try:
        parts = list(examples[EVALUATED].map_parts(_evaluate_part, (state.model, state.temperature)))
    except DivergenceError as error:
        raise CheckpointError(str(error)) from error
    return _joined(parts)


def _make_examples(
    features: FeatureMap, class_names: tuple[str, ...], rows: NDArray[np.intp] | None, data: Dataset
) -> dict[str, Examples]:
    """Return the examples to evaluate a model on, with labels that index `class_names`."""
    data = align_classes(data, class_names)
    rows = np.arange(len(data)) if rows is None else rows
    return {EVALUATED: Examples(features, data.images, data.labels, rows)}


def _evaluate_part(examples: Examples, question: tuple[Model, float], part: slice) -> Evaluation:
    """Return the evaluation of a model with a temperature on a part."""
    model, temperature = question
    blocks = []
    for z, labels in examples.evidence_blocks(model, part):
        before = score(z * z.dtype.type(temperature), labels) if temperature != 1 else None
        blocks.append(Evaluation(score(z, labels), before, z.argmax(axis=1) == labels))
    return _joined(blocks)


def _joined(parts: list[Evaluation]) -> Evaluation:
    """Return the evaluation on the images of all parts."""
    before = [part.before for part in parts if part.before]
    return Evaluation(
        total(part.scores for part in parts),
        total(before) if before else None,
        np.concatenate([part.correct for part in parts]),
    )


def compare_evaluations(first: Evaluation, second: Evaluation) -> Comparison:
    """Compare two evaluations on the same images (McNemar's exact test)."""
    return compare(first.correct, second.correct)


def load_evaluation_data(
    classifier: Classifier,
    dataset: str | Path | None = None,
    split: str = "test",
    source: Source | None = None,
    name: str | Path = "the model",
) -> Dataset:
    """Return the data set to evaluate a classifier on.

    A warning is logged if the classifier was trained on another data set.

    Args:
        classifier: The classifier.
        dataset: A data set as for `load_dataset`; by default, the one that the classifier was trained on.
        split: ``test``, or ``validation`` or ``train``, which are parts of the training split.
        source: Cache and mirrors; by default, the user's cache.
        name: Name of the classifier in messages.

    Raises:
        ConfigError: The data set or its path is not known.
        DataError: The data are not available, or do not suit the classifier.
    """
    checkpoint, source = classifier.checkpoint, source or Source()
    part = "test" if split == "test" else "train"
    if dataset is None:
        data = find_dataset(checkpoint.dataset, checkpoint.digest, part, source)
    else:
        reading = source.reading.with_defaults(checkpoint.image_shape, checkpoint.preparation)
        data = load_dataset(dataset, part, replace(source, reading=reading))
    if data.digest != checkpoint.digest:
        data = align_classes(data, classifier.class_names, name)
    check_data(classifier, data, name)
    warn_if_other_data(classifier, data, name)
    return data


def warn_if_other_data(classifier: Classifier, data: Dataset, name: str | Path) -> None:
    """Log a warning if the classifier called `name` was trained on another data set."""
    checkpoint = classifier.checkpoint
    if data.digest != checkpoint.digest:
        log.warning(
            "%s (digest %s) is not the data set that %s was trained on: %s (digest %s)",
            *(data.name, data.digest[:12], name, checkpoint.dataset, checkpoint.digest[:12]),
        )


def align_classes(data: Dataset, class_names: tuple[str, ...], name: str | Path = "the model") -> Dataset:
    """Return data with labels that index the classes of a model called `name`.

    Classes are the same if their names are. If the classes of the data are numbers and those of the model
    are not, the numbers count the classes of the model from 0 on.

    Raises:
        DataError: The model lacks a class of the data.
    """
    if data.class_names == class_names[: len(data.class_names)]:
        return data
    index = {one: number for number, one in enumerate(class_names)}
    if not any(map(str.isdecimal, class_names)):
        index |= {str(number): number for number in range(len(class_names))}
    if unknown := [one for one in data.class_names if one not in index]:
        raise DataError(f"{data.name} has the class {unknown[0]!r}, which {name} does not know")
    numbers = np.array([index[one] for one in data.class_names])
    return replace(data, labels=as_labels(numbers[data.labels]), class_names=class_names)


def check_data(classifier: Classifier, data: Dataset, name: str | Path = "the model") -> None:
    """Raise `DataError` if the images or the classes do not suit a classifier.

    `name` is the name of the classifier in messages.
    """
    checkpoint = classifier.checkpoint
    if data.image_shape != checkpoint.image_shape:
        expected, found = (" x ".join(map(str, one)) for one in (checkpoint.image_shape, data.image_shape))
        raise DataError(
            f"{data.name} has images of {found} pixels, expected {expected}, on which {name} was trained"
        )
    if len(data.class_names) > len(checkpoint.class_names):
        classes, most = len(data.class_names), len(checkpoint.class_names)
        raise DataError(f"{data.name} has {classes} classes, expected at most the {most} of {name}")


def rows_of_split(classifier: Classifier, data: Dataset, split: str) -> NDArray[np.intp]:
    """Return the rows of the test, validation or training images of a classifier.

    Raises:
        ConfigError: The classifier was trained on another data set, or without validation images.
    """
    checkpoint = classifier.checkpoint
    if split == "test":
        return np.arange(len(data))
    if data.digest != checkpoint.digest:
        raise ConfigError(
            f"the model was not trained on {data.name}, which has no {split} images for it; use --split test"
        )
    if split == "validation" and not checkpoint.config.validation_size:
        raise ConfigError("the model was trained without validation images; use --split test")
    trained, validation = split_rows(checkpoint.config, data)
    return validation if split == "validation" else trained


def check_comparable(first: Classifier, second: Classifier, split: str) -> None:
    """Raise `DataError` if two models have different classes.

    A warning is logged if the comparison is not informative.
    """
    if first.class_names != second.class_names:
        raise DataError("the two models have different classes, so that they cannot be compared")
    if all(np.array_equal(*pair) for pair in zip(_parameters(first), _parameters(second), strict=True)):
        log.warning("the two models are identical: this compares a model with itself")
    ours, theirs = (
        (one.digest, one.config.validation_size, one.config.seed if one.config.validation_size else 0)
        for one in (first.checkpoint, second.checkpoint)
    )
    if split != "test" and ours != theirs:
        log.warning("the two models were not trained on the same images: only --split test is a fair test")


def _parameters(classifier: Classifier) -> list[NDArray[np.float32]]:
    """Return all numbers that determine the predictions of a classifier."""
    checkpoint = classifier.checkpoint
    features = feature_arrays(checkpoint.config, checkpoint.state.features)
    return [*checkpoint.state.model, *features.values()]


def describe_evaluation(
    classifier: Classifier, data: Dataset, split: str, evaluation: Evaluation
) -> dict[str, Any]:
    """Return an evaluation as plain values, as ``softmax eval --json`` prints it."""
    checkpoint, (scores, before, _) = classifier.checkpoint, evaluation
    features = checkpoint.state.features
    usual = None
    if split == "test" and data.digest == checkpoint.digest:
        usual = usual_accuracy(data.digest, data.split_digest, checkpoint.config.features, features.dimension)
    return {
        "dataset": data.name,
        "split": split,
        "images": scores.images,
        "features": features.title,
        "accuracy": scores.accuracy,
        "accuracy_interval": list(scores.accuracy_interval),
        **_probability_scores(scores),
        "temperature": checkpoint.state.temperature,
        "before_calibration": _probability_scores(before) if before else None,
        "reference": [usual.low, usual.high] if usual else None,
        "per_class": [
            {"class": name, **one._asdict()}
            for name, one in zip(classifier.class_names, scores.per_class(), strict=True)
        ],
        "confusion": scores.confusion.tolist(),
        "reliability": [one._asdict() for one in scores.reliability()],
        "compare": None,
    }


def describe_comparison(name: str | Path, second: Evaluation, comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as plain values.

    `name` and `second` belong to the second model.
    """
    return {
        "checkpoint": str(name),
        "accuracy": second.scores.accuracy,
        "difference": comparison.difference,
        "difference_interval": list(comparison.interval),
        "only_this_right": comparison.first,
        "only_other_right": comparison.second,
        "p_value": comparison.p_value,
    }


def _probability_scores(scores: Scores) -> dict[str, float]:
    """Return the scores that depend on the probabilities."""
    return {"loss": scores.loss, "brier": scores.brier, "ece": scores.ece}
