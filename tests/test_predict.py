"""`softmax predict`: predictions, drawings and explanations of real pictures."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from softmax_cli import Classifier
from softmax_cli.checkpoint import Checkpoint, save_checkpoint
from softmax_cli.cli.predict import odds
from softmax_cli.cli.terminal import half_blocks, signed_picture
from softmax_cli.data.dataset import Dataset
from softmax_cli.features.deskew import deskew
from softmax_cli.model import softmax
from tests.helpers import PICTURE, assert_fails

Invoke = Callable[..., Result]


def test_a_picture_of_a_seven_is_predicted_as_seven(invoke: Invoke, model_file: Path) -> None:
    result = invoke("predict", PICTURE, "-c", model_file)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith(f"{PICTURE}: 7 (")
    assert result.stdout.count("\n") == 1


def test_top_names_more_classes_in_order(invoke: Invoke, model_file: Path) -> None:
    answer = invoke("predict", PICTURE, "-c", model_file, "--top", 3).stdout.strip().rpartition(": ")[2]
    shares = [float(part.partition("(")[2].partition(" ")[0]) for part in answer.split(", ")]
    assert len(shares) == 3
    assert shares == sorted(shares, reverse=True)


def test_json_has_all_probabilities_for_any_top(invoke: Invoke, model_file: Path) -> None:
    result = invoke("predict", PICTURE, PICTURE, "-c", model_file, "--top", 2, "--json")
    found = json.loads(result.stdout)
    assert len(found) == 2
    assert list(found[0]) == ["image", "class", "probability", "probabilities", "steps", "warnings"]
    assert (found[0]["image"], found[0]["class"]) == (str(PICTURE), "7")
    assert list(found[0]["probabilities"]) == list("0123456789")
    assert sum(found[0]["probabilities"].values()) == pytest.approx(1, abs=1e-12)
    assert found[0]["probability"] == max(found[0]["probabilities"].values())


@pytest.mark.parametrize("features", ["pixels", "deskew", "fourier"])
def test_n7_pictures_are_predicted_as_the_images_of_the_data_set(
    invoke: Invoke, sample_test: Dataset, work: Path, features: str
) -> None:
    more = ("--fourier-dimension", 300) if features == "fourier" else ()
    invoke("train", "--dataset", "sample", "--features", features, *more, "--epochs", 3)
    for index, image in enumerate(sample_test.images[:40]):
        Image.fromarray(image).save(f"{index}.png")
    files = [f"{index}.png" for index in range(40)]
    found = json.loads(invoke("predict", *files, "--explain", "--json").stdout)
    expected = Classifier.load("model.npz").predict_proba(sample_test.images[:40])
    shares = [list(one["probabilities"].values()) for one in found]
    np.testing.assert_allclose(shares, expected, atol=1e-5)
    assert [int(one["class"]) for one in found] == expected.argmax(axis=1).tolist()
    evidence = np.array([list(one["explanation"]["evidence"].values()) for one in found])
    np.testing.assert_allclose(softmax(evidence), expected, atol=1e-4)


def test_show_draws_the_input_of_the_model(invoke: Invoke, model_file: Path) -> None:
    text = invoke("predict", PICTURE, "-c", model_file, "--show").stdout
    assert len([line for line in text.splitlines() if set(line) <= set(" ▀▄█")]) == 14
    assert "preparation: inverted, cropped to " in text


def test_no_invert_keeps_the_polarity(invoke: Invoke, model_file: Path) -> None:
    (found,) = json.loads(invoke("predict", PICTURE, "-c", model_file, "--no-invert", "--json").stdout)
    assert "inverted" not in found["steps"]


def test_i7_i13_a_bad_picture_does_not_stop_the_others(
    invoke: Invoke, model_file: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is one line; its traceback is printed only if SOFTMAX_DEBUG is 1."""
    Path("bad.png").write_text("no picture")
    Path("folder").mkdir()
    Path("empty.png").touch()
    for name in ("bad.png", "folder", "empty.png", "absent.png"):
        assert_fails(invoke("predict", name, "-c", model_file), name)
        result = invoke("predict", PICTURE, name, PICTURE, "-c", model_file)
        assert (result.exit_code, result.stdout.count(": 7 (")) == (1, 2)
    monkeypatch.setenv("SOFTMAX_DEBUG", "1")
    result = invoke("predict", PICTURE, "bad.png", "-c", model_file)
    assert "Traceback" in result.stderr
    assert (result.exit_code, result.stderr.count("error: bad.png is not a picture in a known format")) == (
        1,
        1,
    )


def test_i16_a_blank_picture_has_no_class_and_a_warning(invoke: Invoke, model_file: Path, work: Path) -> None:
    Image.new("L", (40, 40), 255).save("blank.png")
    result = invoke("predict", "blank.png", "-c", model_file)
    assert result.exit_code == 0
    assert result.stdout == "blank.png: no digit found\n"
    assert result.stderr == "warning: blank.png: the picture is blank\n"
    for option in ((), ("--explain",), ("--many",)):
        (found,) = json.loads(invoke("predict", "blank.png", "-c", model_file, "--json", *option).stdout)
        assert (found["class"], found["probability"], found["probabilities"]) == (None, None, {})
        assert len(found["warnings"]) == 1


