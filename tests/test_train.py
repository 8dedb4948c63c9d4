"""`softmax train`, as its user sees it."""

import json
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from softmax_cli.checkpoint import describe, load
from softmax_cli.commands.signals import graceful_stop
from softmax_cli.config import TrainConfig
from tests.conftest import assert_fails

Invoke = Callable[..., Result]

SMALL = ("--dataset", "sample", "--epochs", 2)
CONFIGS = Path(__file__).parents[1] / "configs"


def arrays_of(path: Path) -> dict[str, bytes]:
    with np.load(path) as file:
        return {name: file[name].tobytes() for name in file.files if name != "meta"}


def meta_of(path: Path) -> dict[str, Any]:
    meta = describe(load(path))
    del meta["run"]
    return meta


def assert_equal_runs(one: Path, other: Path) -> None:
    assert arrays_of(one) == arrays_of(other)
    assert meta_of(one) == meta_of(other)


def test_it_trains_saves_and_reports(invoke: Invoke, work: Path) -> None:
    result = invoke("train", *SMALL, "--json", "--log", "run.jsonl")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert set(found) == {
        "checkpoint",
        "dataset",
        "epochs",
        "best_epoch",
        "train_loss",
        "validation",
        "temperature",
        "converged",
        "seconds",
    }
    assert found["converged"] is None  # only newton knows
    assert (found["checkpoint"], found["dataset"], found["epochs"]) == ("model.npz", "sample", 2)
    assert found["validation"]["accuracy"] > 0.8
    lines = [json.loads(line) for line in Path("run.jsonl").read_text().splitlines()]
    keys = ["epoch", "train_loss", "validation_loss", "validation_accuracy", "learning_rate", "seconds"]
    assert [list(line) for line in lines] == [keys, keys]
    assert lines[found["best_epoch"] - 1]["validation_loss"] == found["validation"]["loss"]
    assert sorted(path.name for path in work.iterdir()) == ["model.npz", "run.jsonl"]


def test_the_result_is_a_sentence_without_json(invoke: Invoke, work: Path) -> None:
    result = invoke("train", *SMALL)
    assert result.stdout.startswith("model.npz: sample, 2 epochs in ")
    assert "validation accuracy" in result.stdout
    no_split = invoke("train", *SMALL, "--validation-size", 0)
    assert "no validation" in no_split.stdout


def test_a_temperature_with_little_to_stand_on_is_called_so(invoke: Invoke, work: Path) -> None:
    few = invoke("train", *SMALL, "--calibrate", "--validation-size", "0.02")
    assert "the temperature is fitted to 100 images only" in few.stderr
    assert " before calibration, temperature " in few.stdout
    enough = invoke("train", *SMALL, "--calibrate", "-o", "more.npz")
    assert "warning" not in enough.stderr


@pytest.mark.parametrize("value", ["many", "0", "9" * 5000])
def test_a_number_of_cores_that_is_none_is_wrong_usage(
    value: str, invoke: Invoke, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOFTMAX_THREADS", value)
    assert_fails(invoke("train", *SMALL), "SOFTMAX_THREADS must be a whole number above 0", code=2)


def test_off_a_terminal_there_is_a_line_an_epoch(invoke: Invoke, work: Path) -> None:
    result = invoke("train", *SMALL)
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == [
        "training on sample",
        "epoch 1/2",
        "epoch 2/2",
    ]
    assert "\r" not in result.stderr
    assert "\x1b" not in result.stderr


def test_quiet_leaves_the_result_alone(invoke: Invoke, work: Path) -> None:
    result = invoke("train", *SMALL, "--quiet")
    assert result.stderr == ""
    assert result.stdout.count("\n") == 1


def test_flags_beat_toml_and_toml_beats_defaults(invoke: Invoke, work: Path) -> None:
    Path("c.toml").write_text('epochs = 3\nl2 = 0\nmomentum = 0.5\ndataset = "sample"\n')
    invoke("train", "--config", "c.toml", "--epochs", 1)
    config = meta_of(Path("model.npz"))["config"]
    assert (config["epochs"], config["l2"], config["momentum"], config["batch_size"]) == (1, 0, 0.5, 256)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_the_configs_in_the_repository_hold_overrides_that_work(
    path: Path, invoke: Invoke, work: Path
) -> None:
    result = invoke("train", "--dataset", "sample", "--config", path, "--json")
    assert result.exit_code == 0, result.stderr
    assert (json.loads(result.stdout)["validation"] is None) == (path.stem != "best")
    assert f"softmax train --config configs/{path.name}" in path.read_text()
    defaults, text = asdict(TrainConfig(features=load(Path("model.npz")).config.features)), path.read_text()
    for key, value in tomllib.loads(text).items():
        assert key == "features" or defaults[key] != value, "a config holds overrides only"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--learning-rate", "nan"], ["learning-rate", "nan"]),
        (["--learning-rate", "-1"], ["learning-rate", "above 0", "-1"]),
        (["--learning-rate", "inf"], ["learning-rate", "finite"]),
        (["--epochs", "0"], ["epochs", "at least 1", "0"]),
        (["--validation-size", "1"], ["validation-size", "below 1"]),
        (["--patience", "2", "--validation-size", "0"], ["patience", "validation-size"]),
        (["--dataset", "minst"], ["minst", "fashion-mnist"]),
        (["--config", "absent.toml"], ["absent.toml", "no such file"]),
        (["--config", "wrong.toml"], ["learning_rat", "did you mean 'learning_rate'"]),
        (["--mirror", "ftp://x/"], ["ftp://x/", "https://"]),
        (["--fourier-dimension", "99"], ["fourier-dimension is for features fourier, not pixels"]),
        (["--features", "fourier", "--fourier-dimension", "0"], ["fourier-dimension", "at least 1"]),
        (["--calibrate", "--validation-size", "0"], ["calibrate", "validation-size above 0"]),
    ],
)
def test_bad_values_exit_with_2_and_leave_nothing(
    arguments: list[str], parts: list[str], invoke: Invoke, work: Path
) -> None:
    Path("wrong.toml").write_text("learning_rat = 1")
    assert_fails(invoke("train", *arguments), *parts, code=2)
    assert [path.name for path in work.iterdir()] == ["wrong.toml"]


