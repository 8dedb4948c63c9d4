"""Share work between cores: ordered maps and ordered sums over fixed parts.

Work is cut into parts that depend on its size alone, and partial results are used in the order of the
parts, so that no result depends on the number of cores. Threads help if a function spends its time in
numpy, which releases the interpreter lock.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from softmax_cli.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

VARIABLE = "SOFTMAX_THREADS"
"""Environment variable with the largest number of cores to use."""

PART = 2048
"""Smallest number of rows in a part, except for the last one."""

PARTS = 64
"""Largest number of parts. Enough for many cores, few enough to send the sums over a network."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Workspace(threading.local):
    """Arrays that a thread reuses: to allocate a large array can take longer than to compute its values."""

    def __init__(self) -> None:
        self._arrays: dict[str, NDArray[Any]] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: "DTypeLike") -> "NDArray[Any]":
        """Return an array of at least shape[0] rows, the same one as before if its rows have this shape."""
        found = self._arrays.get(name)
        if found is None or len(found) < shape[0] or found.shape[1:] != shape[1:] or found.dtype != dtype:
            import numpy as np

            found = self._arrays[name] = np.empty(shape, dtype)
        return found


def cores() -> int:
    """Return the number of cores to use: all available, or at most `VARIABLE`.

    Raises:
        ConfigError: The variable is not a positive whole number.
    """
    granted = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get(VARIABLE) or str(granted)
    if not (limit.isascii() and limit.isdigit() and len(limit) < 10 and int(limit)):
        raise ConfigError(f"{VARIABLE} must be a whole number above 0, not {limit!r}")
    return min(int(limit), granted)


def partition(n: int) -> list[slice]:
    """Return consecutive slices that cover ``range(n)``; they depend on `n` alone."""
    size = max(PART, -(-n // PARTS))
    return [slice(begin, min(begin + size, n)) for begin in range(0, n, size)]


def map_ordered(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int | None = None
) -> Iterator[Result]:
    """Yield ``function(item)`` for each item, in order, computed on `workers` threads.

    Results are computed ahead. The default number of threads is `cores()`; at most two results more than
    there are threads exist at a time.
    """
    items = list(items)
    count = min(workers or cores(), len(items))
    if count < 2:
        yield from map(function, items)
        return
    from concurrent.futures import Future, ThreadPoolExecutor

    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(count) as executor:
        try:
            for item in items:
                pending.append(executor.submit(function, item))
                if len(pending) > count + 1:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def for_each(function: Callable[[Item], None], items: Iterable[Item], workers: int | None = None) -> None:
    """Call the function on every item, on `workers` threads (default: `cores()`)."""
    for _ in map_ordered(function, items, workers):
        pass


def map_sum(
    function: Callable[[slice], Any],
    parts: Iterable[slice],
    on_part: Callable[[slice], None] = lambda part: None,
) -> Any:
    """Return the sum of ``function(part)`` over the parts, added in order.

    `on_part` is called on this thread after each part; an exception that it raises ends the work.
    """
    parts = list(parts)
    total = None
    for part, result in zip(parts, map_ordered(function, parts), strict=True):
        total = result if total is None else total + result
        on_part(part)
    return total
