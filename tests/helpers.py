"""Helpers that several test modules share."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import Result

from softmax_cli.checkpoint import Checkpoint, describe, load_checkpoint
from softmax_cli.config import TrainConfig
from softmax_cli.data.dataset import Dataset
from softmax_cli.data.readers.idx import write_idx
from softmax_cli.features import FeatureMap
from softmax_cli.model import Model
from softmax_cli.training import Epoch, State

SOAK = bool(os.environ.get("SOFTMAX_SOAK"))
"""Whether to run the long variants of tests that damage files or kill processes."""

PICTURE = Path(__file__).parent / "pictures" / "seven.png"


def assert_fails(result: Any, *parts: str, code: int = 1) -> None:
    """Assert that a command failed with one `error:` line and without output.

    The line contains all `parts`.
    """
    exit_code = result.exit_code if isinstance(result, Result) else result.returncode
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert (exit_code, result.stdout, len(errors)) == (code, "", 1), result.stderr
    assert "Traceback" not in result.stderr
    for part in parts:
        assert part in errors[0], errors[0]


@contextmanager
def unprivileged() -> Iterator[None]:
    """Run the block as a user without privileges, even if the tests run as root."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def separate(*line: str) -> list[str]:
    """Return a command line that runs in a PID namespace of its own, if the system permits that."""
    prefix = ["unshare", "--pid", "--fork", "--kill-child"] if _can_unshare() else []
    return [*prefix, *line]


@cache
def _can_unshare() -> bool:
    try:
        line = ["unshare", "--pid", "--fork", "--kill-child", "true"]
        return subprocess.run(line, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def mutated(generator: np.random.Generator, content: bytes) -> bytes:
    """Return bytes with one to three random changes.

    A change sets, removes, inserts, repeats or overwrites bytes.
    """
    data = bytearray(content)
    for _ in range(generator.integers(1, 4)):
        at, other = (int(place) for place in generator.integers(0, len(data), 2))
        length = int(generator.integers(1, 9))
        match generator.integers(5):
            case 0:
                data[at] = generator.integers(256)
            case 1:
                data[at : at + length] = b""
            case 2:
                data[at:at] = generator.bytes(length)
            case 3:
                data[at:at] = data[other : other + 8 * length]
            case _:
                data[at : at + length] = (b"\0" if generator.integers(2) else b"\xff") * length
    return bytes(data)


def names(folder: Path) -> list[str]:
    """Return the sorted names of the entries of a folder."""
    return sorted(path.name for path in folder.iterdir())


def small_checkpoint(seed: int = 0, classes: tuple[str, ...] = ("a", "b", "c")) -> Checkpoint:
    """Return a checkpoint with random parameters, after two epochs.

    The images have 4 x 3 pixels.
    """
    generator = np.random.default_rng(seed)
    model, last, velocity = (_random_model(generator, 12, len(classes)) for _ in range(3))
    losses = generator.random((2, 4)).tolist()
    state = State(
        features=FeatureMap((4, 3)),
        temperature=1.0,
        epoch=2,
        model=model,
        last=last,
        velocity=velocity,
        best_epoch=1,
        stale=1,
        history=tuple(Epoch(number, *values) for number, values in enumerate(losses, 1)),
    )
    return Checkpoint(
        state=state,
        config=TrainConfig(dataset="folder", epochs=7, learning_rate=0.1 + 0.2, seed=3),
        dataset="folder",
        digest="0" * 64,
        image_shape=(4, 3),
        class_names=classes,
        preparation="plain",
        run={"seconds": 0.25},
    )


def _random_model(generator: np.random.Generator, features: int, classes: int) -> Model:
    """Return finite parameters with random bits.

    Very small and very large values, and minus zero, occur.
    """
    bits = generator.integers(0, 2**32, (features + 1, classes), np.uint32).view(np.float32)
    values = np.where(np.isfinite(bits), bits, np.float32(-0.0))
    return Model(values[:-1], values[-1])


def parameters(checkpoint: Checkpoint) -> bytes:
    """Return all parameters of a checkpoint as bytes."""
    state = checkpoint.state
    return b"".join(array.tobytes() for model in (state.model, state.last, state.velocity) for array in model)


def arrays_of(path: Path) -> dict[str, bytes]:
    """Return the bytes of the arrays in a checkpoint file, without ``meta``."""
    with np.load(path) as file:
        return {name: file[name].tobytes() for name in file.files if name != "meta"}


def meta_of(path: Path) -> dict[str, Any]:
    """Return the content of ``meta`` in a checkpoint file, without ``run``."""
    meta = describe(load_checkpoint(path))
    del meta["run"]
    return meta


def assert_equal_runs(one: Path, other: Path) -> None:
    """Assert that two checkpoint files are equal except for ``run``."""
    assert arrays_of(one) == arrays_of(other)
    assert meta_of(one) == meta_of(other)


def differentiate(function: Callable[[np.ndarray], float], at: np.ndarray, h: float = 1e-3) -> np.ndarray:
    """Return the gradient of a function by finite differences.

    Five-point stencil: (f(−2h) − 8f(−h) + 8f(h) − f(2h)) / 12h.
    """
    slope = np.empty(at.shape)
    for index in np.ndindex(at.shape):
        step = np.zeros(at.shape)
        step[index] = h
        near = function(at + step) - function(at - step)
        far = function(at + 2 * step) - function(at - 2 * step)
        slope[index] = (8 * near - far) / (12 * h)
    return slope


def folder_of(path: Path, data: Dataset) -> Path:
    """Write a data set into a new folder, as IDX files.

    Both splits are `data`.
    """
    path.mkdir()
    for split in ("train", "t10k"):
        write_idx(path / f"{split}-images-idx3-ubyte", data.images)
        write_idx(path / f"{split}-labels-idx1-ubyte", data.labels)
    return path
