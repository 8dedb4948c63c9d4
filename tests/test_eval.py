"""`softmax eval` and `softmax info`, as their user sees them."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from softmax_cli.checkpoint import Checkpoint, save
from softmax_cli.data.catalog import SAMPLE
from softmax_cli.data.dataset import Dataset
from softmax_cli.data.idx import write_idx
from tests.conftest import assert_fails

Invoke = Callable[..., Result]


def folder_of(path: Path, data: Dataset) -> Path:
    """Write a data set whose two splits are both `data` into a folder."""
    path.mkdir()
    for split in ("train", "t10k"):
        write_idx(path / f"{split}-images-idx3-ubyte", data.images)
        write_idx(path / f"{split}-labels-idx1-ubyte", data.labels)
    return path


def test_json_agrees_with_four_lines_of_numpy(invoke: Invoke, model_file: Path, sample_test: Dataset) -> None:
    result = invoke("eval", "--checkpoint", model_file, "--json")
    found = json.loads(result.stdout)
    with np.load(model_file) as file:
        x = sample_test.images.reshape(-1, 784) / 255
        predicted = (x @ file["weights"] + file["bias"]).argmax(axis=1)
    assert found["accuracy"] == (predicted == sample_test.labels).mean()
    assert found["confusion"] == [
        [int(((sample_test.labels == i) & (predicted == j)).sum()) for j in range(10)] for i in range(10)
    ]


def test_json_has_the_promised_keys(invoke: Invoke, model_file: Path) -> None:
    found = json.loads(invoke("eval", "--checkpoint", model_file, "--json").stdout)
    keys = "dataset split images accuracy accuracy_interval loss brier ece reference per_class confusion"
    assert list(found) == keys.split()
    assert list(found["per_class"][0]) == ["class", "precision", "recall", "f1", "images"]
    assert (found["dataset"], found["split"], found["images"]) == ("sample", "test", 1000)
    low, high = found["accuracy_interval"]
    assert low < found["accuracy"] < high
    assert found["reference"] == list(SAMPLE.reference["pixels"])


def test_text_names_the_scores_the_band_and_the_worst_confusions(invoke: Invoke, model_file: Path) -> None:
    found = json.loads(invoke("eval", "--checkpoint", model_file, "--json").stdout)
    text = invoke("eval", "--checkpoint", model_file).stdout
    assert f"accuracy {100 * found['accuracy']:.2f} %  (95 % interval " in text
    assert f"loss {found['loss']:.4f}, Brier score {found['brier']:.4f}" in text
    assert "raw MNIST sample pixels usually reaches 88 to 91 %: this is as usual" in text
    assert "most often: " in text
    lines = text.splitlines()
    table = lines[lines.index("confusion (rows: true class, columns: predicted)") + 1 :][:11]
    assert [[int(cell) for cell in line.split()][1:] for line in table[1:]] == found["confusion"]
    assert len({len(line) for line in table}) == 1


def test_the_splits_of_training_are_drawn_again(
    invoke: Invoke, model_file: Path, trained: Checkpoint
) -> None:
    best = trained.state.history[trained.state.best_epoch - 1]
    held = json.loads(invoke("eval", "-c", model_file, "--split", "validation", "--json").stdout)
    seen = json.loads(invoke("eval", "-c", model_file, "--split", "train", "--json").stdout)
    assert (held["images"], seen["images"]) == (500, 4500)
    assert held["accuracy"] == best.validation_accuracy
    assert held["loss"] == pytest.approx(best.validation_loss, rel=1e-12)
    assert held["reference"] is None


def test_without_a_split_there_is_nothing_to_validate_on(
    invoke: Invoke, trained: Checkpoint, tmp_path: Path
) -> None:
    path = tmp_path / "m.npz"
    save(path, replace(trained, config=replace(trained.config, validation_size=0.0)))
    assert_fails(invoke("eval", "-c", path, "--split", "validation"), "without a validation split", code=2)


def test_a_folder_must_be_told(invoke: Invoke, trained: Checkpoint, sample: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    save(path, replace(trained, dataset="my digits"))
    assert_fails(invoke("eval", "-c", path), "'my digits'", "--dataset", code=2)


def test_other_data_are_judged_and_that_is_said(
    invoke: Invoke, model_file: Path, sample_test: Dataset, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path / "other", sample_test)
    result = invoke("eval", "-c", model_file, "--dataset", folder, "--json")
    assert json.loads(result.stdout)["dataset"] == "other"
    assert "warning: other (digest " in result.stderr
    assert "is not the data that the model was trained on" in result.stderr


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"images": np.zeros((4, 20, 28), np.uint8)}, "20 x 28 pixels, expected 28 x 28"),
        ({"labels": np.array([0, 1, 2, 11], np.uint8)}, "12 classes, expected at most the 10"),
    ],
)
def test_data_that_the_model_cannot_see_are_refused(
    change: dict[str, np.ndarray],
    part: str,
    invoke: Invoke,
    model_file: Path,
    sample: Dataset,
    tmp_path: Path,
) -> None:
    first = replace(sample, images=sample.images[:4], labels=sample.labels[:4])
    folder = folder_of(tmp_path / "odd", replace(first, **change))
    assert_fails(invoke("eval", "-c", model_file, "--dataset", folder), part)


def test_no_checkpoint_says_how_to_make_one(invoke: Invoke, work: Path) -> None:
    assert_fails(invoke("eval"), "no checkpoint at model.npz", "softmax train")
    assert_fails(invoke("eval", "-c", "x.npz"), "softmax train --output x.npz")


def test_the_environment_names_the_checkpoint(
    invoke: Invoke, model_file: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOFTMAX_CHECKPOINT", str(model_file))
    assert invoke("info").stdout.startswith(f"{model_file}: checkpoint of softmax")


def test_info_says_what_is_in_a_checkpoint(invoke: Invoke, model_file: Path, trained: Checkpoint) -> None:
    text = invoke("info", "-c", model_file).stdout
    for part in ("data set   sample", "28 x 28", "pixels", "learning-rate 0.5", "epochs     3 of 3", "numpy"):
        assert part in text
    found = json.loads(invoke("info", "-c", model_file, "--json").stdout)
    assert (found["format"], found["epoch"], found["dataset"]["digest"]) == (1, 3, trained.digest)


def test_names_from_a_file_cannot_drive_the_terminal(
    invoke: Invoke, trained: Checkpoint, tmp_path: Path
) -> None:
    path = tmp_path / "m.npz"
    save(path, replace(trained, class_names=("\x1b[31mred\n", *trained.class_names[1:])))
    for line in (["info"], ["eval"]):
        text = invoke(*line, "-c", path).stdout
        assert "\\x1b[31mred\\n" in text
        assert "\x1b" not in text
