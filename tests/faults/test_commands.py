"""Commands in odd surroundings: signals, closed streams, limits of containers, logs that were cut."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from softmax_cli import backend
from softmax_cli.backend import cores, map_ordered, memory_size
from softmax_cli.checkpoint import load_checkpoint
from softmax_cli.cli.signals import graceful_stop
from softmax_cli.cli.threads import BLAS_VARIABLES, use_threads
from softmax_cli.files import FileLock
from softmax_cli.solvers.sgd import fits_in_memory
from tests.helpers import SOAK, assert_equal_runs, assert_fails, names

Invoke = Callable[..., Result]


def shell(line: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash, with `softmax` in it."""
    line = line.replace("softmax", f"{sys.executable} -m softmax_cli")
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, check=False)


# L9, L14


@pytest.mark.parametrize("line", ["--help", "--version", "train --help"])
@pytest.mark.parametrize("redirection", ["> /dev/full", ">&-"])
def test_l9_help_that_cannot_be_printed_is_a_failure(line: str, redirection: str) -> None:
    result = shell(f"softmax {line} {redirection}")
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1


def test_l9_a_closed_pipe_or_stderr_is_no_failure() -> None:
    assert (shell("softmax --help | true").returncode, shell("softmax --help 2>&-").returncode) == (0, 0)


def complete(words: str) -> subprocess.CompletedProcess[str]:
    """Run the completion of bash for a command line whose last word is being typed."""
    count = len(words.split(" ")) - 1
    asked = {"_SOFTMAX_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(count)}
    code = "from softmax_cli.cli.main import main; main(prog_name='softmax')"
    line = [sys.executable, "-c", code]
    return subprocess.run(line, env=os.environ | asked, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("words", ["softmax trian --", "softmax nonsense ", "softmax --bad tra"])
def test_l14_completion_after_a_typo_prints_nothing(words: str) -> None:
    result = complete(words)
    assert (result.returncode, result.stderr) == (0, "")


def test_l14_commands_are_completed() -> None:
    assert complete("softmax tr").stdout == "plain,train\n"


# L13: threads and limits of containers


def test_l13_work_is_done_if_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert list(map_ordered(lambda x: x * x, range(20), workers=4)) == [x * x for x in range(20)]


def test_l13_work_is_done_if_only_some_threads_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    start, count = threading.Thread.start, iter(range(100))

    def refuse(self: threading.Thread) -> None:
        if next(count):
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert list(map_ordered(lambda x: x * x, range(50), workers=8)) == [x * x for x in range(50)]


def test_l13_training_works_without_threads(work: Path) -> None:
    code = (
        "import sys, threading\n"
        "def refuse(self): raise RuntimeError('no thread')\n"
        "threading.Thread.start = refuse\n"
        "sys.argv = ['softmax', 'train', '--dataset', 'sample', '--config', 'deskew', '--epochs', '1']\n"
        "from softmax_cli.cli.main import main; main()"
    )
    environment = os.environ | {"SOFTMAX_THREADS": "4", "PYTHONPATH": str(Path(__file__).parents[2])}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert load_checkpoint("model.npz").state.epoch == 1


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that writes files of control groups: where this process is, and limits by path."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)), raising=False)
    monkeypatch.delenv("SOFTMAX_THREADS")
    monkeypatch.setattr(backend, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(backend, "PROC", tmp_path / "proc")

    def write(membership: str, **files: str) -> None:
        (tmp_path / "proc" / "self").mkdir(parents=True)
        (tmp_path / "proc" / "self" / "cgroup").write_text(membership)
        for name, content in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content + "\n")

    return write


V1 = "4:memory:/docker/1\n1:cpu,cpuacct:/docker/1\n0::/\n"


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "max 100000"}, 64),
        ("0::/\n", {"cpu.max": "150000 100000"}, 2),
        ("0::/\n", {"cpu.max": "5000 100000"}, 1),
        ("0::/\n", {"cpu.max": "6400000 50000"}, 64),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000"}, 3),
        ("0::/a/b\n", {"a/cpu.max": "800000 100000", "a/b/cpu.max": "400000 100000"}, 4),
        (V1, {"cpu/docker/1/cpu.cfs_quota_us": "200000", "cpu/docker/1/cpu.cfs_period_us": "100000"}, 2),
        (V1, {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2),
        (V1, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64),
        ("0::/\n", {"cpu.max": "nonsense"}, 64),
        ("0::/\n", {"cpu.max": "100000 0"}, 64),
        ("0::/\n", {"cpu.max": ""}, 64),
        ("nonsense\n", {}, 64),
        ("", {}, 64),
    ],
)
def test_l13_the_cpu_quota_of_a_container_limits_the_number_of_cores(
    membership: str, files: dict[str, str], expected: int, groups: Callable[..., None]
) -> None:
    groups(membership, **files)
    assert cores() == expected


