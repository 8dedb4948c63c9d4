"""`softmax train`: output, files on disk, and resumed runs."""

import json
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from softmax_cli import data
from softmax_cli.checkpoint import load_checkpoint
from softmax_cli.cli.signals import graceful_stop
from softmax_cli.config import TrainConfig
from softmax_cli.data.catalog import SAMPLE
from softmax_cli.data.dataset import Dataset
from tests.helpers import arrays_of, assert_equal_runs, assert_fails, folder_of

Invoke = Callable[..., Result]

SMALL = ("--dataset", "sample", "--epochs", 2)
SAMPLE_FOLDER = Path(data.__file__).parent / "sample"
CONFIGS = Path(__file__).parents[1] / "configs"


def test_train_saves_and_reports_the_model(invoke: Invoke, work: Path) -> None:
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
        "l2",
        "l2_path",
        "converged",
        "seconds",
        "backup",
    }
    assert found["converged"] is None  # known for newton only
    assert (found["checkpoint"], found["dataset"], found["epochs"]) == ("model.npz", "sample", 2)
    assert found["validation"]["accuracy"] > 0.8
    lines = [json.loads(line) for line in Path("run.jsonl").read_text().splitlines()]
    keys = ["epoch", "train_loss", "validation_loss", "validation_accuracy", "learning_rate", "seconds"]
    assert [list(line) for line in lines] == [keys, keys]
    assert lines[found["best_epoch"] - 1]["validation_loss"] == found["validation"]["loss"]
    assert sorted(path.name for path in work.iterdir()) == ["model.npz", "run.jsonl"]


def test_the_result_is_one_line(invoke: Invoke, work: Path) -> None:
    """stderr has a line per epoch without control characters, and is empty with --quiet."""
    result = invoke("train", *SMALL)
    assert result.stdout.startswith("model.npz: sample, 2 epochs in ")
    assert "validation accuracy" in result.stdout
    starts = [line.split(":")[0] for line in result.stderr.splitlines()]
    assert starts[:3] == ["training on sample", "epoch 1/2", "epoch 2/2"]
    assert not {"\r", "\x1b"} & set(result.stderr)
    quiet = invoke("train", *SMALL, "--validation-size", 0, "--quiet", "-o", "quiet.npz")
    assert (quiet.stderr, quiet.stdout.count("\n")) == ("", 1)
    assert "no validation" in quiet.stdout


def test_a_temperature_from_few_images_has_a_warning(invoke: Invoke, work: Path) -> None:
    few = invoke("train", *SMALL, "--calibrate", "--validation-size", "0.02")
    assert "the temperature is fitted to 100 images only; use more with --validation-size" in few.stderr
    assert " before calibration, temperature " in few.stdout
    enough = invoke("train", *SMALL, "--calibrate", "-o", "more.npz")
    assert "warning" not in enough.stderr


def test_options_override_toml_and_toml_overrides_defaults(invoke: Invoke, work: Path) -> None:
    Path("c.toml").write_text('epochs = 3\nl2 = 0\nmomentum = 0.5\ndataset = "sample"\n')
    invoke("train", "--config", "c.toml", "--epochs", 1)
    config = load_checkpoint("model.npz").config
    assert (config.epochs, config.l2, config.momentum, config.batch_size) == (1, 0, 0.5, 256)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_packaged_configs_work_and_hold_overrides_only(path: Path, invoke: Invoke, work: Path) -> None:
    result = invoke("train", "--dataset", "sample", "--config", path.stem, "--json")
    assert result.exit_code == 0, result.stderr
    config, values = load_checkpoint("model.npz").config, tomllib.loads(path.read_text())
    assert config == TrainConfig(**values | {"dataset": "sample"})
    assert (json.loads(result.stdout)["validation"] is None) == (config.validation_size == 0)
    assert re.search(rf"softmax train --config (configs/)?{path.stem}\b", path.read_text())
    defaults = asdict(TrainConfig(solver=config.solver, features=config.features))
    for key, value in values.items():
        assert key in ("solver", "features") or defaults[key] != value, f"{key} {value} is the default"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--learning-rate", "nan"], ["learning-rate", "finite", "nan"]),
        (["--dataset", "minst"], ["minst", "fashion-mnist"]),
        (["--config", "absent.toml"], ["absent.toml", "no such file"]),
        (["--config", "wrong.toml"], ["learning_rat", "did you mean 'learning_rate'"]),
        (["--mirror", "ftp://x/"], ["ftp://x/", "https://"]),
        (["--config", "bets"], ["unknown config 'bets'", "did you mean 'best'"]),
        (["--fourier-dimension", "99"], ["fourier-dimension needs the feature stage fourier", "pixels"]),
        (["--calibrate", "--validation-size", "0"], ["calibrate needs validation images"]),
    ],
)
def test_invalid_values_exit_with_2_and_write_nothing(
    arguments: list[str], parts: list[str], invoke: Invoke, work: Path
) -> None:
    Path("wrong.toml").write_text("learning_rat = 1")
    assert_fails(invoke("train", *arguments), *parts, code=2)
    assert [path.name for path in work.iterdir()] == ["wrong.toml"]


