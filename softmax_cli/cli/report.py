"""`softmax report`."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from softmax_cli.cli import options
from softmax_cli.cli.terminal import escape
from softmax_cli.errors import ConfigError, SoftmaxError

if TYPE_CHECKING:
    from softmax_cli.classifier import Classifier
    from softmax_cli.data.dataset import Dataset
    from softmax_cli.data.download import Source
    from softmax_cli.report.findings import Findings

log = logging.getLogger(__name__)

DOCTYPE = b"<!doctype html>"
"""First bytes of every report."""


@click.command()
@options.model
@options.dataset
@click.option(
    "--output",
    "-o",
    type=options.FILE,
    default=Path("report.html"),
    show_default=True,
    help="HTML file to write.",
)
@options.skip_bad
@options.data
@options.as_json
def command(
    checkpoint: Path,
    dataset: str | None,
    output: Path,
    skip_bad: bool,
    data_dir: Path | None,
    offline: bool,
    as_json: bool,
) -> None:
    """Write an HTML page about a model: scores, mistakes, weights, a board to draw on.

    The page follows one image through the model, trains a small model in the browser, and reports the scores.
    It is one file of at most 1.5 MB that loads nothing else: it can be mailed, printed and opened offline. It
    classifies drawings if the arrays of the model fit it.

    \b
    Example:
      softmax report --output digits.html
    """
    from softmax_cli.evaluation import load_evaluation_data
    from softmax_cli.files import atomic_write, check_replaces, check_writable

    _check_extra()
    classifier = options.load_classifier(checkpoint)
    check_writable(output)
    check_replaces(output, DOCTYPE, "report", "--output")
    source = options.make_source(data_dir, offline, reading=options.reading_of(skip_bad))
    data = load_evaluation_data(classifier, dataset, "test", source, checkpoint)
    train = _load_training_split(classifier, dataset, source)
    page = _render(classifier, data, _find(classifier, data), train).encode()
    with atomic_write(output) as file:
        file.write(page)
    if as_json:
        click.echo(json.dumps({"report": str(output), "bytes": len(page)}))
    else:
        click.echo(f"{escape(str(output))}: {len(page) / 1000:,.0f} kB; open it in a browser")


def _check_extra() -> None:
    """Raise `ConfigError` if a package of the extra [report] is missing."""
    from importlib.util import find_spec

    if find_spec("jinja2") is None:
        raise ConfigError(
            "the report needs jinja2, which the extra [report] installs: "
            "pip install 'softmax-regression[report]'"
        )


def _load_training_split(classifier: "Classifier", dataset: str | None, source: "Source") -> "Dataset | str":
    """Return the training split, for training in the browser, or why it cannot be had."""
    from softmax_cli.data.loading import find_dataset, load_dataset

    checkpoint = classifier.checkpoint
    try:
        if dataset is None:
            return find_dataset(checkpoint.dataset, checkpoint.digest, "train", source)
        return load_dataset(dataset, "train", source)
    except SoftmaxError as error:
        log.warning("the page cannot train in the browser: %s", error)
        return f"The training images could not be read: {escape(str(error))}."


def _find(classifier: "Classifier", data: "Dataset") -> "Findings":
    """Return the findings on all images, and show the progress."""
    from softmax_cli.cli.progress import work_bar
    from softmax_cli.report.findings import find_mistakes

    with work_bar(len(data), "evaluating") as bar:
        return find_mistakes(classifier, data, bar.update)


def _render(classifier: "Classifier", data: "Dataset", findings: "Findings", train: "Dataset | str") -> str:
    """Return the page, with control characters in names escaped."""
    from softmax_cli.report.page import render

    model = classifier.checkpoint
    names = tuple(map(escape, model.class_names))
    versions = {escape(name): escape(text) for name, text in model.run.get("versions", {}).items()}
    run = model.run | {"versions": versions}
    model = replace(model, class_names=names, dataset=escape(model.dataset), run=run)
    return render(model, replace(data, name=escape(data.name)), findings, train)
