"""`softmax report`."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from softmax_cli.cli import options
from softmax_cli.cli.terminal import escape
from softmax_cli.errors import ConfigError

if TYPE_CHECKING:
    from softmax_cli.classifier import Classifier
    from softmax_cli.data.dataset import Dataset
    from softmax_cli.report.findings import Findings

DOCTYPE = b"<!doctype html>"
"""How every report begins."""


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
@options.data
@options.as_json
def command(
    checkpoint: Path,
    dataset: str | None,
    output: Path,
    data_dir: Path | None,
    offline: bool,
    as_json: bool,
) -> None:
    """Write an HTML page about a model: scores, mistakes, weights, a board to draw on.

    The page is one file that loads nothing else: it can be mailed, printed and opened offline. The board is
    available for models of pixels, deskewed or not.

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
    source = options.make_source(data_dir, offline)
    data = load_evaluation_data(classifier, dataset, "test", source, checkpoint)
    page = _render(classifier, data, _find(classifier, data)).encode()
    with atomic_write(output) as file:
        file.write(page)
    if as_json:
        click.echo(json.dumps({"report": str(output), "bytes": len(page)}))
    else:
        click.echo(f"{escape(str(output))}: {len(page) / 1000:,.0f} kB; open it in a browser")


def _check_extra() -> None:
    """Raise `ConfigError` that names the extra if a package that draws the page is missing."""
    from importlib.util import find_spec

    missing = [name for name in ("matplotlib", "jinja2") if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"the report needs {' and '.join(missing)}, which the extra [report] installs: "
            "pip install 'softmax-regression[report]'"
        )


def _find(classifier: "Classifier", data: "Dataset") -> "Findings":
    """Return the findings on all images, and show the progress."""
    from softmax_cli.cli.progress import work_bar
    from softmax_cli.report.findings import find_mistakes

    with work_bar(len(data), "evaluating") as bar:
        return find_mistakes(classifier, data, bar.update)


def _render(classifier: "Classifier", data: "Dataset", findings: "Findings") -> str:
    """Return the page, with control characters in names escaped."""
    from softmax_cli.report.page import render

    model = classifier.checkpoint
    names = tuple(map(escape, model.class_names))
    versions = {escape(name): escape(text) for name, text in model.run.get("versions", {}).items()}
    run = model.run | {"versions": versions}
    model = replace(model, class_names=names, dataset=escape(model.dataset), run=run)
    return render(model, replace(data, name=escape(data.name)), findings)
