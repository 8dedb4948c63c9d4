"""The report as a file: what is in it, that it is right, and that nothing in it can do harm."""

import base64
import hashlib
import importlib.util
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from matplotlib.figure import Figure
from PIL import Image

from softmax_cli.checkpoint import Checkpoint, save
from softmax_cli.config import TrainConfig
from softmax_cli.data.dataset import Dataset
from softmax_cli.metrics import score, total
from softmax_cli.model import Model, softmax
from softmax_cli.pictures import encode_png
from softmax_cli.report import charts, findings, page, pictures
from softmax_cli.report.findings import find
from softmax_cli.training import judge, start
from tests.conftest import assert_fails

Invoke = Callable[..., Result]


class Page(HTMLParser):
    """A parsed page: its elements as (name, attributes, text), and all of its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str], list[str]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}, []))

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self.elements:
            self.elements[-1][2].append(data)

    def all(self, tag: str) -> list[tuple[dict[str, str], str]]:
        return [(attributes, "".join(text)) for name, attributes, text in self.elements if name == tag]

    @property
    def data(self) -> dict[str, Any]:
        (text,) = [text for attributes, text in self.all("script") if "type" in attributes]
        return dict(json.loads(text))


@pytest.fixture(scope="module")
def text(trained: Checkpoint, sample_test: Dataset) -> str:
    """Return the report on `trained`."""
    return page.render(trained, sample_test, find(trained.state, sample_test, np.arange(1000)))


def picture(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2]))))


# What is found


def test_findings_are_those_of_a_slow_look(trained: Checkpoint, sample_test: Dataset) -> None:
    """Scores, every mistake with its two probabilities in order, mean images, one sample of each class."""
    indices = np.arange(1000)[::-1]
    found = find(trained.state, sample_test, indices)
    ((z, labels),) = judge(trained.state.model, trained.state.features, sample_test, indices)
    assert found.scores.loss == total([score(z, labels)]).loss
    y = softmax(z.astype(float))
    wrong = [
        (int(index), int(label), int(row.argmax()), float(row.max()), float(row[label]))
        for index, label, row in zip(indices, labels, y, strict=True)
        if row.argmax() != label
    ]
    assert [tuple(mistake) for mistake in found.mistakes] == sorted(wrong, key=lambda one: (-one[3], one[0]))
    for label in range(10):
        of_class = sample_test.images[sample_test.labels == label]
        np.testing.assert_allclose(found.means[label], of_class.mean(axis=0))
        right = [i for i, one, row in zip(indices, labels, y, strict=True) if one == label == row.argmax()]
        assert found.samples[label] == right[0]


def test_findings_add_up_over_blocks(
    trained: Checkpoint, sample_test: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks: list[int] = []
    whole = find(trained.state, sample_test, np.arange(1000))
    monkeypatch.setattr("softmax_cli.training.BLOCK", 300)
    parts = find(trained.state, sample_test, np.arange(1000), blocks.append)
    assert blocks == [300, 300, 300, 100]
    assert [one[:3] for one in parts.mistakes] == [one[:3] for one in whole.mistakes]
    assert parts.samples == whole.samples
    np.testing.assert_allclose(parts.means, whole.means)


def test_a_class_that_is_never_told_rightly_still_has_a_sample(
    trained: Checkpoint, sample_test: Dataset
) -> None:
    state = replace(trained.state, model=start(TrainConfig(), sample_test).model)  # says 0 to everything
    found = find(state, sample_test, np.arange(1000))
    assert [int(sample_test.labels[index]) for index in found.samples] == list(range(10))


def test_cells_hold_the_most_confident_mistakes(trained: Checkpoint, sample_test: Dataset) -> None:
    found = find(trained.state, sample_test, np.arange(1000))
    cells = found.by_cell(3)
    assert sum(len(cell) for cell in found.by_cell(10**6).values()) == len(found.mistakes)
    for (true, guess), cell in cells.items():
        alike = [one for one in found.mistakes if (one.true, one.guess) == (true, guess)]
        assert cell == alike[:3]


# What is in the page


def test_the_page_is_whole_and_small(text: str, trained: Checkpoint) -> None:
    assert len(text.encode()) < 1_000_000
    for part in ("raw pixels", "of MNIST sample", "95&nbsp;% interval", "as usual", "learning-rate", "numpy"):
        assert part in text.replace("\N{NO-BREAK SPACE}", "&nbsp;").replace("95 % int", "95&nbsp;% int"), part


def test_nothing_in_the_page_comes_from_elsewhere(text: str) -> None:
    parsed = Page(text)
    for name, attributes, _ in parsed.elements:
        for key in ("src", "srcset", "href", "action", "data", "poster"):
            value = attributes.get(key, "#")
            assert value.startswith(("data:image/", "#")), f"{name} {key}={value[:50]}"
        assert "style" not in attributes
        assert not [key for key in attributes if key.startswith("on")]
    assert "http://" not in re.sub(r"http://www\.w3\.org/[\w./]+", "", text)
    assert "https://" not in text


def test_the_policy_lets_only_this_script_and_this_style_run(text: str) -> None:
    parsed = Page(text)
    (policy,) = [a["content"] for a, _ in parsed.all("meta") if "http-equiv" in a]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    assert rules["base-uri"] == rules["form-action"] == "'none'"
    assert "unsafe" not in policy
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    for rule, content in (("script-src", script), ("style-src", style)):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"


NAMES = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</script><b>",
    "\x1b[31mred",
    "é&amp;",
)


def test_class_names_are_text_and_nothing_else(
    invoke: Invoke, trained: Checkpoint, sample_test: Dataset, work: Path
) -> None:
    names = (*NAMES, *trained.class_names[len(NAMES) :])
    plain = page.render(trained, sample_test, find(trained.state, sample_test, np.arange(1000)))
    save(work / "m.npz", replace(trained, class_names=names))
    assert invoke("report", "-c", "m.npz").exit_code == 0
    written = Path("report.html").read_text(encoding="utf-8")
    parsed, before = Page(written), Page(plain)
    shape = lambda one: [(name, sorted(attributes)) for name, attributes, _ in one.elements]  # noqa: E731
    assert shape(parsed) == shape(before)
    words = "".join(parsed.words)
    for name in NAMES:
        assert name.replace("\x1b", "\\x1b") in words
    assert "\x1b" not in written
    assert parsed.data["classes"][0] == NAMES[0]


def test_weights_are_pictures_on_one_scale(text: str, trained: Checkpoint) -> None:
    """Blue above zero, red below, as opaque as they are strong, the same for all classes."""
    weights = trained.state.model.weights
    pictures = [
        picture(attributes["src"])
        for attributes, _ in Page(text).all("img")
        if attributes["alt"].startswith("Weights for ")
    ]
    assert len(pictures) == 10
    for index, found in enumerate(pictures):
        expected = weights[:, index].reshape(28, 28) / np.abs(weights).max()
        np.testing.assert_allclose(found[..., 3] / 255, np.abs(expected), atol=0.5 / 255 + 1e-6)
        strong = np.abs(expected) > 0.01
        assert (found[strong & (expected > 0)][:, 2] > found[strong & (expected > 0)][:, 0]).all()
        assert (found[strong & (expected < 0)][:, 0] > found[strong & (expected < 0)][:, 2]).all()


def test_the_mistakes_of_a_cell_are_cut_from_one_picture(
    text: str, trained: Checkpoint, sample_test: Dataset
) -> None:
    data, found = Page(text).data, find(trained.state, sample_test, np.arange(1000))
    atlas = picture(data["atlas"])
    shown = [entry for cell in data["cells"].values() for entry in cell]
    assert len(shown) == sum(min(len(cell), 12) for cell in found.by_cell(10**6).values())
    for at, index, _, _ in shown:
        row, column = 28 * (at // 16), 28 * (at % 16)
        np.testing.assert_array_equal(atlas[row : row + 28, column : column + 28], sample_test.images[index])


def test_a_picture_of_cells_that_would_be_too_large_shows_fewer(
    trained: Checkpoint, sample_test: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First fewer of each cell, then fewer cells: those with the most confident mistakes."""
    found = find(trained.state, sample_test, np.arange(1000))
    ones = len(pictures._tiled([cell[0] for cell in found.by_cell(1).values()], sample_test))
    monkeypatch.setattr(pictures, "ATLAS_LIMIT", ones)
    atlas, cells = pictures.atlas(found, sample_test)
    assert len(atlas or b"") <= ones
    assert {len(cell) for cell in cells.values()} == {1}
    assert len(cells) == len(found.by_cell(1))
    monkeypatch.setattr(pictures, "ATLAS_LIMIT", ones // 2)
    atlas, cells = pictures.atlas(found, sample_test)
    assert 0 < len(atlas or b"") <= ones // 2
    shown = [entry[1] for cell in cells.values() for entry in cell]
    firsts = [cell[0].image for cell in found.by_cell(1).values()]
    assert shown == firsts[: len(shown)]
    monkeypatch.setattr(pictures, "ATLAS_LIMIT", 10)
    assert pictures.atlas(found, sample_test) == (None, {})


def many(classes: int, side: int, seed: int = 0) -> tuple[Checkpoint, Dataset]:
    """Return a model that guesses, and noisy images: the most that a page may have to hold."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (4000, side, side), np.uint8)
    labels = generator.integers(0, classes, 4000).astype(np.uint8)
    names = tuple(f"class number {k}" for k in range(classes))
    data = Dataset("noise", "0" * 64, images, labels, names, "plain")
    state = start(TrainConfig(), data)
    weights = generator.normal(size=state.model.weights.shape).astype(np.float32)
    state = replace(state, model=Model(weights, state.model.bias))
    return Checkpoint.begin(TrainConfig(), data, state), data


@pytest.mark.parametrize(("classes", "side"), [(2, 28), (47, 28), (50, 20), (200, 28), (10, 64), (10, 200)])
def test_no_page_is_larger_than_a_megabyte(classes: int, side: int) -> None:
    model, data = many(classes, side)
    text = page.render(model, data, find(model.state, data, np.arange(len(data))))
    assert len(text.encode()) < 1_000_000
    parsed = Page(text)
    buttons = [a["data-cell"] for a, _ in parsed.all("button") if "data-cell" in a]
    assert buttons
    assert set(buttons) <= set(parsed.data["cells"])
    assert ("is too large for a page; here are the most frequent confusions" in text) == (classes > 50)


def rows_of(parsed: Page, title: str) -> list[list[str]]:
    """Return the cells of the table in the section with that title."""
    rows: list[list[str]] = []
    inside = False
    for name, _, text in parsed.elements:
        if name == "h2":
            inside = "".join(text).strip() == title
        if inside and name == "tr":
            rows.append([])
        if inside and name in ("th", "td", "button"):
            cell = "".join(text).strip()
            if name == "button":
                rows[-1][-1] = cell
            else:
                rows[-1].append(cell)
    return rows


def plain(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ")


def test_the_figures_are_those_of_the_scores(text: str, trained: Checkpoint, sample_test: Dataset) -> None:
    """The cards, the confusion matrix, the table of classes, the most confident mistakes."""
    parsed, found = Page(text), find(trained.state, sample_test, np.arange(1000))
    scores = found.scores
    cards = [plain(value).strip() for _, value in parsed.all("dd")]
    low, high = scores.accuracy_interval
    assert cards[:2] == [
        f"{100 * scores.accuracy:.2f} %",
        f"95 % interval {100 * low:.2f} % to {100 * high:.2f} %",
    ]
    assert [cards[2], cards[4], cards[6]] == [f"{v:.4f}" for v in (scores.loss, scores.brier, scores.ece)]
    matrix = rows_of(parsed, "Confusion")
    assert matrix[0][1:] == list("0123456789")
    assert [[int(cell) for cell in row[1:]] for row in matrix[1:]] == scores.confusion.tolist()
    table = rows_of(parsed, "Class by class")
    for row, name, one in zip(table[1:], trained.class_names, scores.per_class(), strict=True):
        rates = [f"{100 * rate:.1f} %" for rate in (one.precision, one.recall, one.f1)]
        assert [plain(cell) for cell in row] == [name, *rates, f"{one.images:,}"]
    captions = " ".join(plain(" ".join(parsed.words)).split())
    images = [a for a, _ in parsed.all("img") if a["alt"].startswith("Image ")]
    assert len(images) == min(40, len(found.mistakes))
    for attributes, mistake in zip(images, found.mistakes, strict=False):
        assert attributes["alt"] == f"Image {mistake.image}, of class {mistake.true}"
        np.testing.assert_array_equal(picture(attributes["src"]), sample_test.images[mistake.image])
        shares = f"{100 * mistake.true_probability:.1f} %", f"{100 * mistake.probability:.1f} %"
        assert f"{mistake.true} {shares[0]} taken for {mistake.guess} {shares[1]}" in captions
    means = [a for a, _ in parsed.all("img") if a["alt"].startswith("Mean image of ")]
    for attributes, mean in zip(means, found.means, strict=True):
        assert np.abs(picture(attributes["src"]) - mean).max() <= 0.5 + 1e-9
    for bias in trained.state.model.bias:
        assert f"bias {bias:+.2f}" in captions


@pytest.mark.parametrize(
    ("band", "verdict"),
    [((0.1, 0.2), "above that"), ((0.1, 0.999), "as usual"), ((0.99, 0.999), "below that")],
)
def test_the_band_is_told_from_the_accuracy(
    band: tuple[float, float],
    verdict: str,
    trained: Checkpoint,
    sample_test: Dataset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(page, "usual_accuracy", lambda *_: band)
    found = find(trained.state, sample_test, np.arange(1000))
    text = " ".join(page.render(trained, sample_test, found).split())
    assert f"{100 * band[1]:.1f} %: this is {verdict}." in text
    assert "not the data that the model was trained on" not in text
    other = replace(trained, digest="0" * 64, dataset="elsewhere")
    text = " ".join(page.render(other, sample_test, found).split())
    assert "not the data that the model was trained on</strong> (elsewhere)" in text
    assert "this is" not in text


def test_a_class_without_images_has_no_scores(trained: Checkpoint, sample_test: Dataset) -> None:
    some = np.flatnonzero(sample_test.labels < 7)
    parsed = Page(page.render(trained, sample_test, find(trained.state, sample_test, some)))
    assert rows_of(parsed, "Class by class")[-1] == ["9", "–", "–", "–", "none"]
    assert len([a for a, _ in parsed.all("img") if a["alt"].startswith("Mean image of ")]) == 7


@pytest.mark.parametrize("theme", [charts.LIGHT, charts.DARK])
def test_the_charts_draw_what_they_say(
    trained: Checkpoint, sample_test: Dataset, monkeypatch: pytest.MonkeyPatch, theme: charts.Theme
) -> None:
    drawn: list[Any] = []

    def keep(draw: Callable[[Any, charts.Theme], None], one: charts.Theme) -> bytes:
        if one is theme:
            drawn.append(Figure())
            draw(drawn[-1], one)
        return b"<svg/>"

    monkeypatch.setattr(charts, "_svg", keep)
    history = trained.state.history
    charts.training_curves(history, 2)
    scores = find(trained.state, sample_test, np.arange(1000)).scores
    charts.reliability_diagram(scores.reliability(), scores.ece)
    (curves,), (upper, lower) = (figure.axes for figure in drawn)
    train, held, kept = curves.lines
    assert train.get_ydata().tolist() == [epoch.train_loss for epoch in history]
    assert held.get_ydata().tolist() == [epoch.validation_loss for epoch in history]
    assert train.get_xdata().tolist() == [1, 2, 3]
    assert set(kept.get_xdata()) == {2}
    assert (train.get_color(), held.get_color()) == (theme.first, theme.second)
    bins = scores.reliability()
    assert [bar.get_height() for bar in upper.patches] == [one.accuracy for one in bins]
    assert [bar.get_x() for bar in upper.patches] == [one.low for one in bins]
    assert [bar.get_height() for bar in lower.patches] == [one.images for one in bins]


def test_the_readers_own_settings_of_matplotlib_change_nothing(
    text: str, trained: Checkpoint, sample_test: Dataset
) -> None:
    import matplotlib

    with matplotlib.rc_context({"text.usetex": True, "axes.grid": True, "svg.fonttype": "none"}):
        assert text == page.render(trained, sample_test, find(trained.state, sample_test, np.arange(1000)))


def test_light_charts_are_for_light_pages(text: str) -> None:
    for attributes, _ in Page(text).all("img"):
        if "chart" in attributes.get("class", ""):
            svg = base64.b64decode(attributes["src"].partition("base64,")[2]).decode()
            own, other = (charts.LIGHT, charts.DARK)[:: 1 if "on-light" in attributes["class"] else -1]
            assert own.ink in svg
            assert other.ink not in svg


@pytest.mark.parametrize(
    "run", [{"seconds": "x"}, {"seconds": None}, {"versions": [1]}, {"versions": {"numpy": 2}}], ids=str
)
def test_a_run_that_makes_no_sense_is_no_checkpoint(
    run: dict[str, Any], trained: Checkpoint, invoke: Invoke, work: Path
) -> None:
    save(work / "m.npz", replace(trained, run=run))
    assert_fails(invoke("report", "-c", "m.npz"), "m.npz is not a checkpoint")


def test_the_board_gets_the_weights_to_the_bit(text: str, trained: Checkpoint, sample_test: Dataset) -> None:
    data = Page(text).data
    weights = np.frombuffer(base64.b64decode(data["weights"]), "<f4").reshape(784, 10)
    np.testing.assert_array_equal(weights, trained.state.model.weights)
    np.testing.assert_array_equal(np.float32(data["bias"]), trained.state.model.bias)
    for one in data["samples"]:
        image = np.frombuffer(base64.b64decode(one["pixels"]), np.uint8).reshape(28, 28)
        (same,) = np.flatnonzero((sample_test.images == image).all(axis=(1, 2)))
        assert sample_test.labels[same] == one["label"]
    assert data["target"] == data["samples"][0]["label"] == 0


def test_fourier_features_have_a_sentence_instead_of_a_board(
    invoke: Invoke, sample_test: Dataset, work: Path
) -> None:
    invoke("train", "--dataset", "sample", "--features", "fourier", "--fourier-dimension", 300, "--epochs", 1)
    assert invoke("report").exit_code == 0
    parsed = Page(Path("report.html").read_text(encoding="utf-8"))
    words = " ".join("".join(parsed.words).split())
    assert "This model weighs 300 random Fourier features of deskewed pixels, and their projection" in words
    assert "The weights of 300 random Fourier features of deskewed pixels are no pictures" in words
    assert parsed.data["weights"] is None
    assert not [a for a, _ in parsed.all("canvas")]


def test_a_model_that_has_not_learned_yet_has_a_report(
    trained: Checkpoint, sample_test: Dataset, invoke: Invoke, work: Path
) -> None:
    save(work / "m.npz", replace(trained, state=start(trained.config, sample_test)))
    assert invoke("report", "-c", "m.npz").exit_code == 0
    assert "m.npz has not learned anything yet" in invoke("report", "-c", "m.npz").stderr
    assert "has not been trained yet" in Path("report.html").read_text(encoding="utf-8")


def test_a_model_without_mistakes_has_a_report(trained: Checkpoint, sample_test: Dataset) -> None:
    ((z, labels),) = judge(trained.state.model, trained.state.features, sample_test, np.arange(1000))
    right = np.flatnonzero(z.argmax(axis=1) == labels)
    found = findings.find(trained.state, sample_test, right)
    assert "There are none: every image was told rightly." in page.render(trained, sample_test, found)


def test_two_reports_on_a_model_are_the_same(text: str, trained: Checkpoint, sample_test: Dataset) -> None:
    assert text == page.render(trained, sample_test, find(trained.state, sample_test, np.arange(1000)))


def test_png_pixels_come_back() -> None:
    for shape in ((5, 7), (5, 7, 4)):
        pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encode_png(pixels)))), pixels)


# The command


def test_the_command_writes_a_page_and_says_how_large(invoke: Invoke, model_file: Path, work: Path) -> None:
    result = invoke("report", "-c", model_file, "--output", "page.html", "--json")
    found = json.loads(result.stdout)
    assert found == {"report": "page.html", "bytes": Path("page.html").stat().st_size}
    assert "open it in a browser" in invoke("report", "-c", model_file).stdout
    assert sorted(path.name for path in work.iterdir()) == ["page.html", "report.html"]


def test_where_the_extra_is_missing_it_is_named(
    invoke: Invoke, model_file: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    hide = lambda name, *more: None if name == "jinja2" else find_spec(name, *more)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", hide)
    result = invoke("report", "-c", model_file)
    assert_fails(result, "the report needs jinja2", "pip install matplotlib jinja2", code=2)


def test_a_page_takes_the_place_of_a_page_and_of_nothing_else(
    invoke: Invoke, model_file: Path, work: Path
) -> None:
    model = Path("m.npz")
    model.write_bytes(model_file.read_bytes())
    assert_fails(invoke("report", "-c", model, "-o", model), "m.npz is there already, and no report", code=2)
    assert model.read_bytes() == model_file.read_bytes()
    for _ in range(2):
        assert invoke("report", "-c", model).exit_code == 0


@pytest.mark.parametrize(
    ("line", "part"),
    [
        (("-c", "absent.npz"), "no checkpoint at absent.npz"),
        (("--output", "folder/"), "it is a folder"),
        (("--output", "nowhere/page.html"), "does not exist"),
        (("--dataset", "minst"), "minst"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_written(
    line: tuple[str, ...], part: str, invoke: Invoke, model_file: Path, work: Path
) -> None:
    Path("folder").mkdir()
    start_of = () if "-c" in line else ("-c", model_file)
    assert_fails(invoke("report", *start_of, *line), part, code=2 if "minst" in line else 1)
    assert [path.name for path in work.iterdir()] == ["folder"]
    assert list(Path("folder").iterdir()) == []
