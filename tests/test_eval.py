"""`softmax eval` and `softmax info`, as their user sees them."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from softmax_cli.checkpoint import Checkpoint, save
from softmax_cli.cli import main
from softmax_cli.data.catalog import SAMPLE
from softmax_cli.data.dataset import Dataset
from softmax_cli.data.idx import write_idx
from softmax_cli.features import evidence_of
from softmax_cli.model import softmax
from softmax_cli.training import start
from tests.conftest import PICTURE, assert_fails

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
    keys = (
        "dataset split images features accuracy accuracy_interval loss brier ece temperature "
        "before_calibration reference per_class confusion reliability compare"
    )
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
    assert "raw pixels of MNIST sample usually reaches 88 to 91 %: this is as usual" in text
    assert "most often: " in text
    lines = text.splitlines()
    table = lines[lines.index("confusion (rows: true class, columns: predicted)") + 1 :][:11]
    assert [[int(cell) for cell in line.split()][1:] for line in table[1:]] == found["confusion"]
    assert len({len(line) for line in table}) == 1


def test_the_features_are_named_and_have_a_band_of_their_own(invoke: Invoke, work: Path) -> None:
    for kind, name in (
        ("deskew", "deskewed pixels"),
        ("fourier", "1,000 random Fourier features of deskewed"),
    ):
        more = ("--fourier-dimension", 1000) if kind == "fourier" else ()
        invoke("train", "--dataset", "sample", "--features", kind, *more, "--epochs", 4)
        found = json.loads(invoke("eval", "--json").stdout)
        assert found["features"].startswith(name)
        assert found["reference"] == list(SAMPLE.reference[kind])
        assert f"softmax regression on {name}" in invoke("eval").stdout
        assert f"features   {name}" in invoke("info").stdout
    invoke("train", "--dataset", "sample", "--features", "fourier", "--fourier-dimension", 50, "--epochs", 1)
    assert json.loads(invoke("eval", "--json").stdout)["reference"] is None  # so few can do what they can


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
    assert f"is not the data that {model_file} was trained on" in result.stderr


def test_other_data_have_no_band_and_nothing_of_them_was_held_out(
    invoke: Invoke, trained: Checkpoint, model_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "m.npz"
    save(path, replace(trained, digest="0" * 64, dataset="elsewhere"))
    assert json.loads(invoke("eval", "-c", path, "--dataset", "sample", "--json").stdout)["reference"] is None
    result = invoke("eval", "-c", path, "--dataset", "sample", "--split", "validation")
    assert_fails(result, "nothing of sample was seen in training; judge it with --split test", code=2)


def test_a_model_that_has_learned_nothing_is_called_so(
    invoke: Invoke, trained: Checkpoint, sample: Dataset, tmp_path: Path
) -> None:
    path = tmp_path / "m.npz"
    save(path, replace(trained, state=start(trained.config, sample)))
    for line in (("eval",), ("predict", PICTURE)):
        assert "m.npz has not learned anything yet" in invoke(*line, "-c", path).stderr
    assert invoke("info", "-c", path).stderr == ""


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


# Calibration and reliability


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return two models of the sample that differ in one thing: the second was calibrated."""
    folder = tmp_path_factory.mktemp("pair")
    line = ["train", "--dataset", "sample", "--epochs", "30", "--learning-rate", "2", "--features", "deskew"]
    for name, more in (("plain", []), ("calibrated", ["--calibrate"])):
        result = CliRunner().invoke(main, [*line, *more, "--output", str(folder / f"{name}.npz")])
        assert result.exit_code == 0, result.stderr
    return folder / "plain.npz", folder / "calibrated.npz"


def test_calibration_is_shown_before_and_after(invoke: Invoke, pair: tuple[Path, Path]) -> None:
    """Before it, the scores are those of the run without it; after it, on what it was fitted to, better."""
    plain, calibrated = (
        json.loads(invoke("eval", "-c", path, "--split", "validation", "--json").stdout) for path in pair
    )
    assert (plain["temperature"], plain["before_calibration"]) == (1.0, None)
    assert calibrated["temperature"] > 1.05
    assert calibrated["accuracy"] == plain["accuracy"]
    for key, value in calibrated["before_calibration"].items():
        assert value == pytest.approx(plain[key], rel=1e-4)
    assert calibrated["loss"] < plain["loss"]
    text = invoke("eval", "-c", pair[1]).stdout
    assert f"before calibration (temperature {calibrated['temperature']:.3f}): loss " in text
    assert (
        f"calibrated with temperature {calibrated['temperature']:.4f}" in invoke("info", "-c", pair[1]).stdout
    )
    assert "before calibration" not in invoke("eval", "-c", pair[0]).stdout


def test_the_temperature_is_in_the_weights(pair: tuple[Path, Path]) -> None:
    """Whoever reads the file without this package gets calibrated probabilities."""
    with np.load(pair[0]) as plain, np.load(pair[1]) as calibrated:
        temperature = json.loads(calibrated["meta"].tobytes())["temperature"]
        np.testing.assert_allclose(
            calibrated["weights"] * temperature, plain["weights"], rtol=1e-5, atol=1e-9
        )
        assert calibrated["last_weights"].tobytes() == plain["last_weights"].tobytes()


def test_calibration_without_a_split_is_wrong_usage(invoke: Invoke, work: Path) -> None:
    result = invoke("train", "--dataset", "sample", "--calibrate", "--validation-size", 0)
    assert_fails(result, "calibrate needs images held out", code=2)
    assert list(work.iterdir()) == []


