"""No data are lost by killed processes, failing operations or parallel runs."""

import io
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from softmax_cli import files, runs
from softmax_cli.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from softmax_cli.config import TrainConfig
from softmax_cli.data.catalog import FILE_NAMES
from softmax_cli.data.dataset import Dataset
from softmax_cli.data.download import Source, fetch
from softmax_cli.errors import OutputError
from tests.helpers import SOAK, assert_equal_runs, names, parameters, small_checkpoint
from tests.server import FETCH_ALL, FILES, Server, head, mirror, packed, small_mnist

ROUNDS = 20 if SOAK else 3
RUN = ("train", "--dataset", "sample", "--batch-size", "8", "--epochs", "12", "--log", "run.jsonl")


EAGER = """
from softmax_cli import runs
from softmax_cli.__main__ import main

runs.SAVE_INTERVAL = 0
main()
"""
"""A process that saves every epoch, so that kills hit saves."""


def start(*line: str) -> subprocess.Popen[bytes]:
    """Start a command in a new process without output."""
    quiet = subprocess.DEVNULL
    return subprocess.Popen([sys.executable, "-c", EAGER, *line], stdout=quiet, stderr=quiet)


def reported() -> int:
    """Return the number of epochs in the log."""
    return len(Path("run.jsonl").read_text().splitlines()) if Path("run.jsonl").exists() else 0


