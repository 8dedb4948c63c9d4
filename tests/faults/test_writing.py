"""Files that are written: temporaries, locks, attributes, and processes that do not see each other."""

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from click.testing import Result

from softmax_cli.checkpoint import load_checkpoint, save_checkpoint
from softmax_cli.config import TrainConfig
from softmax_cli.data.download import Source
from softmax_cli.errors import OutputError
from softmax_cli.files import STRAY_AGE, FileLock, atomic_write, check_writable
from softmax_cli.runs import back_up, resume_run, run_epochs, start_run
from tests.helpers import SOAK, assert_fails, names, separate, small_checkpoint, unprivileged
from tests.server import FETCH_ALL, FILES, Server, mirror

ROOT = Path(__file__).parents[2]


def write(path: Path, content: bytes = b"new") -> None:
    with atomic_write(path) as file:
        file.write(content)


def age(path: Path) -> None:
    os.utime(path, (time.time() - STRAY_AGE - 60,) * 2)


# Temporary files


def test_d9_only_old_and_unlocked_temporaries_of_the_same_file_are_removed(work: Path) -> None:
    """Those of earlier versions, whose names hold a process number, are recognised."""
    strays, others = {".file.0123456789abcdef.tmp", ".file.4711.tmp"}, {".file.x.tmp", ".other.ab.tmp"}
    kept = {*others, ".file.abc.tmp", ".file.def.tmp", ".file.tmp"}
    for name in kept | strays:
        Path(name).touch()
        age(Path(name))
    Path(".file.abc.tmp").touch()  # recent
    with open(".file.def.tmp", "rb") as locked:
        fcntl.flock(locked, fcntl.LOCK_EX)
        write(Path("file"))
    assert names(work) == sorted({"file", *kept})


def test_d9_the_temporary_in_use_is_locked(work: Path) -> None:
    with atomic_write(Path("file")):
        (temporary,) = work.iterdir()
        age(temporary)
        with atomic_write(Path("file")) as other:
            other.write(b"second")
        assert temporary.exists()
    assert (names(work), Path("file").read_bytes()) == (["file"], b"")


def test_d20_two_writers_with_one_process_number_do_not_share_a_temporary(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 7)
    with atomic_write(Path("file")) as first, atomic_write(Path("file")) as second:
        first.write(b"first")
        second.write(b"second")
        assert len(names(work)) == 2
    assert Path("file").read_bytes() == b"first"


PLANTS: dict[str, Callable[[Path, Path], None]] = {
    "link": lambda path, victim: path.symlink_to(victim),
    "dangling link": lambda path, victim: path.symlink_to("nowhere"),
    "hard link": lambda path, victim: path.hardlink_to(victim),
    "FIFO": lambda path, victim: os.mkfifo(path),
}


@pytest.mark.usefixtures("alarm")
@pytest.mark.parametrize("plant", PLANTS)
def test_c18_what_is_planted_under_the_name_of_a_temporary_is_never_opened(
    plant: str, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("victim").write_bytes(b"precious")
    PLANTS[plant](Path(".file.aa.tmp"), Path("victim"))
    tokens = iter([b"\xaa", b"\xbb"] * 2)
    monkeypatch.setattr(os, "urandom", lambda size: next(tokens))
    check_writable(Path("file"))
    write(Path("file"))
    assert Path("victim").read_bytes() == b"precious"
    assert names(work) == [".file.aa.tmp", "file", "victim"]


@pytest.mark.usefixtures("alarm")
@pytest.mark.parametrize("plant", PLANTS)
def test_c18_what_is_planted_under_the_name_of_a_lock_is_not_changed(plant: str, work: Path) -> None:
    Path("victim").write_bytes(b"precious")
    PLANTS[plant](Path(".file.lock"), Path("victim"))
    with pytest.raises(OutputError, match=r"^cannot lock file with .*\.file\.lock: "):
        FileLock(Path("file"))
    assert Path("victim").read_bytes() == b"precious"
    assert names(work) == [".file.lock", "victim"]


def test_l6_a_name_of_255_bytes_can_be_written_and_locked(work: Path) -> None:
    name = "é" * 127 + "x"
    check_writable(Path(name))
    lock = FileLock(Path(name))
    write(Path(name))
    lock.release()
    assert names(work) == [name]


# Mode, owner and group


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the current folder, which every user may write."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        monkeypatch.chdir(folder)
        yield Path(folder)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o755])
def test_c19_mode_of_a_replaced_file_is_kept_also_in_its_backup(mode: int, work: Path) -> None:
    Path("model.npz").write_bytes(b"old")
    Path("model.npz").chmod(mode)
    back_up(Path("model.npz"))
    write(Path("model.npz"))
    assert [path.stat().st_mode & 0o777 for path in sorted(work.iterdir())] == [mode, mode]


