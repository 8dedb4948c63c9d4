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
from softmax_cli.commands.terminal import escape, escape_lines
from softmax_cli.commands.threads import use_threads
from softmax_cli.errors import ConfigError, DownloadError, OutputError, SoftmaxError, reason

COMMANDS = {
    "download": "Download mnist or fashion-mnist into the cache and check it.",
    "train": "Train a softmax regression and save it after every epoch.",
    "eval": "Judge a model: its accuracy, loss and confusions.",
    "predict": "Say what a PNG or JPEG picture of any size shows.",
    "report": "Write one HTML page that shows what a model learned, where it errs, and lets one draw.",
    "info": "Say what is in a checkpoint, and how it was trained.",
}
"""The commands, in the order in which one meets them, with the first sentence of their help."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are named, and whose errors become exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        return list(COMMANDS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import and return a command, or None where there is none of that name."""
        if name not in COMMANDS:
            return None
        command: click.Command = import_module(f"softmax_cli.commands.{name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that is named first, or suggest the one that is nearly named."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"The commands are {', '.join(COMMANDS)}."
            ctx.fail(f"No such command {args[0]!r}. {hint}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command: 1 for a failure, 2 for wrong usage, 130 and 143 when a signal stops it."""
        from softmax_cli.commands.messages import log_to_stderr

        if sys.stderr is None:  # closed: what would be said is lost, what is done is not
            sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        try:
            if sys.stdout is None:
                raise OutputError("there is no standard output to write the result to")
            with log_to_stderr(), _exit_on_sigterm():
                result = super().invoke(ctx)
                sys.stdout.flush()  # here, where a failure can still be reported
                return result
        except SoftmaxError as error:
            _print_error(error)
            ctx.exit(2 if isinstance(error, ConfigError) else 1)
        except KeyboardInterrupt:
            ctx.exit(128 + signal.SIGINT)
        except OSError as error:
            if error.filename or error.errno == errno.EPIPE:  # a bug; a reader that left, which click handles
                raise
            _print_error(OutputError(f"cannot write the result: {reason(error)}"))
            os.dup2(
                os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
            )  # what is buffered has no place to go
            ctx.exit(1)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="softmax", message="%(prog)s %(version)s")
def main() -> None:
    """Train, judge and use softmax regression on MNIST and data sets like it.

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
    show = escape_lines if isinstance(error, DownloadError) else escape  # that one has a line for each mirror
    click.echo(f"error: {show(str(error))}", err=True)


@contextmanager
def _exit_on_sigterm() -> Iterator[None]:
    """Make SIGTERM unwind the program, so that temporaries are removed, and exit with 143."""

    def leave(number: int, frame: object) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
