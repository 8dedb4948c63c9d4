"""Fixtures for all tests: isolation, the sample, a trained model, commands."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from softmax_cli.backend import BLAS_VARIABLES, VARIABLE
from softmax_cli.checkpoint import Checkpoint, save_checkpoint
from softmax_cli.cli.main import main
from softmax_cli.config import TrainConfig
from softmax_cli.data.dataset import Dataset
from softmax_cli.data.download import Source
from softmax_cli.data.loading import load_dataset
from softmax_cli.training import fit, start

FULL_MNIST = os.environ.get("SOFTMAX_FULL_MNIST")

signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs, and their children, ignore it


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip tests that need the full data if there are none, except in CI."""
    if FULL_MNIST or os.environ.get("CI"):
        return
    left_out = [item for item in items if item.get_closest_marker("full")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail any connection that leaves this machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise ConnectionRefusedError(f"a test tried to connect to {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the empty folder of the user's cache, and reset the environment."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("SOFTMAX_CACHE_DIR", str(folder))
    for name in ("SOFTMAX_CHECKPOINT", "SOFTMAX_DEBUG", "NO_COLOR", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in BLAS_VARIABLES:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv(VARIABLE, "2")  # commands change it; it is restored after the test
    return folder


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder and make it the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def sample() -> Dataset:
    """Return the training split of the bundled sample."""
    return load_dataset("sample", "train", Source(Path("unused"), offline=True))


@pytest.fixture(scope="session")
def sample_test() -> Dataset:
    """Return the test split of the bundled sample."""
    return load_dataset("sample", "test", Source(Path("unused"), offline=True))


@pytest.fixture(scope="session")
def trained(sample: Dataset) -> Checkpoint:
    """Return a model that was trained on the sample for three epochs."""
    config = TrainConfig(dataset="sample", epochs=3)
    begun = start(config, sample)
    checkpoint = Checkpoint.begin(config, sample, begun)
    for state in fit(config, sample, begun):
        checkpoint = checkpoint.advance(state, 0.1)
    return checkpoint


@pytest.fixture(scope="session")
def model_file(trained: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of the saved model `trained`; tests must not change the file."""
    path = tmp_path_factory.mktemp("model") / "model.npz"
    save_checkpoint(path, trained)
    return path


@pytest.fixture(scope="session")
def full_mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache with the full MNIST files, which are unpacked at the first use."""
    assert FULL_MNIST, "SOFTMAX_FULL_MNIST must name the folder with the four MNIST files"
    folder = tmp_path_factory.mktemp("full")
    (folder / "mnist").mkdir()
    for path in Path(FULL_MNIST).resolve().glob("*.gz"):
        (folder / "mnist" / path.name).symlink_to(path)
    return folder


@pytest.fixture
def invoke() -> Callable[..., Result]:
    """Return a function that runs a command in this process.

    Example: ``invoke("train", "--epochs", 1)``.
    """

    def run(*args: object) -> Result:
        result = CliRunner().invoke(main, [str(arg) for arg in args])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def command(work: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs a command in its own process, as a user does."""

    def run(*args: object, **options: Any) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "softmax_cli", *map(str, args)]
        return subprocess.run(line, capture_output=True, text=True, timeout=120, check=False, **options)

    return run


@pytest.fixture
def alarm() -> Iterator[None]:
    """Fail a test that hangs."""
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it hangs"))
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
