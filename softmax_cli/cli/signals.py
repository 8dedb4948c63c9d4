"""Signals that stop a training run without losing work."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Stop:
    """The number of the signal that asked to stop; 0 if none did."""

    number: int = 0

    def __bool__(self) -> bool:
        return bool(self.number)


def is_ignored(number: int) -> bool:
    """Return whether a signal is ignored, as SIGINT is in a background job: then it stays ignored."""
    return signal.getsignal(number) is signal.SIG_IGN


@contextmanager
def graceful_stop() -> Iterator[Stop]:
    """Yield a `Stop` that the first SIGINT or SIGTERM sets; a second signal stops at once."""
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