def test_reliability_is_a_table_of_all_images(
    invoke: Invoke, model_file: Path, trained: Checkpoint, sample_test: Dataset
) -> None:
    """Against the images sorted into bins one by one."""
    rows = json.loads(invoke("eval", "-c", model_file, "--json").stdout)["reliability"]
    z = evidence_of(trained.state.model, trained.state.features, sample_test.images).astype(float)
    y = softmax(z)
    bins: dict[int, list[tuple[float, bool]]] = {}
    for row, label in zip(y, sample_test.labels, strict=True):
        bins.setdefault(min(int(row.max() * 15), 14), []).append((row.max(), row.argmax() == label))
    assert len(rows) == len(bins)
    for found, (index, inside) in zip(rows, sorted(bins.items()), strict=True):
        assert (found["low"], found["high"], found["images"]) == (index / 15, (index + 1) / 15, len(inside))
        assert found["confidence"] == pytest.approx(np.mean([top for top, _ in inside]))
        assert found["accuracy"] == pytest.approx(np.mean([right for _, right in inside]))
    text = invoke("eval", "-c", model_file, "--reliability").stdout
    table = text[text.index("sure by") :].splitlines()
    assert len(table) == 1 + len(rows)
    assert f" {rows[-1]['images']} " in table[-1]
    assert "sure by" not in invoke("eval", "-c", model_file).stdout


# Comparing


def test_two_models_are_compared_on_the_same_images(
    invoke: Invoke, model_file: Path, pair: tuple[Path, Path]
) -> None:
    """Against counting; deskewed pixels are better than raw ones, and not by chance."""
    found = json.loads(invoke("eval", "-c", pair[0], "--compare", model_file, "--json").stdout)
    other = json.loads(invoke("eval", "-c", model_file, "--json").stdout)
    compared = found["compare"]
    assert (compared["checkpoint"], compared["accuracy"]) == (str(model_file), other["accuracy"])
    assert compared["difference"] == pytest.approx(found["accuracy"] - other["accuracy"], abs=1e-12)
    only = compared["only_this_right"] - compared["only_other_right"]
    assert only == round(1000 * compared["difference"])
    low, high = compared["difference_interval"]
    assert 0 < low < compared["difference"] < high
    assert compared["p_value"] < 0.01
    text = invoke("eval", "-c", pair[0], "--compare", model_file).stdout
    assert f"{pair[0]} is better, and not by chance: p = {compared['p_value']:.1g}" in text
    assert (
        f"{model_file} is worse, and not by chance"
        in invoke("eval", "-c", model_file, "--compare", pair[0]).stdout
    )


def test_a_model_is_as_good_as_itself(invoke: Invoke, pair: tuple[Path, Path]) -> None:
    text = invoke("eval", "-c", pair[0], "--compare", pair[1]).stdout
    assert f"{pair[0]} is as good: p = 1" in text
    assert "a difference of +0.00 points (95 % interval -0." in text


def test_a_small_difference_may_be_chance(invoke: Invoke, model_file: Path, work: Path) -> None:
    invoke("train", "--dataset", "sample", "--epochs", 3, "--seed", 5)
    text = invoke("eval", "--compare", model_file).stdout
    assert "but that may be chance: p = 0." in text or "is as good" in text


def test_models_of_other_classes_or_shapes_cannot_be_compared(
    invoke: Invoke, trained: Checkpoint, model_file: Path, work: Path
) -> None:
    save(work / "other.npz", replace(trained, class_names=tuple("abcdefghij")))
    assert_fails(invoke("eval", "-c", model_file, "--compare", "other.npz"), "do not know the same classes")
    assert_fails(invoke("eval", "-c", model_file, "--compare", "absent.npz"), "no checkpoint at absent.npz")


def test_what_is_not_fair_or_cannot_be_judged_is_said_of_the_model_it_is_true_of(
    invoke: Invoke, trained: Checkpoint, model_file: Path, work: Path
) -> None:
    """Unfair: another share held out, other data. Fair: another seed, where nothing is held out."""
    changes = {
        "larger": {"config": replace(trained.config, validation_size=0.2)},
        "other": {"digest": "0" * 64, "dataset": "elsewhere"},
        "whole": {"config": replace(trained.config, validation_size=0.0)},
        "seed": {"config": replace(trained.config, validation_size=0.0, seed=3)},
        "flat": {"image_shape": (14, 56)},
    }
    for name, change in changes.items():
        save(work / f"{name}.npz", replace(trained, **change))
    for name in ("larger", "other"):
        for split in ("train", "validation"):
            result = invoke("eval", "-c", model_file, "--compare", f"{name}.npz", "--split", split)
            assert "only --split test is fair" in result.stderr
    assert "is not the data that other.npz was trained on" in result.stderr
    fair = invoke(
        "eval", "-c", "whole.npz", "--compare", "seed.npz", "--dataset", "sample", "--split", "train"
    )
    assert (fair.exit_code, fair.stderr) == (0, "")
    result = invoke("eval", "-c", model_file, "--compare", "flat.npz")
    assert_fails(result, "expected 14 x 56 as flat.npz was trained on")


def test_a_comparison_on_images_that_one_was_trained_on_is_called_unfair(
    invoke: Invoke, model_file: Path, work: Path
) -> None:
    invoke("train", "--dataset", "sample", "--epochs", 1, "--seed", 5)
    result = invoke("eval", "--compare", model_file, "--split", "validation")
    assert "only --split test is fair to both" in result.stderr
    assert "fair" not in invoke("eval", "--compare", model_file).stderr
