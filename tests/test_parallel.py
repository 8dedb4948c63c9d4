"""Work that the cores share out."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from softmax_cli.errors import ConfigError
from softmax_cli.parallel import VARIABLE, cores, for_each


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_every_item_is_done_once_on_as_many_threads_as_are_asked_for(workers: int) -> None:
    meeting = threading.Barrier(workers, timeout=20)
    done, threads = [], set()

    def work(item: int) -> None:
        if item < workers:
            meeting.wait()  # nobody gets here twice before all are here
        done.append(item)
        threads.add(threading.get_ident())

    for_each(work, range(20), workers)
    assert (sorted(done), len(threads)) == (list(range(20)), workers)


def test_an_error_in_a_thread_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        for_each(lambda item: print(1 // item), [1, 0, 1, 1], 2)


def test_work_may_be_shared_out_within_shared_work() -> None:
    found = np.zeros((8, 8), int)
    for_each(lambda i: for_each(lambda j: found.__setitem__((i, j), 1), range(8), 2), range(8), 2)
    assert found.all()


def test_the_number_of_cores_can_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE)
    granted = cores()
    monkeypatch.setenv(VARIABLE, "1")
    assert cores() == 1
    monkeypatch.setenv(VARIABLE, "9999")
    assert cores() == granted


@pytest.mark.parametrize("value", ["0", "-1", "many", "2.5", "²"])
def test_a_number_of_cores_that_is_none_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
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
