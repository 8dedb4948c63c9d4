"""`softmax predict` on folders, standard input, many pictures and several digits."""

import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from tqdm import tqdm

from softmax_cli import Classifier, predict_pictures, train
from softmax_cli.backend import map_processes
from softmax_cli.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from softmax_cli.cli.main import main
from softmax_cli.config import TrainConfig
from softmax_cli.data.dataset import Dataset
from softmax_cli.errors import CheckpointError
from softmax_cli.pictures import find_pictures
from tests.drawing import draw_kind, draw_other, draw_row
from tests.helpers import PICTURE, assert_equal_runs, assert_fails, names, unprivileged

Invoke = Callable[..., Result]


@pytest.fixture(autouse=True)
def single_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """End the thread that a progress bar has left: with it, processes are spawned, which takes longer."""
    if tqdm.monitor:
        tqdm.monitor.exit()
    monkeypatch.setattr(tqdm, "monitor", None)
    monkeypatch.setattr(tqdm, "monitor_interval", 0)


@pytest.fixture
def pictures(sample_test: Dataset, work: Path) -> Path:
    """Return a folder of 30 pictures, the third of which is no picture."""
    folder = work / "pictures"
    folder.mkdir()
    for index in range(30):
        content = draw_kind("pen 8", sample_test.images[index], index) if index != 2 else b"no picture"
        (folder / f"{index:02}.png").write_bytes(content)
    return folder


# Inputs


def test_a_folder_stands_for_its_pictures_sorted_by_name(
    invoke: Invoke, model_file: Path, work: Path
) -> None:
    """A picture is known by its name or its content; hidden files, other files and folders are skipped."""
    folder = work / "in"
    folder.joinpath("deeper.png").mkdir(parents=True)
    for name in ("b.png", "a.JPG", "picture", ".hidden.png"):
        (folder / name).write_bytes(PICTURE.read_bytes())
    (folder / "notes.txt").write_text("no picture")
    result = invoke("predict", "in", PICTURE, "-c", model_file, "--json")
    assert result.exit_code == 0, result.stderr
    found = [item["image"] for item in json.loads(result.stdout)]
    assert found == ["in/a.JPG", "in/b.png", "in/picture", str(PICTURE)]
    assert found[:3] == [str(path) for path in find_pictures("in")]


def test_a_folder_without_pictures_is_an_error(invoke: Invoke, model_file: Path, work: Path) -> None:
    (work / "empty").mkdir()
    assert_fails(invoke("predict", "empty", "-c", model_file), "no pictures in the folder empty")


def test_a_dash_stands_for_standard_input(model_file: Path) -> None:
    def predict(content: bytes, *options: str) -> Result:
        return CliRunner().invoke(main, ["predict", "-", "-c", str(model_file), *options], input=content)

    assert predict(PICTURE.read_bytes()).stdout.startswith("-: 7 (")
    assert json.loads(predict(PICTURE.read_bytes(), "--json").stdout)[0]["image"] == "-"
    assert_fails(predict(b"text"), "standard input: the picture is not a picture in a known format")
    assert_fails(predict(b""), "standard input: the picture is empty")


def test_a_url_is_answered_with_the_command_that_reads_it(invoke: Invoke, model_file: Path) -> None:
    url = "https://example.com/a b.png?c=1&d=2"
    result = invoke("predict", url, "-c", model_file)
    assert_fails(result, f"{url} is a URL; run: curl -sSL '{url}' | softmax predict -")


@pytest.mark.parametrize(
    "kind", [str, Path, lambda path: Path(path).read_bytes()], ids=["str", "Path", "bytes"]
)
def test_a_classifier_takes_paths_and_bytes(model_file: Path, kind: Callable[[Path], Any]) -> None:
    classifier = Classifier.load(model_file)
    assert classifier.predict_picture(kind(PICTURE)).class_name == "7"
    assert [one.class_name for one in classifier.predict_digits(kind(PICTURE))] == ["7"]


# Failures


