"""Measure whole processes: time, processor time and peak memory."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO

MEMORY_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes in a unit of `ru_maxrss`."""


@dataclass(frozen=True)
class Run:
    """A process that has ended.

    `failure` is empty if it succeeded; `output` is what it wrote to standard output.
    """

    seconds: float
    processor: float
    mebibytes: float
    failure: str
    output: str


def run(command: Sequence[str], limit: float) -> Run:
    """Run a command for at most `limit` seconds."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        begin = time.perf_counter()
        process = subprocess.Popen(
            command,
            env=environment(),
            stdout=output,
            stderr=errors,
            stdin=subprocess.DEVNULL,
            process_group=0,
        )
        timer = threading.Timer(min(limit, threading.TIMEOUT_MAX), _kill, [process.pid])
        timer.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            _kill(process.pid)
            raise
        finally:
            timer.cancel()
        seconds = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        return Run(
            seconds,
            usage.ru_utime + usage.ru_stime,
            usage.ru_maxrss * MEMORY_UNIT / 2**20,
            _failure(process.returncode, seconds >= limit, limit, _text(errors)),
            _text(output),
        )


def _kill(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace").strip()


def _failure(code: int, stopped: bool, limit: float, errors: str) -> str:
    if code == 0:
        return ""
    if stopped:
        return f"stopped after {limit:.0f} s"
    return f"failed: {errors.splitlines()[-1] if errors else f'exit code {code}'}"


def environment() -> dict[str, str]:
    """Return the environment of a measured process.

    Variables that change what softmax does, or which version of it is imported, are removed, and Python may
    keep compiled modules.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SOFTMAX_") and name not in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
    }


@contextmanager
def one_core() -> Iterator[None]:
    """Run the processes that are started in the block on one core. Linux only."""
    granted = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(granted)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, granted)


@contextmanager
def one_core_busy() -> Iterator[None]:
    """Keep one core busy with another process during the block."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        try:
            yield
        finally:
            other.kill()