def test_an_output_that_cannot_be_written_is_found_before_training(invoke: Invoke, work: Path) -> None:
    result = invoke("train", *SMALL, "--output", "absent/model.npz")
    assert_fails(result, "absent", "does not exist")
    assert "training on" not in result.stderr
    assert_fails(invoke("train", *SMALL, "--output", work), "is a folder")
    assert list(work.iterdir()) == []


def test_a_link_at_the_output_is_kept_and_its_target_replaced(invoke: Invoke, work: Path) -> None:
    Path("link.npz").symlink_to("target.npz")
    invoke("train", *SMALL, "--output", "link.npz")
    assert Path("link.npz").is_symlink()
    assert load(Path("target.npz")).state.epoch == 2


def test_an_earlier_log_is_kept_and_what_is_no_log_is_refused(invoke: Invoke, work: Path) -> None:
    invoke("train", *SMALL, "--log", "run.jsonl")
    first = Path("run.jsonl").read_bytes()
    result = invoke("train", *SMALL, "--log", "run.jsonl", "-o", "other.npz", "--epochs", 1)
    assert "kept the earlier run.jsonl as run.jsonl.bak" in result.stderr
    assert Path("run.jsonl.bak").read_bytes() == first
    assert len(Path("run.jsonl").read_text().splitlines()) == 1
    model = Path("model.npz").read_bytes()
    result = invoke("train", *SMALL, "-o", "third.npz", "--log", "model.npz")
    assert_fails(result, "model.npz is there already, and no log", code=2)
    assert Path("model.npz").read_bytes() == model
    assert not Path("third.npz").exists()


def test_another_run_at_the_output_is_kept_and_that_is_said(invoke: Invoke, work: Path) -> None:
    invoke("train", *SMALL)
    before = Path("model.npz").read_bytes()
    result = invoke("train", *SMALL, "--seed", 1)
    assert "kept the earlier model.npz as model.npz.bak" in result.stderr
    assert Path("model.npz.bak").read_bytes() == before
    assert load(Path("model.npz")).config.seed == 1


def test_a_start_that_learned_nothing_does_not_push_out_the_backup(invoke: Invoke, work: Path) -> None:
    invoke("train", *SMALL)
    good = Path("model.npz").read_bytes()
    for _ in range(2):
        invoke("train", *SMALL, "--learning-rate", 1e10)
    assert Path("model.npz.bak").read_bytes() == good


def test_a_log_in_the_place_of_the_model_is_refused(invoke: Invoke, work: Path) -> None:
    invoke("train", *SMALL)
    before = Path("model.npz").read_bytes()
    assert_fails(invoke("train", *SMALL, "--log", "./model.npz"), "are the same file", code=2)
    assert Path("model.npz").read_bytes() == before