def test_i7_i13_a_picture_that_cannot_be_read_is_an_item_with_its_error(
    invoke: Invoke, model_file: Path, work: Path
) -> None:
    """The others are answered, in order; the exit code is 1."""
    for folder in (work, *work.parents[:2]):
        folder.chmod(0o755)
    Path("model.npz").write_bytes(model_file.read_bytes())
    Path("good.png").write_bytes(PICTURE.read_bytes())
    Path("locked.png").write_bytes(PICTURE.read_bytes())
    Path("locked.png").chmod(0)
    Path("bad.png").write_text("no picture")
    names = ("good.png", "locked.png", "absent.png", "bad.png", "good.png")
    with unprivileged():
        result = invoke("predict", *names, "-c", "model.npz", "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 1
    assert [item["image"] for item in found] == list(names)
    assert [item.get("class") for item in found] == ["7", None, None, None, "7"]
    for item, error in zip(found[1:4], result.stderr.splitlines(), strict=True):
        assert list(item) == ["image", "error"]
        assert error == f"error: {item['error']}"


def test_i11_a_picture_without_enough_memory_does_not_stop_the_others(
    invoke: Invoke, model_file: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, and in others."""
    from softmax_cli import pictures as package

    prepare = package.prepare_picture

    def failing(source: Any, *more: Any) -> Any:
        if Path(source).name == "05.png":
            raise MemoryError
        return prepare(source, *more)

    monkeypatch.setattr(package, "prepare_picture", failing)
    for threads in ("1", "2"):
        monkeypatch.setenv("SOFTMAX_THREADS", threads)
        result = invoke("predict", pictures, "-c", model_file)
        assert (result.exit_code, result.stdout.count("\n")) == (1, 28)
        assert "05.png is too large for the memory of this machine" in result.stderr


# Processes


def _double_or_end(item: int) -> int:
    if item == 13:
        os._exit(9)
    return 2 * item


def _process(item: int) -> int:
    time.sleep(0.005)
    return os.getpid()


def _slow(item: int) -> float:
    time.sleep(0.02)
    return time.time()


def test_results_of_processes_are_in_order() -> None:
    assert list(map_processes(str, range(100), repr, 3)) == [str(item) for item in range(100)]
    assert len(set(map_processes(_process, range(100), hash, 3)) - {os.getpid()}) > 1


def test_i11_an_item_that_ends_its_process_has_the_result_for_lost_items() -> None:
    expected = [-1 if item == 13 else 2 * item for item in range(60)]
    assert list(map_processes(_double_or_end, range(60), lambda item: -1, 2)) == expected


def test_processes_are_only_a_few_items_ahead() -> None:
    results = map_processes(_slow, range(200), float, 2)
    next(results)
    time.sleep(0.7)
    asked = time.time()
    assert list(results)[-1] > asked


def test_without_processes_this_one_does_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(os, "fork", refuse)
    assert set(map_processes(_process, range(40), hash, 2)) == {os.getpid()}


def test_answers_do_not_depend_on_the_number_of_processes(model_file: Path, pictures: Path) -> None:
    """One picture of 30 is none."""
    classifier, paths = Classifier.load(model_file), find_pictures(pictures)
    one, three = ([repr(answer) for answer in predict_pictures(classifier, paths, workers=count)]
                  for count in (1, 3))  # fmt: skip
    assert one == three
    assert sum("ImageError" in answer for answer in one) == 1


def test_more_than_20_pictures_have_a_progress_bar(
    invoke: Invoke, model_file: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal, and the answers are whole lines nevertheless."""
    from softmax_cli.cli import progress

    plain = invoke("predict", pictures, "-c", model_file)
    assert "\r" not in plain.stderr
    monkeypatch.setattr(progress, "on_terminal", lambda: True)
    calls: list[int] = []

    class Bar(tqdm):  # type: ignore[type-arg]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            calls.append(0 if self.disable else self.total)

    monkeypatch.setattr("tqdm.tqdm", Bar)
    shown = invoke("predict", pictures, "-c", model_file)
    invoke("predict", PICTURE, "-c", model_file)
    assert calls == [30]
    assert shown.stdout == plain.stdout


# Several digits


@pytest.fixture(scope="session")
def deskewed(sample: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model of deskewed digits, which reads most rows exactly."""
    path = tmp_path_factory.mktemp("deskewed") / "model.npz"
    train(TrainConfig(features="deskew", epochs=10), path, sample)
    return path


@pytest.fixture
def row(sample_test: Dataset, work: Path) -> str:
    """Write a picture of six digits to row.png, and return them."""
    Path("row.png").write_bytes(draw_row(list(sample_test.images[6:12]), 1))
    return "".join(map(str, sample_test.labels[6:12]))


def test_many_reads_lines_of_digits(invoke: Invoke, deskewed: Path, row: str) -> None:
    single = Image.open("row.png")
    page = Image.new("L", (single.width, 2 * single.height), 235)
    page.paste(single, (0, 0))
    page.paste(single, (0, single.height))
    page.save("page.png")
    assert invoke("predict", "--many", "row.png", "-c", deskewed).stdout == f"{row}\n"
    assert invoke("predict", "--many", "page.png", "-c", deskewed).stdout == f"{row}\n{row}\n"
    both = invoke("predict", "--many", "row.png", "page.png", "-c", deskewed).stdout
    assert both == f"row.png: {row}\npage.png: {row}\npage.png: {row}\n"
    found = json.loads(invoke("predict", "--many", "page.png", "-c", deskewed, "--json").stdout)
    assert [item["line"] for item in found] == [0] * 6 + [1] * 6
    for item, (left, top, right, bottom) in zip(found, [item["box"] for item in found], strict=True):
        assert item["line"] * single.height <= top < bottom <= (item["line"] + 1) * single.height
        assert 0 <= left < right <= single.width
        assert np.asarray(page)[top:bottom, left:right].min() < 100  # there is ink


def test_several_digits_without_many_are_warned_about(invoke: Invoke, deskewed: Path, row: str) -> None:
    text = invoke("predict", "row.png", "-c", deskewed).stderr
    assert text == "warning: row.png: there are 6 separate shapes; --many reads each as a digit\n"


def test_show_boxes_draws_into_a_copy(invoke: Invoke, deskewed: Path, row: str) -> None:
    """The boxes are those of the JSON; the picture itself is unchanged."""
    before = Path("row.png").read_bytes()
    result = invoke("predict", "--many", "row.png", "--show-boxes", "boxes.png", "-c", deskewed, "--json")
    copy = np.asarray(Image.open("boxes.png")).astype(int)
    red = (copy[:, :, 0] - copy[:, :, 1]) > 100
    for item in json.loads(result.stdout):
        left, top, right, bottom = item["box"]
        assert red[top - 1, left:right].all()
        assert red[top:bottom, left - 1].all()
    assert Path("row.png").read_bytes() == before
    assert names(Path()) == ["boxes.png", "row.png"]


def test_show_boxes_takes_one_picture_and_replaces_pictures_only(
    invoke: Invoke, deskewed: Path, row: str
) -> None:
    Path("notes.txt").write_text("not to be lost")
    for line, part in (
        (("row.png", "--show-boxes", "b.png"), "needs --many and a single picture"),
        (("--many", "row.png", "row.png", "--show-boxes", "b.png"), "needs --many and a single picture"),
        (("--many", "row.png", "--show-boxes", "notes.txt"), "is not a PNG picture"),
        (("--many", "row.png", "--show"), "--many cannot be combined with --top, --show or --explain"),
    ):
        result = invoke("predict", *line, "-c", deskewed)
        assert (result.exit_code, result.stdout) == (2, "")
        assert part in result.stderr
    assert_fails(
        invoke("predict", "--many", "row.png", "--show-boxes", "no/b.png", "-c", deskewed), "no/b.png"
    )
    assert Path("notes.txt").read_text() == "not to be lost"


def test_several_digits_are_read_by_models_of_digits_only(
    invoke: Invoke, trained: Checkpoint, row: str
) -> None:
    save_checkpoint("plain.npz", replace(trained, preparation="plain"))
    result = invoke("predict", "--many", "row.png", "-c", "plain.npz")
    assert_fails(result, "several digits are read by models of digits, not of sample", code=2)


# Other things than digits


@pytest.fixture(scope="session")
def watchful(sample: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model from a whole run, which knows how far images are from its training images."""
    path = tmp_path_factory.mktemp("watchful") / "model.npz"
    train(TrainConfig(dataset="sample", epochs=3), path, sample)
    return path


LEAST = {"line": 30, "face": 30, "scribble": 26, "photograph": 27, "letter": 18}
"""How many of 30 drawings have to be doubted."""


@pytest.mark.parametrize("name", LEAST)
def test_i16_other_things_are_answered_with_a_warning(watchful: Path, name: str) -> None:
    classifier = Classifier.load(watchful)
    found = [classifier.predict_picture(draw_other(name, seed)) for seed in range(30)]
    assert sum(bool(one.prepared.warnings) or one.class_name is None for one in found) >= LEAST[name]


def test_i16_digits_that_are_read_have_few_warnings(watchful: Path, sample_test: Dataset) -> None:
    classifier = Classifier.load(watchful)
    doubted = correct = 0
    for index in range(120):
        kind = ("pen 4", "pen 8", "paper", "jpeg")[index % 4]
        found = classifier.predict_picture(draw_kind(kind, sample_test.images[index], index))
        if found.class_name == str(sample_test.labels[index]):
            correct += 1
            doubted += bool(found.prepared.warnings)
    assert doubted <= 0.06 * correct


def test_i16_a_low_probability_is_a_warning(invoke: Invoke, trained: Checkpoint, work: Path) -> None:
    weights, bias = trained.state.model
    state = replace(trained.state, model=trained.state.model._replace(weights=weights / 50, bias=bias / 50))
    save_checkpoint("vague.npz", replace(trained, state=state))
    assert invoke("predict", PICTURE, "-c", "vague.npz").stderr.endswith(
        "seven.png: the answer is uncertain\n"
    )


def test_novelty_is_kept_in_the_checkpoint(watchful: Path, sample_test: Dataset, work: Path) -> None:
    """Saved again, and resumed, it gives the same bytes."""
    checkpoint = load_checkpoint(watchful)
    assert checkpoint.novelty
    save_checkpoint("copy.npz", checkpoint)
    assert_equal_runs(Path("copy.npz"), watchful)
    novel = checkpoint.novelty.is_novel(sample_test.images, np.eye(10)[sample_test.labels])
    assert 0 < novel.mean() < 0.04


def test_checkpoints_without_novelty_are_read(trained: Checkpoint, model_file: Path) -> None:
    assert trained.novelty is None
    assert load_checkpoint(model_file).novelty is None


def test_a_novelty_of_an_earlier_version_is_ignored(watchful: Path, work: Path) -> None:
    arrays = {name.replace("edges", "novelty"): array for name, array in np.load(watchful).items()}
    np.savez("old.npz", **arrays)
    assert load_checkpoint("old.npz").novelty is None


@pytest.mark.parametrize("damage", ["missing", "shape", "variance"])
def test_a_damaged_novelty_is_an_error(watchful: Path, work: Path, damage: str) -> None:
    arrays = dict(np.load(watchful))
    if damage == "missing":
        del arrays["edges_limits"]
    elif damage == "shape":
        arrays["edges_means"] = arrays["edges_means"][:9]
    else:
        arrays["edges_variances"][3] = 0
    np.savez("damaged.npz", **arrays)
    expected = {"missing": "'edges_limits' is missing", "shape": "expected <f4 of shape (10, 200)",
                "variance": "variance of its novelty is not positive"}  # fmt: skip
    with pytest.raises(CheckpointError, match=re.escape(expected[damage])):
        load_checkpoint("damaged.npz")
