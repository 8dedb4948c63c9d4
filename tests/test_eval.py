"""`softmax eval` and `softmax info`: their output for real files."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from softmax_cli.checkpoint import Checkpoint, save_checkpoint
from softmax_cli.classifier import Classifier
from softmax_cli.cli.main import main
from softmax_cli.data.catalog import SAMPLE
from softmax_cli.data.dataset import Dataset
from softmax_cli.model import Model
from softmax_cli.training import start
from tests.helpers import PICTURE, assert_fails, folder_of

Invoke = Callable[..., Result]


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


def test_l7_json_has_the_documented_keys(invoke: Invoke, model_file: Path) -> None:
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


def test_text_shows_the_scores_and_the_confusions(invoke: Invoke, model_file: Path) -> None:
    found = json.loads(invoke("eval", "--checkpoint", model_file, "--json").stdout)
    text = invoke("eval", "--checkpoint", model_file).stdout
    assert f"accuracy {100 * found['accuracy']:.2f} %  (95 % interval " in text
    assert f"loss {found['loss']:.4f}, Brier score {found['brier']:.4f}" in text
    assert "most frequent confusions: " in text
    lines = text.splitlines()
    table = lines[lines.index("confusion (rows: true class, columns: predicted)") + 1 :][:11]
    assert [[int(cell) for cell in line.split()][1:] for line in table[1:]] == found["confusion"]
    assert len({len(line) for line in table}) == 1


@pytest.mark.parametrize(
    ("features", "dimension", "title", "usual"),
    [
        ("pixels", None, "raw pixels", "88 to 91 %"),
        ("deskew", None, "deskewed pixels", "92.5 to 95 %"),
        ("fourier", 1000, "1,000 random Fourier features of deskewed pixels", "95.5 to 98 %"),
        ("fourier", 50, "50 random Fourier features of deskewed pixels", None),
    ],
)
def test_the_accuracy_is_compared_with_the_usual_range_of_the_features(
    features: str, dimension: int | None, title: str, usual: str | None, invoke: Invoke, work: Path
) -> None:
    """No range is known for a small number of Fourier features."""
    more = ("--fourier-dimension", dimension) if dimension else ()
    invoke("train", "--dataset", "sample", "--features", features, *more, "--epochs", 4)
    found = json.loads(invoke("eval", "--json").stdout)
    assert found["features"] == title
    reference = SAMPLE.reference[features.replace("fourier", "deskew,fourier")]
    assert found["reference"] == ([reference.low, reference.high] if usual else None)
    sentence = f"softmax regression on {title} of MNIST sample usually reaches {usual}: this is within"
    assert (sentence in invoke("eval").stdout) == bool(usual)
    assert f"features   {title}" in invoke("info").stdout


def test_the_splits_of_training_are_reproduced(invoke: Invoke, model_file: Path, trained: Checkpoint) -> None:
    best = trained.state.history[trained.state.best_epoch - 1]
    held = json.loads(invoke("eval", "-c", model_file, "--split", "validation", "--json").stdout)
    seen = json.loads(invoke("eval", "-c", model_file, "--split", "train", "--json").stdout)
    assert (held["images"], seen["images"]) == (500, 4500)
    assert held["accuracy"] == best.validation_accuracy
    assert held["loss"] == pytest.approx(best.validation_loss, rel=1e-12)
    assert held["reference"] is None  # only known for the test images


def test_other_data_are_evaluated_with_a_warning(
    invoke: Invoke, trained: Checkpoint, model_file: Path, sample_test: Dataset, tmp_path: Path
) -> None:
    """There is no usual accuracy for them, and there are no validation images."""
    folder = folder_of(tmp_path / "other", sample_test)
    result = invoke("eval", "-c", model_file, "--dataset", folder, "--json")
    assert json.loads(result.stdout)["dataset"] == "other"
    assert "warning: other (digest " in result.stderr
    assert f"is not the data set that {model_file} was trained on: sample (digest " in result.stderr
    path = tmp_path / "m.npz"
    save_checkpoint(path, replace(trained, digest="0" * 64, dataset="elsewhere"))
    assert json.loads(invoke("eval", "-c", path, "--dataset", "sample", "--json").stdout)["reference"] is None


def test_without_validation_images_there_are_no_validation_scores(
    invoke: Invoke, trained: Checkpoint, tmp_path: Path
) -> None:
    path = tmp_path / "m.npz"
    line = ("eval", "-c", path, "--dataset", "sample", "--split", "validation")
    save_checkpoint(path, replace(trained, config=replace(trained.config, validation_size=0.0)))
    assert_fails(invoke(*line), "without validation images; use --split test", code=2)
    save_checkpoint(path, replace(trained, digest="0" * 64, dataset="elsewhere"))
    assert_fails(invoke(*line), "not trained on sample", "use --split test", code=2)


def test_an_untrained_model_has_a_warning(
    invoke: Invoke, trained: Checkpoint, sample: Dataset, tmp_path: Path
) -> None:
    path = tmp_path / "m.npz"
    save_checkpoint(path, replace(trained, state=start(trained.config, sample)))
    for line in (("eval",), ("predict", PICTURE)):
        assert "warning: " in invoke(*line, "-c", path).stderr
        assert "m.npz is not trained" in invoke(*line, "-c", path).stderr
    assert invoke("info", "-c", path).stderr == ""


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"images": np.zeros((4, 20, 28), np.uint8)}, "20 x 28 pixels, expected 28 x 28"),
        ({"labels": np.array([0, 1, 2, 11], np.uint8)}, "odd has the class '11'"),
    ],
)
def test_data_that_do_not_suit_the_model_are_refused(
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


def test_info_describes_a_checkpoint(invoke: Invoke, model_file: Path, trained: Checkpoint) -> None:
    text = invoke("info", "-c", model_file).stdout
    for part in ("data set   sample", "28 x 28", "pixels", "learning-rate 0.5", "epochs     3 of 3", "numpy"):
        assert part in text
    found = json.loads(invoke("info", "-c", model_file, "--json").stdout)
    assert (found["format"], found["epoch"], found["dataset"]["digest"]) == (2, 3, trained.digest)


def test_class_names_cannot_control_the_terminal(invoke: Invoke, trained: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    save_checkpoint(path, replace(trained, class_names=("\x1b[31mred\n", *trained.class_names[1:])))
    for line in (["info"], ["eval"]):
        text = invoke(*line, "-c", path).stdout
        assert "\\x1b[31mred\\n" in text
        assert "\x1b" not in text


@pytest.mark.parametrize(
    "run", [{"seconds": "x"}, {"seconds": None}, {"versions": [1]}, {"versions": {"numpy": 2}}], ids=str
)
def test_invalid_information_about_the_run_is_refused(
    run: dict[str, object], trained: Checkpoint, invoke: Invoke, work: Path
) -> None:
    save_checkpoint("m.npz", replace(trained, run=run))
    assert_fails(invoke("info", "-c", "m.npz"), "m.npz is not a checkpoint")


# Calibration and reliability


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return two models of the sample, equal except that the second is calibrated."""
    folder = tmp_path_factory.mktemp("pair")
    line = ["train", "--dataset", "sample", "--epochs", "30", "--learning-rate", "2", "--features", "deskew"]
    for name, more in (("plain", []), ("calibrated", ["--calibrate"])):
        result = CliRunner().invoke(main, [*line, *more, "--output", str(folder / f"{name}.npz")])
        assert result.exit_code == 0, result.stderr
    return folder / "plain.npz", folder / "calibrated.npz"


