"""`softmax predict`."""

import json
import logging
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from softmax_cli.cli import options
from softmax_cli.cli.terminal import bars, escape, half_blocks, signed_picture, signs_of, table

if TYPE_CHECKING:
    from softmax_cli.classifier import Classifier, Prediction
    from softmax_cli.pictures import Prepared

log = logging.getLogger(__name__)


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", type=click.Path(path_type=Path))
@options.checkpoint
@click.option(
    "--top",
    type=click.IntRange(min=1),
    metavar="K",
    default=1,
    show_default=True,
    help="Print the K most probable classes.",
)
@click.option(
    "--invert/--no-invert",
    default=None,
    help="Force dark-on-light or light-on-dark. Default: detect from the picture.",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    metavar="FILE.csv",
    help="Classify all images of a data file or folder, and write a line for each.",
)
@click.option("--probabilities", is_flag=True, help="With --output: a column for each class.")
@options.skip_bad
@click.option("--show", is_flag=True, help="Show the image that the model saw, and how it was prepared.")
@click.option("--explain", is_flag=True, help="Show the evidence for and against the answer, by pixel.")
@options.as_json
def command(
    images: tuple[Path, ...],
    checkpoint: Path,
    top: int,
    invert: bool | None,
    show: bool,
    explain: bool,
    as_json: bool,
    output: Path | None,
    probabilities: bool,
    skip_bad: bool,
) -> None:
    """Classify pictures of any size, or all images of a data file.

    \b
    Example:
      softmax predict digit.png --show
      softmax predict test.csv -o answers.csv
    """
    if output:
        from softmax_cli.cli.batch import predict_to_file

        return predict_to_file(images, checkpoint, output, probabilities, skip_bad, as_json)
    from softmax_cli.classifier import describe_prediction
    from softmax_cli.errors import ImageError

    classifier = options.load_classifier(checkpoint)
    results, failed = [], False
    for path in images:
        try:
            prediction = classifier.predict_picture(path, invert)
        except ImageError as error:
            log.error("%s", error, exc_info=True)
            failed = True
            continue
        for warning in prediction.prepared.warnings:
            log.warning("%s: %s", path, warning)
        result = describe_prediction(path, prediction)
        if explain:
            result["explanation"] = _explain(classifier, prediction)
        results.append(result)
        if not as_json:
            click.echo(_text(result, prediction.prepared, top, show, alone=len(images) == 1))
    if as_json:
        click.echo(json.dumps(results))
    if failed:
        raise SystemExit(1)


def _text(result: dict[str, Any], prepared: "Prepared", top: int, show: bool, alone: bool) -> str:
    """Return the answer in a line, with what else was asked for."""
    ranked = sorted(result["probabilities"].items(), key=lambda item: -item[1])[:top]
    answer = ", ".join(f"{escape(name)} ({100 * share:.1f} %)" for name, share in ranked)
    lines = [f"{escape(result['image'])}: {answer}"]
    if show:
        lines = [half_blocks(prepared.image), "preparation: " + ", ".join(result["steps"]), *lines]
    if "explanation" in result:
        lines += ["", _explanation(result["explanation"], result["probabilities"], prepared)]
    elif alone and sys.stdout.isatty():
        lines.append(bars({escape(name): share for name, share in result["probabilities"].items()}))
    return "\n".join(lines)


def _explain(classifier: "Classifier", prediction: "Prediction") -> dict[str, Any]:
    """Return the explanation of a prediction, as plain values."""
    found = classifier.explain(prediction)
    names = classifier.class_names
    return {
        "class": names[found.winner],
        "rather_than": names[found.runner_up],
        "difference": found.difference,
        "bias_difference": found.bias_difference,
        "evidence": dict(zip(names, found.evidence.tolist(), strict=True)),
        "bias": dict(zip(names, found.bias.tolist(), strict=True)),
        "features": classifier.checkpoint.state.features.title,
        "blank": dict(zip(names, found.blank.tolist(), strict=True)),
        "blank_difference": found.blank_difference,
        "contributions": found.pixels.tolist(),
        "completeness_error": found.error,
    }


def _explanation(found: dict[str, Any], probabilities: dict[str, float], prepared: "Prepared") -> str:
    """Return what `--explain` shows: the evidence for each class, and for the best against the next."""
    import numpy as np

    winner, runner_up = escape(found["class"]), escape(found["rather_than"])
    values = np.array(found["contributions"])
    rows = [
        [escape(name), f"{found['blank'][name]:+.2f}", f"{z - found['blank'][name]:+.2f}", f"{z:+.2f}",
         f"{100 * probabilities[name]:.2f} %"]
        for name, z in found["evidence"].items()
    ]  # fmt: skip
    legend = (
        f"{signs_of(winner, runner_up)}\n"
        f"pixels for {winner} against {runner_up}: {values[values > 0].sum():+.2f}\n"
        f"pixels for {runner_up} against {winner}: {values[values < 0].sum():+.2f}\n"
        f"difference for a blank image: {found['blank_difference']:+.2f}"
    )
    if abs(found["completeness_error"]) > 0.001:
        legend += f"\nerror of the sum: {100 * abs(found['completeness_error']):.1f} %"
    return "\n".join(
        [
            table(["class", "blank", "pixels", "evidence", "probability"], rows),
            "",
            signed_picture(prepared.image, values),
            "",
            legend,
            f"{winner} against {runner_up}: difference of evidence {found['difference']:+.1f}, "
            f"odds {odds(found['difference'])} to 1",
        ]
    )


def odds(difference: float) -> str:
    """Return the odds for a difference of evidence, e to its power, with two significant digits."""
    value = math.exp(min(difference, 700))
    if value < 10:
        return f"{value:.1f}"
    return f"{float(f'{value:.1e}'):,.0f}" if value < 1e6 else f"{value:.0e}"
