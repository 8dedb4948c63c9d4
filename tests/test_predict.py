"""`softmax predict`, as its user sees it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from softmax_cli.checkpoint import Checkpoint, load, save
from softmax_cli.cli import main
from softmax_cli.commands.predict import odds
from softmax_cli.commands.terminal import half_blocks, signed_picture
from softmax_cli.data.dataset import Dataset
from softmax_cli.deskew import deskew
from softmax_cli.features import evidence_of, pixels
from softmax_cli.model import softmax
from softmax_cli.pictures import prepare_picture
from softmax_cli.training import judge
from tests.conftest import PICTURE, assert_fails

Invoke = Callable[..., Result]


def test_a_picture_of_a_seven_is_a_seven(invoke: Invoke, model_file: Path) -> None:
    result = invoke("predict", PICTURE, "-c", model_file)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith(f"{PICTURE}: 7 (")
    assert result.stdout.count("\n") == 1


def test_top_names_more_classes_in_order(invoke: Invoke, model_file: Path) -> None:
    answer = invoke("predict", PICTURE, "-c", model_file, "--top", 3).stdout.strip().rpartition(": ")[2]
    shares = [float(part.partition("(")[2].partition(" ")[0]) for part in answer.split(", ")]
    assert len(shares) == 3
    assert shares == sorted(shares, reverse=True)


def test_json_has_all_probabilities_whatever_top_says(invoke: Invoke, model_file: Path) -> None:
    result = invoke("predict", PICTURE, PICTURE, "-c", model_file, "--top", 2, "--json")
    found = json.loads(result.stdout)
    assert len(found) == 2
    assert list(found[0]) == ["image", "class", "probability", "probabilities", "steps"]
    assert (found[0]["image"], found[0]["class"]) == (str(PICTURE), "7")
    assert list(found[0]["probabilities"]) == list("0123456789")
    assert sum(found[0]["probabilities"].values()) == pytest.approx(1, abs=1e-12)
    assert found[0]["probability"] == max(found[0]["probabilities"].values())


def test_one_by_one_is_as_in_a_batch(
    invoke: Invoke, model_file: Path, trained: Checkpoint, sample_test: Dataset, work: Path
) -> None:
    images = sample_test.images[:50]
    for index, image in enumerate(images):
        Image.fromarray(image).save(f"{index}.png")
    files = [f"{index}.png" for index in range(50)]
    found = json.loads(invoke("predict", *files, "-c", model_file, "--json").stdout)
    batch = evidence_of(trained.state.model, pixels((28, 28)), images).argmax(axis=1)
    assert [int(one["class"]) for one in found] == batch.tolist()


def test_show_draws_what_the_model_saw(invoke: Invoke, model_file: Path) -> None:
    text = invoke("predict", PICTURE, "-c", model_file, "--show").stdout
    assert len([line for line in text.splitlines() if set(line) <= set(" ▀▄█")]) == 14
    assert "what was done: inverted, cropped to " in text


def test_no_invert_takes_the_picture_as_it_is(invoke: Invoke, model_file: Path) -> None:
    steps = json.loads(invoke("predict", PICTURE, "-c", model_file, "--no-invert", "--json").stdout)[0][
        "steps"
    ]
    assert "inverted" not in steps


def test_a_bad_picture_does_not_stop_the_others(invoke: Invoke, model_file: Path, work: Path) -> None:
    Path("bad.png").write_text("no picture")
    result = invoke("predict", PICTURE, "bad.png", PICTURE, "-c", model_file)
    assert (result.exit_code, result.stdout.count(": 7 (")) == (1, 2)
    assert result.stderr.startswith("error: bad.png is not a picture in a known format (PNG, JPEG, ")


@pytest.mark.parametrize("name", ["absent.png", "folder", "empty.png"])
def test_what_is_no_picture_is_one_error(name: str, invoke: Invoke, model_file: Path, work: Path) -> None:
    Path("folder").mkdir()
    Path("empty.png").touch()
    assert_fails(invoke("predict", name, "-c", model_file), name)


def test_debugging_shows_where_a_picture_failed(
    invoke: Invoke, model_file: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for debug in ("0", "1"):
        monkeypatch.setenv("SOFTMAX_DEBUG", debug)
        result = invoke("predict", PICTURE, "absent.png", "-c", model_file)
        assert ("Traceback" in result.stderr) == (debug == "1")
        assert (result.exit_code, result.stderr.count("error: cannot read absent.png")) == (1, 1)


def test_a_blank_picture_is_answered_with_a_warning(invoke: Invoke, model_file: Path, work: Path) -> None:
    Image.new("L", (40, 40), 255).save("blank.png")
    result = invoke("predict", "blank.png", "-c", model_file)
    assert result.exit_code == 0
    assert "warning: blank.png: the picture is blank" in result.stderr


def test_names_with_control_characters_are_escaped(invoke: Invoke, model_file: Path, work: Path) -> None:
    name = "a\nb\x1b[31m.png"
    Path(name).write_bytes(PICTURE.read_bytes())
    text = invoke("predict", name, "-c", model_file).stdout
    assert text.startswith("a\\nb\\x1b[31m.png: 7")
    assert json.loads(invoke("predict", name, "-c", model_file, "--json").stdout)[0]["image"] == name


def test_without_a_checkpoint_it_says_how_to_make_one(invoke: Invoke, work: Path) -> None:
    assert_fails(invoke("predict", PICTURE), "no checkpoint at model.npz", "softmax train")


def test_pictures_for_other_data_sets_are_resized_whole(
    invoke: Invoke, trained: Checkpoint, work: Path
) -> None:
    save(work / "m.npz", replace(trained, preparation="plain"))
    Image.fromarray(np.full((56, 56), 200, np.uint8)).save("gray.png")
    steps = json.loads(invoke("predict", "gray.png", "-c", "m.npz", "--json").stdout)[0]["steps"]
    assert steps == ["inverted", "resized to 28 x 28"]


@pytest.fixture(scope="module")
def upright_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of a model of deskewed pixels."""
    path = tmp_path_factory.mktemp("upright") / "upright.npz"
    line = ["train", "--dataset", "sample", "--features", "deskew", "--epochs", "3", "--output", str(path)]
    assert CliRunner().invoke(main, line).exit_code == 0
    return path


