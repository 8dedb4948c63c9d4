"""`softmax predict`, as its user sees it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from softmax_cli.checkpoint import Checkpoint, save
from softmax_cli.data.dataset import Dataset
from softmax_cli.features import evidence_of, pixels
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
    assert result.stderr == "error: bad.png is not a PNG or JPEG picture\n"


@pytest.mark.parametrize("name", ["absent.png", "folder", "empty.png"])
def test_what_is_no_picture_is_one_error(name: str, invoke: Invoke, model_file: Path, work: Path) -> None:
    Path("folder").mkdir()
    Path("empty.png").touch()
    assert_fails(invoke("predict", name, "-c", model_file), name)


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