def test_l13_affinity_limits_the_number_of_cores(
    groups: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    groups("0::/\n", **{"cpu.max": "800000 100000"})
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5})
    assert cores() == 2


@pytest.mark.parametrize(
    ("membership", "files", "limited"),
    [
        ("0::/a\n", {"a/memory.max": "1000000"}, True),
        ("0::/a\n", {"a/memory.max": "max"}, False),
        (V1, {"memory/docker/1/memory.limit_in_bytes": "1000000"}, True),
        (V1, {"memory/memory.limit_in_bytes": "9223372036854771712"}, False),
        ("", {}, False),
    ],
)
def test_l13_the_memory_of_a_container_decides_what_fits(
    membership: str, files: dict[str, str], limited: bool, groups: Callable[..., None]
) -> None:
    groups(membership, **files)
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert memory_size() == (1_000_000 if limited else machine)
    assert fits_in_memory(np.zeros(800_000, np.uint8)) != limited


def test_l13_an_unknown_size_of_memory_is_no_limit(
    groups: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    groups("")
    monkeypatch.delattr(os, "sysconf")
    assert memory_size() is None
    assert fits_in_memory(np.zeros(1, np.uint8))


def test_l13_threads_that_are_asked_for_override_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --threads, exported variables remain; an empty one counts as none."""
    for name in BLAS_VARIABLES:
        monkeypatch.setenv(name, "16")
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    use_threads(None)
    assert [os.environ[name] for name in BLAS_VARIABLES] == ["16", "1", "16", "16", "16"]
    use_threads(1)
    assert {os.environ[name] for name in BLAS_VARIABLES} == {"1"}
    assert cores() == 1


# C24: signals


def test_c24_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with graceful_stop() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        assert not stop
    finally:
        signal.signal(signal.SIGINT, before)


def test_c24_a_background_job_survives_the_ctrl_c_of_its_terminal(work: Path) -> None:
    """A shell starts background jobs with SIGINT ignored."""
    line = "train --dataset sample --epochs 6 --batch-size 4"
    result = shell(f"(trap '' INT; softmax {line}) & sleep 0.7; pkill -INT -P $! ; kill -INT $!; wait $!")
    assert result.returncode == 0, result.stderr
    assert load_checkpoint("model.npz").state.epoch == 6


EARLY = """
import signal, sys
from softmax_cli.__main__ import main
original = signal.signal
original(signal.SIGINT, signal.default_int_handler)
def announce(*arguments):
    original(*arguments)
    signal.signal = original
    print("ready", flush=True)
signal.signal = announce
sys.argv = ["softmax", "train", "--dataset", "sample", "--epochs", "5000", "--batch-size", "1"]
main()
"""


def test_c24_sigint_at_any_early_moment_exits_130_without_a_traceback(work: Path) -> None:
    """While modules are imported, options parsed, data read; before that, only Python runs."""
    for delay in np.linspace(0, 0.3, 40 if SOAK else 6):
        process = subprocess.Popen(
            [sys.executable, "-c", EARLY], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 130, errors
        assert "Traceback" not in errors
        assert not list(work.glob(".*.tmp"))
        FileLock(Path("model.npz")).release()


@pytest.mark.parametrize("module", ["click", "numpy"])
def test_c24_an_interrupted_import_has_no_traceback(module: str, work: Path) -> None:
    code = f"""
import builtins, os, signal, sys
from softmax_cli.__main__ import main
original = builtins.__import__
def interrupted(name, *rest, **more):
    if name == "{module}":
        os.kill(os.getpid(), signal.SIGINT)
    return original(name, *rest, **more)
builtins.__import__ = interrupted
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = ["softmax", "info", "sample"]
main()
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")


# C21: the log


def log_lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("log").read_text().splitlines()]


@pytest.fixture
def stopped(work: Path, invoke: Invoke) -> bytes:
    """Return the log of a run of four epochs, the last of which is not done yet."""
    options = ("--dataset", "sample", "--epochs", 3, "--schedule", "constant")
    invoke("train", *options, "--log", "log")
    return Path("log").read_bytes()


