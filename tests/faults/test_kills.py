"""Long runs: processes killed at random moments, and each system call of a save or a download failed once."""

import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from softmax_cli.checkpoint import load_checkpoint, save_checkpoint
from tests.helpers import SOAK, names, parameters, separate, small_checkpoint
from tests.server import FETCH_ALL, FILES, Server, mirror

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}

FETCH = """
import os, sys
from pathlib import Path
from softmax_cli.data.download import Source, fetch
from tests.server import small_mnist
os.urandom = lambda size: b"\\xaa" * size
fetch(small_mnist(sys.argv[1]), ["t10k-labels-idx1-ubyte"], Source(Path(sys.argv[2])))
"""

SAVE = """
import os, sys
from pathlib import Path
from softmax_cli.checkpoint import save_checkpoint
from tests.helpers import small_checkpoint
os.urandom = lambda size: b"\\xaa" * size
save_checkpoint(Path(sys.argv[2]) / "model.npz", small_checkpoint(1))
"""


def traced(code: str, name: str, folder: Path, url: str, number: int = 0) -> tuple[int, str, list[str]]:
    """Run code under strace, failing call `number` on the folder or the file; return code, stderr, calls."""
    temporary = folder / f".{name}.{'aa' * 8}.tmp"
    watched = [option for path in (folder, folder / name, temporary) for option in ("-P", str(path))]
    inject = ["-e", f"inject=all:error=EIO:when={number}"] if number else []
    line = ["strace", "-f", "-qq", "-o", "/dev/stdout", *watched, *inject]
    base = folder.parent if "fetch" in code else folder
    result = subprocess.run(
        [*line, sys.executable, "-c", code, url, str(base)],
        cwd="/", env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    return result.returncode, result.stderr, re.findall(r"^\d+ +(\w+)\(", result.stdout, re.MULTILINE)


def strace_works() -> bool:
    try:
        return subprocess.run(["strace", "-qq", "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not strace_works(), reason="needs strace")
@pytest.mark.parametrize("kind", ["save", "download"])
def test_c2_d10_every_system_call_fails_once(kind: str, tmp_path: Path) -> None:
    """The old file or the new one is there, whole, and no temporary is left behind the error."""
    code, name = (SAVE, "model.npz") if kind == "save" else (FETCH, "t10k-labels-idx1-ubyte")
    folder = tmp_path / "mnist"
    folder.mkdir()
    old, new = small_checkpoint(0), small_checkpoint(1)
    outcomes = []
    with Server(mirror) as server:
        if kind == "save":
            save_checkpoint(folder / name, old)
        _, _, calls = traced(code, name, folder, server.url)
        for number in range(1, len(calls) + 1, 1 if SOAK else 25):
            for path in folder.iterdir():
                path.unlink()
            if kind == "save":
                save_checkpoint(folder / name, old)
            status, errors, _ = traced(code, name, folder, server.url, number)
            outcomes.append(status)
            assert status == 0 or "OutputError: cannot " in errors, (calls[number - 1], errors)
            if kind == "save":
                expected = [parameters(new)] if status == 0 else [parameters(old), parameters(new)]
                assert parameters(load_checkpoint(folder / name)) in expected, calls[number - 1]
            elif (folder / name).exists() or status == 0:
                assert (folder / name).read_bytes() == FILES[name]
            left = set(names(folder)) - {name}
            assert not left or calls[number - 1] in ("unlink", "unlinkat"), (calls[number - 1], left)
    assert 1 in outcomes or not SOAK
    print(f"{kind}: {len(outcomes)} system calls failed, {outcomes.count(0)} of them without effect")


def start(*line: str) -> subprocess.Popen[bytes]:
    """Start Python in a PID namespace of its own, if the system permits that."""
    quiet = subprocess.DEVNULL
    return subprocess.Popen(separate(sys.executable, *line), env=ENVIRONMENT, stdout=quiet, stderr=quiet)


def seconds_of(*line: str) -> float:
    """Run Python, and return how long it took."""
    began = time.monotonic()
    subprocess.run([sys.executable, *line], env=ENVIRONMENT, capture_output=True, check=True)
    return time.monotonic() - began


def kill_both(generator: random.Random, line: tuple[str, ...], longest: float) -> int:
    """Run a command twice at once, kill both at random moments, and return how many were still running."""
    processes = [start(*line) for _ in range(2)]
    killed = 0
    for process in processes:
        time.sleep(generator.uniform(0.05, 0.5) * longest)
        killed += process.poll() is None
        process.kill()
    for process in processes:
        process.wait()
    return killed


def test_c1_d9_processes_killed_at_random_moments_lose_nothing(work: Path, model_file: Path) -> None:
    """Pairs that train, download and report in one folder: each file is absent or whole, nothing goes back.

    The two of a pair do not see each other's process, and one of two trainers is refused.
    """
    softmax = ("-m", "softmax_cli")
    report = (*softmax, "report", "-c", str(model_file), "--dataset", "sample")
    train = (*softmax, "train", "--dataset", "sample", "--batch-size", "2", "--log", "log")
    schedule = ("--epochs", "5000", "--schedule", "constant")
    generator, epochs, cache = random.Random(0), 0, Path("cache/mnist")
    killed, wanted = [0, 0, 0], 500 if SOAK else 4
    with Server(mirror) as server:
        fetch = ("-c", FETCH_ALL, server.url)
        reporting, fetching = seconds_of(*report), seconds_of(*fetch)
        page = Path("report.html").read_bytes()
        for number in range(3 * wanted):
            if sum(killed) >= wanted:
                break
            match number % 3:
                case 0:
                    more = ("--resume",) if Path("model.npz").exists() else schedule
                    killed[0] += kill_both(generator, (*train, *more), 1.5 * reporting)
                    lines = len(Path("log").read_bytes().splitlines()) if Path("log").exists() else 0
                    if Path("model.npz").exists():
                        reached = load_checkpoint("model.npz").state.epoch
                        assert reached >= max(epochs, lines - 1)
                        epochs = reached
                case 1:
                    for path in cache.glob("*"):
                        path.unlink()
                    killed[1] += kill_both(generator, fetch, fetching)
                    for path in cache.glob("[!.]*"):
                        assert path.read_bytes() == FILES[path.name]
                case _:
                    killed[2] += kill_both(generator, report, reporting)
                    assert Path("report.html").read_bytes() == page
        time.sleep(0.1)  # until the kernel has ended the last ones
        for line in (fetch, report, (*train, "--resume", "--epochs", str(epochs + 1))):
            seconds_of(*line)
    assert {path.name: path.read_bytes() for path in cache.glob("[!.]*")} == FILES
    assert (load_checkpoint("model.npz").state.epoch, Path("report.html").read_bytes()) == (epochs + 1, page)
    assert sum(killed) >= wanted
    print(
        f"killed: {killed[0]} trainers, {killed[1]} downloads, {killed[2]} reports; {epochs} epochs, lost: 0"
    )
