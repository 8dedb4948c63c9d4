"""`softmax info`."""

from pathlib import Path
from typing import Any

import click

from softmax_cli.commands import options
from softmax_cli.commands.terminal import escape


@click.command()
@options.checkpoint
@options.as_json
def command(checkpoint: Path, as_json: bool) -> None:
    """Say what is in a checkpoint, and how it was trained.

    \b
    Example:
      softmax info --checkpoint model.npz
    """
    from softmax_cli.checkpoint import describe

    model = options.load_checkpoint(checkpoint, must_know=False)
    meta = describe(model)
    if as_json:
        import json

        click.echo(json.dumps(meta))
    else:
        click.echo(_text(checkpoint, meta, model.state.features.title))


def _text(path: Path, meta: dict[str, Any], features: str) -> str:
    from softmax_cli.config import option_name

    rows, columns = meta["image_shape"]
    config = {
        option_name(key): value
        for key, value in meta["config"].items()
        if key != "dataset" and value is not None
    }
    lines = [
        f"{path}: checkpoint of softmax, format {meta['format']}",
        f"data set   {meta['dataset']['name']} (digest {meta['dataset']['digest'][:12]})",
        f"images     {columns} x {rows}",
        f"features   {features}",
        f"pictures   prepared as {meta['preparation']}",
        f"classes    {', '.join(meta['class_names'])}",
        f"options    {', '.join(f'{key} {value}' for key, value in config.items())}",
        f"epochs     {meta['epoch']} of {meta['config']['epochs']}, weights of epoch {meta['best_epoch']}",
        *_scores(meta["scores"], meta["temperature"] != 1),
        *_calibration(meta["temperature"]),
        f"run        {meta['run'].get('seconds', 0):.1f} s, {_versions(meta['run'])}",
    ]
    return "\n".join(map(escape, lines))


def _scores(scores: dict[str, Any] | None, is_calibrated: bool) -> list[str]:
    if scores is None:
        return []
    text = f"scores     train loss {scores['train_loss']:.4f}"
    if scores["validation_loss"] is not None:
        text += f", validation loss {scores['validation_loss']:.4f}" + " before calibration" * is_calibrated
        text += f", validation accuracy {100 * scores['validation_accuracy']:.2f} %"
    return [text]


def _calibration(temperature: float) -> list[str]:
    return [f"calibrated with temperature {temperature:.4f}, in the weights already"] * (temperature != 1)


def _versions(run: dict[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in run.get("versions", {}).items())
