"""Long runs: processes killed at random moments, and each system call of a save or a download failed once."""

import gzip
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from softmax_cli.checkpoint import load_checkpoint, save_checkpoint
from softmax_cli.config import TrainConfig
from softmax_cli.data.readers.idx import read_idx
from softmax_cli.errors import ConfigError, DataError
from tests.helpers import SOAK, names, parameters, small_checkpoint
from tests.server import FILES, Server, mirror

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
    quiet = subprocess.DEVNULL
    return subprocess.Popen([sys.executable, *line], env=ENVIRONMENT, stdout=quiet, stderr=quiet)


def kill_late(process: subprocess.Popen[bytes], delay: float) -> bool:
    """Kill a process after a delay; return whether it was still running."""
    time.sleep(delay)
    was_running = process.poll() is None
    process.kill()
    process.wait()
    return was_running


def test_c1_d9_processes_killed_at_random_moments_lose_nothing(work: Path, model_file: Path) -> None:
    """Training, downloads and reports in turn: each file is absent or whole, and nothing goes back."""
    generator, killed, epochs = random.Random(0), 0, 0
    page = subprocess.run(
        [sys.executable, "-m", "softmax_cli", "report", "-c", str(model_file), "--dataset", "sample"],
        env=ENVIRONMENT, capture_output=True, check=True,
    ) and Path("report.html").read_bytes()  # fmt: skip
    train = ("-m", "softmax_cli", "train", "--dataset", "sample", "--batch-size", "16", "--log", "log")
    schedule = ("--epochs", "5000", "--schedule", "constant")
    report = ("-m", "softmax_cli", "report", "-c", str(model_file), "--dataset", "sample")
    with Server(mirror) as server:
        for number in range(500 if SOAK else 6):
            match number % 3:
                case 0:
                    more = ("--resume",) if Path("model.npz").exists() else schedule
                    killed += kill_late(start(*train, *more), generator.uniform(0.1, 1.2))
                    if Path("model.npz").exists():
                        reached = load_checkpoint("model.npz").state.epoch
                        assert reached >= epochs
                        assert reached >= len(Path("log").read_bytes().splitlines()) - 1
                        epochs = reached
                case 1:
                    for path in Path("cache/mnist").glob("*"):
                        path.unlink()
                    code = FETCH.replace("os.urandom", "os.unused").replace(
                        '["t10k-labels-idx1-ubyte"]', "None"
                    )
                    code = code.replace("None", repr(list(FILES)))
                    killed += kill_late(start("-c", code, server.url, "cache"), generator.uniform(0.1, 0.5))
                    for path in Path("cache/mnist").glob("[!.]*"):
                        assert path.read_bytes() == FILES[path.name]
                case _:
                    killed += kill_late(start(*report), generator.uniform(0.3, 1.5))
                    assert Path("report.html").read_bytes() == page
    assert killed > (300 if SOAK else 0)
    print(f"{killed} processes killed, {epochs} epochs, nothing lost")


def mutate(generator: random.Random, content: bytes) -> bytes:
    """Return bytes with one to three changes."""
    data = bytearray(content)
    for _ in range(generator.randint(1, 3)):
        at = generator.randrange(len(data))
        match generator.randrange(3):
            case 0:
                data[at] = generator.randrange(256)
            case 1:
                del data[at : at + generator.randint(1, 8)]
            case _:
                data[at:at] = generator.randbytes(generator.randint(1, 8))
        data = data or bytearray(b"\0")
    return bytes(data)


def read_labels(path: Path) -> None:
    read_idx(path, "labels")


def read_images(path: Path) -> None:
    read_idx(path, "images")


def read_config(path: Path) -> None:
    from softmax_cli.config import read_toml

    TrainConfig(**read_toml(path))


IDX = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4]) + bytes(range(24))
CONFIG = b"# comment\nepochs = 7\nfeatures = ['deskew', 'fourier']\nl2 = 1e-6\nseed = 0x1F\n"
FORMATS: dict[str, tuple[str, bytes, Callable[[Path], None]]] = {
    "images": ("data", IDX, read_images),
    "labels": ("data", bytes([0, 0, 11, 1, 0, 0, 0, 3]) + bytes(6), read_labels),
    "compressed": ("data.gz", gzip.compress(IDX, mtime=0), read_images),
    "config": ("run.toml", CONFIG, read_config),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_x1_x2_a_mutated_file_is_refused_or_read(kind: str, work: Path) -> None:
    name, content, read = FORMATS[kind]
    generator, refused, rounds = random.Random(0), 0, 10_000 if SOAK else 300
    for _ in range(rounds):
        Path(name).write_bytes(mutate(generator, content))
        try:
            read(Path(name))
        except (DataError, ConfigError):
            refused += 1
    assert refused > rounds / 10
    print(f"{kind}: {rounds} mutations, {refused} refused, no crash")