def test_names_with_control_characters_are_escaped(invoke: Invoke, model_file: Path, work: Path) -> None:
    name = "a\nb\x1b[31m.png"
    Path(name).write_bytes(PICTURE.read_bytes())
    text = invoke("predict", name, "-c", model_file).stdout
    assert text.startswith("a\\nb\\x1b[31m.png: 7")
    assert json.loads(invoke("predict", name, "-c", model_file, "--json").stdout)[0]["image"] == name


def test_pictures_for_other_data_sets_are_resized_without_cropping(
    invoke: Invoke, trained: Checkpoint, work: Path
) -> None:
    save_checkpoint(work / "m.npz", replace(trained, preparation="plain"))
    Image.fromarray(np.full((56, 56), 200, np.uint8)).save("gray.png")
    steps = json.loads(invoke("predict", "gray.png", "-c", "m.npz", "--json").stdout)[0]["steps"]
    assert steps == ["inverted", "resized to 28 x 28"]


def test_deskewed_pictures_are_shown_deskewed(invoke: Invoke, model_file: Path, work: Path) -> None:
    invoke("train", "--dataset", "sample", "--features", "deskew", "--epochs", 1)
    without = invoke("predict", PICTURE, "-c", model_file, "--show").stdout
    deskewed = invoke("predict", PICTURE, "--show").stdout
    assert ", deskewed\n" in deskewed
    assert "deskewed" not in without
    image = half_blocks(deskew(Classifier.load(model_file).prepare(PICTURE).image[None])[0])
    assert deskewed.startswith(image)
    assert not without.startswith(image)


# Explanations


def test_an_explanation_adds_up(invoke: Invoke, model_file: Path) -> None:
    """JSON adds up within 1e-9, text within the printed digits."""
    (found,) = json.loads(invoke("predict", PICTURE, "-c", model_file, "--explain", "--json").stdout)
    why = found["explanation"]
    ranked = sorted(found["probabilities"], key=lambda name: -found["probabilities"][name])
    assert [why["class"], why["rather_than"]] == ranked[:2]
    total = sum(map(sum, why["contributions"])) + why["blank_difference"]
    assert why["blank_difference"] == why["bias_difference"]
    assert abs(total - why["difference"]) < 1e-9
    assert why["difference"] == pytest.approx(why["evidence"]["7"] - why["evidence"][ranked[1]], abs=1e-12)
    shares = softmax(np.array(list(why["evidence"].values())))
    np.testing.assert_allclose(shares, list(found["probabilities"].values()), atol=1e-4)
    text = invoke("predict", PICTURE, "-c", model_file, "--explain").stdout
    assert f"7 against {ranked[1]}: difference of evidence {why['difference']:+.1f}, odds " in text
    assert f"difference for a blank image: {why['blank_difference']:+.2f}" in text
    assert f"+ for 7, - for {ranked[1]}, . little effect" in text
    lines = text.splitlines()
    heads = [line.split()[0] for line in lines[3:13]]
    assert (lines[2].split()[0], heads) == ("class", list("0123456789"))
    marks = np.array([list(line.ljust(28)) for line in lines[14:42]])
    values = np.array(why["contributions"])
    assert (values[marks == "+"] > 0).all()
    assert (values[marks == "-"] < 0).all()
    assert (marks == "+").any()


def test_an_explanation_is_blue_and_red_on_a_terminal_with_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixels with little effect are grey."""
    monkeypatch.setattr("softmax_cli.cli.terminal._has_colour", lambda: True)
    image = np.array([[255, 255], [255, 0]], np.uint8)
    text = signed_picture(image, np.array([[2.0, -2.0], [0.0, 0.0]]))
    blue, red, grey, black = 75, 203, 255, 232
    assert text == f"\x1b[38;5;{blue};48;5;{grey}m▀\x1b[38;5;{red};48;5;{black}m▀\x1b[0m"


def test_explanations_of_other_features_add_up_within_a_stated_error(invoke: Invoke, work: Path) -> None:
    invoke("train", "--dataset", "sample", "--features", "fourier", "--fourier-dimension", 100, "--epochs", 1)
    (found,) = json.loads(invoke("predict", PICTURE, "--explain", "--json").stdout)
    why = found["explanation"]
    change = why["difference"] - why["blank_difference"]
    error = sum(map(sum, why["contributions"])) / change - 1
    assert abs(why["completeness_error"]) < 0.01
    assert abs(error) == pytest.approx(abs(why["completeness_error"]), abs=1e-9)


@pytest.mark.parametrize(
    ("difference", "text"),
    [
        (0.0, "1.0"),
        (0.5, "1.6"),
        (4.1, "60"),
        (7.3, "1,500"),
        (13.0, "440,000"),
        (30.0, "1e+13"),
        (1e4, "1e+304"),
    ],
)
def test_odds_are_powers_of_e_in_two_digits(difference: float, text: str) -> None:
    assert odds(difference) == text
