"""Stopping a training run without losing it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Stop:
    """Which signal asked to stop; 0 while none has."""

    number: int = 0

    def __bool__(self) -> bool:
        return bool(self.number)


@contextmanager
def graceful_stop() -> Iterator[Stop]:
    """Yield a `Stop` that the first SIGINT or SIGTERM fills in; a second one stops at once."""
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
