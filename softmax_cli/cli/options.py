"""Options that several commands share."""

import functools
import logging
from collections.abc import Callable
from dataclasses import Field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from softmax_cli.config import DEFAULT_CHECKPOINT, TrainConfig, option_name

if TYPE_CHECKING:
    from softmax_cli.classifier import Classifier
    from softmax_cli.data.download import Source
    from softmax_cli.data.readers import ReadOptions

log = logging.getLogger(__name__)

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

FILE = click.Path(readable=False, path_type=Path)
"""The type of options that name a file; whether it can be read is found when it is opened."""

as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document.")

mirror = click.option(
    "--mirror",
    "mirrors",
    metavar="URL",
    multiple=True,
    help="Base URL of a mirror to try first; may be repeated.",
)

checkpoint = click.option(
    "--checkpoint",
    "-c",
    type=FILE,
    default=DEFAULT_CHECKPOINT,
    show_default=True,
    envvar="SOFTMAX_CHECKPOINT",
    help="Checkpoint of the model; also set by SOFTMAX_CHECKPOINT.",
)


def model(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the argument MODEL and the option --checkpoint for the model."""

    @functools.wraps(function)
    def command(model: Path | None, checkpoint: Path, **rest: Any) -> Any:
        source = click.get_current_context().get_parameter_source("checkpoint")
        if model and source is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError("Give the model as an argument or with --checkpoint, not both.")
        return function(checkpoint=model or checkpoint, **rest)

    argument = click.argument("model", required=False, type=FILE)
    return argument(checkpoint(command))


dataset = click.option(
    "--dataset",
    metavar="NAME",
    help="Name or path of a data set; by default, the one that the model was trained on.",
)

_data_dir = click.option(
    "--data-dir",
    type=FILE,
    metavar="FOLDER",
    help="Folder of the cache, instead of SOFTMAX_CACHE_DIR or the user's cache folder.",
)
_offline = click.option("--offline", is_flag=True, help="Use local files only.")


def data(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for the source of data sets."""
    return _data_dir(_offline(function))


cluster = click.option(
    "--cluster",
    metavar="WHERE",
    help="Work on a Dask cluster: local, local:N processes, tcp://HOST:PORT or a scheduler file. The result "
    "does not depend on it.",
)


def reading(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for pictures as data, which the command gets as `ReadOptions` called `reading`."""

    @functools.wraps(function)
    def command(image_size: str | None, preparation: str | None, skip_bad: bool, **rest: Any) -> Any:
        from softmax_cli.data.readers import ReadOptions

        size = None if image_size is None else _image_size(image_size)
        return function(reading=ReadOptions(size, preparation, skip_bad), **rest)

    size = click.option(
        "--image-size",
        metavar="ROWSxCOLS",
        help="Size of the images made from pictures, at most 64x64.  [default: the most frequent size]",
    )
    preparation = click.option(
        "--preparation",
        type=click.Choice(["plain", "digit"]),
        help="Resize pictures, or draw them as MNIST draws digits.  [default: plain]",
    )
    return size(preparation(skip_bad(command)))


skip_bad = click.option("--skip-bad", is_flag=True, help="Leave out pictures that cannot be read.")


def reading_of(skip_bad: bool) -> "ReadOptions":
    """Return the options for pictures of a command that takes only --skip-bad."""
    from softmax_cli.data.readers import ReadOptions

    return ReadOptions(skip_bad=skip_bad)


def _image_size(text: str) -> tuple[int, int]:
    """Return rows and columns from ``28x28`` or ``28``."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() and len(part) < 4 for part in parts):
        raise click.BadParameter(f"{text!r} is not of the form 28x28 or 28.", param_hint="'--image-size'")
    return int(parts[0]), int(parts[-1])


def training(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add an option for each field of `TrainConfig` that has one, with its help and limits."""
    for item in reversed(fields(TrainConfig)):
        if not item.metadata.get("flag", True):
            continue
        kind: Any = item.type
        if "choices" in item.metadata:
            kind = click.Choice(tuple(item.metadata["choices"]))
        if "word" in item.metadata:
            kind = NumberOr(item.metadata["word"])
        name = option_name(item.name)
        function = click.option(
            f"--{name}/--no-{name}" if kind is bool else f"--{name}",
            item.name,
            type=kind,
            default=None,  # not given; the help shows the default
            help=_help(item),
            hidden=item.metadata.get("hidden", False),
        )(function)
    return function


class NumberOr(click.ParamType):  # type: ignore[type-arg]
    """A number, or one word."""

    def __init__(self, word: str):
        self._word = word
        self.name = f"float|{word}"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        """Return the word itself, or the number; fail with wrong usage for anything else."""
        if value == self._word:
            return self._word
        try:
            return float(value)
        except ValueError:
            self.fail(f"{value!r} is not a number or {self._word}.", param, ctx)


def _help(item: "Field[Any]") -> str:
    """Return the help of a field, with its default unless it is a flag that is off."""
    text = str(item.metadata["help"])
    return text if item.default is False else f"{text}  [default: {item.metadata.get('shown', item.default)}]"


def make_source(
    data_dir: Path | None,
    offline: bool,
    mirrors: tuple[str, ...] = (),
    quiet: bool = False,
    reading: "ReadOptions | None" = None,
) -> "Source":
    """Return the source of data sets that the options of `data`, `mirror` and `reading` describe."""
    from softmax_cli.cli.progress import download_bars
    from softmax_cli.data.download import Source
    from softmax_cli.data.readers import ReadOptions

    progress = None if quiet else download_bars()
    return Source(data_dir, offline, mirrors, progress, reading=reading or ReadOptions())


def load_classifier(path: Path) -> "Classifier":
    """Return the classifier in a checkpoint file; warn if training is unfinished."""
    from softmax_cli.classifier import Classifier
    from softmax_cli.training import is_complete

    check_exists(path)
    classifier = Classifier.load(path)
    state, config = classifier.checkpoint.state, classifier.checkpoint.config
    if not state.epoch:
        log.warning("%s is not trained: training stopped before the end of the first epoch", path)
    elif not is_complete(state, config):
        log.warning(
            "%s is unfinished, epoch %d of %d; continue with: softmax train --resume%s",
            *(path, state.epoch, config.epochs, output_option(path)),
        )
    return classifier


def check_exists(path: Path) -> None:
    """Raise `CheckpointError` if there is no file at `path`.

    The message contains the command that would write one.
    """
    from softmax_cli.errors import CheckpointError
    from softmax_cli.files import exists

    if not exists(path, CheckpointError):
        raise CheckpointError(
            f"there is no checkpoint at {path}; train one with: softmax train{output_option(path)}"
        )


def output_option(path: Path) -> str:
    """Return the option with which ``softmax train`` writes the checkpoint at `path`."""
    import shlex

    return "" if path == DEFAULT_CHECKPOINT else f" --output {shlex.quote(str(path))}"