def test_calibration_is_shown_before_and_after(invoke: Invoke, pair: tuple[Path, Path]) -> None:
    """The scores before calibration are those of the uncalibrated model; the loss is lower after it."""
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


def test_the_temperature_is_included_in_the_weights(pair: tuple[Path, Path]) -> None:
    """A program that reads the file without this package computes calibrated probabilities."""
    with np.load(pair[0]) as plain, np.load(pair[1]) as calibrated:
        temperature = json.loads(calibrated["meta"].tobytes())["temperature"]
        np.testing.assert_allclose(
            calibrated["weights"] * temperature, plain["weights"], rtol=1e-5, atol=1e-9
        )
        assert calibrated["last_weights"].tobytes() == plain["last_weights"].tobytes()


def test_reliability_is_a_table_of_all_images(
    invoke: Invoke, model_file: Path, trained: Checkpoint, sample_test: Dataset
) -> None:
    """The reference sorts the images into bins one by one."""
    rows = json.loads(invoke("eval", "-c", model_file, "--json").stdout)["reliability"]
    bins: dict[int, list[tuple[float, bool]]] = {}
    for y, label in zip(
        Classifier(trained).predict_proba(sample_test.images), sample_test.labels, strict=True
    ):
        bins.setdefault(min(int(y.max() * 15), 14), []).append((y.max(), y.argmax() == label))
    assert len(rows) == len(bins)
    for found, (index, inside) in zip(rows, sorted(bins.items()), strict=True):
        assert (found["low"], found["high"], found["images"]) == (index / 15, (index + 1) / 15, len(inside))
        assert found["confidence"] == pytest.approx(np.mean([top for top, _ in inside]))
        assert found["accuracy"] == pytest.approx(np.mean([correct for _, correct in inside]))
    plain, text = (invoke("eval", "-c", model_file, *more).stdout for more in ((), ("--reliability",)))
    table = text.removeprefix(plain.rstrip("\n")).strip().splitlines()
    assert table[0].split() == ["confidence", "images", "mean", "correct", "points"]
    assert len(table) == 1 + len(rows)
    assert f" {rows[-1]['images']} " in table[-1]


