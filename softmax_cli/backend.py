"""Share work between cores: ordered maps and ordered sums over fixed parts.

Work is cut into parts that depend on its size alone, and partial results are used in the order of the
parts, so that no result depends on the number of cores. Threads help if a function spends its time in
numpy, which releases the interpreter lock. Processes help if it makes many small calls (`map_processes`).
"""

import math
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from softmax_cli.errors import ConfigError

if TYPE_CHECKING:
    from concurrent.futures import Future, ProcessPoolExecutor

    from numpy.typing import DTypeLike, NDArray

VARIABLE = "SOFTMAX_THREADS"
"""Environment variable with the largest number of cores to use."""

BLAS_VARIABLES = (
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "BLIS_NUM_THREADS",
)
"""Environment variables with the number of threads of a matrix product."""

PART = 2048
"""Smallest number of rows in a part, except for the last one."""

CGROUPS, PROC = Path("/sys/fs/cgroup"), Path("/proc")

PARTS = 64
"""Largest number of parts. Enough for many cores, few enough to send the sums over a network."""

TASK = 8
"""Number of items that a process gets at a time."""

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
    """Yield ``function(item)`` for each item, in order, computed on `workers` threads.

    The caller is one of these threads: rather than wait for a result, it computes one that no other thread
    has begun. Results are computed ahead; at most one more than there are threads exist at a time. The
    default number of threads is `cores()`. If no thread can be started, the caller does all the work.
    """
    items = list(items)
    count = min(workers or cores(), len(items)) if len(items) > 1 else 1  # cores() reads files
    if count < 2:
        yield from map(function, items)
        return
    from concurrent.futures import ThreadPoolExecutor

    tasks = (_Task(function, item) for item in items)
    pending: deque[_Task[Result]] = deque()
    with ThreadPoolExecutor(count - 1) as executor:
        try:
            while True:
                for task in islice(tasks, count + 1 - len(pending)):
                    pending.append(task)
                    with suppress(RuntimeError):  # no thread can be started
                        executor.submit(task.run)
                if not pending:
                    return
                for task in pending:
                    if pending[0].is_done:
                        break
                    task.run()
                yield pending.popleft().result()
        finally:
            executor.shutdown(wait=False, cancel_futures=True)


class _Task(Generic[Result]):
    """A call that is made once, by the thread that asks first."""

    def __init__(self, function: Callable[[Item], Result], item: Item):
        self._call = partial(function, item)
        self._claim, self._done = threading.Lock(), threading.Event()
        self._error: BaseException | None = None

    def run(self) -> None:
        """Make the call, unless a thread has begun it."""
        if not self._claim.acquire(blocking=False):
            return
        try:
            self._result = self._call()
        except BaseException as error:
            self._error = error
        self._done.set()

    @property
    def is_done(self) -> bool:
        return self._done.is_set()

    def result(self) -> Result:
        """Return the result of the call, or raise its error, as soon as it is known."""
        self._done.wait()
        if self._error is not None:
            raise self._error
        return self._result


def for_each(function: Callable[[Item], None], items: Iterable[Item], workers: int | None = None) -> None:
    """Call the function on every item, on `workers` threads (default: `cores()`)."""
    for _ in map_ordered(function, items, workers):
        pass


def sum_ordered(results: Iterable[Any], on_result: Callable[[int], None] = lambda index: None) -> Any:
    """Return the sum of the results, added in order.

    `on_result` is called with the index of each result; an exception that it raises ends the work.
    """
    total = None
    for index, result in enumerate(results):
        total = result if total is None else total + result
        on_result(index)
    return total


# Processes


def map_processes(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    lost: Callable[[Item], Result],
    workers: int = 1,
) -> Iterator[Result]:
    """Return an iterator over ``function(item)``, in order, computed on `workers` processes.

    They start at once, and are a few items ahead. If none can be started, or there are few items, this
    process does the work. `function`, its argument and its result must be picklable; it must not raise.

    Args:
        function: What to compute.
        items: Its arguments.
        lost: The result for an item with which a process ends without an answer, as if memory is exhausted.
        workers: Largest number of processes.
    """
    items = list(items)
    blocks = [items[begin : begin + TASK] for begin in range(0, len(items), TASK)]
    count = min(workers, len(blocks))
    pool = _open_pool(function, count) if count > 1 else None
    return map(function, items) if pool is None else _in_processes(function, blocks, lost, count, pool)


def _in_processes(
    function: Callable[[Item], Result],
    blocks: list[list[Item]],
    lost: Callable[[Item], Result],
    count: int,
    pool: "ProcessPoolExecutor | None",
) -> Iterator[Result]:
    """Yield the results of all items; where a process is lost, those of its block one by one."""
    from concurrent.futures.process import BrokenProcessPool

    done = 0
    while done < len(blocks) and pool is not None:
        try:
            for results in _ahead(pool, blocks[done:], count + 2):
                yield from results
                done += 1
        except BrokenProcessPool:
            yield from (_alone(function, item, lost) for item in blocks[done])
            done += 1
            pool = _open_pool(function, count)
    for block in blocks[done:]:
        yield from map(function, block)


def _ahead(pool: "ProcessPoolExecutor", blocks: list[list[Item]], ahead: int) -> Iterator[list[Any]]:
    """Yield the results of each block, with `ahead` blocks in work at most.

    The pool is closed before the last block is yielded, since the caller may not ask for more.
    """
    pending: deque[Future[list[Any]]] = deque()
    try:
        for block in blocks:
            pending.append(pool.submit(_call, block))
            if len(pending) >= ahead:
                yield pending.popleft().result()
        while len(pending) > 1:
            yield pending.popleft().result()
        last = pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
    yield last


def _alone(function: Callable[[Item], Result], item: Item, lost: Callable[[Item], Result]) -> Result:
    """Return the result of one item, computed in a process of its own."""
    from concurrent.futures.process import BrokenProcessPool

    pool = _open_pool(function, 1)
    if pool is None:
        return function(item)
    try:
        result: Result = pool.submit(_call, [item]).result()[0]
        return result
    except BrokenProcessPool:
        return lost(item)
    finally:
        pool.shutdown()


def _open_pool(function: Callable[[Any], Any], count: int) -> "ProcessPoolExecutor | None":
    """Return a pool of running processes that compute `function`; None if the system grants none."""
    import multiprocessing
    import threading

    try:
        from concurrent.futures import ProcessPoolExecutor

        forks = sys.platform == "linux" and threading.active_count() == 1
        context = multiprocessing.get_context("fork" if forks else "spawn")
        before = set(multiprocessing.active_children())
        pool = ProcessPoolExecutor(count, context, _begin_worker, (function,))
    except (OSError, ImportError, NotImplementedError):  # no semaphores on this system
        return None
    try:
        pool.submit(_call, []).result()
        return pool
    except (OSError, RuntimeError):  # no more processes or threads
        for process in set(multiprocessing.active_children()) - before:
            process.kill()
        pool.shutdown(wait=False)
        return None


_function: Callable[[Any], Any]
"""In a process of a pool: what it computes."""


def _begin_worker(function: Callable[[Any], Any]) -> None:
    """Prepare a process of a pool; it ends with its parent, which alone reacts to Ctrl-C."""
    import signal
    import threading

    global _function
    _function = function
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    import multiprocessing
    from multiprocessing.connection import wait

    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _call(block: list[Any]) -> list[Any]:
    return list(map(_function, block))
