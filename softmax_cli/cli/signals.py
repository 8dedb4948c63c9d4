"""Signals that stop a training run without losing work."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class Stop:
    """The number of the signal that requested the stop; 0 if there was none."""

    number: int = 0

    def __bool__(self) -> bool:
        return bool(self.number)


def is_ignored(number: int) -> bool:
    """Return whether a signal is ignored, as SIGINT is in a background job: then it stays ignored."""
    return signal.getsignal(number) is signal.SIG_IGN


def end_at_once(number: int, frame: object) -> None:
    """Handle SIGINT where nothing has to be cleaned up: exit with 130."""
    os._exit(128 + number)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Handle SIGINT by `KeyboardInterrupt`, unless a module is imported, which may replace the exception."""
    while frame:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            end_at_once(number, frame)
        frame = frame.f_back
    raise KeyboardInterrupt


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGINT raise `KeyboardInterrupt` during the block if it is handled by `end_at_once` outside."""
    handled = signal.getsignal(signal.SIGINT) is end_at_once
    try:
        if handled:
            signal.signal(signal.SIGINT, _interrupt)
        yield
    finally:
        if handled:
            signal.signal(signal.SIGINT, end_at_once)


@contextmanager
def graceful_stop() -> Iterator[Stop]:
    """Yield a `Stop` that the first SIGINT or SIGTERM sets.

    A second signal stops at once.
    """
    stop = Stop()

    def ask(number: int, frame: object) -> None:
        if stop:
            raise KeyboardInterrupt if stop.number == signal.SIGINT else SystemExit(128 + stop.number)
        stop.number = number

    heeded = [number for number in (signal.SIGINT, signal.SIGTERM) if not is_ignored(number)]
    before = {number: signal.signal(number, ask) for number in heeded}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