# Comparing


def test_two_models_are_compared_on_the_same_images(
    invoke: Invoke, model_file: Path, pair: tuple[Path, Path]
) -> None:
    """The reference counts the predictions. Deskewed pixels are significantly better than raw ones."""
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
    better = invoke("eval", "-c", pair[0], "--compare", model_file).stdout
    assert f"{pair[0]} is better; the difference is significant: p = {compared['p_value']:.1g}" in better
    worse = invoke("eval", "-c", model_file, "--compare", pair[0]).stdout
    assert f"{model_file} is worse; the difference is significant: " in worse
    equal = invoke("eval", "-c", pair[0], "--compare", pair[1]).stdout
    assert f"{pair[0]} is equally good: p = 1" in equal
    assert "a difference of +0.00 points (95 % interval -0." in equal


def test_a_comparison_with_itself_has_a_warning(invoke: Invoke, model_file: Path) -> None:
    result = invoke("eval", "-c", model_file, "--compare", model_file)
    assert "warning: the two models are identical" in result.stderr


def test_a_small_difference_is_not_significant(invoke: Invoke, model_file: Path, work: Path) -> None:
    invoke("train", "--dataset", "sample", "--epochs", 3, "--seed", 5)
    assert "; the difference is not significant: p = 0." in invoke("eval", "--compare", model_file).stdout


def test_models_that_cannot_be_compared_are_refused(
    invoke: Invoke, trained: Checkpoint, model_file: Path, work: Path
) -> None:
    save_checkpoint("other.npz", replace(trained, class_names=tuple("abcdefghij")))
    save_checkpoint("flat.npz", replace(trained, image_shape=(14, 56)))
    for name, part in {
        "other.npz": "different classes",
        "absent.npz": "no checkpoint at absent.npz",
        "flat.npz": "expected 14 x 56, on which flat.npz was trained",
    }.items():
        assert_fails(invoke("eval", "-c", model_file, "--compare", name), part)


def another(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint with other parameters."""
    weights, bias = checkpoint.state.model
    return replace(checkpoint, state=replace(checkpoint.state, model=Model(2 * weights, 2 * bias)))


@pytest.mark.parametrize(
    ("change", "is_fair"),
    [
        ({"validation_size": 0.2}, False),
        ({"seed": 5}, False),
        ({"l2": 0.0}, True),
        ({}, False),
    ],
    ids=str,
)
def test_a_comparison_on_images_that_one_model_was_trained_on_has_a_warning(
    change: dict[str, float],
    is_fair: bool,
    invoke: Invoke,
    trained: Checkpoint,
    model_file: Path,
    work: Path,
) -> None:
    """If `change` is empty, the second model was trained on another data set."""
    other = replace(another(trained), config=replace(trained.config, **change))
    save_checkpoint("other.npz", other if change else replace(other, digest="0" * 64))
    for split in ("test", "validation", "train"):
        result = invoke("eval", "-c", model_file, "--compare", "other.npz", "--split", split)
        assert ("only --split test is a fair test" in result.stderr) == (split != "test" and not is_fair)
        assert ("is not the data set that other.npz was trained on" in result.stderr) == (not change)


def test_models_without_validation_images_are_compared_on_the_training_images(
    invoke: Invoke, trained: Checkpoint, work: Path
) -> None:
    """The seeds of the two runs have no effect."""
    for name, model, seed in (("one.npz", trained, 0), ("two.npz", another(trained), 3)):
        config = replace(trained.config, validation_size=0.0, seed=seed)
        save_checkpoint(name, replace(model, config=config))
    result = invoke("eval", "-c", "one.npz", "--compare", "two.npz", "--split", "train")
    assert (result.exit_code, result.stderr) == (0, "")
