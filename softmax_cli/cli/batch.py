"""What `softmax predict --output` does."""

import json
from pathlib import Path

import click

from softmax_cli.cli import options
from softmax_cli.cli.terminal import escape


def predict_to_file(
    paths: tuple[Path, ...],
    checkpoint: Path,
    output: Path,
    probabilities: bool,
    skip_bad: bool,
    as_json: bool,
) -> None:
    """Classify the images at the only path, write a CSV file, and print a line.

    Raises:
        UsageError: There is more than one path.
    """
    if len(paths) != 1:
        raise click.UsageError("--output needs one data file or one folder.")
    from softmax_cli.batch import predict_file
    from softmax_cli.cli.progress import work_bar

    classifier = options.load_classifier(checkpoint)
    with work_bar(None, "classifying") as bar:
        count = predict_file(
            classifier,
            paths[0],
            output,
            options=options.reading_of(skip_bad),
            probabilities=probabilities,
            on_progress=bar.update,
        )
    if as_json:
        click.echo(json.dumps({"output": str(output), "images": count}))
    else:
        click.echo(f"{escape(str(output))}: {count:,} images")
