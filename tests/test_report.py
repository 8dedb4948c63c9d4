"""`softmax report`: the page as a file. It is complete, correct, and safe to open."""

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
from PIL import Image

from softmax_cli.checkpoint import Checkpoint, save_checkpoint
from softmax_cli.classifier import Classifier
from softmax_cli.config import TrainConfig
from softmax_cli.data.catalog import Usual
from softmax_cli.data.dataset import Dataset
from softmax_cli.errors import DataError
from softmax_cli.features.stage import Stage
from softmax_cli.metrics import Scores
from softmax_cli.model import Model
from softmax_cli.pictures import encode_png
from softmax_cli.report import board, lesson, page, pictures
from softmax_cli.report.findings import Findings, Mistake, find_mistakes
from softmax_cli.report.headlines import headlines
from softmax_cli.training import start
from tests.helpers import assert_fails

Invoke = Callable[..., Result]


class Page(HTMLParser):
    """A parsed page: its elements as (name, attributes, text), and its text."""

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
def found(trained: Checkpoint, sample_test: Dataset) -> Findings:
    """Return the findings on `trained` and the test images."""
    return find_mistakes(Classifier(trained), sample_test)


@pytest.fixture(scope="module")
def text(trained: Checkpoint, sample: Dataset, sample_test: Dataset, found: Findings) -> str:
    """Return the report on `trained`."""
    return page.render(trained, sample_test, found, sample)


def rendered(model: Checkpoint, data: Dataset) -> str:
    """Return the report on a model and a data set, which it is trained on, too."""
    return page.render(model, data, find_mistakes(Classifier(model), data), data)


def part(data: Dataset, rows: np.ndarray) -> Dataset:
    """Return some rows of a data set."""
    return replace(data, images=data.images[rows], labels=data.labels[rows])


def picture(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2]))))


# Findings


def test_findings_agree_with_a_slow_loop(found: Findings, trained: Checkpoint, sample_test: Dataset) -> None:
    """Loss, every mistake with its two probabilities in order, mean images, one sample of each class."""
    y, labels = Classifier(trained).predict_proba(sample_test.images), sample_test.labels
    z = np.concatenate([block for _, block in Classifier(trained).evidence_blocks(sample_test.images)])
    assert found.largest_evidence == pytest.approx(np.abs(z).max(axis=1).mean(), rel=1e-6)
    losses = [-np.log(row[label]) for row, label in zip(y, labels, strict=True)]
    assert found.scores.loss == pytest.approx(np.mean(losses), rel=1e-6)
    wrong = [
        (index, int(label), int(row.argmax()), float(row.max()), float(row[label]))
        for index, (label, row) in enumerate(zip(labels, y, strict=True))
        if row.argmax() != label
    ]
    assert [tuple(mistake) for mistake in found.mistakes] == sorted(wrong, key=lambda one: (-one[3], one[0]))
    for label in range(10):
        np.testing.assert_allclose(found.means[label], sample_test.images[labels == label].mean(axis=0))
        assert found.samples[label] == np.flatnonzero((labels == label) & (y.argmax(axis=1) == label))[0]