def test_an_output_that_cannot_be_written_is_refused_before_training(invoke: Invoke, work: Path) -> None:
    result = invoke("train", *SMALL, "--output", "absent/model.npz")
    assert_fails(result, "absent", "does not exist")
    assert "training on" not in result.stderr
    assert_fails(invoke("train", *SMALL, "--output", work), "is a folder")
    assert list(work.iterdir()) == []


def test_a_link_at_the_output_is_kept_and_its_target_replaced(invoke: Invoke, work: Path) -> None:
    Path("link.npz").symlink_to("target.npz")
    invoke("train", *SMALL, "--output", "link.npz")
    assert Path("link.npz").is_symlink()
    assert load_checkpoint("target.npz").state.epoch == 2


def test_an_earlier_log_is_kept_and_other_files_are_not_replaced(invoke: Invoke, work: Path) -> None:
    invoke("train", *SMALL, "--log", "run.jsonl")
    first, model = Path("run.jsonl").read_bytes(), Path("model.npz").read_bytes()
    result = invoke("train", *SMALL, "--log", "run.jsonl", "-o", "other.npz", "--epochs", 1)
    assert "kept the earlier run.jsonl as run.jsonl.bak" in result.stderr
    assert Path("run.jsonl.bak").read_bytes() == first
    assert len(Path("run.jsonl").read_text().splitlines()) == 1
    result = invoke("train", *SMALL, "-o", "third.npz", "--log", "model.npz")
    assert_fails(result, "model.npz", "log", "--log", code=2)
    assert_fails(invoke("train", *SMALL, "--log", "./model.npz"), "are the same file", code=2)
    assert Path("model.npz").read_bytes() == model
    assert not Path("third.npz").exists()


def test_c5b_a_model_of_another_run_is_kept_as_a_backup(invoke: Invoke, work: Path) -> None:
    """A run without a finished epoch does not replace the backup."""
    invoke("train", *SMALL)
    first = Path("model.npz").read_bytes()
    result = invoke("train", *SMALL, "--seed", 1)
    assert "kept the earlier model.npz as model.npz.bak" in result.stderr
    assert Path("model.npz.bak").read_bytes() == first
    second = Path("model.npz").read_bytes()
    for _ in range(2):
        invoke("train", *SMALL, "--learning-rate", 1e10)
    assert load_checkpoint("model.npz").state.epoch == 0
    assert Path("model.npz.bak").read_bytes() == second


def test_a_folder_is_identified_by_its_content(
    invoke: Invoke, sample: Dataset, sample_test: Dataset, work: Path
) -> None:
    """A folder with the sample is the sample; other data in a folder named mnist are not MNIST."""
    shutil.copytree(SAMPLE_FOLDER, "mine")
    invoke("train", "--dataset", "mine", "--epochs", 1, "--offline")
    assert load_checkpoint("model.npz").preparation == "digit"
    found = json.loads(invoke("eval", "--dataset", "mine", "--json").stdout)
    assert (found["dataset"], found["reference"]) == ("sample", list(SAMPLE.reference["pixels"][:2]))
    folder_of(Path("mnist"), sample_test)
    invoke("train", "--dataset", "./mnist", "--epochs", 1, "-o", "other.npz")
    assert load_checkpoint("other.npz").preparation == "plain"
    found = json.loads(invoke("eval", "--offline", "-c", "other.npz", "--json").stdout)
    assert (found["dataset"], found["reference"], found["images"]) == ("mnist", None, 1000)