def test_c19_a_private_file_is_private_while_it_is_written(work: Path) -> None:
    Path("file").touch(mode=0o600)
    with atomic_write(Path("file")):
        assert {path.stat().st_mode & 0o777 for path in work.iterdir()} == {0o600}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a user who may give files away")
def test_c19_owner_and_group_are_kept_or_nobody_gains_a_permission(shared: Path) -> None:
    """Root keeps both; another user keeps neither, and then the group gets the permissions of others."""
    Path("file").touch(mode=0o664)
    Path("file").chmod(0o664)
    os.chown("file", 1234, 4321)
    write(Path("file"))
    status = Path("file").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (1234, 4321, 0o664)
    with unprivileged():
        write(Path("file"))
    status = Path("file").stat()
    assert (status.st_uid, status.st_mode & 0o777) == (65534, 0o644)


# Several runs


def test_c16_the_second_run_with_one_output_is_refused_at_once(
    work: Path, command: Callable[..., Any], invoke: Callable[..., Result]
) -> None:
    """The message names the first one; when that has ended, the output is free again."""
    run = start_run(TrainConfig(dataset="sample", epochs=2), "model.npz", log_file="log")
    held = f"it is being written by process {os.getpid()} on "
    for line in (("-o", "model.npz"), ("-o", "other.npz", "--log", "log")):
        assert_fails(
            command("train", "--dataset", "sample", *line), "cannot write", held, "choose another name"
        )
    epochs = run_epochs(run)
    next(epochs)
    epochs.close()  # type: ignore[attr-defined]  # it is a generator
    assert names(work) == ["log", "model.npz"]
    before = Path("model.npz").read_bytes()
    resumed = resume_run({}, "model.npz")
    assert_fails(command("train", "--resume", "--dataset", "sample"), held)
    assert Path("model.npz").read_bytes() == before
    resumed.release()
    assert command("train", "--resume").returncode == 0
    assert names(work) == ["log", "model.npz"]


def test_c16_a_run_that_cannot_start_leaves_the_output_free(work: Path) -> None:
    for _ in range(2):
        with pytest.raises(OutputError, match=r"the folder .* does not exist"):
            start_run(TrainConfig(dataset="sample"), "no/model.npz")
        with pytest.raises(Exception, match="neither a path"):
            start_run(TrainConfig(dataset="nowhere"), "model.npz", Source("cache"))
    assert names(work) == []


def test_c16_the_lock_of_a_killed_process_is_free(work: Path) -> None:
    code = "import sys, time; from pathlib import Path; from softmax_cli.files import FileLock\n"
    code += "lock = FileLock(Path('file')); print('locked', flush=True); time.sleep(60)"
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert child.stdout
    assert child.stdout.readline() == b"locked\n"
    with pytest.raises(OutputError, match=f"process {child.pid} on"):
        FileLock(Path("file"))
    child.kill()
    child.communicate()
    FileLock(Path("file")).release()
    assert names(work) == []


def test_c16_a_file_system_without_locks_can_be_written(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    lock = FileLock(Path("file"))
    write(Path("file"))
    lock.release()
    assert names(work) == ["file"]


WRITER = """
import sys, time
from pathlib import Path
from softmax_cli.checkpoint import save_checkpoint
from tests.helpers import small_checkpoint
checkpoint, end = small_checkpoint(int(sys.argv[1])), time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    save_checkpoint(Path("model.npz"), checkpoint)
"""


def test_c15_c17_writers_in_two_containers_never_show_a_torn_file(work: Path) -> None:
    """Both are process number 1 of their PID namespace."""
    save_checkpoint("model.npz", small_checkpoint(0))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    writers = [
        subprocess.Popen(
            separate(sys.executable, "-c", WRITER, str(seed), "20" if SOAK else "1"), env=environment
        )
        for seed in (1, 2)
    ]
    reads = 0
    while any(writer.poll() is None for writer in writers):
        load_checkpoint("model.npz")
        reads += 1
    assert [writer.returncode for writer in writers] == [0, 0]
    assert reads > 20
    assert names(work) == ["model.npz"]


def test_d20_downloads_in_two_containers_share_a_folder(work: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with Server(mirror) as server, ThreadPoolExecutor(4) as pool:
        line = separate(sys.executable, "-c", FETCH_ALL, server.url)
        runs = [
            pool.submit(subprocess.run, line, env=environment, capture_output=True, check=False)
            for _ in range(4)
        ]
        assert [(run.result().returncode, run.result().stderr) for run in runs] == [(0, b"")] * 4
    assert {path.name: path.read_bytes() for path in Path("cache/mnist").iterdir()} == FILES


def test_c2_an_unwritable_folder_is_reported_as_such(shared: Path) -> None:
    shared.chmod(0o755)
    with unprivileged(), pytest.raises(OutputError, match="cannot write file: permission denied"):
        write(Path("file"))
    assert names(shared) == []
