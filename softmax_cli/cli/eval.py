"""`softmax eval`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from softmax_cli.cli import options
from softmax_cli.cli.terminal import escape, table

if TYPE_CHECKING:
    from softmax_cli.metrics import Scores


@click.command()
@options.model
@options.dataset
@click.option(
    "--split",
    type=click.Choice(["test", "validation", "train"]),
    default="test",
    show_default=True,
    help="Images to use: the test set, the validation images, or the training images.",
)
@click.option(
    "--reliability",
    is_flag=True,
    help="Add a table of confidence against accuracy (always in --json).",
)
@click.option(
    "--compare",
    "other",
    type=options.FILE,
    metavar="OTHER.npz",
    help="Compare with another checkpoint (McNemar's exact test).",
)
@click.option(
    "--errors",
    type=click.Path(path_type=Path),
    metavar="FILE.csv",
    help="Write the misclassified images to a file.",
)
@options.cluster
@options.skip_bad
@options.data
@options.as_json
def command(
    checkpoint: Path,
    dataset: str | None,
    split: str,
    reliability: bool,
    other: Path | None,
    errors: Path | None,
    cluster: str | None,
    skip_bad: bool,
    data_dir: Path | None,
    offline: bool,
    as_json: bool,
) -> None:
    """Evaluate a model: accuracy, loss and confusion matrix.

    \b
    Example:
      softmax eval --split validation
    """
    from softmax_cli import evaluation
    from softmax_cli.cluster import open_cluster
    from softmax_cli.files import check_writable

    if errors:
        check_writable(errors)
    classifier = options.load_classifier(checkpoint)
    rival = options.load_classifier(other) if other else None
    source = options.make_source(data_dir, offline, reading=options.reading_of(skip_bad))
    data = evaluation.load_evaluation_data(classifier, dataset, split, source, checkpoint)
    if rival and other:
        evaluation.check_comparable(classifier, rival, split)
        evaluation.check_data(rival, data, other)
        evaluation.warn_if_other_data(rival, data, other)
    rows = evaluation.rows_of_split(classifier, data, split)
    with open_cluster(cluster) as machines:
        ours = evaluation.evaluate(classifier, data, rows, machines)
        theirs = evaluation.evaluate(rival, data, rows, machines) if rival else None
    result = evaluation.describe_evaluation(classifier, data, split, ours)
    if errors:
        from softmax_cli.batch import write_errors

        write_errors(classifier, data, rows, errors)
    if theirs and other:
        comparison = evaluation.compare_evaluations(ours, theirs)
        result["compare"] = evaluation.describe_comparison(other, theirs, comparison)
    if as_json:
        import json

        click.echo(json.dumps(result))
    else:
        click.echo(_text(checkpoint, classifier.class_names, result, ours.scores, reliability))


def _text(
    path: Path, class_names: tuple[str, ...], result: dict[str, Any], scores: "Scores", reliability: bool
) -> str:
    names = [escape(name) for name in class_names]
    low, high = result["accuracy_interval"]
    parts = [
        "\n".join(
            [
                f"{escape(result['dataset'])}, {result['split']}: {result['images']:,} images, "
                f"{result['features']}",
                f"accuracy {100 * scores.accuracy:.2f} %  "
                f"(95 % interval {100 * low:.2f} to {100 * high:.2f} %)",
                _probability_scores(result),
                *_before_calibration(result),
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


def _probability_scores(scores: dict[str, float]) -> str:
    return (
        f"loss {scores['loss']:.4f}, Brier score {scores['brier']:.4f}, "
        f"expected calibration error {scores['ece']:.4f}"
    )


def _before_calibration(result: dict[str, Any]) -> list[str]:
    """Return the line with the scores before calibration, if the model is calibrated."""
    if not (before := result["before_calibration"]):
        return []
    return [f"before calibration (temperature {result['temperature']:.3f}): {_probability_scores(before)}"]


def _reference(result: dict[str, Any]) -> list[str]:
    """Return a sentence about the accuracy and its usual range, if that is known."""
    from softmax_cli.data.catalog import CATALOG, Usual, compare_accuracy

    if not result["reference"]:
        return []
    low, high = result["reference"]
    usual = Usual(low, high)
    title = CATALOG[result["dataset"]].title
    return [
        f"softmax regression on {result['features']} of {title} usually reaches "
        f"{100 * low:.4g} to {100 * high:.4g} %: this is {compare_accuracy(result['accuracy'], usual)}"
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
    return table(["confidence", "images", "mean", "correct", "points"], rows)


def _comparison(path: Path, result: dict[str, Any]) -> str:
    """Return the result of `--compare`, in words."""
    found = result["compare"]
    low, high = found["difference_interval"]
    ours, theirs = escape(str(path)), escape(found["checkpoint"])
    return "\n".join(
        [
            f"{ours} {100 * result['accuracy']:.2f} %, {theirs} {100 * found['accuracy']:.2f} %: "
            f"a difference of {100 * found['difference']:+.2f} points "
            f"(95 % interval {100 * low:+.2f} to {100 * high:+.2f})",
            f"only {ours} is correct on {found['only_this_right']:,} images, "
            f"only {theirs} on {found['only_other_right']:,} (McNemar's exact test)",
            f"{ours} is {_verdict(found['difference'], found['p_value'])}",
        ]
    )


def _verdict(difference: float, p_value: float) -> str:
    """Return the meaning of a difference and its p-value, in words."""
    p = f"p = {p_value:.{1 if p_value < 0.01 else 2}g}" if p_value > 1e-300 else "p < 1e-300"
    if not difference:
        return f"equally good: {p}"
    word = "better" if difference > 0 else "worse"
    significant = "significant" if p_value < 0.05 else "not significant"
    return f"{word}; the difference is {significant}: {p}"


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
        return "no image was misclassified"
    return "most frequent confusions: " + ", ".join(
        f"{names[true]} as {names[guess]} ({count})" for true, guess, count in worst
    )