def test_a_folder_is_found_until_it_is_moved(invoke: Invoke, sample_test: Dataset, work: Path) -> None:
    """eval, report and train --resume use the path from which the data set was last read."""
    folder_of(Path("digits"), sample_test)
    invoke("train", "--dataset", "digits", "--schedule", "constant", "--epochs", 1)
    lines = ("eval",), ("eval", "--split", "train"), ("report",), ("train", "--resume", "--epochs", 2)
    for line in lines:
        assert invoke(*line).exit_code == 0
    shutil.copytree(SAMPLE_FOLDER, "sample")
    Path("digits").rename("moved")
    for problem in ("its path is not known here", "digits does not hold it any more"):
        for line in (*lines[:3], ("train", "--resume", "--epochs", 3)):
            known = () if problem.startswith("digits") else ("--data-dir", "empty")
            assert_fails(invoke(*line, *known), "'digits'", problem, "--dataset", code=2)
    Path("sample").rename("digits")
    assert_fails(invoke("eval"), "digits does not hold it any more", code=2)
    assert invoke("eval", "--dataset", "moved").exit_code == 0
    assert invoke("train", "--resume", "--epochs", 3).exit_code == 0


def test_a_shuffle_in_blocks_is_announced(
    invoke: Invoke, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("softmax_cli.solvers.sgd.fits_in_memory", lambda images: False)
    assert "shuffled in blocks of 1024 MiB" in invoke("train", *SMALL).stderr


def test_two_equal_runs_leave_equal_bytes_and_another_seed_does_not(invoke: Invoke, work: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        invoke("train", *SMALL, "--seed", seed, "--output", f"{name}.npz")
    assert_equal_runs(Path("a.npz"), Path("b.npz"))
    assert arrays_of(Path("a.npz")) != arrays_of(Path("c.npz"))


def test_n4_divergence_is_an_error_and_keeps_the_last_finite_checkpoint(invoke: Invoke, work: Path) -> None:
    result = invoke("train", *SMALL, "--learning-rate", 1e10)
    assert_fails(result, "diverged in epoch 1, step ", "learning rate 1e+10")
    assert load_checkpoint("model.npz").state.epoch == 0


def test_the_sample_is_used_with_one_warning_if_there_is_no_network(invoke: Invoke, work: Path) -> None:
    result = invoke("train", "--epochs", 1, "--offline")
    assert result.exit_code == 0
    assert result.stderr.count("warning: ") == 1
    assert "bundled sample" in result.stderr
    assert load_checkpoint("model.npz").dataset == "sample"


def test_resume_of_a_complete_run_changes_nothing(invoke: Invoke, work: Path) -> None:
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
        (["--dataset", "folder"], ["sample", "folder"]),
        (["--config", "c.toml"], ["momentum 0.9", "0.1"]),
    ],
)
def test_c5_resume_refuses_changed_options_and_names_both_values(
    arguments: list[str], parts: list[str], invoke: Invoke, sample_test: Dataset, work: Path
) -> None:
    Path("c.toml").write_text("momentum = 0.1")
    folder_of(Path("folder"), sample_test)
    invoke("train", *SMALL)
    before = Path("model.npz").read_bytes()
    assert_fails(invoke("train", "--resume", *arguments), *parts, code=2)
    assert Path("model.npz").read_bytes() == before


def test_resume_may_add_epochs_to_a_constant_schedule(invoke: Invoke, work: Path) -> None:
    constant = ("--dataset", "sample", "--schedule", "constant")
    invoke("train", *constant, "--epochs", 1)
    invoke("train", "--resume", "--epochs", 3, "--log", "more.jsonl")
    invoke("train", *constant, "--epochs", 3, "--output", "whole.npz")
    assert_equal_runs(Path("model.npz"), Path("whole.npz"))
    epochs = [json.loads(line)["epoch"] for line in Path("more.jsonl").read_text().splitlines()]
    assert epochs == [1, 2, 3]


