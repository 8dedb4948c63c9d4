"""Work that the cores share out, in pieces that do not depend on how many there are."""

import os
from collections.abc import Callable, Iterable
from typing import TypeVar

from softmax_cli.errors import ConfigError

VARIABLE = "SOFTMAX_THREADS"
"""The environment variable that says how many cores may be used at most."""

Item = TypeVar("Item")


def cores() -> int:
    """Return how many cores may be used: what the system grants, or fewer where `VARIABLE` says so.

    Raises `ConfigError` where the variable is not a whole number above 0.
    """
    granted = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    told = os.environ.get(VARIABLE) or str(granted)
    if not (told.isascii() and told.isdigit() and len(told) < 10 and int(told)):
        raise ConfigError(f"{VARIABLE} must be a whole number above 0, not {told!r}")
    return min(int(told), granted)


def for_each(function: Callable[[Item], None], items: Iterable[Item], workers: int | None = None) -> None:
    """Call the function on every item, on as many threads as there are cores, or `workers`.

    Threads gain where the function spends its time in numpy, which lets the others go on meanwhile.
    """
    from concurrent.futures import ThreadPoolExecutor

    items = list(items)
    count = min(workers or cores(), len(items))
    if count < 2:
        for item in items:
            function(item)
        return
    with ThreadPoolExecutor(count) as executor:
        for _ in executor.map(function, items):
            pass
