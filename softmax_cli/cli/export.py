"""`softmax export`."""

import json
from pathlib import Path

import click

from softmax_cli.cli import options
from softmax_cli.cli.terminal import escape


@click.command()
@options.model
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    default=Path("model.onnx"),
    show_default=True,
    help="ONNX file to write.",
)
@options.as_json
def command(checkpoint: Path, output: Path, as_json: bool) -> None:
    """Write a model as an ONNX file, which runs without this package.

    The file maps uint8 images (n, rows, cols) to class names and probabilities; it includes the features.

    \b
    Example:
      softmax export --output digits.onnx
    """
    from softmax_cli.export import START, export_onnx
    from softmax_cli.files import check_replaces, check_writable

    classifier = options.load_classifier(checkpoint)
    check_writable(output)
    check_replaces(output, START, "model in the ONNX format", "--output")
    export_onnx(classifier.checkpoint, output)
    size = output.stat().st_size
    if as_json:
        click.echo(json.dumps({"model": str(output), "bytes": size}))
    else:
        click.echo(f"{escape(str(output))}: {size / 1000:,.0f} kB")