def test_a_folder_that_is_called_like_a_known_data_set_is_not_taken_for_it(
    invoke: Invoke, work: Path
) -> None:
    copy_of_sample(Path("mnist"))
    invoke("train", "--dataset", "./mnist", "--epochs", 1)
    assert_fails(invoke("eval", "--offline"), "'mnist'", "--dataset", code=2)
    told = invoke("eval", "--dataset", "./mnist", "--json")
    assert json.loads(told.stdout)["reference"] is None


def test_a_shuffle_in_blocks_is_said(invoke: Invoke, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("softmax_cli.solvers.sgd.fits_in_memory", lambda images: False)
    assert "shuffled in blocks of 1024 MiB" in invoke("train", *SMALL).stderr


def test_two_equal_runs_leave_equal_bytes_and_another_seed_does_not(invoke: Invoke, work: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        invoke("train", *SMALL, "--seed", seed, "--output", f"{name}.npz")
    assert_equal_runs(Path("a.npz"), Path("b.npz"))
    assert arrays_of(Path("a.npz")) != arrays_of(Path("c.npz"))


def test_divergence_stops_at_once_and_keeps_the_last_good_checkpoint(invoke: Invoke, work: Path) -> None:
    result = invoke("train", *SMALL, "--learning-rate", 1e10)
    assert_fails(result, "diverged in epoch 1, step ", "learning rate 1e+10")
    assert load(Path("model.npz")).state.epoch == 0


def test_without_a_network_the_sample_is_used_with_one_warning(invoke: Invoke, work: Path) -> None:
    result = invoke("train", "--epochs", 1, "--offline")
    assert result.exit_code == 0
    assert result.stderr.count("warning: ") == 1
    assert "bundled sample" in result.stderr
    assert load(Path("model.npz")).dataset == "sample"


def test_resume_of_a_complete_run_says_so_and_changes_nothing(invoke: Invoke, work: Path) -> None:
    invoke("train", *SMALL)
    before = Path("model.npz").read_bytes()
    result = invoke("train", "--resume", "--json")
    assert (result.exit_code, json.loads(result.stdout)["epochs"]) == (0, 2)
    assert "already complete" in result.stderr
    assert Path("model.npz").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--learning-rate", 0.1], ["learning-rate 0.5", "0.1"]),
        (["--batch-size", 32], ["batch-size 256", "32"]),
        (["--seed", 7], ["seed 0", "7"]),
        (["--epochs", 9], ["epochs 2", "9"]),
        (["--dataset", "folder"], ["sample", "folder"]),
        (["--config", "c.toml"], ["momentum 0.9", "0.1"]),
    ],
)
def test_resume_refuses_another_run_naming_both_values(
    arguments: list[str], parts: list[str], invoke: Invoke, work: Path
) -> None:
    Path("c.toml").write_text("momentum = 0.1")
    copy_of_sample(Path("folder"))
    invoke("train", *SMALL)
    before = Path("model.npz").read_bytes()
    assert_fails(invoke("train", "--resume", *arguments), *parts, code=2)
    assert Path("model.npz").read_bytes() == before


def copy_of_sample(folder: Path) -> None:
    from softmax_cli.data.catalog import SAMPLE

    assert SAMPLE.bundled
    folder.mkdir()
    for file in SAMPLE.files:
        (folder / f"{file.name}.gz").write_bytes((SAMPLE.bundled / f"{file.name}.gz").read_bytes())


def test_resume_may_add_epochs_to_a_constant_schedule(invoke: Invoke, work: Path) -> None:
    constant = ("--dataset", "sample", "--schedule", "constant")
    invoke("train", *constant, "--epochs", 1)
    invoke("train", "--resume", "--epochs", 3, "--log", "more.jsonl")
    invoke("train", *constant, "--epochs", 3, "--output", "whole.npz")
    assert_equal_runs(Path("model.npz"), Path("whole.npz"))
    epochs = [json.loads(line)["epoch"] for line in Path("more.jsonl").read_text().splitlines()]
    assert epochs == [2, 3]


def test_resume_goes_on_with_more_patience(invoke: Invoke, work: Path) -> None:
    stubborn = ("--dataset", "sample", "--epochs", 12, "--learning-rate", 3)
    first = invoke("train", *stubborn, "--patience", 1)
    assert "stopped early" in first.stderr
    stopped = load(Path("model.npz")).state.epoch
    assert stopped < 12
    invoke("train", "--resume", "--patience", 0)
    invoke("train", *stubborn, "--output", "whole.npz")
    assert arrays_of(Path("model.npz")) == arrays_of(Path("whole.npz"))


def test_resume_of_a_folder_must_be_told_where_it_is(invoke: Invoke, work: Path) -> None:
    copy_of_sample(Path("digits"))
    constant = ("--schedule", "constant")
    invoke("train", "--dataset", "digits", *constant, "--epochs", 1)
    assert_fails(invoke("train", "--resume", "--epochs", 2), "'digits'", "--dataset", code=2)
    assert invoke("train", "--resume", "--epochs", 2, "--dataset", "digits").exit_code == 0


