"""`softmax report`."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from softmax_cli.commands import options
from softmax_cli.commands.terminal import escape
from softmax_cli.errors import ConfigError

if TYPE_CHECKING:
    from softmax_cli.checkpoint import Checkpoint
    from softmax_cli.data.dataset import Dataset
    from softmax_cli.report.findings import Findings

log = logging.getLogger(__name__)

DOCTYPE = b"<!doctype html>"
"""What every report begins with."""


@click.command()
@options.checkpoint
@options.dataset
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    default=Path("report.html"),
    show_default=True,
    help="Where the page goes.",
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
    """Write one HTML page that shows what a model learned, where it errs, and lets one draw.

    The page asks nobody for anything: it can be mailed, printed, and opened offline. The board to draw on
    is for models of pixels, deskewed or not.

    \b
    Example:
      softmax report --output digits.html
    """
    from softmax_cli.files import atomic_write, check_replaces, check_writable

    _check_extra()
    model = options.load_checkpoint(checkpoint)
    check_writable(output)
    check_replaces(output, DOCTYPE, "report", "--output")
    data = options.load_data(model, dataset, "test", options.make_source(data_dir, offline))
    options.check_fit(model, data, checkpoint)
    page = _render(model, data, _find(model, data)).encode()
    with atomic_write(output) as file:
        file.write(page)
    if as_json:
        click.echo(json.dumps({"report": str(output), "bytes": len(page)}))
    else:
        click.echo(f"{escape(str(output))}: {len(page) / 1000:,.0f} kB; open it in a browser")


def _check_extra() -> None:
    """Raise `ConfigError` that names the extra where what draws the page is missing."""
    from importlib.util import find_spec

    missing = [name for name in ("matplotlib", "jinja2") if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"the report needs {' and '.join(missing)}: the extra [report]; "
            "install it with: pip install matplotlib jinja2"
        )


def _find(model: "Checkpoint", data: "Dataset") -> "Findings":
    """Judge the model on all images, with a bar that says how far it is."""
    import numpy as np

    from softmax_cli.commands.progress import work_bar
    from softmax_cli.report.findings import find

    with work_bar(len(data), "judging") as bar:
        return find(model.state, data, np.arange(len(data)), bar.update)


def _render(model: "Checkpoint", data: "Dataset", findings: "Findings") -> str:
    """Return the page, with names that cannot drive whatever shows them."""
    from softmax_cli.report.page import render

    names = tuple(map(escape, model.class_names))
    versions = {escape(name): escape(text) for name, text in model.run.get("versions", {}).items()}
    run = model.run | {"versions": versions}
    model = replace(model, class_names=names, dataset=escape(model.dataset), run=run)
    return render(model, replace(data, name=escape(data.name)), findings)