def test_deskewed_pictures_are_shown_as_the_model_sees_them(
    invoke: Invoke, upright_model: Path, model_file: Path
) -> None:
    leaning = invoke("predict", PICTURE, "-c", model_file, "--show").stdout
    upright = invoke("predict", PICTURE, "-c", upright_model, "--show").stdout
    assert ", centred by mass, deskewed\n" in upright
    assert "deskewed" not in leaning
    image = deskew(prepare_picture(PICTURE, (28, 28), "digit").image[None])[0]
    assert upright.startswith(half_blocks(image))
    assert not leaning.startswith(half_blocks(image))


@pytest.mark.parametrize("kind", ["deskew", "fourier"])
def test_pictures_are_predicted_as_eval_judges_their_images(
    invoke: Invoke, sample_test: Dataset, work: Path, kind: str
) -> None:
    more = ("--fourier-dimension", 300) if kind == "fourier" else ()
    invoke("train", "--dataset", "sample", "--features", kind, *more, "--epochs", 3)
    for index, image in enumerate(sample_test.images[:40]):
        Image.fromarray(image).save(f"{index}.png")
    found = json.loads(invoke("predict", *(f"{index}.png" for index in range(40)), "--json").stdout)
    state = load(Path("model.npz")).state
    ((z, _),) = judge(state.model, state.features, sample_test, np.arange(40))
    shares = [list(one["probabilities"].values()) for one in found]
    np.testing.assert_allclose(shares, softmax(z.astype(float)), atol=1e-5)


# Explaining


def test_an_explanation_adds_up(invoke: Invoke, model_file: Path) -> None:
    """In JSON to 1e-9, in words to what is printed."""
    (found,) = json.loads(invoke("predict", PICTURE, "-c", model_file, "--explain", "--json").stdout)
    why = found["explanation"]
    ranked = sorted(found["probabilities"], key=lambda name: -found["probabilities"][name])
    assert [why["class"], why["rather_than"]] == ranked[:2]
    total = sum(map(sum, why["contributions"])) + why["bias_difference"]
    assert abs(total - why["difference"]) < 1e-9
    assert why["difference"] == pytest.approx(why["evidence"]["7"] - why["evidence"][ranked[1]], abs=1e-12)
    shares = softmax(np.array(list(why["evidence"].values())))
    np.testing.assert_allclose(shares, list(found["probabilities"].values()), atol=1e-4)
    text = invoke("predict", PICTURE, "-c", model_file, "--explain").stdout
    assert f"7 rather than {ranked[1]}: {why['difference']:+.1f} of evidence, odds " in text
    assert f"difference of the biases: {why['bias_difference']:+.2f}" in text
    assert f"+ for 7, - for {ranked[1]}, . says little" in text
    lines = text.splitlines()
    heads = [line.split()[0] for line in lines[3:13]]
    assert (lines[2].split()[0], heads) == ("class", list("0123456789"))
    marks = np.array([list(line.ljust(28)) for line in lines[14:42]])
    values = np.array(why["contributions"])
    assert (values[marks == "+"] > 0).all()
    assert (values[marks == "-"] < 0).all()
    assert (marks == "+").any()


def test_an_explanation_has_two_colours_where_there_are_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blue for, red against, the grey of the image where nothing speaks."""
    monkeypatch.setattr("softmax_cli.commands.terminal._has_colour", lambda: True)
    image = np.array([[255, 255], [255, 0]], np.uint8)
    text = signed_picture(image, np.array([[2.0, -2.0], [0.0, 0.0]]))
    blue, red, grey, black = 75, 203, 255, 232
    assert text == f"\x1b[38;5;{blue};48;5;{grey}m▀\x1b[38;5;{red};48;5;{black}m▀\x1b[0m"


def test_fourier_features_are_explained_by_the_gradient(invoke: Invoke, work: Path) -> None:
    invoke("train", "--dataset", "sample", "--features", "fourier", "--fourier-dimension", 100, "--epochs", 1)
    text = invoke("predict", PICTURE, "--explain").stdout
    assert "weighs 100 random Fourier features of deskewed pixels, so that pixels do not add up" in text
    assert "Shown is the gradient, what more ink would do: + for 7, - for " in text
    (found,) = json.loads(invoke("predict", PICTURE, "--explain", "--json").stdout)
    assert np.shape(found["explanation"]["gradient"]) == (28, 28)
    assert "contributions" not in found["explanation"]


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
