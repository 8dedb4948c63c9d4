"""C20: what a checkpoint states about itself is refused when it is loaded, or works in every command."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from softmax_cli.calibration import COLDEST, HOTTEST
from softmax_cli.checkpoint import Checkpoint, describe, load_checkpoint, save_checkpoint
from softmax_cli.config import TrainConfig
from softmax_cli.data.dataset import Dataset
from softmax_cli.errors import CheckpointError
from softmax_cli.training import fit, start
from tests.helpers import PICTURE, SOAK, small_checkpoint

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


@pytest.fixture
def small(work: Path) -> dict[str, Any]:
    """Return the members of a small checkpoint after two epochs, of which the first is the best."""
    save_checkpoint("model.npz", small_checkpoint())
    with np.load("model.npz") as file:
        return dict(file)


def with_record(**values: object) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return a change of the last record of the history."""
    return lambda meta: {"history": [meta["history"][0], meta["history"][1] | values]}


def with_config(**values: object) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda meta: {"config": meta["config"] | values}


LIES: list[tuple[Callable[[dict[str, Any]], dict[str, Any]] | dict[str, Any], str]] = [
    ({"format": True}, "its format is True, expected a number from 1 to"),
    ({"format": 1.0}, "its format is 1.0, expected"),
    ({"format": 0}, "its format is 0, expected"),
    ({"format": 3}, "its format is 3, and this version reads formats up to 2"),
    ({"image_shape": [0, 3]}, "its image shape is 0 x 3"),
    ({"image_shape": [4, True]}, "its image shape is 4 x True"),
    ({"image_shape": [4.0, 3.0]}, "its image shape is 4.0 x 3.0"),
    ({"image_shape": [-4, -3]}, "its image shape is -4 x -3"),
    ({"class_names": ["a"]}, "its class names are not a list of at least two strings"),
    ({"class_names": "abc"}, "its class names are not a list"),
    ({"class_names": ["a", "b", None]}, "its class names are not a list"),
    ({"class_names": ["a", "b", "a"]}, "two of its classes have the same name"),
    (with_config(more=1), "its config has the option 'more', which this version does not know"),
    (with_config(epochs=0), "its config is not valid in this version"),
    (with_config(l2="auto"), "its l2 is not a number"),
    ({"features": {"kind": "deskew"}}, "its features are not those of its config"),
    ({"features": {"kind": "pixels", "dimension": 13}}, "its number of features is not that of its arrays"),
    ({"temperature": True}, "its temperature is not a number"),
    ({"temperature": 0.009}, "its temperature is not a number"),
    ({"temperature": 150.0}, "its temperature is not a number"),
    ({"temperature": "1"}, "its temperature is not a number"),
    ({"temperature": 2.0}, "its temperature is 2.0, but it was not calibrated"),
    ({"preparation": "upside down"}, "its pictures are prepared as 'upside down'"),
    ({"dataset": {"name": 5, "digest": "0" * 64}}, "5 is not a text"),
    ({"dataset": {"name": "x", "digest": "X" * 64}}, "is not a SHA-256"),
    ({"dataset": {"name": "x", "digest": "0" * 65}}, "is not a SHA-256"),
    (with_record(train_loss=None), "an epoch without its loss or its learning rate"),
    (with_record(train_loss=True), "an epoch without its loss or its learning rate"),
    (with_record(train_loss=10**400), "an epoch without its loss or its learning rate"),
    (with_record(learning_rate="x"), "an epoch without its loss or its learning rate"),
    (with_record(gradient_norm="x"), "a value that is not a finite number"),
    (with_record(validation_loss=False), "a value that is not a finite number"),
    (with_record(validation_loss=None), "or a validation accuracy, but not both"),
    (with_record(validation_accuracy=None), "or a validation accuracy, but not both"),
    (with_record(train_loss=-0.1), "a loss or a learning rate below 0"),
    (with_record(learning_rate=-0.1), "a loss or a learning rate below 0"),
    (with_record(validation_loss=-0.1), "a loss or a learning rate below 0"),
    (with_record(validation_accuracy=-0.1), "an accuracy that is not from 0 to 1"),
    (with_record(validation_accuracy=1.1), "an accuracy that is not from 0 to 1"),
    (with_record(validation_accuracy=2), "an accuracy that is not from 0 to 1"),
    (with_record(validation_loss=None, validation_accuracy=None), "validation losses for some epochs only"),
    (with_record(epoch=1), "its epochs do not agree with its history"),
    (with_record(epoch=2.0), "its epochs do not agree with its history"),
    ({"epoch": 3, "stale": 2}, "its epochs do not agree with its history"),
    ({"best_epoch": 2}, "its best epoch does not agree with its number of epochs"),
    ({"best_epoch": 0, "stale": 2}, "its best epoch does not agree with its number of epochs"),
    ({"stale": True}, "True is not a whole number"),
    ({"stale": -1, "best_epoch": 3}, "-1 is not a whole number"),
    (
        {"l2_path": [{"l2": 1.0, "validation_loss": 1.0, "validation_accuracy": "x"}]},
        "its path of l2 holds something",
    ),
    ({"run": {"seconds": -1}}, "the seconds of its run are not a number"),
    ({"run": {"seconds": 1e13}}, "the seconds of its run are not a number"),
    ({"run": {"seconds": True}}, "the seconds of its run are not a number"),
    ({"run": {"versions": ["1"]}}, "the versions of its run are not an object"),
    ({"run": {"versions": {"numpy": 2}}}, "2 is not a text"),
]