def test_resume_without_a_checkpoint_says_how_to_make_one(invoke: Invoke, work: Path) -> None:
    assert_fails(invoke("train", "--resume"), "no checkpoint at model.npz", "softmax train")


class Running:
    """A `softmax train` in a process of its own, whose stderr is read line by line."""

    def __init__(self, *arguments: object) -> None:
        line = [sys.executable, "-u", "-m", "softmax_cli", "train", *map(str, arguments)]
        self.process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr
        self.stderr = self.process.stderr

    def wait_for(self, text: str) -> None:
        for line in self.stderr:
            if text in line:
                return
        raise AssertionError(f"{text!r} never came")

    def end(self) -> tuple[int, str]:
        """Return the exit code and the rest of stderr."""
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors


@pytest.fixture
def running(work: Path) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def start(*arguments: object) -> Running:
        started.append(Running(*arguments))
        return started[-1]

    yield start
    for run in started:
        run.process.kill()
        run.process.communicate()


SLOW = ("--dataset", "sample", "--batch-size", 1, "--epochs", 1000, "--learning-rate", 0.001)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_the_last_finished_epoch(
    number: signal.Signals, code: int, running: Callable[..., Running]
) -> None:
    run = running(*SLOW, "--log", "run.jsonl")
    run.wait_for("epoch 2/")
    run.process.send_signal(number)
    exit_code, errors = run.end()
    finished = len(Path("run.jsonl").read_text().splitlines())
    assert (exit_code, load(Path("model.npz")).state.epoch) == (code, finished)
    assert f"holds epoch {finished} of 1000; go on with: softmax train --resume" in errors
    assert "Traceback" not in errors
    assert sorted(path.name for path in Path().iterdir()) == ["model.npz", "run.jsonl"]


def test_a_signal_in_the_first_epoch_leaves_the_starting_weights(running: Callable[..., Running]) -> None:
    run = running(*SLOW)
    run.wait_for("training on")
    run.process.send_signal(signal.SIGINT)
    exit_code, _ = run.end()
    checkpoint = load(Path("model.npz"))
    assert (exit_code, checkpoint.state.epoch) == (130, 0)
    assert not checkpoint.state.model.weights.any()


def test_a_stopped_run_goes_on_to_the_same_bytes(running: Callable[..., Running], invoke: Invoke) -> None:
    options = ("--dataset", "sample", "--batch-size", 2, "--epochs", 12, "--learning-rate", 0.01)
    run = running(*options)
    run.wait_for("epoch 3/")
    run.process.send_signal(signal.SIGINT)
    assert run.end()[0] == 130
    assert load(Path("model.npz")).state.epoch < 12
    invoke("train", "--resume")
    invoke("train", *options, "--output", "whole.npz")
    assert_equal_runs(Path("model.npz"), Path("whole.npz"))


def test_two_signals_leave_a_whole_checkpoint(running: Callable[..., Running]) -> None:
    run = running(*SLOW)
    run.wait_for("epoch 1/")
    run.process.send_signal(signal.SIGINT)
    run.process.send_signal(signal.SIGINT)
    assert run.end()[0] == 130
    assert load(Path("model.npz")).state.epoch >= 1


def test_the_second_signal_stops_at_once() -> None:
    with graceful_stop() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.number == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with graceful_stop() as stop:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(SystemExit, match="143"):
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.full
@pytest.mark.parametrize(
    ("options", "least"),
    [
        ((), 0.923),
        (("--config", "configs/accurate.toml"), 0.925),
        (("--config", "configs/deskew.toml"), 0.956),
        (("--features", "fourier", "--fourier-dimension", "800", "--epochs", "3"), 0.979),
    ],
)
def test_accuracy_on_mnist(
    options: tuple[str, ...], least: float, full_mnist: Path, invoke: Invoke, tmp_path: Path
) -> None:
    """The mean of three seeds on the full test set is what the README promises."""
    paths = [str(Path(__file__).parents[1] / part) if part.endswith(".toml") else part for part in options]
    accuracies = []
    for seed in range(3):
        output = tmp_path / f"{seed}.npz"
        invoke("train", *paths, "--seed", seed, "--data-dir", full_mnist, "--output", output)
        result = invoke("eval", "--checkpoint", output, "--data-dir", full_mnist, "--json")
        accuracies.append(json.loads(result.stdout)["accuracy"])
    assert np.mean(accuracies) >= least
