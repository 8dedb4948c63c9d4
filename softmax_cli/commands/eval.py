"""`softmax eval`."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from softmax_cli.commands import options
from softmax_cli.commands.terminal import escape, table
from softmax_cli.errors import ConfigError, DataError

if TYPE_CHECKING:
    from softmax_cli.checkpoint import Checkpoint
    from softmax_cli.data.dataset import Dataset
    from softmax_cli.metrics import Scores

log = logging.getLogger(__name__)


@click.command()
@options.checkpoint
@click.option(
    "--dataset", metavar="NAME", help="Another data set than the model's: a name or a folder, as for train."
)
@click.option(
    "--split",
    type=click.Choice(["test", "validation", "train"]),
    default="test",
    show_default=True,
    help="Which images: the test set, those held out in training, or those trained on.",
)
@options.data
@options.as_json
def command(
    checkpoint: Path, dataset: str | None, split: str, data_dir: Path | None, offline: bool, as_json: bool
) -> None:
    """Judge a model: its accuracy, loss and confusions.

    \b
    Example:
      softmax eval --split validation
    """
    from softmax_cli.training import evaluate

    model = options.load_checkpoint(checkpoint)
    source = options.make_source(data_dir, offline)
    data = options.load_data(model, dataset, "test" if split == "test" else "train", source)
    _check_fit(model, data)
    scores = evaluate(model.state.model, data, _indices(model, data, split))
    result = _result(model, data, split, scores)
    if as_json:
        import json

        click.echo(json.dumps(result))
    else:
        click.echo(_text(result, scores, model.class_names))


def _check_fit(model: "Checkpoint", data: "Dataset") -> None:
    """Raise `DataError` for data that the model cannot see; say so where it is not what it was trained on."""
    if data.image_shape != model.image_shape:
        expected, found = (" x ".join(map(str, shape)) for shape in (model.image_shape, data.image_shape))
        raise DataError(
            f"{data.name} has images of {found} pixels, expected {expected} as the model was trained on"
        )
    if len(data.class_names) > len(model.class_names):
        classes, most = len(data.class_names), len(model.class_names)
        raise DataError(f"{data.name} has {classes} classes, expected at most the {most} of the model")
    if data.digest != model.digest:
        log.warning(
            "%s (digest %s) is not the data that the model was trained on: %s (digest %s)",
            *(data.name, data.digest[:12], model.dataset, model.digest[:12]),
        )


def _indices(model: "Checkpoint", data: "Dataset", split: str) -> Any:
    """Return the indices of the images to judge, drawn as training drew them."""
    from softmax_cli.data.dataset import hold_out

    if split == "test":
        return hold_out(data.labels, 0, 0)[0]
    if split == "validation" and not model.config.validation_size:
        raise ConfigError("the model was trained without a validation split; judge it with --split test")
    trained, held = hold_out(data.labels, model.config.validation_size, model.config.seed)
    return held if split == "validation" else trained


def _result(model: "Checkpoint", data: "Dataset", split: str, scores: "Scores") -> dict[str, Any]:
    from softmax_cli.data.catalog import CATALOG

    known = CATALOG.get(data.name)
    is_known = known is not None and known.digest == data.digest
    reference = known.reference.get("pixels") if known and is_known and split == "test" else None
    return {
        "dataset": data.name,
        "split": split,
        "images": scores.images,
        "accuracy": scores.accuracy,
        "accuracy_interval": list(scores.accuracy_interval),
        "loss": scores.loss,
        "brier": scores.brier,
        "ece": scores.ece,
        "reference": list(reference) if reference else None,
        "per_class": [
            {"class": name, **score._asdict()}
            for name, score in zip(model.class_names, scores.per_class(), strict=True)
        ],
        "confusion": scores.confusion.tolist(),
    }


def _text(result: dict[str, Any], scores: "Scores", class_names: tuple[str, ...]) -> str:

    names = [escape(name) for name in class_names]
    low, high = result["accuracy_interval"]
    return "\n".join(
        [
            f"{result['dataset']}, {result['split']}: {result['images']:,} images",
            f"accuracy {100 * scores.accuracy:.2f} %  (95 % interval {100 * low:.2f} to {100 * high:.2f} %)",
            f"loss {scores.loss:.4f}, Brier score {scores.brier:.4f}, "
            f"expected calibration error {scores.ece:.4f}",
            *_reference(result),
            "",
            _class_table(names, scores),
            "",
            "confusion (rows: true class, columns: predicted)",
            _confusion_table(names, scores),
            "",
            _worst(names, scores),
        ]
    )


def _reference(result: dict[str, Any]) -> list[str]:
    """Return a sentence on whether the accuracy is as usual, where that is known."""
    from softmax_cli.data.catalog import CATALOG

    if not result["reference"]:
        return []
    low, high = result["reference"]
    title = CATALOG[result["dataset"]].title
    verdict = (
        "below that"
        if result["accuracy"] < low
        else "above that"
        if result["accuracy"] > high
        else "as usual"
    )
    return [
        f"softmax regression on raw {title} pixels usually reaches "
        f"{100 * low:.4g} to {100 * high:.4g} %: this is {verdict}"
    ]


def _class_table(names: list[str], scores: "Scores") -> str:

    rows = [
        [name, *(f"{100 * rate:.1f} %" for rate in (one.precision, one.recall, one.f1)), f"{one.images:,}"]
        for name, one in zip(names, scores.per_class(), strict=True)
    ]
    return table(["class", "precision", "recall", "F1", "images"], rows)


def _confusion_table(names: list[str], scores: "Scores") -> str:

    rows = [[name, *map(str, row)] for name, row in zip(names, scores.confusion.tolist(), strict=True)]
    return table(["", *names], rows)


def _worst(names: list[str], scores: "Scores") -> str:
    worst = scores.worst_confusions(3)
    if not worst:
        return "no image was confused with another class"
    return "most often: " + ", ".join(
        f"{names[true]} taken for {names[guess]} ({count})" for true, guess, count in worst
    )
