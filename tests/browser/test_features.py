"""The features that the script of the page computes, and its explanations, are those of the library."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from softmax_cli.checkpoint import Checkpoint
from softmax_cli.config import TrainConfig
from softmax_cli.data.dataset import Dataset
from softmax_cli.explanation import integrated_gradients
from softmax_cli.features import evidence_of
from softmax_cli.model import Model
from softmax_cli.report.board import describe_model
from softmax_cli.training import start
from tests.browser.board import STROKES, Board, Report

Open = Callable[..., Board]
CLASS = 3

COMPUTE = """([data, bias, images, k]) => {
  const model = modelOf(data, bias);
  return images.map(({ image, redrawn }) => {
    const seen = Uint8Array.from(redrawn);
    return { redrawn: [...model.redraw(Uint8Array.from(image))], z: model.evidence(seen),
             terms: [...model.contributions(seen, k)], blank: model.blank[k] };
  });
}"""
"""What the script computes for images with a model of any stages."""


def orders(*names: str) -> Iterator[tuple[str, ...]]:
    """Yield all selections of names, in all orders."""
    for count in range(len(names) + 1):
        yield from itertools.permutations(names, count)


PIPELINES = [
    (*images, *gradients, *vectors)
    for images in orders("deskew", "normalize")
    for gradients in ((), ("gradients",))
    for vectors in orders("pca", "fourier")
]
"""All legal orders of all stages."""


def random_model(stages: tuple[str, ...], data: Dataset) -> Checkpoint:
    """Return a model of these stages, fitted on the data, with random weights."""
    options = {"pca_dimension": 20, "fourier_dimension": 40, "gradients_grid": 6}
    own = {key: value for key, value in options.items() if key.split("_")[0] in stages}
    config = TrainConfig(features=list(stages) or "pixels", **own)  # type: ignore[arg-type]
    state = start(config, data)
    generator = np.random.default_rng(len(stages))
    model = Model(*(generator.normal(size=part.shape).astype(np.float32) for part in state.model))
    return Checkpoint.begin(config, data, replace(state, model=model))


@pytest.fixture(scope="module")
def few(sample: Dataset) -> Dataset:
    """Return 300 training images."""
    return replace(sample, images=sample.images[:300], labels=sample.labels[:300])


@pytest.mark.parametrize("images", sorted({one[:2] for one in orders("deskew", "normalize")}), ids=",".join)
def test_all_pipelines_are_computed_as_in_python(
    reports: dict[str, Report], few: Dataset, sample_test: Dataset, open_page: Open, images: tuple[str, ...]
) -> None:
    """Redrawn images up to one grey level, evidence within 1e-4, contributions within 0.1 % of the largest.

    The contributions add up to the change of the evidence from a blank image.
    """
    board, examples = open_page(reports["pixels"].page), sample_test.images[[0, 1, 2, 3]]
    for stages in PIPELINES:
        if tuple(name for name in stages if name in ("deskew", "normalize")) != images:
            continue
        model = random_model(stages, few)
        state = model.state
        redrawn = state.features.redraw(examples)
        both = [
            {"image": image.ravel().tolist(), "redrawn": seen.ravel().tolist()}
            for image, seen in zip(examples, redrawn, strict=True)
        ]
        data = describe_model(model, 10**8)
        found = board.page.evaluate(COMPUTE, [data, state.model.bias.tolist(), both, CLASS])
        expected = evidence_of(state.model, state.features, redrawn)
        for one, seen, z in zip(found, redrawn, expected, strict=True):
            assert np.abs(np.reshape(one["redrawn"], (28, 28)) - seen.astype(int)).max() <= 1
            np.testing.assert_allclose(one["z"], z, atol=1e-4)
            weights = state.model.weights[:, CLASS].astype(np.float64)
            terms = integrated_gradients(state.features.prepared, seen, weights)
            np.testing.assert_allclose(one["terms"], terms.ravel(), atol=1e-3 * np.abs(terms).max())
            assert sum(one["terms"]) == pytest.approx(one["z"][CLASS] - one["blank"], abs=1e-3)


def test_16_bits_change_no_probability_by_more_than_a_thousandth(
    reports: dict[str, Report], sample_test: Dataset, open_page: Open
) -> None:
    """The page has the numbers of a model that is too large for float32; 200 images, answers alike."""
    board, state = open_page(reports["rounded"].page), reports["rounded"].model.state
    assert board.page.evaluate("DATA.model.weights.unit") > 0
    images = state.features.redraw(sample_test.images[:200])
    found = board.page.evaluate(
        "images => images.map((image) => softmax(MODEL.evidence(Uint8Array.from(image))))",
        images.reshape(200, -1).tolist(),
    )
    z = evidence_of(state.model, state.features, images).astype(np.float64)
    shares = np.exp(z - z.max(axis=1, keepdims=True))
    np.testing.assert_allclose(found, shares / shares.sum(axis=1, keepdims=True), atol=1e-3)


@pytest.mark.parametrize("name", ["gradients", "rounded"])
def test_the_contributions_of_pixels_are_shown(
    reports: dict[str, Report], open_page: Open, name: str
) -> None:
    """Blue and red, those of the class that is pointed at; they add up to its evidence with a blank image."""
    board = open_page(reports[name].page)
    assert board.page.locator("#answer").inner_text() == "The board is empty."
    board.draw(STROKES["7"])
    text, rows = board.page.locator("#speaks-text"), board.page.locator(".answer")
    answer = board.page.locator("#answer").inner_text().split(",")[0]
    pictures = []
    for k in (int(answer), 1):
        rows.nth(k).hover()
        assert text.inner_text().startswith(f"Evidence for {k}: ")
        from_pixels, from_blank = (
            part.split(" from ") for part in text.inner_text().split(": ")[1].split(", ")
        )
        assert from_blank[1] == "a blank image"
        parts = [float(part[0].replace("−", "-")) for part in (from_pixels, from_blank)]
        assert sum(parts) == pytest.approx(board.evidence()[k], abs=0.02)
        drawn = board.pixels("#speaks")[0].astype(int)
        terms = np.array(board.page.evaluate("[...story.now.terms]")).reshape(28, 28)
        strong = np.abs(terms) > 0.1 * np.abs(terms).max()
        np.testing.assert_array_equal((drawn[..., 2] > drawn[..., 0])[strong], (terms > 0)[strong])
        assert board.page.locator("#overlay").is_visible()
        np.testing.assert_array_equal(board.pixels("#over-weights"), board.pixels("#speaks"))
        pictures.append(drawn)
    assert np.abs(pictures[0] - pictures[1]).max() > 50
    row, column = np.unravel_index(np.abs(terms).argmax(), (28, 28))
    canvas = board.page.locator("#speaks")
    box = canvas.bounding_box()
    assert box
    rows.nth(1).click()
    cell = box["width"] / 28
    canvas.hover(position={"x": (column + 0.5) * cell, "y": (row + 0.5) * cell})
    found = board.page.locator("#pixel").inner_text()
    expected = f"contribution {terms[row, column]:+.2f} for 1".replace("-", "−")
    assert found.startswith(f"Row {row + 1}, column {column + 1}: intensity ")
    assert found.endswith(expected)


def test_one_step_on_features_has_the_gradient_of_python(
    reports: dict[str, Report], sample_test: Dataset, open_page: Open
) -> None:
    """The learning rate of the weights is multiplied by the gain of the features, as in training."""
    report = reports["gradients"]
    board, state = open_page(report.page), report.model.state
    board.page.locator("#samples button").nth(4).click()
    board.page.locator("#gradient-target").select_option("9")
    board.page.locator("#gradient-rate").fill("-2")
    image = state.features.redraw(sample_test.images[report.findings.samples[4]][None])
    x = state.features.transform(image).astype(np.float64)
    z = x @ state.model.weights + state.model.bias
    y = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
    error = y - np.eye(10)[9]
    after = x @ (state.model.weights - 0.01 * state.features.gain * x.T @ error)
    after = np.exp(after + state.model.bias - 0.01 * error)
    cells = board.page.locator("#gradient-rows td:last-child").all_inner_texts()
    shown = [float(cell.rstrip("%").strip()) for cell in cells]
    np.testing.assert_allclose(shown, 100 * (after / after.sum())[0], atol=0.06)
