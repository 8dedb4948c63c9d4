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
    from softmax_cli.classifier import Answer, Classifier, Prediction
    from softmax_cli.classifier import PictureSource as Picture
    from softmax_cli.errors import ImageError
    from softmax_cli.pictures import Prepared

log = logging.getLogger(__name__)

FEW = 20
"""Number of pictures up to which no progress bar is shown."""


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", type=click.Path(allow_dash=True))
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
@click.option("--many", is_flag=True, help="Read all digits in each picture, line by line.")
@click.option(
    "--show-boxes",
    type=click.Path(path_type=Path),
    metavar="FILE.png",
    help="With --many: write a copy of the picture with boxes and answers.",
)
@options.as_json
def command(
    images: tuple[str, ...],
    checkpoint: Path,
    top: int,
    invert: bool | None,
    show: bool,
    explain: bool,
    many: bool,
    show_boxes: Path | None,
    as_json: bool,
    output: Path | None,
    probabilities: bool,
    skip_bad: bool,
) -> None:
    """Classify pictures of any size, folders of them, or a data file.

    IMAGE is a file, a folder, or - for standard input: PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF or HEIC.

    \b
    Example:
      softmax predict digit.png --show
      softmax predict test.csv -o answers.csv
      softmax predict --many page.jpg --show-boxes boxes.png
      curl -sSL https://example.com/digit.png | softmax predict -
    """
    if output:
        from softmax_cli.cli.batch import predict_to_file

        paths = tuple(map(Path, images))
        return predict_to_file(paths, checkpoint, output, probabilities, skip_bad, as_json)
    from softmax_cli.backend import cores
    from softmax_cli.classifier import predict_pictures
    from softmax_cli.cli.progress import work_bar

    if many and (top > 1 or show or explain):
        raise click.UsageError("--many cannot be combined with --top, --show or --explain.")
    classifier = options.load_classifier(checkpoint)
    pictures = _pictures(images)
    if show_boxes:
        _check_boxes(show_boxes, many, len(pictures))
    sources = [source for _, source in pictures if not isinstance(source, Exception)]
    answers = predict_pictures(classifier, sources, invert, many, cores())
    results: list[dict[str, Any]] = []
    with work_bar(len(pictures), "pictures", FEW) as bar:
        for name, source in pictures:
            answer = source if isinstance(source, Exception) else next(answers)
            results += _items(classifier, name, answer, explain)
            if not as_json and not isinstance(answer, Exception):
                new, alone = results[-max(1, len(answer)) :], len(pictures) == 1
                text = _lines(new, alone) if many else _text(new[0], answer[0].prepared, top, show, alone)
                echo = click.echo if bar.disable else bar.write
                echo(text)
            if show_boxes and not isinstance(source, Exception) and not isinstance(answer, Exception):
                _write_boxes(show_boxes, source, answer)
            bar.update()
    if as_json:
        click.echo(json.dumps(results))
    if any("error" in item for item in results):
        raise SystemExit(1)


def _pictures(names: tuple[str, ...]) -> "list[tuple[str, Picture | ImageError]]":
    """Return the name and the source of each picture, or why there is none."""
    from softmax_cli.errors import ImageError
    from softmax_cli.pictures import find_pictures

    found: list[tuple[str, Picture | ImageError]] = []
    for name in names:
        try:
            if name == "-":
                found.append((name, _standard_input()))
            else:
                found += [(str(path), path) for path in find_pictures(name)]
        except ImageError as error:
            found.append((name, error))
    return found


def _standard_input() -> bytes:
    """Return what is on standard input, up to the largest size of a picture."""
    from softmax_cli.errors import ImageError, reason
    from softmax_cli.pictures import MAX_BYTES

    if sys.stdin is None:
        raise ImageError("standard input is closed")
    try:
        return sys.stdin.buffer.read(MAX_BYTES + 1)
    except OSError as error:
        raise ImageError(f"cannot read standard input: {reason(error)}") from error


def _check_boxes(path: Path, many: bool, count: int) -> None:
    """Raise an error unless `--show-boxes` is used as intended and its file could be written."""
    from softmax_cli.files import check_replaces, check_writable

    if not many or count != 1:
        raise click.UsageError("--show-boxes needs --many and a single picture.")
    check_writable(path)
    check_replaces(path, b"\x89PNG", "PNG picture", "--show-boxes")


def _write_boxes(path: Path, source: "Picture", predictions: "list[Prediction]") -> None:
    """Write a copy of a picture with a box round each digit, and the answer above it."""
    from softmax_cli.files import atomic_write
    from softmax_cli.pictures import draw_boxes

    marks = [(one.prepared.box, one.class_name or "") for one in predictions if one.prepared.box]
    content = draw_boxes(source, marks)
    with atomic_write(path) as file:
        file.write(content)


def _items(classifier: "Classifier", name: str, answer: "Answer", explain: bool) -> list[dict[str, Any]]:
    """Return the answers for a picture as plain values, and log what is doubtful about them."""
    from softmax_cli.classifier import describe_answer

    items = describe_answer(name, answer)
    if isinstance(answer, Exception):
        is_content = name == "-" and str(answer).startswith("the picture")
        log.error("%s%s", "standard input: " * is_content, answer, exc_info=answer)
        return items
    for number, item in enumerate(items, 1):
        for warning in item["warnings"]:
            log.warning("%s%s: %s", name, f", digit {number}" * ("box" in item), warning)
    if explain:
        for item, prediction in zip(items, answer, strict=True):
            item["explanation"] = _explain(classifier, prediction) if prediction.class_name else None
    return items


def _lines(items: list[dict[str, Any]], alone: bool) -> str:
    """Return the digits of a picture as text, a line for each line."""
    lines: dict[int, list[str]] = {}
    for item in items:
        lines.setdefault(item.get("line", 0), []).append(item["class"] or NOTHING)
    start = "" if alone else f"{escape(items[0]['image'])}: "
    return "\n".join(start + escape("".join(names)) for names in lines.values())


NOTHING = "no digit found"


def _text(result: dict[str, Any], prepared: "Prepared", top: int, show: bool, alone: bool) -> str:
    """Return the answer in a line, with what else was asked for."""
    ranked = sorted(result["probabilities"].items(), key=lambda item: -item[1])[:top]
    answer = ", ".join(f"{escape(name)} ({100 * share:.1f} %)" for name, share in ranked)
    lines = [f"{escape(result['image'])}: {answer or NOTHING}"]
    if show:
        lines = [half_blocks(prepared.image), "preparation: " + ", ".join(result["steps"]), *lines]
    if result.get("explanation"):
        lines += ["", _explanation(result["explanation"], result["probabilities"], prepared)]
    elif ranked and alone and sys.stdout.isatty():
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