def test_resume_may_change_the_patience(invoke: Invoke, work: Path) -> None:
    options = ("--dataset", "sample", "--epochs", 12, "--learning-rate", 3)
    first = invoke("train", *options, "--patience", 1)
    assert "stopped early" in first.stderr
    stopped = load_checkpoint("model.npz").state.epoch
    assert stopped < 12
    invoke("train", "--resume", "--patience", 0)
    invoke("train", *options, "--output", "whole.npz")
    assert arrays_of(Path("model.npz")) == arrays_of(Path("whole.npz"))


class Running:
    """A `softmax train` in its own process, whose stderr is read line by line."""

    def __init__(self, *arguments: object) -> None:
        line = [sys.executable, "-u", "-m", "softmax_cli", "train", *map(str, arguments)]
        self.process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr
        self.stderr = self.process.stderr

    def wait_for(self, text: str) -> None:
        for line in self.stderr:
            if text in line:
                return
        raise AssertionError(f"{text!r} was not printed")

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
def test_c13_c13c_a_signal_stops_after_the_last_finished_epoch(
    number: signal.Signals, code: int, running: Callable[..., Running]
) -> None:
    run = running(*SLOW, "--log", "run.jsonl")
    run.wait_for("epoch 2/")
    run.process.send_signal(number)
    exit_code, errors = run.end()
    finished = len(Path("run.jsonl").read_text().splitlines())
    assert (exit_code, load_checkpoint("model.npz").state.epoch) == (code, finished)
    assert f"holds epoch {finished} of 1000; continue with: softmax train --resume" in errors
    assert "Traceback" not in errors
    assert sorted(path.name for path in Path().iterdir()) == ["model.npz", "run.jsonl"]


def test_a_signal_in_the_first_epoch_leaves_the_starting_weights(running: Callable[..., Running]) -> None:
    run = running(*SLOW)
    run.wait_for("training on")
    run.process.send_signal(signal.SIGINT)
    exit_code, _ = run.end()
    checkpoint = load_checkpoint("model.npz")
    assert (exit_code, checkpoint.state.epoch) == (130, 0)
    assert not checkpoint.state.model.weights.any()


def test_a_stopped_run_continues_to_the_same_bytes(running: Callable[..., Running], invoke: Invoke) -> None:
    options = ("--dataset", "sample", "--batch-size", 2, "--epochs", 12, "--learning-rate", 0.01)
    run = running(*options)
    run.wait_for("epoch 3/")
    run.process.send_signal(signal.SIGINT)
    assert run.end()[0] == 130
    assert load_checkpoint("model.npz").state.epoch < 12
    invoke("train", "--resume")
    invoke("train", *options, "--output", "whole.npz")
    assert_equal_runs(Path("model.npz"), Path("whole.npz"))


def test_c13b_two_signals_leave_a_valid_checkpoint(running: Callable[..., Running]) -> None:
    run = running(*SLOW)
    run.wait_for("epoch 1/")
    run.process.send_signal(signal.SIGINT)
    run.process.send_signal(signal.SIGINT)
    assert run.end()[0] == 130
    assert load_checkpoint("model.npz").state.epoch >= 1


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
        (("--config", "accurate"), 0.925),
        (("--config", "deskew"), 0.956),
        (("--features", "fourier", "--fourier-dimension", "800", "--epochs", "3"), 0.979),
    ],
)
def test_accuracy_on_mnist_is_that_of_the_readme(
    options: tuple[str, ...], least: float, full_mnist: Path, invoke: Invoke, tmp_path: Path
) -> None:
    """The mean of three seeds on the test set is what the README states."""
    accuracies = []
    for seed in range(3):
        output = tmp_path / f"{seed}.npz"
        invoke("train", *options, "--seed", seed, "--data-dir", full_mnist, "--output", output)
        result = invoke("eval", "--checkpoint", output, "--data-dir", full_mnist, "--json")
        accuracies.append(json.loads(result.stdout)["accuracy"])
    assert np.mean(accuracies) >= least