def test_epochs_in_quick_succession_are_saved_once_at_the_end(
    sample: Dataset, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the caller leaves the loop before the end."""
    saved: list[int] = []

    def save(path: Path, checkpoint: Checkpoint) -> None:
        saved.append(checkpoint.state.epoch)
        save_checkpoint(path, checkpoint)

    monkeypatch.setattr(runs, "save_checkpoint", save)
    monkeypatch.setattr(runs, "SAVE_INTERVAL", 1e9)
    runs.train(TrainConfig(dataset="sample", epochs=4), "whole.npz", sample)
    run = runs.start_run(TrainConfig(dataset="sample", epochs=4), "part.npz", log_file="log", data=sample)
    for checkpoint in runs.run_epochs(run):
        if checkpoint.state.epoch == 2:
            break
    assert saved == [0, 4, 0, 2]
    assert [load_checkpoint(name).state.epoch for name in ("whole.npz", "part.npz")] == [4, 2]
    assert len(Path("log").read_text().splitlines()) == 2


def test_training_that_is_killed_and_resumed_gives_the_same_bytes(
    invoke: Callable[..., Result], work: Path
) -> None:
    """C1: after each kill the checkpoint loads and holds at least the epochs that the log reports."""
    generator = np.random.default_rng(int(time.time()) if SOAK else 0)
    for number in itertools.count():
        if number >= ROUNDS and Path("model.npz").exists():
            break
        process = start(*RUN, "--resume") if Path("model.npz").exists() else start(*RUN)
        time.sleep(generator.uniform(0.3, 1.2) * (1 + number / 10))  # longer each time, for slow machines
        process.kill()
        process.wait()
        if Path("model.npz").exists():
            assert load_checkpoint(Path("model.npz")).state.epoch >= min(reported(), 12)
    assert invoke("train", "--resume").exit_code == 0
    assert load_checkpoint(Path("model.npz")).state.epoch == 12
    assert invoke(*RUN[:-2], "--output", "whole.npz").exit_code == 0
    assert_equal_runs(Path("model.npz"), Path("whole.npz"))
    for stray in work.glob(".*.tmp"):
        os.utime(stray, (0, 0))
    save_checkpoint("model.npz", load_checkpoint("model.npz"))
    assert not list(work.glob(".*.tmp"))


class Refusing:
    """A file system whose operation number `refused`, counted from 0, fails."""

    def __init__(self, refused: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.refused = 0, refused
        system = self

        class Raw(io.FileIO):
            def write(self, content: Any) -> int | None:
                system.ask()
                return super().write(content)

        def open_file(path: Path, mode: str) -> Any:
            self.ask()
            return io.BufferedWriter(Raw(path, mode.replace("b", ""))) if "w" in mode else open(path, mode)

        monkeypatch.setattr(files, "open", open_file, raising=False)
        for name in ("open", "fsync", "replace"):
            monkeypatch.setattr(os, name, self.guarded(getattr(os, name)))

    def ask(self) -> None:
        self.count += 1
        if self.count == self.refused + 1:
            raise OSError(28, "No space left on device")

    def guarded(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def ask_first(*arguments: Any) -> Any:
            self.ask()
            return function(*arguments)

        return ask_first


# numpy before 2 leaves the archive open if a write fails.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_save_that_fails_at_any_operation_keeps_the_old_checkpoint(tmp_path: Path) -> None:
    """C2: each operation of a save fails in turn; the last ones no longer matter."""
    path = tmp_path / "model.npz"
    old, new = small_checkpoint(0), small_checkpoint(1)
    outcomes = []
    for refused in itertools.count():
        save_checkpoint(path, old)
        with pytest.MonkeyPatch.context() as monkeypatch:
            system = Refusing(refused, monkeypatch)
            try:
                save_checkpoint(path, new)
            except OutputError as error:
                outcomes.append(str(error))
            else:
                outcomes.append("saved")
        assert parameters(load_checkpoint(path)) == parameters(new if outcomes[-1] == "saved" else old)
        assert names(tmp_path) == ["model.npz"]
        if system.count <= refused:
            break
    # Open, write and sync the file, open the folder, replace. If only the sync of the folder fails, the
    # checkpoint is saved.
    assert outcomes[-2:] == ["saved", "saved"]
    assert set(outcomes[:-2]) == {f"cannot write {path}: no space left on device"}
    assert len(outcomes) >= 6


def slowly(name: str) -> Iterator[bytes | float]:
    """Serve a file in about a tenth of a second."""
    body = packed(name)
    yield head(length=len(body))
    for begin in range(0, len(body), -(-len(body) // 10)):
        yield 0.01
        yield body[begin : begin + -(-len(body) // 10)]


def test_download_that_is_killed_leaves_only_correct_files_and_is_repeated(tmp_path: Path) -> None:
    """D9: every file is absent or correct at every moment; strays are removed once they are old."""
    generator = np.random.default_rng(int(time.time()) if SOAK else 0)
    root = Path(__file__).parents[1]
    folder = tmp_path / "cache" / "mnist"
    for number in range(ROUNDS):
        for path in folder.glob("*"):
            path.unlink()
        folder.mkdir(parents=True, exist_ok=True)
        with Server(slowly) as server:
            child = subprocess.Popen(
                [sys.executable, "-c", FETCH_ALL, server.url],
                cwd=tmp_path,
                env=os.environ | {"PYTHONPATH": str(root)},
                stderr=subprocess.DEVNULL,
            )
            while not server.requests and child.poll() is None:
                time.sleep(0.01)
            deadline = time.monotonic() + generator.uniform(0, 0.4)
            while time.monotonic() < deadline and child.poll() is None:
                assert_absent_or_correct(folder)
            child.send_signal(signal.SIGKILL)
            child.wait()
            assert_absent_or_correct(folder)
        for stray in folder.glob(".*.tmp"):
            os.utime(stray, (0, 0))
        with Server(mirror) as server:
            missing = [name for name in FILE_NAMES if not (folder / name).exists()]
            fetch(small_mnist(server.url), missing, Source(tmp_path / "cache"))
        assert {name: (folder / name).read_bytes() for name in FILE_NAMES} == FILES, number
        assert not list(folder.glob(".*.tmp"))


def assert_absent_or_correct(folder: Path) -> None:
    for name in FILE_NAMES:
        try:
            content = (folder / name).read_bytes()
        except FileNotFoundError:
            continue
        assert content == FILES[name]
