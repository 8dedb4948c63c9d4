"""C20: what a checkpoint states about itself is refused when it is loaded, or works in every command."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from softmax_cli.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from softmax_cli.config import TrainConfig
from softmax_cli.data.dataset import Dataset
from softmax_cli.errors import CheckpointError
from softmax_cli.training import fit, start
from tests.helpers import PICTURE, SOAK

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 10**9, 10**18, 10**400, -(10**400)),
    *(0.0, 0.5, 1e-320, 1e300, -1e300, 1.5),
    *("", "x", "0" * 64, "\ud800", "\x1b[31m\0\n", "é" * 5000, "../../x", "<script>"),
    *([], [0], [None], {}, {"x": 1}, {"seconds": "1"}, [[[]]], ["a", "b"]),
)
"""One value or more of each JSON type, and extreme ones."""

Invoke = Callable[..., Result]


def paths(value: Any, prefix: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every key and of the first and last item of every list."""
    if prefix:
        yield prefix
    if isinstance(value, dict):
        for key in value:
            yield from paths(value[key], (*prefix, key))
    elif isinstance(value, list) and value:
        for index in sorted({0, len(value) - 1}):
            yield from paths(value[index], (*prefix, index))


def changed(meta: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """Return a copy of the description in which one value is another."""
    copy = json.loads(json.dumps(meta))
    place = copy
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return dict(copy)


@pytest.fixture(scope="module")
def members(sample: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the members of a checkpoint after two of five epochs, calibrated, with a history."""
    config = TrainConfig(dataset="sample", epochs=5, calibrate=True, schedule="constant")
    _, state, *_ = fit(config, sample, start(config, sample))
    path = tmp_path_factory.mktemp("meta") / "model.npz"
    save_checkpoint(path, Checkpoint.begin(config, sample, state).advance(state, 1.0))
    with np.load(path) as file:
        return dict(file)


def write(path: Path, members: dict[str, Any], meta: dict[str, Any]) -> None:
    text = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    with open(path, "wb") as file:
        np.savez(file, **(members | {"meta": text}))


COMMANDS = (
    ("info", "-c", "model.npz"),
    ("info", "-c", "model.npz", "--json"),
    ("eval", "-c", "model.npz", "--dataset", "sample"),
    ("eval", "-c", "model.npz", "--split", "validation", "--json"),
    ("predict", PICTURE, "-c", "model.npz", "--json"),
    ("report", "-c", "model.npz", "--dataset", "sample"),
    ("train", "--resume", "--log", "log", "--offline"),
)


def check(invoke: Invoke, case: object) -> None:
    """Run all commands on a checkpoint that was loaded: none may show a traceback."""
    for line in COMMANDS:
        for name in ("log", "log.bak", "report.html"):
            Path(name).unlink(missing_ok=True)
        result = invoke(*line)
        assert result.exit_code in (0, 1, 2), (case, line)
        errors = [text for text in result.stderr.splitlines() if text.startswith("error: ")]
        assert len(errors) == (result.exit_code != 0), (case, line, result.stderr)


def test_c20_every_key_as_each_json_type_is_refused_or_works_in_every_command(
    members: dict[str, Any], work: Path, invoke: Invoke
) -> None:
    meta = json.loads(members["meta"].tobytes())
    cases = [(path, value) for path in paths(meta) if path[0] != "scores" for value in VALUES]
    assert len(cases) > 1000
    generator = np.random.default_rng(0)
    accepted = []
    for index in generator.permutation(len(cases))[: None if SOAK else 250]:
        path, value = cases[index]
        write(Path("model.npz"), members, changed(meta, path, value))
        try:
            load_checkpoint("model.npz")
        except CheckpointError:
            continue
        accepted.append((path, value))
    assert accepted
    for index in generator.permutation(len(accepted))[: 150 if SOAK else 2]:
        path, value = accepted[index]
        write(Path("model.npz"), members, changed(meta, path, value))
        check(invoke, (path, value))


def test_c20_a_history_that_lies_is_refused(members: dict[str, Any], work: Path) -> None:
    meta = json.loads(members["meta"].tobytes())
    lies: list[dict[str, Any]] = [
        {"history": meta["history"][::-1]},
        {"history": [meta["history"][0] | {"validation_accuracy": 2}, meta["history"][1]]},
        {"history": [meta["history"][0] | {"train_loss": -1}, meta["history"][1]]},
        {"best_epoch": 0},
        {"stale": 7},
        {"dataset": {"name": "x", "digest": "X" * 64}},
        {"run": {"seconds": -1}},
    ]
    for lie in lies:
        write(Path("model.npz"), members, meta | lie)
        try:
            load_checkpoint("model.npz")
        except CheckpointError:
            continue
        pytest.fail(f"accepted: {list(lie)}")