def cut(log: bytes, lines: int, more: int = 0) -> bytes:
    """Return the first lines of a log, and some bytes of the next one."""
    end = [0, *(i + 1 for i, byte in enumerate(log) if byte == 10)][lines]
    return log[: end + more]


DAMAGED: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda log: log,
    "killed between save and log": lambda log: cut(log, 2),
    "full disk": lambda log: cut(log, 2, 30),
    "torn after the record": lambda log: log[:-1],
    "empty": lambda log: b"",
    "a line twice": lambda log: log + cut(log, 1),
    "first line lost": lambda log: log[len(cut(log, 1)) :],
    "lines of an earlier attempt": lambda log: log.replace(b'"seconds"', b'"Seconds"'),
    "not JSON": lambda log: b'{"epoch":' + b"[" * 100_000 + b"\n" + log,
    "not UTF-8": lambda log: cut(log, 1) + b'{"epoch": \xff}\n',
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_c21_a_log_is_mended_from_the_history(damage: str, stopped: bytes, invoke: Invoke) -> None:
    """Valid lines are kept, with their seconds; others are written again."""
    expected = [json.loads(line) for line in stopped.splitlines()]
    Path("log").write_bytes(DAMAGED[damage](stopped))
    result = invoke("train", "--resume", "--epochs", 4, "--log", "log")
    assert result.exit_code == 0, result.stderr
    found = log_lines()
    assert [line["epoch"] for line in found] == [1, 2, 3, 4]
    for one, other in zip(found, expected, strict=False):
        assert one["seconds"] in (other["seconds"], None)
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
    history = load_checkpoint("model.npz").state.history
    assert [line["train_loss"] for line in found] == [epoch.train_loss for epoch in history]


def test_c21_the_log_of_a_complete_run_is_mended_too(stopped: bytes, invoke: Invoke) -> None:
    Path("log").write_bytes(cut(stopped, 2, 9))
    assert invoke("train", "--resume", "--log", "log").exit_code == 0
    assert [line["epoch"] for line in log_lines()] == [1, 2, 3]
    before = Path("log").stat().st_mtime_ns
    assert invoke("train", "--resume", "--log", "log").exit_code == 0
    assert (Path("log").stat().st_mtime_ns, Path("log.bak").exists()) == (before, False)


def test_c21_the_log_of_another_run_is_kept(stopped: bytes, invoke: Invoke) -> None:
    invoke("train", "--dataset", "sample", "--epochs", 2, "--seed", 1, "--log", "other", "-o", "other.npz")
    other = Path("other").read_bytes()
    assert invoke("train", "--resume", "--log", "other").exit_code == 0
    assert Path("other.bak").read_bytes() == other
    assert len(Path("other").read_text().splitlines()) == 3


def test_c21_a_log_of_gigabytes_is_refused(stopped: bytes, invoke: Invoke) -> None:
    with open("log", "r+b") as file:
        file.truncate(3 << 30)
    before = Path("model.npz").read_bytes()
    assert_fails(invoke("train", "--resume", "--epochs", 4, "--log", "log"), "log is too large for a log")
    assert Path("model.npz").read_bytes() == before


def test_c21_a_full_disk_while_logging_leaves_a_whole_checkpoint(work: Path, invoke: Invoke) -> None:
    """The run ends with an error; resumed, it ends as one without interruption."""
    options = ("--dataset", "sample", "--epochs", 3, "--schedule", "constant")
    from softmax_cli import runs

    write = runs._write_log

    def full(log_file: Path | None, text: str, mode: str) -> None:
        if '"epoch": 2' in text:
            write(log_file, text[:40], mode)
            raise runs.OutputError("cannot write log: no space left on device")
        write(log_file, text, mode)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "SAVE_INTERVAL", 0)
        patch.setattr(runs, "_write_log", full)
        assert_fails(invoke("train", *options, "--log", "log"), "no space left on device")
    assert load_checkpoint("model.npz").state.epoch == 2
    assert invoke("train", "--resume", "--log", "log").exit_code == 0
    invoke("train", *options, "-o", "whole.npz")
    assert_equal_runs(Path("model.npz"), Path("whole.npz"))
    assert [line["epoch"] for line in log_lines()] == [1, 2, 3]
    assert names(work) == ["log", "model.npz", "whole.npz"]
