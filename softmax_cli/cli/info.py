"""`softmax info`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from softmax_cli.cli import options
from softmax_cli.cli.terminal import escape, table

if TYPE_CHECKING:
    from softmax_cli.data.readers import ReadOptions


@click.command()
@options.model
@click.option(
    "--sheet",
    type=options.FILE,
    metavar="FILE.png",
    help="Draw sample images of a data set to a file.",
)
@options.reading
@options.data
@options.as_json
def command(
    checkpoint: Path,
    sheet: Path | None,
    reading: "ReadOptions",
    data_dir: Path | None,
    offline: bool,
    as_json: bool,
) -> None:
    """Describe a checkpoint, or a data set.

    MODEL is a checkpoint, or the name or path of a data set.

    \b
    Example:
      softmax info model.npz
      softmax info mnist --sheet mnist.png
    """
    if is_dataset(checkpoint):
        source = options.make_source(data_dir, offline, reading=reading)
        text = _describe_dataset(checkpoint, sheet, source, as_json)
    elif sheet:
        raise click.UsageError("--sheet needs a data set, not a checkpoint.")
    else:
        text = _describe_checkpoint(checkpoint, as_json)
    click.echo(text)


def is_dataset(path: Path) -> bool:
    """Return whether a path is a data set, or the name of a known one."""
    import os

    from softmax_cli.data.catalog import CATALOG
    from softmax_cli.data.readers import recognises

    return recognises(path) if os.path.exists(path) else str(path) in CATALOG


def _describe_dataset(path: Path, sheet: Path | None, source: Any, as_json: bool) -> str:
    from softmax_cli.data.loading import load_dataset
    from softmax_cli.data.summary import describe_dataset, sample_sheet
    from softmax_cli.files import atomic_write, check_writable
    from softmax_cli.pictures import encode_png

    if sheet:
        check_writable(sheet)
    train, test = (load_dataset(str(path), split, source) for split in ("train", "test"))
    found = describe_dataset(train, test)
    if sheet:
        with atomic_write(sheet) as file:
            file.write(encode_png(sample_sheet(train)))
    return json.dumps(found) if as_json else _dataset_text(found)


def _dataset_text(found: dict[str, Any]) -> str:
    rows, columns = found["image_shape"]
    lines = [
        f"{found['dataset']}: data set" + (f", known as {found['known']}" if found["known"] else ""),
        f"digest     {found['digest']}",
        f"images     {columns} x {rows}, {found['train']['images']:,} for training, "
        f"{found['test']['images']:,} for testing",
        f"classes    {len(found['class_names'])}",
        f"pictures   prepared as {found['preparation']}",
    ]
    counts = zip(found["class_names"], found["train"]["counts"], found["test"]["counts"], strict=True)
    rows_of_table = [[escape(name), f"{train:,}", f"{test:,}"] for name, train, test in counts]
    return "\n".join(map(escape, lines)) + "\n\n" + table(["class", "training", "test"], rows_of_table)


def _describe_checkpoint(path: Path, as_json: bool) -> str:
    from softmax_cli.checkpoint import describe, load_checkpoint
    from softmax_cli.training import is_complete

    options.check_exists(path)
    checkpoint = load_checkpoint(path)
    meta = describe(checkpoint)
    if as_json:
        return json.dumps(meta)
    unfinished = "" if is_complete(checkpoint.state, checkpoint.config) else " (unfinished)"
    return _checkpoint_text(path, meta, checkpoint.state.features.title, unfinished)


def _checkpoint_text(path: Path, meta: dict[str, Any], features: str, unfinished: str) -> str:
    from softmax_cli.config import option_name

    rows, columns = meta["image_shape"]
    config = {
        option_name(key): value
        for key, value in meta["config"].items()
        if key != "dataset" and value is not None
    }
    lines = [
        f"{path}: softmax checkpoint, format {meta['format']}",
        f"data set   {meta['dataset']['name']} (digest {meta['dataset']['digest'][:12]})",
        f"images     {columns} x {rows}",
        f"features   {features}",
        f"pictures   prepared as {meta['preparation']}",
        f"classes    {', '.join(meta['class_names'])}",
        f"options    {', '.join(f'{key} {value}' for key, value in config.items())}",
        f"epochs     {meta['epoch']} of {meta['config']['epochs']}{unfinished}, "
        f"weights of epoch {meta['best_epoch']}",
        *_l2_path(meta["l2_path"], meta["config"]["l2"]),
        *_scores(meta["scores"], meta["temperature"] != 1),
        *_calibration(meta["temperature"]),
        f"run        {meta['run'].get('seconds', 0):.1f} s, {_versions(meta['run'])}",
    ]
    return "\n".join(map(escape, lines))


def _l2_path(path: list[dict[str, float]], chosen: float) -> list[str]:
    tried = ", ".join(f"{point['l2']:g} ({point['validation_loss']:.4f})" for point in path)
    return [f"l2         {chosen:g}, chosen by validation loss from {tried}"] if path else []


def _scores(scores: dict[str, Any] | None, is_calibrated: bool) -> list[str]:
    if scores is None:
        return []
    text = f"scores     train loss {scores['train_loss']:.4f}"
    if scores["validation_loss"] is not None:
        text += f", validation loss {scores['validation_loss']:.4f}" + " before calibration" * is_calibrated
        text += f", validation accuracy {100 * scores['validation_accuracy']:.2f} %"
    return [text]


def _calibration(temperature: float) -> list[str]:
    return [f"calibrated with temperature {temperature:.4f}, included in the weights"] * (temperature != 1)


def _versions(run: dict[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in run.get("versions", {}).items())