def test_findings_do_not_depend_on_the_blocks(
    found: Findings, trained: Checkpoint, sample_test: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks: list[int] = []
    monkeypatch.setattr("softmax_cli.features.BLOCK", 300)
    parts = find_mistakes(Classifier(trained), sample_test, blocks.append)
    assert blocks == [300, 300, 300, 100]
    assert [one[:3] for one in parts.mistakes] == [one[:3] for one in found.mistakes]
    assert parts.samples == found.samples
    np.testing.assert_allclose(parts.means, found.means)


def test_a_class_that_is_never_predicted_has_a_sample(trained: Checkpoint, sample_test: Dataset) -> None:
    untrained = replace(trained, state=start(TrainConfig(), sample_test))
    samples = find_mistakes(Classifier(untrained), sample_test).samples
    assert sample_test.labels[list(samples)].tolist() == list(range(10))


def test_cells_hold_the_most_confident_mistakes(found: Findings) -> None:
    cells = found.by_cell(3)
    assert sum(len(cell) for cell in found.by_cell(10**6).values()) == len(found.mistakes)
    for (true, guess), cell in cells.items():
        alike = [one for one in found.mistakes if (one.true, one.guess) == (true, guess)]
        assert cell == alike[:3]


# The page


def test_the_page_is_complete_and_small(text: str) -> None:
    assert len(text.encode()) < 1_500_000
    for words in ("raw pixels", "on MNIST sample", "95 % interval", "learning-rate", "numpy"):
        assert words in plain(text), words


def test_the_page_loads_nothing_else(text: str) -> None:
    parsed = Page(text)
    for name, attributes, _ in parsed.elements:
        for key in ("src", "srcset", "href", "action", "data", "poster"):
            value = attributes.get(key, "#")
            assert value.startswith(("data:image/", "#")), f"{name} {key}={value[:50]}"
        assert "style" not in attributes
        assert not [key for key in attributes if key.startswith("on")]
    assert "http://" not in re.sub(r"http://www\.w3\.org/[\w./]+", "", text)
    assert "https://" not in text


def test_the_policy_allows_only_this_script_and_this_style(text: str) -> None:
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


def test_class_names_are_text(
    invoke: Invoke, trained: Checkpoint, sample_test: Dataset, text: str, work: Path
) -> None:
    """They add no element or attribute to the page."""
    names = (*NAMES, *trained.class_names[len(NAMES) :])
    save_checkpoint("m.npz", replace(trained, class_names=names))
    assert invoke("report", "-c", "m.npz").exit_code == 0
    written = Path("report.html").read_text(encoding="utf-8")
    parsed, before = Page(written), Page(text)
    shape = lambda one: [(name, sorted(attributes)) for name, attributes, _ in one.elements]  # noqa: E731
    assert shape(parsed) == shape(before)
    words = "".join(parsed.words)
    for name in NAMES:
        assert name.replace("\x1b", "\\x1b") in words
    assert "\x1b" not in written
    assert parsed.data["classes"][0] == NAMES[0]


def test_weights_are_pictures_on_one_scale(text: str, trained: Checkpoint) -> None:
    """Blue above zero, red below; the opacity is the absolute value, on the same scale for all classes."""
    weights = trained.state.model.weights
    shown = [
        picture(attributes["src"])
        for attributes, _ in Page(text).all("img")
        if attributes["alt"].startswith("Weights for ")
    ]
    assert len(shown) == 10
    for index, found in enumerate(shown):
        expected = weights[:, index].reshape(28, 28) / np.abs(weights).max()
        np.testing.assert_allclose(found[..., 3] / 255, np.abs(expected), atol=0.5 / 255 + 1e-6)
        strong = np.abs(expected) > 0.01
        assert (found[strong & (expected > 0)][:, 2] > found[strong & (expected > 0)][:, 0]).all()
        assert (found[strong & (expected < 0)][:, 0] > found[strong & (expected < 0)][:, 2]).all()


def test_the_mistakes_of_the_cells_are_tiles_of_one_picture(
    text: str, found: Findings, sample_test: Dataset
) -> None:
    data = Page(text).data
    atlas = picture(data["atlas"])
    shown = [entry for cell in data["cells"].values() for entry in cell]
    assert len(shown) == sum(min(len(cell), 12) for cell in found.by_cell(10**6).values())
    for at, index, _, _ in shown:
        row, column = 28 * (at // 16), 28 * (at % 16)
        np.testing.assert_array_equal(atlas[row : row + 28, column : column + 28], sample_test.images[index])


def test_a_picture_of_the_cells_that_is_too_large_shows_fewer(
    found: Findings, sample_test: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First fewer of each cell, then only the cells with the most confident mistakes."""
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
    """Return a random model and random images: the largest page that can occur."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (4000, side, side), np.uint8)
    labels = generator.integers(0, classes, 4000).astype(np.uint8)
    names = tuple(f"class number {k}" for k in range(classes))
    data = Dataset("noise", "0" * 64, "0" * 64, images, labels, names, "plain")
    state = start(TrainConfig(), data)
    weights = generator.normal(size=state.model.weights.shape).astype(np.float32)
    state = replace(state, model=Model(weights, state.model.bias))
    return Checkpoint.begin(TrainConfig(), data, state), data


@pytest.mark.parametrize(("classes", "side"), [(2, 28), (47, 28), (50, 20), (200, 28), (10, 64), (10, 120)])
def test_no_page_is_larger_than_the_limit(classes: int, side: int) -> None:
    model, data = many(classes, side)
    text = rendered(model, data)
    assert len(text.encode()) < 1_500_000
    parsed = Page(text)
    buttons = [a["data-cell"] for a, _ in parsed.all("button") if "data-cell" in a]
    assert buttons
    assert set(buttons) <= set(parsed.data["cells"])
    assert ("is too large for a page; here are the most frequent confusions" in text) == (classes > 50)


def rows_of(parsed: Page, section: str) -> list[list[str]]:
    """Return the cells of the table in the section of that id."""
    rows: list[list[str]] = []
    inside = False
    for name, attributes, text in parsed.elements:
        if name == "section":
            inside = attributes["id"] == section
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


def test_the_figures_are_those_of_the_scores(
    text: str, found: Findings, trained: Checkpoint, sample_test: Dataset
) -> None:
    """The cards, the confusion matrix, the table of classes, the most confident mistakes."""
    parsed = Page(text)
    scores = found.scores
    cards = [plain(value).strip() for _, value in parsed.all("dd")][2:]  # after those of the losses
    low, high = scores.accuracy_interval
    assert cards[:2] == [
        f"{100 * scores.accuracy:.2f} %",
        f"95 % interval {100 * low:.2f} % to {100 * high:.2f} %",
    ]
    assert [cards[2], cards[4], cards[6]] == [f"{v:.4f}" for v in (scores.loss, scores.brier, scores.ece)]
    matrix = rows_of(parsed, "confusion")
    assert matrix[0][1:] == list("0123456789")
    assert [[int(cell) for cell in row[1:]] for row in matrix[1:]] == scores.confusion.tolist()
    table = rows_of(parsed, "classes")
    for row, name, one in zip(table[1:], trained.class_names, scores.per_class(), strict=True):
        rates = [f"{100 * rate:.1f} %" for rate in (one.precision, one.recall, one.f1)]
        assert [plain(cell) for cell in row] == [name, *rates, f"{one.images:,}"]
    captions = " ".join(plain(" ".join(parsed.words)).split())
    images = [a for a, _ in parsed.all("img") if a["alt"].startswith("Image ")]
    hidden = [a for name, a, _ in parsed.elements if name == "li" and "hidden" in a]
    assert len(images) - len(hidden) == 12
    assert len(images) == min(40, len(found.mistakes))
    for attributes, mistake in zip(images, found.mistakes, strict=False):
        assert attributes["alt"] == f"Image {mistake.image}, of class {mistake.true}"
        np.testing.assert_array_equal(picture(attributes["src"]), sample_test.images[mistake.image])
        shares = f"{100 * mistake.true_probability:.1f} %", f"{100 * mistake.probability:.1f} %"
        assert f"true: {mistake.true} {shares[0]} predicted: {mistake.guess} {shares[1]}" in captions
    means = [a for a, _ in parsed.all("img") if a["alt"].startswith("Mean image of ")]
    for attributes, mean in zip(means, found.means, strict=True):
        assert np.abs(picture(attributes["src"]) - mean).max() <= 0.5 + 1e-9
    for bias in trained.state.model.bias:
        assert f"bias {bias:+.2f}" in captions


@pytest.mark.parametrize(
    ("usual", "verdict"), [((0.1, 0.2), "above"), ((0.1, 0.999), "within"), ((0.99, 0.999), "below")]
)
def test_the_accuracy_is_compared_with_the_usual_one(
    usual: tuple[float, float],
    verdict: str,
    found: Findings,
    trained: Checkpoint,
    sample_test: Dataset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(page, "usual_accuracy", lambda *_: Usual(*usual))
    text = plain(" ".join(page.render(trained, sample_test, found, "none").split()))
    assert f"{100 * usual[1]:.1f} %: this is {verdict} the usual range." in text
    assert "that the model was trained on" not in text


def test_a_report_on_other_data_has_no_usual_accuracy(
    found: Findings, trained: Checkpoint, sample_test: Dataset
) -> None:
    other = replace(trained, digest="0" * 64, dataset="elsewhere")
    text = page.render(other, sample_test, found, "none")
    assert "that the model was trained on</strong> (elsewhere)" in text
    assert "the usual range" not in text


def test_a_class_without_images_has_no_scores(trained: Checkpoint, sample_test: Dataset) -> None:
    parsed = Page(rendered(trained, part(sample_test, np.flatnonzero(sample_test.labels < 7))))
    assert rows_of(parsed, "classes")[-1] == ["9", "–", "–", "–", "none"]
    assert len([a for a, _ in parsed.all("img") if a["alt"].startswith("Mean image of ")]) == 7


def test_the_charts_have_the_history_and_the_bins(text: str, trained: Checkpoint, found: Findings) -> None:
    data, history = Page(text).data, trained.state.history
    assert data["history"] == [[one.epoch, one.train_loss, one.validation_loss] for one in history]
    assert data["validationAccuracy"] == [[one.epoch, one.validation_accuracy] for one in history]
    assert data["bins"] == [list(one) for one in found.scores.reliability()]
    losses = rows_of(Page(text), "training")[1:]
    assert [row[1] for row in losses] == [f"{one.train_loss:.4f}" for one in history]
    assert len(rows_of(Page(text), "confidence")) == 1 + len(data["bins"])


def test_a_model_always_has_the_same_report(
    text: str, trained: Checkpoint, sample: Dataset, sample_test: Dataset, found: Findings
) -> None:
    assert text == page.render(trained, sample_test, found, sample)


def test_the_board_has_the_exact_weights_and_samples(
    text: str, trained: Checkpoint, sample_test: Dataset
) -> None:
    data = Page(text).data
    np.testing.assert_array_equal(numbers(data["model"]["weights"]), trained.state.model.weights.ravel())
    np.testing.assert_array_equal(np.float32(data["bias"]), trained.state.model.bias)
    for one in data["samples"]:
        image = np.frombuffer(base64.b64decode(one["pixels"]), np.uint8).reshape(28, 28)
        np.testing.assert_array_equal(image, sample_test.images[one["image"]])
        assert sample_test.labels[one["image"]] == one["label"]
    assert [one["label"] for one in data["samples"]] == list(range(10))


def numbers(one: dict[str, Any]) -> np.ndarray:
    """Return the numbers of an array in the page."""
    content = base64.b64decode(one["text"])
    return one["unit"] * np.frombuffer(content, "<i2") if one["unit"] else np.frombuffer(content, "<f4")


def test_arrays_that_do_not_fit_as_float32_have_16_bits() -> None:
    """Each number is off by at most half a unit: the largest magnitude / 65,534."""
    generator = np.random.default_rng(0)
    for array in (generator.normal(0, 3, (40, 30)).astype(np.float32), np.zeros((2, 3), np.float32)):
        np.testing.assert_array_equal(numbers(board.as_float32(array)), array.ravel())
        found = numbers(board.as_int16(array))
        assert np.abs(found - array.ravel()).max() <= np.abs(array).max() / 65_534 * (1 + 1e-6)


@pytest.mark.parametrize(("features", "bits"), [(100, 32), (400, 16), (900, None)])
def test_the_model_takes_the_room_that_the_page_has(
    sample: Dataset, sample_test: Dataset, features: int, bits: int | None
) -> None:
    """Arrays are float32 if they fit, else they have 16 bits, else the sizes are given as the reason."""
    config = TrainConfig(features="fourier", fourier_dimension=features, fourier_smoothing=0)
    model = Checkpoint.begin(config, sample, start(config, sample))
    text = page.render(model, sample_test, find_mistakes(Classifier(model), sample_test), sample)
    assert len(text.encode()) <= 1_500_000
    parsed = Page(text)
    found, words = parsed.data["model"], " ".join("".join(parsed.words).split())
    if bits:
        units = [one["unit"] for one in [found["weights"], *found["stages"][1]["arrays"].values()]]
        assert [unit is None for unit in units] == [bits == 32] * 3
        if bits == 16:
            assert len(text.encode()) + 784 * features * 2 * 4 / 3 > 1_500_000
        assert "has room for" not in words
    else:
        assert found is None
        needed, limit, room = map(float, re.findall(r"(\d+\.\d+) MB", words)[:3])
        assert needed == pytest.approx((784 + 1 + 10) * features * 2 * 4 / 3 / 1e6, abs=0.011)
        assert needed > room
        assert limit == 1.5
        assert room * 1e6 == pytest.approx(1_500_000 - len(text.encode()), abs=60_000)


def test_a_stage_that_the_script_does_not_compute_is_named(
    sample: Dataset, sample_test: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("softmax_cli.features.pca.PCA.browser_arrays", Stage.browser_arrays)
    config = TrainConfig(features="pca", pca_dimension=5)
    model = Checkpoint.begin(config, sample, start(config, sample))
    assert "The page does not compute the feature stage pca." in rendered(model, sample_test)


def test_features_that_do_not_fit_leave_out_only_the_evidence_of_drawings(
    invoke: Invoke, sample_test: Dataset, work: Path
) -> None:
    """The reason is given; the evidence of examples and mistakes is in the page."""
    invoke("train", "--dataset", "sample", "--features", "fourier", "--fourier-dimension", 900, "--epochs", 1)
    assert invoke("report").exit_code == 0
    parsed = Page(Path("report.html").read_text(encoding="utf-8"))
    words = " ".join("".join(parsed.words).split())
    assert "The 900 random Fourier features of deskewed pixels of this model need arrays of" in words
    data = parsed.data
    assert data["model"] is None
    assert data["lesson"]
    assert "sheet" in [attributes["id"] for attributes, _ in parsed.all("canvas")]
    classifier = Classifier.load("model.npz")
    rows = [int(row) for row in data["known"]]
    assert {one["image"] for one in data["samples"]} <= set(rows)
    (expected,) = [z for _, z in classifier.evidence_blocks(sample_test.images[rows])]
    np.testing.assert_allclose(list(data["known"].values()), expected, atol=1e-3)


def test_an_untrained_model_has_a_report(trained: Checkpoint, sample_test: Dataset) -> None:
    text = rendered(replace(trained, state=start(trained.config, sample_test)), sample_test)
    assert "has not been trained yet" in text


def sections(parsed: Page) -> list[str]:
    return [attributes["id"] for attributes, _ in parsed.all("section")]


def test_the_sections_follow_one_image_through_the_model(text: str) -> None:
    """Each has a title, and a link in the navigation."""
    found = sections(Page(text))
    story = ["desk", "evidence", "steps", "loss", "gradient", "watch", "training", "weights"]
    assert found == [*story, "scores", "confusion", "classes", "confidence", "mistakes", "run"]
    links = [attributes["href"].removeprefix("#") for attributes, _ in Page(text).all("a")]
    assert set(links) - {"main"} == set(found) - {"training", "classes"}
    titles = {attributes.get("id") for attributes, _ in Page(text).all("h2")}
    assert titles == {f"{name}-title" for name in found}


# Training in the browser


def test_the_page_holds_training_and_test_images(text: str, sample: Dataset, sample_test: Dataset) -> None:
    """As many of each class, row after row in one picture of each split."""
    parsed = Page(text)
    images = {a["id"]: picture(a["src"]) for a, _ in parsed.all("img") if a.get("id")}
    for name, data in (("train", sample), ("test", sample_test)):
        rows = lesson.choose_rows(data.labels, 500)
        labels = parsed.data["lesson"][name]
        assert labels == data.labels[rows].tolist()
        assert np.bincount(labels).tolist() == [50] * 10
        tiles = images[f"lesson-{name}"].reshape(-1, 28, 16, 28).swapaxes(1, 2).reshape(-1, 28, 28)
        np.testing.assert_array_equal(tiles[:500], data.images[rows])


@pytest.mark.parametrize(
    ("classes", "side", "reason"),
    [
        (60, 28, "60 classes are too many"),
        (10, 100, "Images of 100 x 100 pixels are too large"),
    ],
)
def test_data_that_do_not_fit_leave_out_the_training_with_the_reason(
    classes: int, side: int, reason: str
) -> None:
    model, data = many(classes, side)
    parsed = Page(rendered(model, data))
    assert reason in " ".join("".join(parsed.words).split())
    assert parsed.data["lesson"] is None
    assert not [a for a, _ in parsed.all("button") if a.get("id") == "watch-play"]


def test_larger_images_are_fewer() -> None:
    _, data = many(10, 28)
    found = lesson.choose_lesson(data, data)
    assert isinstance(found, lesson.Lesson)
    assert len(found.train.labels) in lesson.COUNTS[1:]
    assert sum(len(one.picture) for one in found) <= lesson.LIMIT


def test_without_training_images_the_section_gives_the_reason(
    invoke: Invoke, sample: Dataset, sample_test: Dataset, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    invoke("train", "--dataset", "sample", "--epochs", 1)

    def find(name: str, digest: str, split: str, source: object) -> Dataset:
        if split == "train":
            raise DataError("train-images is <gone>")
        return sample_test

    monkeypatch.setattr("softmax_cli.data.loading.find_dataset", find)
    monkeypatch.setattr("softmax_cli.evaluation.find_dataset", find)
    result = invoke("report")
    assert result.exit_code == 0
    assert "warning: the page cannot train in the browser: train-images is <gone>" in result.stderr
    parsed = Page(Path("report.html").read_text(encoding="utf-8"))
    assert "The training images could not be read: train-images is <gone>." in "".join(parsed.words)
    assert sections(parsed)[5] == "watch"


# Headlines


def test_headlines_state_the_results(found: Findings, trained: Checkpoint) -> None:
    scores, names = found.scores, trained.class_names
    told = {key: plain(value) for key, value in headlines(found, names, trained.state.history).items()}
    assert told["scores"] == f"{100 * scores.accuracy:.1f} % of 1,000 test images are classified correctly"
    recall, hardest = min((one.recall, name) for one, name in zip(scores.per_class(), names, strict=True))
    assert told["classes"] == f"{hardest} is the hardest class: {100 * recall:.1f} % recall"
    true, guess, count = scores.worst_confusions(1)[0]
    assert told["confusion"] == (
        f"{names[true]} classified as {names[guess]} is the most frequent confusion: {count} images"
    )
    first, *_, last = trained.state.history
    assert told["training"] == (
        f"The training loss falls from {first.train_loss:.3f} to {last.train_loss:.3f} in 3 epochs"
    )
    worst = found.mistakes[0]
    assert told["mistakes"] == (
        f"{len(found.mistakes)} images are misclassified; "
        f"the most confident mistake has {100 * worst.probability:.1f} % for {names[worst.guess]}"
    )


def scored(images: int, correct: int, confidence: float) -> Findings:
    """Return findings on two classes: so many correct images of the first one, the others misclassified."""
    confusion = np.array([[correct, images - correct], [0, 0]])
    calibration = np.zeros((15, 3))
    calibration[14] = images, images * confidence, correct
    mistakes = tuple(Mistake(k, 0, 1, confidence, 0.0) for k in range(images - correct))
    return Findings(Scores(confusion, calibration, 0.0, 0.0), mistakes, np.zeros((2, 1, 1)), (0,), 1.0)


@pytest.mark.parametrize(
    ("findings", "key", "headline"),
    [
        (
            scored(100, 99, 0.95),
            "confidence",
            "The model is underconfident: confidence 95.0 %, accuracy 99.0 %",
        ),
        (
            scored(100, 90, 0.95),
            "confidence",
            "The model is overconfident: confidence 95.0 %, accuracy 90.0 %",
        ),
        (scored(100, 95, 0.952), "confidence", "Confidence matches accuracy: 95.2 % and 95.0 % on average"),
        (scored(9, 9, 0.95), "confusion", "No class is confused with another"),
        (scored(9, 8, 0.95), "confusion", "a classified as b is the most frequent confusion: 1 image"),
        (scored(9, 9, 0.95), "classes", "Every class has a recall of 100 %"),
        (scored(9, 9, 0.95), "mistakes", "No image is misclassified"),
        (
            scored(9, 8, 0.95),
            "mistakes",
            "1 image is misclassified; the most confident mistake has 95.0 % for b",
        ),
        (scored(9, 9, 0.95), "training", "This model has not been trained yet"),
    ],
)
def test_headlines_of_special_cases(findings: Findings, key: str, headline: str) -> None:
    assert plain(headlines(findings, ("a", "b"), ())[key]) == headline


def test_a_model_without_mistakes_has_a_report(trained: Checkpoint, sample_test: Dataset) -> None:
    correct = Classifier(trained).predict(sample_test.images) == sample_test.labels
    parsed = Page(rendered(trained, part(sample_test, np.flatnonzero(correct))))
    assert "No image is misclassified" in "".join(parsed.words)
    assert not [a for a, _ in parsed.all("img") if a["alt"].startswith("Image ")]


def test_a_png_holds_the_exact_pixels() -> None:
    for shape in ((5, 7), (5, 7, 4)):
        pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encode_png(pixels)))), pixels)


# The command


def test_the_command_writes_a_page_and_prints_its_size(invoke: Invoke, model_file: Path, work: Path) -> None:
    result = invoke("report", "-c", model_file, "--output", "page.html", "--json")
    found = json.loads(result.stdout)
    assert found == {"report": "page.html", "bytes": Path("page.html").stat().st_size}
    assert "open it in a browser" in invoke("report", "-c", model_file).stdout
    assert sorted(path.name for path in work.iterdir()) == ["page.html", "report.html"]


def test_a_missing_extra_is_named(
    invoke: Invoke, model_file: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    hide = lambda name, *more: None if name == "jinja2" else find_spec(name, *more)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", hide)
    result = invoke("report", "-c", model_file)
    assert_fails(result, "the report needs jinja2", "pip install 'softmax-regression[report]'", code=2)


def test_a_report_replaces_a_report_and_no_other_file(invoke: Invoke, model_file: Path, work: Path) -> None:
    model = Path("m.npz")
    model.write_bytes(model_file.read_bytes())
    assert_fails(invoke("report", "-c", model, "-o", model), "m.npz", "report", "--output", code=2)
    assert model.read_bytes() == model_file.read_bytes()
    for _ in range(2):
        assert invoke("report", "-c", model).exit_code == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (("--output", "folder/"), "it is a folder"),
        (("--output", "nowhere/page.html"), "does not exist"),
        (("--dataset", "minst"), "minst"),
    ],
)
def test_a_report_that_cannot_be_made_is_an_error_and_nothing_is_written(
    line: tuple[str, ...], message: str, invoke: Invoke, model_file: Path, work: Path
) -> None:
    Path("folder").mkdir()
    assert_fails(invoke("report", "-c", model_file, *line), message, code=2 if "minst" in line else 1)
    assert [path.name for path in work.iterdir()] == ["folder"]
    assert list(Path("folder").iterdir()) == []
