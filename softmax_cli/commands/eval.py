"""`softmax eval`."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from softmax_cli.commands import options
from softmax_cli.commands.terminal import escape, table
from softmax_cli.errors import ConfigError, DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from softmax_cli.checkpoint import Checkpoint
    from softmax_cli.data.dataset import Dataset
    from softmax_cli.metrics import Scores

log = logging.getLogger(__name__)


@click.command()
@options.checkpoint
@options.dataset
@click.option(
    "--split",
    type=click.Choice(["test", "validation", "train"]),
    default="test",
    show_default=True,
    help="Which images: the test set, those held out in training, or those trained on.",
)
@click.option(
    "--reliability",
    is_flag=True,
    help="Add a table: how sure the model was, and how often right (--json always has it).",
)
@click.option(
    "--compare",
    "other",
    type=click.Path(path_type=Path),
    metavar="OTHER.npz",
    help="Say whether the model is better than another one, or only lucky.",
)
@options.data
@options.as_json
def command(
    checkpoint: Path,
    dataset: str | None,
    split: str,
    reliability: bool,
    other: Path | None,
    data_dir: Path | None,
    offline: bool,
    as_json: bool,
) -> None:
    """Judge a model: its accuracy, loss and confusions.

    \b
    Example:
      softmax eval --split validation
    """
    model = options.load_checkpoint(checkpoint)
    rival = options.load_checkpoint(other) if other else None
    source = options.make_source(data_dir, offline)
    data = options.load_data(model, dataset, "test" if split == "test" else "train", source)
    options.check_fit(model, data, checkpoint)
    if rival and other:
        _check_rival(model, rival, split)
        options.check_fit(rival, data, other)
    indices = _indices(model, data, split)
    verdict = _judge(model, data, indices)
    result = _result(model, data, split, verdict)
    if rival:
        result["compare"] = _compare(other, verdict, _judge(rival, data, indices))
    if as_json:
        import json

        click.echo(json.dumps(result))
    else:
        click.echo(_text(checkpoint, model, result, verdict.scores, reliability))


class Verdict(NamedTuple):
    """The scores of a model, those it had before its calibration (None: it had none), and what is right."""

    scores: "Scores"
    before: "Scores | None"
    right: "NDArray[np.bool_]"


def _judge(model: "Checkpoint", data: "Dataset", indices: Any) -> Verdict:
    import numpy as np

    from softmax_cli.metrics import score, total
    from softmax_cli.training import judge

    scores, before, right = [], [], []
    temperature = model.state.temperature
    for z, labels in judge(model.state.model, model.state.features, data, indices):
        scores.append(score(z, labels))
        right.append(z.argmax(axis=1) == labels)
        if temperature != 1:
            before.append(score(z * z.dtype.type(temperature), labels))
    return Verdict(total(scores), total(before) if before else None, np.concatenate(right))


def _compare(path: Path | None, ours: Verdict, theirs: Verdict) -> dict[str, Any]:
    from softmax_cli.comparison import compare

    found = compare(ours.right, theirs.right)
    return {
        "checkpoint": str(path),
        "accuracy": theirs.scores.accuracy,
        "difference": found.difference,
        "difference_interval": list(found.interval),
        "only_this_right": found.first,
        "only_other_right": found.second,
        "p_value": found.p_value,
    }


def _check_rival(model: "Checkpoint", rival: "Checkpoint", split: str) -> None:
    """Raise `DataError` for models that cannot be compared; say so where the comparison is not fair."""
    if model.class_names != rival.class_names:
        raise DataError("the two models do not know the same classes, so that they cannot be compared")
    ours, theirs = (
        (one.digest, one.config.validation_size, one.config.seed if one.config.validation_size else 0)
        for one in (model, rival)
    )
    if split != "test" and ours != theirs:
        log.warning("the two models were not trained on the same images: only --split test is fair to both")


def _indices(model: "Checkpoint", data: "Dataset", split: str) -> Any:
    """Return the indices of the images to judge, drawn as training drew them."""
    from softmax_cli.data.dataset import hold_out

    if split == "test":
        return hold_out(data.labels, 0, 0)[0]
    if data.digest != model.digest:
        raise ConfigError(f"nothing of {data.name} was seen in training; judge it with --split test")
    if split == "validation" and not model.config.validation_size:
        raise ConfigError("the model was trained without a validation split; judge it with --split test")
    trained, held = hold_out(data.labels, model.config.validation_size, model.config.seed)
    return held if split == "validation" else trained


def _result(model: "Checkpoint", data: "Dataset", split: str, verdict: Verdict) -> dict[str, Any]:
    from softmax_cli.data.catalog import usual_accuracy

    scores, before, features = verdict.scores, verdict.before, model.state.features
    reference = usual_accuracy(data.name, data.digest, features.kind, features.dimension)
    is_own = data.digest == model.digest
    return {
        "dataset": data.name,
        "split": split,
        "images": scores.images,
        "features": features.title,
        "accuracy": scores.accuracy,
        "accuracy_interval": list(scores.accuracy_interval),
        **_confidence(scores),
        "temperature": model.state.temperature,
        "before_calibration": _confidence(before) if before else None,
        "reference": list(reference) if reference and split == "test" and is_own else None,
        "per_class": [
            {"class": name, **score._asdict()}
            for name, score in zip(model.class_names, scores.per_class(), strict=True)
        ],
        "confusion": scores.confusion.tolist(),
        "reliability": [one._asdict() for one in scores.reliability()],
        "compare": None,
    }


def _confidence(scores: "Scores") -> dict[str, float]:
    """Return the scores that depend on how sure a model is."""
    return {"loss": scores.loss, "brier": scores.brier, "ece": scores.ece}


def _text(
    path: Path, model: "Checkpoint", result: dict[str, Any], scores: "Scores", reliability: bool
) -> str:
    names = [escape(name) for name in model.class_names]
    low, high = result["accuracy_interval"]
    parts = [
        "\n".join(
            [
                f"{escape(result['dataset'])}, {result['split']}: {result['images']:,} images, "
                f"{result['features']}",
                f"accuracy {100 * scores.accuracy:.2f} %  "
                f"(95 % interval {100 * low:.2f} to {100 * high:.2f} %)",
                _sureness(result),
                *_before(result),
                *_reference(result),
            ]
        ),
        _class_table(names, scores),
        "confusion (rows: true class, columns: predicted)\n" + _confusion_table(names, scores),
        _worst(names, scores),
    ]
    if reliability:
        parts.append(_reliability_table(result["reliability"]))
    if result["compare"]:
        parts.append(_comparison(path, result))
    return "\n\n".join(parts)


def _sureness(scores: dict[str, float]) -> str:
    return (
        f"loss {scores['loss']:.4f}, Brier score {scores['brier']:.4f}, "
        f"expected calibration error {scores['ece']:.4f}"
    )


def _before(result: dict[str, Any]) -> list[str]:
    """Return the line on what calibration did, where there was one."""
    if not (before := result["before_calibration"]):
        return []
    return [f"before calibration (temperature {result['temperature']:.3f}): {_sureness(before)}"]


def _reference(result: dict[str, Any]) -> list[str]:
    """Return a sentence on whether the accuracy is as usual, where that is known."""
    from softmax_cli.data.catalog import CATALOG, compared

    if not result["reference"]:
        return []
    low, high = result["reference"]
    title = CATALOG[result["dataset"]].title
    return [
        f"softmax regression on {result['features']} of {title} usually reaches "
        f"{100 * low:.4g} to {100 * high:.4g} %: this is {compared(result['accuracy'], (low, high))}"
    ]


def _reliability_table(bins: list[dict[str, float]]) -> str:
    rows = [
        [
            f"{100 * one['low']:.1f} to {100 * one['high']:.1f} %",
            f"{one['images']:,}",
            f"{100 * one['confidence']:.1f} %",
            f"{100 * one['accuracy']:.1f} %",
            f"{100 * (one['accuracy'] - one['confidence']):+.1f}",
        ]
        for one in bins
    ]
    return table(["sure by", "images", "mean", "right", "points"], rows)


def _comparison(path: Path, result: dict[str, Any]) -> str:
    """Return what `--compare` found, in words."""
    found = result["compare"]
    low, high = found["difference_interval"]
    ours, theirs = escape(str(path)), escape(found["checkpoint"])
    return "\n".join(
        [
            f"{ours} {100 * result['accuracy']:.2f} %, {theirs} {100 * found['accuracy']:.2f} %: "
            f"a difference of {100 * found['difference']:+.2f} points "
            f"(95 % interval {100 * low:+.2f} to {100 * high:+.2f})",
            f"only {ours} is right on {found['only_this_right']:,} images, "
            f"only {theirs} on {found['only_other_right']:,} (McNemar's exact test)",
            f"{ours} is {_verdict(found['difference'], found['p_value'])}",
        ]
    )


def _verdict(difference: float, p_value: float) -> str:
    """Return what a difference and its p-value mean, in words."""
    p = f"p = {p_value:.{1 if p_value < 0.01 else 2}g}" if p_value > 1e-300 else "p < 1e-300"
    if not difference:
        return f"as good: {p}"
    word = "better" if difference > 0 else "worse"
    return f"{word}, and not by chance: {p}" if p_value < 0.05 else f"{word}, but that may be chance: {p}"


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
