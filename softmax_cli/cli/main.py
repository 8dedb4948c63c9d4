"""The click group, and the one place that turns an error into an exit code."""

import errno
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import click

from softmax_cli import __version__
from softmax_cli.cli.signals import interruptible, is_ignored
from softmax_cli.cli.terminal import escape, escape_lines
from softmax_cli.cli.threads import use_threads
from softmax_cli.errors import ConfigError, DownloadError, OutputError, SoftmaxError, reason

COMMANDS = {
    "download": "Download mnist or fashion-mnist into the cache and verify it.",
    "train": "Train softmax regression and save a checkpoint.",
    "eval": "Evaluate a model: accuracy, loss and confusion matrix.",
    "predict": "Classify pictures of any size, folders of them, or a data file.",
    "report": "Write an HTML page about a model: scores, mistakes, weights, a board to draw on.",
    "export": "Write a model as an ONNX file, which runs without this package.",
    "info": "Describe a checkpoint, or a data set.",
}
"""The commands, in the order in which they are used, with the first sentence of their help."""


SYNONYMS = {
    "--lr": "--learning-rate",
    "--data": "--dataset or --data-dir",
    "--model": "--checkpoint",
    "--regularization": "--l2",
    "--weight-decay": "--l2",
}
"""Options of other programs, and their names here."""


class LazyGroup(click.Group):
    """Group that imports commands when they are used, and maps errors to exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        return list(COMMANDS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import and return a command, or None if there is none of that name."""
        if name not in COMMANDS:
            return None
        command: click.Command = import_module(f"softmax_cli.cli.{name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the first argument names, or suggest a similar one."""
        is_command = not args or args[0] in COMMANDS or args[0].startswith("-")
        if not is_command and not ctx.resilient_parsing:  # which completes a line in the shell
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"The commands are {', '.join(COMMANDS)}."
            ctx.fail(f"No such command {args[0]!r}. {hint}")
        return super().resolve_command(ctx, args)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Parse the line; ``--help`` and ``--version`` are answered here."""
        if extra.get("resilient_parsing"):
            return super().make_context(info_name, args, parent, **extra)
        with _exit_codes():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command and set the exit code.

        It is 1 after an error, 2 for wrong usage, and 130 or 143 after a signal.
        """
        from softmax_cli.cli.messages import log_to_stderr

        try:
            with _exit_codes(), interruptible(), log_to_stderr(), _exit_on_sigterm():
                result = super().invoke(ctx)
                sys.stdout.flush()  # a failure can still be reported here
                return result
        except click.NoSuchOption as error:
            if error.option_name not in SYNONYMS:
                raise
            hint = f"No such option '{error.option_name}'. Did you mean {SYNONYMS[error.option_name]}?"
            raise click.NoSuchOption(error.option_name, hint, ctx=error.ctx) from error


@contextmanager
def _exit_codes() -> Iterator[None]:
    """Turn the errors of a block into messages and exit codes; a bug shows its traceback."""
    try:
        if sys.stderr is None:  # closed: messages are lost, but the work is done
            sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        if sys.stdout is None:
            raise OutputError("there is no standard output to write the result to")
        yield
    except SoftmaxError as error:
        _print_error(error)
        raise click.exceptions.Exit(2 if isinstance(error, ConfigError) else 1) from error
    except KeyboardInterrupt as error:
        raise click.exceptions.Exit(128 + signal.SIGINT) from error
    except OSError as error:
        if error.filename or error.errno == errno.EPIPE:  # a bug, or a closed pipe, which click handles
            raise
        _print_error(OutputError(f"cannot write the result: {reason(error)}"))
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # discards what is buffered
        raise click.exceptions.Exit(1) from error


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="softmax", message="%(prog)s %(version)s")
def main() -> None:
    """Train, evaluate and use softmax regression on MNIST and similar data sets.

    \b
    Example:
      softmax train
      softmax eval
      softmax predict image.png
    """
    use_threads(None)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _print_error(error: SoftmaxError) -> None:
    if os.environ.get("SOFTMAX_DEBUG") == "1":
        import traceback

        traceback.print_exception(error)
    show = escape_lines if isinstance(error, DownloadError) else escape  # it has a line for each mirror
    click.echo(f"error: {show(str(error))}", err=True)


@contextmanager
def _exit_on_sigterm() -> Iterator[None]:
    """Exit with 143 on SIGTERM, after the temporary files are removed."""

    def leave(number: int, frame: object) -> None:
        sys.exit(128 + number)

    if is_ignored(signal.SIGTERM):
        yield
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
