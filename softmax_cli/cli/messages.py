"""Messages that the library logs, shown on stderr."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from softmax_cli.cli.terminal import escape


class _StderrHandler(logging.Handler):
    """Handler that prints log messages without breaking a progress bar.

    Warnings and errors are marked with their level.
    """

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and os.environ.get("SOFTMAX_DEBUG") == "1":
            import traceback

            traceback.print_exception(record.exc_info[1])
        mark = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        text = mark + escape(record.getMessage())
        if sys.stdout is not None:
            sys.stdout.flush()  # or what was printed before would appear after the message
        if "tqdm" in sys.modules:
            from tqdm import tqdm

            tqdm.write(text, file=sys.stderr)
        else:
            click.echo(text, err=True)


@contextmanager
def log_to_stderr() -> Iterator[None]:
    """Show the messages that the library logs while the block runs, from INFO on."""
    log = logging.getLogger("softmax_cli")
    handler = _StderrHandler()
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
