"""Share work between cores: ordered maps and ordered sums over fixed parts.

Work is cut into parts that depend on its size alone, and partial results are used in the order of the
parts, so that no result depends on the number of cores. Threads help where a function spends its time in
numpy, which releases the interpreter lock.
"""

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from softmax_cli.errors import ConfigError

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

VARIABLE = "SOFTMAX_THREADS"
"""Environment variable with the largest number of cores to use."""

PART = 2048
"""Smallest number of rows in a part, except for the last one."""

CGROUPS, PROC = Path("/sys/fs/cgroup"), Path("/proc")

PARTS = 64
"""Largest number of parts. Enough for many cores, few enough to send the sums over a network."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """Return the number of cores to use: those that the system grants, or fewer if `VARIABLE` says so.

    Raises:
        ConfigError: The variable is not a positive whole number.
    """
    granted = _granted_cores()
    limit = os.environ.get(VARIABLE) or str(granted)
    if not (limit.isascii() and limit.isdigit() and len(limit) < 10 and int(limit)):
        raise ConfigError(f"{VARIABLE} must be a whole number above 0, not {limit!r}")
    return min(int(limit), granted)


def _granted_cores() -> int:
    """Return the number of cores that affinity and control groups grant; a part of a core counts as one."""
    known = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [_ratio(*text.partition(" ")[::2]) for text in _cgroup_files("", "cpu.max")]
    quotas += [
        _ratio(quota, period)
        for quota, period in zip(
            _cgroup_files("cpu", "cpu.cfs_quota_us"), _cgroup_files("cpu", "cpu.cfs_period_us"), strict=False
        )
    ]
    return max(1, min(known, *(math.ceil(quota) for quota in quotas if quota), known))


def memory_size() -> int | None:
    """Return the bytes of memory of this machine or control group, the smaller one; None if not known."""
    sizes = [int(text) for text in _cgroup_files("", "memory.max") if text.isdecimal()]
    sizes += [int(text) for text in _cgroup_files("memory", "memory.limit_in_bytes") if text.isdecimal()]
    with suppress(AttributeError, ValueError, OSError):  # Windows has no sysconf
        sizes.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(sizes, default=None)


def _ratio(quota: str, period: str) -> float | None:
    """Return the number of cores of a CPU quota; None if it sets no limit."""
    if not (quota.isdecimal() and period.isdecimal() and int(period)):  # "max", or -1
        return None
    return int(quota) / int(period)


def _cgroup_files(controller: str, name: str) -> list[str]:
    """Return the contents of a file in the control groups of this process and above.

    Without a controller, that of version 2, else of version 1. The path in ``/proc`` may be that outside of
    a container, while the groups of the container are mounted at the root.
    """
    try:
        lines = [line.split(":", 2) for line in (PROC / "self" / "cgroup").read_text("ascii").splitlines()]
        path = next(path for _, names, path in lines if controller in names.split(","))
    except (OSError, ValueError, StopIteration):
        return []
    found = []
    for folder in (Path(path), *Path(path).parents):
        try:
            found.append((CGROUPS / controller / str(folder).lstrip("/") / name).read_text("ascii").strip())
        except (OSError, ValueError):
            continue
    return found


def partition(n: int) -> list[slice]:
    """Return consecutive slices that cover ``range(n)``; they depend on `n` alone."""
    size = max(PART, -(-n // PARTS))
    return [slice(begin, min(begin + size, n)) for begin in range(0, n, size)]


def map_ordered(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int | None = None
) -> Iterator[Result]:
    """Yield ``function(item)`` for each item, in order, computed a few items ahead on `workers` threads.

    The default number of threads is `cores()`; what no thread can be started for is computed by the caller.
    At most two results more than there are threads exist at a time.
    """
    items = list(items)
    count = min(workers or cores(), len(items))
    if count < 2:
        yield from map(function, items)
        return
    from concurrent.futures import ThreadPoolExecutor

    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(count) as executor:
        try:
            for item in items:
                pending.append(_submit(executor, function, item))
                if len(pending) > count + 1:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _submit(executor: "Executor", function: Callable[[Item], Result], item: Item) -> "Future[Result]":
    """Return the future of a call, which is done already if no thread can be started."""
    from concurrent.futures import Future

    try:
        return executor.submit(function, item)
    except RuntimeError:
        done: Future[Result] = Future()
        done.set_result(function(item))
        return done


def for_each(function: Callable[[Item], None], items: Iterable[Item], workers: int | None = None) -> None:
    """Call the function on every item, on `workers` threads (default: `cores()`)."""
    for _ in map_ordered(function, items, workers):
        pass


def map_sum(
    function: Callable[[slice], Any],
    parts: Iterable[slice],
    on_part: Callable[[slice], None] = lambda part: None,
) -> Any:
    """Return the sum of ``function(part)`` over the parts, added in the order of the parts.

    `on_part` is called on this thread after each part; an exception that it raises ends the work.
    """
    parts = list(parts)
    total = None
    for part, result in zip(parts, map_ordered(function, parts), strict=True):
        total = result if total is None else total + result
        on_part(part)
    return total
