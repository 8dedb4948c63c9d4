"""Work on several cores: fixed parts, ordered results, ordered sums."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from softmax_cli import backend
from softmax_cli.backend import VARIABLE, cores, for_each, map_ordered, partition, sum_ordered
from softmax_cli.errors import ConfigError


@pytest.mark.parametrize("n", [0, 1, 2047, 2048, 2049, 64 * 2048, 64 * 2048 + 1, 1_000_003])
def test_parts_cover_all_rows_once_for_any_number_of_cores(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most 64 parts, of at least 2,048 rows except for the last one."""
    monkeypatch.setattr(backend, "cores", lambda: pytest.fail("parts may depend on n alone"))
    parts = partition(n)
    edges = [0, *(part.stop for part in parts)]
    assert [part.start for part in parts] == edges[:-1]
    assert edges[-1] == n
    assert len(parts) <= 64
    sizes = np.diff(edges)
    assert (sizes > 0).all()
    assert (sizes[:-1] >= 2048).all()


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_every_item_is_processed_once_on_the_requested_number_of_threads(workers: int) -> None:
    meeting = threading.Barrier(workers, timeout=20)
    done, threads = [], set()

    def work(item: int) -> None:
        if item < workers:
            meeting.wait()  # returns only if all workers have reached this line
        done.append(item)
        threads.add(threading.get_ident())

    for_each(work, range(20), workers)
    assert (sorted(done), len(threads)) == (list(range(20)), workers)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_keep_the_order_of_the_items(workers: int) -> None:
    """The order is kept even if the second item is finished before the first one."""
    second = threading.Event()

    def work(item: int) -> int:
        assert item != 0 or workers == 1 or second.wait(20)
        if item == 1:
            second.set()
        return item**2

    assert list(map_ordered(work, range(20), workers)) == [item**2 for item in range(20)]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_the_first_result_is_yielded_while_later_ones_are_pending(workers: int) -> None:
    received = threading.Event()

    def work(item: int) -> int:
        assert item == 0 or received.wait(20)
        return item

    results = map_ordered(work, range(20), workers)
    assert next(results) == 0
    received.set()
    assert list(results) == list(range(1, 20))


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_at_most_two_results_more_than_threads_exist_at_a_time(workers: int) -> None:
    """The limit holds for any number of items. It includes the result that the caller holds."""
    started: list[int] = []
    results = map_ordered(started.append, range(500), workers)
    for received, _ in enumerate(results):
        assert len(started) - received <= workers + 2
    assert sorted(started) == list(range(500))


def test_a_sum_is_added_in_the_order_of_the_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order is visible in a concatenation of tuples; the second part is finished first."""
    monkeypatch.setattr(backend, "cores", lambda: 2)
    second, reported = threading.Event(), []
    parts = partition(40_000)

    def first_row(part: slice) -> tuple[int, ...]:
        assert part != parts[0] or second.wait(20)
        if part == parts[1]:
            second.set()
        return (part.start,)

    assert sum_ordered(map_ordered(first_row, parts), reported.append) == tuple(range(0, 40_000, 2048))
    assert reported == list(range(len(parts)))


def test_an_exception_of_the_caller_ends_a_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "cores", lambda: 2)
    started = []

    def stop(index: int) -> None:
        assert threading.current_thread() is threading.main_thread()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sum_ordered(map_ordered(lambda part: started.append(part) or 0, partition(40_000)), stop)
    assert len(started) <= 4


def test_an_error_in_a_thread_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        for_each(lambda item: print(1 // item), [1, 0, 1, 1], 2)


def test_work_on_several_cores_may_be_nested() -> None:
    found = np.zeros((8, 8), int)
    for_each(lambda i: for_each(lambda j: found.__setitem__((i, j), 1), range(8), 2), range(8), 2)
    assert found.all()


def test_the_variable_limits_the_number_of_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE)
    granted = cores()
    monkeypatch.setenv(VARIABLE, "1")
    assert cores() == 1
    monkeypatch.setenv(VARIABLE, "9999")
    assert cores() == granted


@pytest.mark.parametrize("value", ["0", "-1", "many", "2.5", "²"])
def test_an_invalid_number_of_cores_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(ConfigError, match=f"{VARIABLE} must be a whole number above 0"):
        cores()


def test_the_number_of_threads_changes_no_byte(invoke: Callable[..., Result], work: Path) -> None:
    for threads in (1, 2):
        line = ("train", "--dataset", "sample", "--solver", "newton", "--epochs", 2, "--threads", threads)
        assert invoke(*line, "--output", f"{threads}.npz").exit_code == 0
    with np.load("1.npz") as one, np.load("2.npz") as two:
        for name in one.files:
            assert name == "meta" or one[name].tobytes() == two[name].tobytes()