@pytest.mark.parametrize(("lie", "message"), LIES, ids=[message for _, message in LIES])
def test_c20_a_description_that_lies_is_refused(lie: Any, message: str, small: dict[str, Any]) -> None:
    meta = json.loads(small["meta"].tobytes())
    write(Path("model.npz"), small, meta | (lie if isinstance(lie, dict) else lie(meta)))
    with pytest.raises(CheckpointError, match=re.escape(message)):
        load_checkpoint("model.npz")


UNUSUAL: list[Callable[[dict[str, Any]], dict[str, Any]] | dict[str, Any]] = [
    {"image_shape": [1, 12]},
    {"image_shape": [12, 1]},
    lambda meta: {"temperature": COLDEST} | with_config(calibrate=True)(meta),
    lambda meta: {"temperature": HOTTEST} | with_config(calibrate=True)(meta),
    lambda meta: {"temperature": 1} | with_config(calibrate=True)(meta),
    with_record(train_loss=0, learning_rate=0, validation_loss=0, validation_accuracy=0),
    with_record(validation_accuracy=1, gradient_norm=0.5),
    {"epoch": 0, "best_epoch": 0, "stale": 0, "history": []},
    {"best_epoch": 2, "stale": 0},
    {"l2_path": [{"l2": 1.0, "validation_loss": 1.0, "validation_accuracy": 0.5}]},
    {"run": {}},
    {"run": {"seconds": 0}},
    {"run": {"seconds": 1e12}},
]


@pytest.mark.parametrize("change", UNUSUAL)
def test_c20_an_unusual_description_is_accepted(change: Any, small: dict[str, Any]) -> None:
    meta = json.loads(small["meta"].tobytes())
    write(Path("model.npz"), small, meta | (change if isinstance(change, dict) else change(meta)))
    assert load_checkpoint("model.npz").run.get("seconds") in (0, 0.25, 1e12)


def test_a_history_without_validation_is_accepted(small: dict[str, Any]) -> None:
    meta = json.loads(small["meta"].tobytes())
    records = [one | {"validation_loss": None, "validation_accuracy": None} for one in meta["history"]]
    write(Path("model.npz"), small, meta | {"history": records})
    assert load_checkpoint("model.npz").state.history[1].validation_loss is None


def test_c7_a_description_of_more_than_two_megabytes_is_refused(small: dict[str, Any]) -> None:
    meta = json.loads(small["meta"].tobytes())
    write(Path("model.npz"), small, meta | {"run": {"more": "x" * 2_000_000}})
    load_checkpoint("model.npz")
    write(Path("model.npz"), small, meta | {"run": {"more": "x" * 2_100_000}})
    with pytest.raises(CheckpointError, match=r"takes 2,10.* bytes, expected at most 2,097,152"):
        load_checkpoint("model.npz")


def test_the_scores_are_those_of_the_best_epoch() -> None:
    checkpoint = small_checkpoint()
    assert describe(checkpoint)["scores"] == checkpoint.state.history[0]._asdict()
