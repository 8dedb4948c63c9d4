"""Options that several commands share, and what they stand for."""

import logging
from collections.abc import Callable
from dataclasses import Field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from softmax_cli.config import DEFAULT_CHECKPOINT, TrainConfig, option_name
from softmax_cli.errors import ConfigError, DataError

if TYPE_CHECKING:
    from softmax_cli.checkpoint import Checkpoint
    from softmax_cli.data.dataset import Dataset
    from softmax_cli.data.download import Source

log = logging.getLogger(__name__)

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document.")

mirror = click.option(
    "--mirror",
    "mirrors",
    metavar="URL",
    multiple=True,
    help="Base URL to download from first; may be repeated.",
)

checkpoint = click.option(
    "--checkpoint",
    "-c",
    type=click.Path(path_type=Path),
    default=DEFAULT_CHECKPOINT,
    show_default=True,
    envvar="SOFTMAX_CHECKPOINT",
    help="The model, or SOFTMAX_CHECKPOINT.",
)

dataset = click.option(
    "--dataset", metavar="NAME", help="Another data set than the model's: a name or a folder, as for train."
)

_data_dir = click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Where data sets are kept, instead of SOFTMAX_CACHE_DIR or the user's cache.",
)
_offline = click.option("--offline", is_flag=True, help="Use what is there; never open a connection.")


def data(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say where data sets come from."""
    return _data_dir(_offline(function))


def training(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add an option for each field of `TrainConfig`, which has the defaults, the help and the limits."""
    for item in reversed(fields(TrainConfig)):
        kind: Any = item.type
        if "choices" in item.metadata:
            kind = click.Choice(item.metadata["choices"])
        name = option_name(item.name)
        function = click.option(
            f"--{name}/--no-{name}" if kind is bool else f"--{name}",
            item.name,
            type=kind,
            default=None,  # not given; the default in the help is for the eye
            help=_help(item),
        )(function)
    return function


def _help(item: "Field[Any]") -> str:
    """Return the help of a field, with its default unless that is to do without."""
    text = str(item.metadata["help"])
    return text if item.default is False else f"{text}  [default: {item.metadata.get('shown', item.default)}]"


def make_source(
    data_dir: Path | None, offline: bool, mirrors: tuple[str, ...] = (), quiet: bool = False
) -> "Source":
    """Return where data sets come from, by the options of `data` and `mirror`."""
    from softmax_cli.commands.progress import download_bars
    from softmax_cli.data.dataset import cache_folder
    from softmax_cli.data.download import Source

    return Source(data_dir or cache_folder(), offline, mirrors, None if quiet else download_bars())


def load_checkpoint(path: Path, must_know: bool = True) -> "Checkpoint":
    """Return the checkpoint at `path`; where there is none, say how to make one.

    Warns of one that has learned nothing, where it `must_know` something to be of use.
    """
    import os

    from softmax_cli.checkpoint import load
    from softmax_cli.errors import CheckpointError

    if not os.path.lexists(path):
        raise CheckpointError(
            f"there is no checkpoint at {path}; make one with: softmax train{output_option(path)}"
        )
    model = load(path)
    if not model.state.epoch and must_know:
        log.warning("%s has not learned anything yet: training stopped before its first epoch ended", path)
    return model


def output_option(path: Path) -> str:
    """Return what has to follow ``softmax train`` for the checkpoint to be at `path`."""
    import shlex

    return "" if path == DEFAULT_CHECKPOINT else f" --output {shlex.quote(str(path))}"


def load_data(checkpoint: "Checkpoint", told: str | None, split: str, source: "Source") -> "Dataset":
    """Return the data set that was told, else the one that the checkpoint was trained on.

    Raises `ConfigError` where that was a folder, whose place the checkpoint does not know.
    """
    from softmax_cli.data.catalog import CATALOG
    from softmax_cli.data.dataset import load

    known = CATALOG.get(checkpoint.dataset)
    if told is None and (known is None or known.digest != checkpoint.digest):
        raise ConfigError(
            f"the checkpoint was trained on a folder called {checkpoint.dataset!r}; "
            "say where it is with --dataset"
        )
    return load(told or checkpoint.dataset, split, source)


def check_fit(model: "Checkpoint", data: "Dataset", path: Path) -> None:
    """Raise `DataError` for data that the model cannot see; say so where it is not what it was trained on.

    `path` is where the model is, to name it by.
    """
    if data.image_shape != model.image_shape:
        expected, found = (" x ".join(map(str, shape)) for shape in (model.image_shape, data.image_shape))
        raise DataError(
            f"{data.name} has images of {found} pixels, expected {expected} as {path} was trained on"
        )
    if len(data.class_names) > len(model.class_names):
        classes, most = len(data.class_names), len(model.class_names)
        raise DataError(f"{data.name} has {classes} classes, expected at most the {most} of {path}")
    if data.digest != model.digest:
        log.warning(
            "%s (digest %s) is not the data that %s was trained on: %s (digest %s)",
            *(data.name, data.digest[:12], path, model.dataset, model.digest[:12]),
        )
