"""Signals that stop a training run without losing work."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Stop:
    """The number of the signal that requested the stop; 0 if there was none."""

    number: int = 0

    def __bool__(self) -> bool:
        return bool(self.number)


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

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
