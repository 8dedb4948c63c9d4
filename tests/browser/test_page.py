"""The report in a browser: what a reader sees and does, and that the page agrees with the library."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from softmax_cli.checkpoint import Checkpoint
from softmax_cli.classifier import Classifier
from softmax_cli.config import TrainConfig
from softmax_cli.data.dataset import Dataset
from softmax_cli.features import evidence_of
from softmax_cli.model import (
    Model,
    cross_entropy,
    cross_entropy_gradient,
    evidence,
    loss_and_gradient,
    softmax,
    squared_error_gradient,
)
from softmax_cli.pictures import draw_digit, draw_plain, read_luminance
from softmax_cli.pictures.digit import draw_ink
from softmax_cli.report import page as report
from softmax_cli.report.findings import find_mistakes
from softmax_cli.report.lesson import choose_rows
from softmax_cli.training import start
from tests.browser.board import STROKES, Board, Report
from tests.helpers import PICTURE

Open = Callable[..., Board]
AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
NARROW = {"viewport": {"width": 360, "height": 740}}

GREY_LEVELS = 2
"""Largest difference between a picture that the page prepares and one that the library prepares."""


def predicted(invoke: Callable[..., Result], file: Path, picture: bytes) -> dict[str, float]:
    """Return the probabilities that `softmax predict` prints for a drawing."""
    Path("board.png").write_bytes(picture)
    result = invoke("predict", "board.png", "-c", file, "--json")
    assert result.exit_code == 0, result.stderr
    return dict(json.loads(result.stdout)[0]["probabilities"])


def gray_of(picture: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture)).convert("L")).astype(int)


def assert_close(found: dict[str, float], expected: dict[str, float], tolerance: float) -> None:
    assert list(found) == list(expected)
    np.testing.assert_allclose(list(found.values()), list(expected.values()), atol=tolerance)


def assert_near(found: np.ndarray, expected: np.ndarray) -> None:
    """Assert that two images are equal up to `GREY_LEVELS`."""
    assert np.abs(found.astype(int).ravel() - expected.astype(int).ravel()).max() <= GREY_LEVELS


def evidence_in(board: Board, image: np.ndarray) -> list[float]:
    """Return the evidence that the page computes for a redrawn image (rows, cols)."""
    return list(board.page.evaluate("x => MODEL.evidence(Uint8Array.from(x))", image.ravel().tolist()))


def write_report(path: Path, model: Checkpoint, data: Dataset) -> Path:
    """Write the report on a model and a data set, and return its path."""
    text = report.render(model, data, find_mistakes(Classifier(model), data), data)
    path.write_text(text, encoding="utf-8")
    return path


# The page


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("pixels", "light"),
        ("pixels", "dark"),
        ("deskew", "light"),
        ("plain", "dark"),
        ("gradients", "light"),
        ("rounded", "dark"),
        ("fourier", "light"),
    ],
)
def test_it_loads_without_an_error_or_a_request(
    reports: dict[str, Report], open_page: Open, name: str, scheme: str
) -> None:
    board = open_page(reports[name].page, color_scheme=scheme)
    assert board.requests[0] == reports[name].page.as_uri()
    broken = "[...document.images].filter(i => !(i.complete && i.naturalWidth)).length"
    assert board.page.evaluate(broken) == 0
    shown = board.page.evaluate("[...document.images].map(i => i.currentSrc)")
    assert len(shown) > 20
    assert board.page.locator(".chart:visible path.line").count() >= 12


def test_the_policy_is_in_force(reports: dict[str, Report], open_page: Open) -> None:
    """An added script does not run, a style attribute has no effect, a fetch fails."""
    board = open_page(reports["pixels"].page)
    board.page.evaluate(
        """async () => {
          const script = document.createElement('script');
          script.textContent = 'window.ran = true';
          document.body.append(script);
          document.body.insertAdjacentHTML('beforeend', '<p id="styled" style="color: red">x</p>');
          window.fetched = await fetch('https://example.org/').then(() => true, () => false);
        }"""
    )
    assert board.page.evaluate("window.ran") is None
    assert board.page.evaluate("window.fetched") is False
    colour = "getComputedStyle(document.getElementById('styled')).color"
    assert board.page.evaluate(colour) != "rgb(255, 0, 0)"
    assert len(board.complaints) >= 3
    board.complaints.clear()


def test_class_names_are_shown_and_not_run(
    reports: dict[str, Report], sample_test: Dataset, open_page: Open, tmp_path: Path
) -> None:
    names = ("<script>window.hacked = 1</script>", '"><img src=x onerror="window.hacked = 1">', "</script>")
    model = reports["pixels"].model
    model = replace(model, class_names=(*names, *model.class_names[3:]))
    board = open_page(write_report(tmp_path / "odd.html", model, sample_test))
    assert board.page.locator(".answer .name").all_inner_texts()[:3] == list(names)
    for button in board.page.locator("[data-cell]").all()[:5]:
        button.click()
    board.page.locator(".answer").first.hover()
    assert board.page.evaluate("window.hacked") is None


@pytest.mark.parametrize("name", ["pixels", "gradients", "fourier"])
def test_it_fits_a_phone(reports: dict[str, Report], open_page: Open, name: str) -> None:
    board = open_page(reports[name].page, **NARROW)
    assert board.page.evaluate("document.documentElement.scrollWidth") <= 360
    for target in board.page.locator("section").all():
        box = target.bounding_box()
        assert box
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360


def test_on_paper_there_is_no_board(reports: dict[str, Report], open_page: Open) -> None:
    """Only what can be read is printed, dark on light."""
    board = open_page(reports["pixels"].page, color_scheme="dark")
    board.page.emulate_media(media="print")
    for section in ("desk", "evidence", "steps", "loss", "gradient", "watch"):
        assert not board.page.locator(f"#{section}").is_visible()
    for part in ("#confusion", "#weights", "#plot-loss .chart", "#plot-reliability .chart"):
        assert board.page.locator(part).is_visible()
    assert board.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert board.page.evaluate("getComputedStyle(document.querySelector('table')).breakInside") == "avoid"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("pixels", {}),
        ("pixels", {"color_scheme": "dark"}),
        ("pixels", NARROW),
        ("gradients", {}),
        ("fourier", NARROW),
    ],
    ids=["light", "dark", "narrow", "gradients", "fourier"],
)
def test_axe_finds_no_violation(
    reports: dict[str, Report], open_page: Open, name: str, options: dict[str, object]
) -> None:
    assert AXE.exists(), "axe-core is missing: make browser-test installs it"
    board = open_page(reports[name].page, **options)
    if name != "fourier":
        board.draw(STROKES["3"])
    board.page.locator("[data-cell]").first.click()
    board.page.wait_for_selector("#cell canvas")
    train(board, 3)
    board.page.evaluate(AXE.read_text(encoding="utf-8"))
    found = board.page.evaluate("axe.run()")
    faults = [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]]
    assert len(found["passes"]) > 20
    assert faults == []


# The board


@pytest.mark.parametrize("name", ["pixels", "deskew", "gradients", "rounded"])
def test_the_samples_are_predicted_as_in_python(
    reports: dict[str, Report], sample_test: Dataset, open_page: Open, name: str
) -> None:
    model, board = reports[name].model, open_page(reports[name].page)
    images = sample_test.images[list(reports[name].findings.samples)]
    answers = Classifier(model).predict_proba(images)
    buttons = board.page.locator("#samples button").all()
    assert [button.inner_text() for button in buttons] == list("0123456789")
    for button, image, shares in zip(buttons, images, answers, strict=True):
        button.click()
        assert_close(board.probabilities(), dict(zip(model.class_names, shares, strict=True)), 1e-3)
        assert board.page.locator("#answer").inner_text().startswith(f"{shares.argmax()}, ")
        assert_near(board.pixels("#seen")[..., 0], model.state.features.redraw(image[None]))


@pytest.mark.parametrize(
    ("name", "digits"),
    [
        ("pixels", "0257"),
        ("deskew", "0123456789"),
        ("plain", "146"),
        ("gradients", "0123456789"),
        ("rounded", "37"),
    ],
)
def test_what_is_drawn_is_predicted_as_predict_does(
    reports: dict[str, Report],
    open_page: Open,
    invoke: Callable[..., Result],
    work: Path,
    name: str,
    digits: str,
) -> None:
    """Within 0.01; the numbers shown are rounded. Deskewed and gradient features recognise most drawings."""
    board, correct = open_page(reports[name].page), 0
    for digit in digits:
        board.page.locator("#clear").click()
        board.draw(STROKES[digit])
        correct += board.page.locator("#answer").inner_text().startswith(f"{digit}, ")
        picture = board.picture()
        assert gray_of(picture).min() == 0
        assert_close(board.probabilities(), predicted(invoke, reports[name].file, picture), 1e-2)
        shares = [100 * share for share in board.probabilities().values()]
        np.testing.assert_allclose(numbers(board, ".answer .number"), shares, atol=0.051)
        np.testing.assert_allclose(numbers(board, ".bar-row .number"), board.evidence(), atol=0.0051)
    assert correct >= 7 or name not in ("deskew", "gradients")


def placed(generator: np.random.Generator, digits: np.ndarray) -> list[np.ndarray]:
    """Return digits at random sizes and places, light on dark or dark on light."""
    pictures = []
    for index, image in enumerate(digits):
        size = tuple(generator.integers(40, 200, 2).tolist())
        digit = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
        gray = np.pad(digit, generator.integers(4, 40, (2, 2)).tolist())
        pictures.append(255 - gray if index % 2 else gray)
    return pictures


@pytest.mark.parametrize("preparation", ["digit", "plain"])
@pytest.mark.parametrize("shape", [(28, 28), (20, 28), (28, 20), (5, 8)])
def test_pictures_are_prepared_and_redrawn_as_in_python(
    sample_test: Dataset, open_page: Open, tmp_path: Path, shape: tuple[int, int], preparation: str
) -> None:
    """The redrawn image is equal up to rounding, and so is the evidence of its features."""
    generator = np.random.default_rng(1)
    config = TrainConfig(features="deskew,normalize,gradients", gradients_grid=3)
    labels, images = np.arange(20, dtype=np.uint8) % 2, generator.integers(0, 256, (20, *shape), np.uint8)
    if shape == (28, 28):
        images = np.stack([*sample_test.images[:18], np.zeros_like(images[0]), np.full_like(images[0], 255)])
    data = replace(sample_test, images=images, labels=labels, class_names=("a", "b"), preparation=preparation)
    state = start(config, data)
    weights = generator.normal(size=state.model.weights.shape).astype(np.float32)
    state = replace(state, model=Model(weights, state.model.bias))
    model = Checkpoint.begin(config, data, state)
    board = open_page(write_report(tmp_path / "shape.html", model, data))
    draw = draw_digit if preparation == "digit" else draw_plain
    for picture in placed(generator, sample_test.images[:6]):
        assert_near(board.drawn_as_image(picture), draw(picture, shape).image)
    for image, z in zip(
        images, evidence_of(state.model, state.features, state.features.redraw(images)), strict=True
    ):
        redrawn = state.features.redraw(image[None])
        assert_near(board.redrawn(image), redrawn)
        np.testing.assert_allclose(evidence_in(board, redrawn[0]), z, atol=1e-4)


def test_colours_have_the_luminance_of_python(
    reports: dict[str, Report], open_page: Open, tmp_path: Path
) -> None:
    board = open_page(reports["pixels"].page)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    found = board.page.evaluate(
        """values => {
          const canvas = document.createElement('canvas');
          canvas.width = canvas.height = 16;
          const image = new ImageData(16, 16);
          for (let p = 0; p < 256; p++) image.data.set([...values.slice(3 * p, 3 * p + 3), 255], 4 * p);
          canvas.getContext('2d').putImageData(image, 0, 0);
          return [...luminance(canvas).data];
        }""",
        pixels.ravel().tolist(),
    )
    Image.fromarray(pixels).save(tmp_path / "colours.png")
    gray = read_luminance(tmp_path / "colours.png").gray
    assert_near(np.array(found), gray)


def test_undo_and_clear_restore_earlier_drawings(reports: dict[str, Report], open_page: Open) -> None:
    board = open_page(reports["pixels"].page)
    blank, none = board.probabilities(), board.picture()
    assert "empty" in board.page.locator("#answer").inner_text()
    board.draw(STROKES["4"][:1])
    one = board.probabilities()
    board.draw(STROKES["4"][1:])
    assert board.probabilities() != one
    board.page.locator("#undo").click()
    assert board.probabilities() == one != blank
    board.page.locator("#samples button").nth(3).click()
    sample = board.probabilities()
    for _ in range(2):
        board.page.locator("#clear").click()
        assert (board.probabilities(), board.picture()) == (blank, none)
    board.page.locator("#undo").click()
    assert board.probabilities() == sample
    for _ in range(3):
        board.page.locator("#undo").click()
    assert (board.probabilities(), board.picture()) == (blank, none)


def test_a_sample_can_be_drawn_on(
    reports: dict[str, Report], open_page: Open, invoke: Callable[..., Result], work: Path
) -> None:
    board = open_page(reports["pixels"].page)
    board.page.locator("#samples button").nth(1).click()
    before = board.probabilities()
    board.draw([[(60, 60), (220, 60)]])
    assert board.probabilities() != before
    assert_close(board.probabilities(), predicted(invoke, reports["pixels"].file, board.picture()), 1e-2)


def test_the_evidence_for_any_class_is_shown(reports: dict[str, Report], open_page: Open) -> None:
    """For the class that is pointed at, else the selected one, else the answer; pixels and bias add up."""
    board = open_page(reports["pixels"].page)
    board.draw(STROKES["7"])
    text, rows = board.page.locator("#speaks-text"), board.page.locator(".answer")
    answer = board.page.locator("#answer").inner_text().split(",")[0]
    assert text.inner_text().startswith(f"Evidence for {answer}:")
    rows.nth(2).hover()
    assert text.inner_text().startswith("Evidence for 2:")
    weights = reports["pixels"].model.state.model.weights[:, 2].reshape(28, 28)
    seen, speaks = board.pixels("#seen")[0, ..., 0], board.pixels("#speaks")[0].astype(int)
    contributions = weights * seen / 255
    assert (speaks[contributions > 0.05][:, 2] > speaks[contributions > 0.05][:, 0]).all()  # blue
    assert (speaks[contributions < -0.05][:, 0] > speaks[contributions < -0.05][:, 2]).all()  # red
    assert min((contributions > 0.05).sum(), (contributions < -0.05).sum()) > 5
    assert not speaks[seen == 0][:, 3].any()
    parts = text.inner_text().split(": ")[1].split(", ")
    evidence = float(rows.nth(2).get_attribute("data-evidence") or "nan")
    assert sum(number(part.split()[0]) for part in parts) == pytest.approx(evidence, abs=0.02)
    board.page.mouse.move(5, 5)
    assert text.inner_text().startswith(f"Evidence for {answer}:")
    rows.nth(4).click()
    board.page.mouse.move(5, 5)
    rows.nth(4).blur()
    assert text.inner_text().startswith("Evidence for 4:")
    assert rows.nth(4).get_attribute("aria-pressed") == "true"


def test_evidence_has_a_fixed_scale(reports: dict[str, Report], open_page: Open) -> None:
    """Blue to the right above zero, red to the left below; half of the track is the evidence at its end."""
    board = open_page(reports["pixels"].page)
    span = board.page.evaluate("DATA.span")
    for digit in "17":
        board.page.locator("#samples button").nth(int(digit)).click()
        found = board.page.evaluate(
            """[...document.querySelectorAll('.bar-row .bar')].map(bar =>
                 [parseFloat(bar.style.width), bar.classList.contains('minus')])"""
        )
        for (width, minus), z in zip(found, board.evidence(), strict=True):
            assert width == pytest.approx(50 * min(abs(z) / span, 1), abs=0.01)
            assert minus == (z < 0)


def test_the_terms_of_a_pixel_are_shown(reports: dict[str, Report], open_page: Open) -> None:
    """By pointer and by keyboard."""
    board = open_page(reports["pixels"].page)
    board.page.locator("#samples button").nth(3).click()
    board.page.locator("#evidence-classes button").nth(5).click()
    seen, weights = board.pixels("#seen")[0, ..., 0], reports["pixels"].model.state.model.weights
    row, column = np.argwhere(seen[8:20, 8:20] > 128)[0] + 8
    x, w = seen[row, column] / 255, weights[28 * row + column, 5]
    expected = (
        f"Row {row + 1}, column {column + 1}: intensity {x:.2f} × weight {w:+.2f} = {x * w:+.2f} for 5"
    ).replace("-", "−")
    canvas = board.page.locator("#seen")
    box = canvas.bounding_box()
    assert box
    cell = box["width"] / 28
    canvas.hover(position={"x": (column + 0.5) * cell, "y": (row + 0.5) * cell})
    assert board.page.locator("#pixel").inner_text() == expected
    board.page.mouse.move(5, 5)
    canvas.focus()
    for key, times in (("ArrowUp", 14 - row), ("ArrowDown", row - 14)):
        for _ in range(times):
            board.page.keyboard.press(key)
    for key, times in (("ArrowLeft", 14 - column), ("ArrowRight", column - 14)):
        for _ in range(times):
            board.page.keyboard.press(key)
    assert board.page.locator("#pixel").inner_text() == expected


def test_weights_are_laid_over_the_board(reports: dict[str, Report], open_page: Open) -> None:
    """While a class is pointed at or focused."""
    board = open_page(reports["pixels"].page)
    board.page.locator("#samples button").nth(3).click()
    overlay, tile = board.page.locator("#overlay"), board.page.locator(".tile[data-class='6']")
    assert not overlay.is_visible()
    tile.hover()
    assert overlay.is_visible()
    weights = reports["pixels"].model.state.model.weights[:, 6].reshape(28, 28)
    over = board.pixels("#over-weights")[0].astype(int)
    strong = np.abs(weights) > 0.3 * np.abs(weights).max()
    np.testing.assert_array_equal((over[..., 2] > over[..., 0])[strong], (weights > 0)[strong])
    np.testing.assert_array_equal(board.pixels("#over-seen")[..., 0], board.pixels("#seen")[..., 0])
    board.page.mouse.move(5, 5)
    assert not overlay.is_visible()
    tile.focus()
    assert overlay.is_visible()
    tile.blur()
    assert not overlay.is_visible()


def give(board: Board, how: str, content: bytes) -> None:
    """Give the page a picture file: choose it, drop it or paste it."""
    if how == "choose":
        file = {"name": "digit.png", "mimeType": "image/png", "buffer": content}
        board.page.locator("#file").set_input_files(file)  # type: ignore[arg-type]
    else:
        board.page.evaluate(
            """([how, bytes]) => {
              const data = new DataTransfer();
              data.items.add(new File([Uint8Array.from(bytes)], 'digit.png', { type: 'image/png' }));
              const sheet = document.getElementById('sheet');
              sheet.dispatchEvent(how === 'drop'
                ? new DragEvent('drop', { bubbles: true, cancelable: true, dataTransfer: data })
                : new ClipboardEvent('paste', { bubbles: true, cancelable: true, clipboardData: data }));
            }""",
            [how, list(content)],
        )


@pytest.mark.parametrize("how", ["choose", "drop", "paste"])
def test_a_picture_is_predicted_as_predict_does(
    reports: dict[str, Report], open_page: Open, invoke: Callable[..., Result], work: Path, how: str
) -> None:
    board = open_page(reports["deskew"].page)
    picture = PICTURE.read_bytes()
    give(board, how, picture)
    board.page.wait_for_selector("#origin:has-text('Your picture')")
    assert_close(board.probabilities(), predicted(invoke, reports["deskew"].file, picture), 1e-2)
    give(board, how, b"no picture")
    board.page.wait_for_selector("#origin:has-text('not a picture')")


def test_a_picture_is_cropped_drawn_and_centred_and_no_more(
    reports: dict[str, Report], open_page: Open
) -> None:
    """A frame, which `softmax predict` removes, remains; the page says so."""
    board = open_page(reports["pixels"].page)
    gray = np.full((120, 100), 255, np.uint8)
    gray[30:90, 46:54] = 0
    gray[10:110, [8, 9, 10, 89, 90, 91]] = 40
    gray[[8, 9, 10, 109, 110, 111], 8:92] = 40
    content = io.BytesIO()
    Image.fromarray(gray).save(content, "png")
    give(board, "paste", content.getvalue())
    board.page.wait_for_selector("#origin:has-text('Your picture')")
    expected = draw_ink(255 - gray, (28, 28))
    assert_near(board.pixels("#seen")[0, ..., 0], expected)
    assert np.abs(draw_digit(gray, (28, 28)).image.astype(int) - expected).max() > 200
    text = " ".join((board.page.locator("#desk details").text_content() or "").split())
    assert "crops it to the ink, normalises the width of the strokes and centres it by mass" in text
    assert "removes no lines, frames or shadows" in text


def test_a_mistake_is_put_on_the_board(
    reports: dict[str, Report], sample_test: Dataset, open_page: Open
) -> None:
    """From the list of mistakes and from a cell of the confusion matrix; its class becomes the target."""
    board, findings = open_page(reports["pixels"].page), reports["pixels"].findings
    board.page.locator("#mistakes-more").click()
    tiles = board.page.locator("#mistake-tiles .tile")
    assert board.page.evaluate(
        "document.activeElement.parentElement === document.querySelectorAll('#mistake-tiles li')[12]"
    )
    last = findings.mistakes[tiles.count() - 1]
    (cell, (first, *_)), *_ = findings.by_cell(12).items()
    for mistake in (last, first):
        if mistake is last:
            tiles.last.click()
        else:
            board.page.locator(f"[data-cell='{cell[0]},{cell[1]}']").click()
            board.page.locator("#cell .tile").first.click()
        shares = board.probabilities()
        assert shares[str(mistake.guess)] == pytest.approx(mistake.probability, abs=1e-3)
        assert f"the true class is {mistake.true}" in board.page.locator("#answer").inner_text()
        assert board.page.locator("#origin").inner_text() == f"Test image {mistake.image}."
        assert board.page.locator("#target").input_value() == str(mistake.true)
        np.testing.assert_array_equal(board.pixels("#seen")[0, ..., 0], sample_test.images[mistake.image])


def test_drawing_works_by_touch(reports: dict[str, Report], open_page: Open) -> None:
    board = open_page(reports["pixels"].page, has_touch=True, **NARROW)
    sheet = board.page.locator("#sheet")
    sheet.scroll_into_view_if_needed()
    blank = board.probabilities()
    sheet.tap(position={"x": 100, "y": 120})
    assert board.probabilities() != blank
    assert board.page.evaluate("getComputedStyle(document.getElementById('sheet')).touchAction") == "none"


def send(board: Board, kind: str, place: tuple[int, int], **options: object) -> None:
    """Send a pointer event to the board, at a place in its own pixels."""
    board.page.evaluate(
        """([kind, x, y, options]) => {
          const sheet = document.getElementById('sheet'), box = sheet.getBoundingClientRect();
          const scale = box.width / 280;
          sheet.setPointerCapture = () => {};
          sheet.dispatchEvent(new PointerEvent(kind, {
            clientX: box.left + scale * x, clientY: box.top + scale * y,
            bubbles: true, isPrimary: true, pointerId: 7, button: 0, buttons: 1, ...options }));
        }""",
        [kind, *place, options],
    )


def test_one_pointer_draws_at_a_time(reports: dict[str, Report], open_page: Open) -> None:
    """A second finger, another button, or a pointer without its button down does not add to a stroke."""
    board = open_page(reports["pixels"].page)
    board.draw([[(60, 60), (60, 200)]])
    expected = board.picture()
    board.page.locator("#clear").click()
    second = {"pointerId": 8, "isPrimary": False}
    send(board, "pointerdown", (60, 60))
    send(board, "pointerdown", (220, 60), **second)
    for step in range(1, 7):
        send(board, "pointermove", (60, 60 + round(step * 140 / 6)))
        send(board, "pointermove", (220, 60 + 20 * step), **second)
    send(board, "pointerup", (220, 200), **second)
    send(board, "pointermove", (200, 200), buttons=0)
    send(board, "pointermove", (200, 60))
    send(board, "pointerdown", (150, 150), button=2, buttons=2)
    send(board, "pointermove", (200, 200), buttons=2)
    ours, theirs = (
        np.asarray(Image.open(io.BytesIO(one)).convert("L")) for one in (board.picture(), expected)
    )
    assert np.abs(ours.astype(int) - theirs).max() <= 64  # the positions of the mouse are fractions
    send(board, "pointerdown", (100, 100))
    board.page.locator("#undo").dispatch_event("click")
    send(board, "pointerup", (100, 100))
    assert (
        np.abs(np.asarray(Image.open(io.BytesIO(board.picture())).convert("L")).astype(int) - ours).max() == 0
    )


def test_a_stroke_continues_outside_the_board(reports: dict[str, Report], open_page: Open) -> None:
    board = open_page(reports["pixels"].page)
    board.draw([[(140, 140), (140, 400), (270, 400), (270, 140)]])
    board.page.mouse.move(600, 400)
    ink = gray_of(board.picture()) < 128
    assert not ink[:, 190:220].any()  # it returned at the right edge
    assert ink[200:280, 262:278].any()


def test_other_input_lifts_the_pen_of_the_keyboard(reports: dict[str, Report], open_page: Open) -> None:
    board = open_page(reports["pixels"].page)
    page = board.page
    press, sheet = page.keyboard.press, page.locator("#sheet")

    def ink() -> int:
        return int((gray_of(board.picture()) < 128).sum())

    board.draw([[(40, 40), (40, 100)]])
    mouse = ink()
    sheet.focus()
    press(" ")
    press("ArrowRight")
    assert "The pen is down" in page.locator("#pen").inner_text()
    page.locator("#undo").click()
    assert "The pen is up" in page.locator("#pen").inner_text()
    sheet.focus()
    press("ArrowDown")
    assert ink() == mouse
    press(" ")
    board.draw([[(240, 40), (240, 100)]])
    both = ink()
    sheet.focus()
    press("ArrowDown")
    assert ink() == both
    press("Alt+ArrowLeft")
    page.keyboard.down(" ")
    page.keyboard.down(" ")  # a key that is held down repeats
    assert "The pen is down" in page.locator("#pen").inner_text()
    page.keyboard.up(" ")
    for _ in range(40):
        press("ArrowRight")
    assert "280 from the left" in page.locator("#pen").inner_text()
    assert page.locator("#mark").evaluate("mark => mark.style.left") == "100%"
    page.locator("#clear").click()
    assert (ink(), "The pen is up" in page.locator("#pen").inner_text()) == (0, True)


def test_features_that_do_not_fit_leave_out_only_the_evidence_of_drawings(
    reports: dict[str, Report], sample_test: Dataset, open_page: Open
) -> None:
    """Examples and mistakes have theirs, and the model that the page trains classifies the drawing."""
    board, findings = open_page(reports["fourier"].page), reports["fourier"].findings
    assert "900 random Fourier features" in board.page.locator("#evidence .reason").inner_text()
    assert "has room for" in board.page.locator("#evidence .reason").inner_text()
    for click, image in (
        (board.page.locator("#samples button").nth(6), findings.samples[6]),
        (board.page.locator("#mistake-tiles .tile").first, findings.mistakes[0].image),
    ):
        click.click()
        (expected,) = Classifier(reports["fourier"].model).predict_proba(sample_test.images[image][None])
        np.testing.assert_allclose(list(board.probabilities().values()), expected, atol=1e-3)
        np.testing.assert_allclose(shares(board), expected, atol=1e-3)
    board.page.locator("#clear").click()
    board.draw(STROKES["7"])
    assert board.page.locator("#answer").inner_text() == "The page has no evidence for this image."
    train(board, 30)
    live = numbers(board, "#watch-classes .number")
    assert np.argmax(live) == 7


# By keyboard alone


def test_the_keyboard_is_enough(reports: dict[str, Report], open_page: Open) -> None:
    """Tab reaches the links, the board, its buttons, the sliders and the matrix, and each works."""
    board, focused = (
        open_page(reports["pixels"].page),
        "document.activeElement.id || document.activeElement.outerHTML",
    )
    press, page = board.page.keyboard.press, board.page
    press("Tab")
    assert "Skip to the content" in page.evaluate(focused)
    for _ in range(40):
        press("Tab")
        if page.evaluate(focused) == "sheet":
            break
    assert page.evaluate(focused) == "sheet"
    blank = board.probabilities()
    for key in ("ArrowUp",) * 8 + (" ",) + ("ArrowDown",) * 16 + (" ",):
        press(key)
    assert page.locator("#pen").inner_text() == "The pen is up, 140 from the left, 220 from the top."
    assert page.locator("#answer").inner_text().startswith("1, ")

    def tab_to(condition: str) -> None:
        for _ in range(80):
            press("Tab")
            if page.evaluate(condition):
                return
        pytest.fail(f"the keyboard does not reach {condition}")

    tab_to("document.activeElement.id === 'undo'")
    press("Enter")
    assert board.probabilities() == blank
    tab_to("document.activeElement.id === 'file'")
    tab_to("document.activeElement.closest('#samples')")
    press("Enter")
    assert board.probabilities() != blank
    tab_to("document.activeElement.closest('#steps-rows')")
    before = page.evaluate("document.activeElement.valueAsNumber")
    press("ArrowLeft")
    assert page.evaluate("document.activeElement.valueAsNumber") == pytest.approx(before - 0.1)
    tab_to("document.activeElement.closest('#plot-push')")
    values = page.locator("#plot-push .values")
    at_end = values.inner_text()
    press("ArrowLeft")
    assert values.inner_text() != at_end
    tab_to("document.activeElement.id === 'watch-step'")
    press("Enter")
    page.wait_for_selector("#watch-count:has-text('step 1')")
    tab_to("document.activeElement.dataset.class === '0'")
    assert page.locator("#overlay").is_visible()
    tab_to("document.activeElement.dataset.cell")
    press("Enter")
    page.wait_for_selector("#cell canvas")
    assert page.evaluate(focused) == "cell"


# Confusion


def test_a_cell_opens_its_most_confident_mistakes(
    reports: dict[str, Report], sample_test: Dataset, open_page: Open
) -> None:
    board = open_page(reports["pixels"].page)
    cells = reports["pixels"].findings.by_cell(12)
    for (true, guess), mistakes in list(cells.items())[:6]:
        board.page.locator(f"[data-cell='{true},{guess}']").click()
        board.page.wait_for_selector(f"#cell h3:text('{true} classified as {guess}: {len(mistakes)} of')")
        expected = sample_test.images[[one.image for one in mistakes]]
        np.testing.assert_array_equal(board.pixels("#cell canvas")[..., 0], expected)
        shares = f"{true} {100 * mistakes[0].true_probability:.1f}"
        assert board.page.locator("#cell .tile span").first.inner_text().startswith(shares)


# Softmax, step by step


def number(text: str) -> float:
    return float(text.replace("−", "-"))


def numbers(board: Board, selector: str) -> list[float]:
    """Return numbers that the page shows, without percent signs."""
    return [number(text.rstrip("%").strip()) for text in board.page.locator(selector).all_inner_texts()]


def shares(board: Board) -> list[float]:
    return numbers(board, "#steps-rows .number")


def train(board: Board, steps: int) -> None:
    """Take steps of training in the page."""
    board.page.evaluate("watch.ready")
    board.page.evaluate("steps => { for (let i = 1; i < steps; i++) watch.advance(); }", steps)
    board.page.locator("#watch-step").click()


def test_softmax_starts_undecided(reports: dict[str, Report], open_page: Open) -> None:
    """All evidence is 0, every class has 1/K, the loss is ln K; also after the board is cleared."""
    board = open_page(reports["pixels"].page)
    for _ in range(2):
        assert shares(board) == [0.1] * 10
        assert board.page.locator("#loss-ce").inner_text() == f"{np.log(10):.4f}"
        board.page.locator("#samples button").nth(3).click()
        assert shares(board) != [0.1] * 10
        board.page.locator("#clear").click()


def test_the_sliders_follow_the_drawing(reports: dict[str, Report], open_page: Open) -> None:
    """Its evidence is that of the sliders, its probabilities feed the loss; also after they were moved."""
    board = open_page(reports["pixels"].page)
    board.draw(STROKES["2"])
    for _ in range(2):
        np.testing.assert_allclose(shares(board), list(board.probabilities().values()), atol=1e-4)
        values = board.page.evaluate(
            "[...document.querySelectorAll('#steps-rows input')].map(s => s.valueAsNumber)"
        )
        np.testing.assert_allclose(values, board.evidence(), atol=0.051)
        t = int(board.page.locator("#target").input_value())
        assert number(board.page.locator("#loss-ce").inner_text()) == pytest.approx(
            -np.log(list(board.probabilities().values())[t]), abs=1e-3
        )
        board.rows()[3].locator("input").fill("9")
        board.page.locator("#temperature").fill("0.5")
        board.page.locator("#steps-reset").click()


def test_the_sliders_keep_the_sum_at_one(reports: dict[str, Report], open_page: Open) -> None:
    """If the probability of one class rises, the others fall in proportion."""
    board, generator = open_page(reports["pixels"].page), np.random.default_rng(0)
    for slider in range(10):
        board.rows()[slider].locator("input").fill(f"{generator.uniform(-2, 2):.1f}")
    for slider in generator.permutation(10).tolist()[:5]:
        before = np.array(shares(board))
        board.rows()[slider].locator("input").fill(f"{generator.uniform(-3, 3):.1f}")
        after = np.array(shares(board))
        assert after.sum() == pytest.approx(1, abs=1e-3)
        assert board.page.locator("#steps-total").inner_text() == "1.0000"
        change = after - before
        left, right = np.delete(before, slider), np.delete(after, slider)
        np.testing.assert_allclose(right, left * (right.sum() / left.sum()), atol=3e-4)
        name, gained, *_, lost = board.page.locator("#steps-change").inner_text().rstrip(".").split()
        assert int(name) == slider
        assert number(gained.rstrip(",")) == pytest.approx(change[slider], abs=2e-4)
        assert number(lost) == pytest.approx(-change[slider], abs=2e-4)


def test_a_constant_for_all_changes_nothing(reports: dict[str, Report], open_page: Open) -> None:
    """Also as the first click, and beyond the ends of the sliders."""
    board = open_page(reports["pixels"].page)
    board.page.locator("#steps-more").click()
    assert "a constant changes nothing" in board.page.locator("#steps-change").inner_text()
    assert shares(board) == [0.1] * 10
    for slider in range(10):
        board.rows()[slider].locator("input").fill(str(board.page.evaluate("DATA.span") - 6 + slider / 2))
    before, sums = shares(board), board.page.locator("#steps-sum").inner_text()
    for _ in range(8):
        board.page.locator("#steps-more").click()
    assert shares(board) == before
    assert board.page.locator("#steps-sum").inner_text() != sums
    for _ in range(8):
        board.page.locator("#steps-less").click()
    assert (shares(board), board.page.locator("#steps-sum").inner_text()) == (before, sums)


def test_the_temperature_divides_the_evidence(reports: dict[str, Report], open_page: Open) -> None:
    board = open_page(reports["pixels"].page)
    board.page.locator("#samples button").nth(5).click()
    for power in (-0.5, 0.5):
        board.page.locator("#temperature").fill(str(power))
        expected = softmax(np.array(board.evidence()) / 10**power)
        np.testing.assert_allclose(shares(board), expected, atol=1e-4)
        assert number(board.page.locator("#temperature-text").inner_text()) == pytest.approx(
            10**power, abs=0.01
        )


# The loss, and one step


def test_the_losses_and_their_gradients_are_those_of_python(
    reports: dict[str, Report], open_page: Open
) -> None:
    board, generator = open_page(reports["pixels"].page), np.random.default_rng(1)
    for _ in range(20):
        z, target = generator.normal(0, 4, (1, 10)), int(generator.integers(10))
        found = board.page.evaluate("([z, t]) => losses(z, t)", [z[0].tolist(), target])
        labels = np.array([target])
        for key, formula in (("ce", cross_entropy_gradient), ("se", squared_error_gradient)):
            loss, gradient = formula(z, labels)
            assert found[key] == pytest.approx(loss, rel=1e-12)
            np.testing.assert_allclose(found[f"{key}Gradient"], gradient[0], rtol=1e-9, atol=1e-15)


def test_the_plateau_of_the_squared_error_is_shown(reports: dict[str, Report], open_page: Open) -> None:
    """Confident and wrong: the gradient of the cross-entropy is almost 1, of the squared error almost 0."""
    board = open_page(reports["pixels"].page)
    board.page.locator("#target").select_option("4")
    board.page.locator("#loss-wrong").click()
    cells = board.page.locator("#loss-rows tr").nth(4).locator("td").all_inner_texts()
    assert number(cells[1]) == 1
    assert number(cells[2]) == pytest.approx(-1, abs=1e-3)
    assert abs(number(cells[3])) < 1e-6
    assert (
        "Cross-entropy pushes its evidence up with 1.0000" in board.page.locator("#loss-verdict").inner_text()
    )
    chart = board.page.locator("#plot-push .chart")
    chart.focus()
    board.page.keyboard.press("Home")
    ce, se = (
        number(part.split()[-1])
        for part in (chart.get_attribute("aria-valuetext") or "").split(": ")[1].split(", ")
    )
    assert (ce, abs(se) < 1e-6) == (1, True)


def test_one_step_has_the_gradient_of_python(
    reports: dict[str, Report], sample_test: Dataset, open_page: Open
) -> None:
    """The probabilities after it, and the picture of what it adds to the weights."""
    board, index = open_page(reports["pixels"].page), reports["pixels"].findings.samples[4]
    model = Model(*(part.astype(float) for part in reports["pixels"].model.state.model))
    board.page.locator("#samples button").nth(4).click()
    board.page.locator("#gradient-target").select_option("9")
    board.page.locator("#gradient-rate").fill("-1.5")
    x = sample_test.images[index].reshape(1, -1) / 255
    _, gradient = loss_and_gradient(model, x, np.array([9]))
    after = Model(*(part - 10**-1.5 * change for part, change in zip(model, gradient, strict=True)))
    expected = softmax(evidence(after, x))[0]
    np.testing.assert_allclose(numbers(board, "#gradient-rows td:last-child"), 100 * expected, atol=0.06)
    board.page.locator("#evidence-classes button").nth(9).click()
    drawn = board.pixels("#gradient-picture")[0].reshape(-1, 4).astype(int)
    assert (drawn[-gradient.weights[:, 9] > 0.1][:, 2] > 200).all()
    assert board.page.locator("#target").input_value() == "9"


# Watch it learn


@pytest.mark.parametrize("l2", ["0", "0.01"])
def test_training_in_the_browser_is_that_of_python(
    reports: dict[str, Report], sample: Dataset, sample_test: Dataset, open_page: Open, l2: str
) -> None:
    """After 50 steps the weights agree within 1e-4, for both losses, and so do the losses and accuracies."""
    board = open_page(reports["pixels"].page)
    board.page.evaluate("watch.ready")
    board.page.locator("#watch-l2").select_option(l2)
    batches = board.page.evaluate(
        "() => Array.from({ length: 50 }, () => { watch.advance(); return [...watch.run.last]; })"
    )
    assert sorted(image for batch in batches[:10] for image in batch) == list(range(500))
    rows, rate = choose_rows(sample.labels, 500), board.page.evaluate("watch.options().rate")
    images, labels = sample.images[rows].reshape(500, -1) / 255, sample.labels[rows].astype(int)
    tested = choose_rows(sample_test.labels, 500)
    for loss, formula in (("ce", cross_entropy_gradient), ("se", squared_error_gradient)):
        model = Model.zeros(784, 10, float)
        for batch in batches:
            x = images[batch]
            _, residual = formula(evidence(model, x), labels[batch])
            gradient = x.T @ residual + float(l2) * model.weights
            model = Model(model.weights - rate * gradient, model.bias - rate * residual.sum(axis=0))
        for part in ("weights", "bias"):
            found = board.page.evaluate(f"[...watch.run.models.{loss}.{part}]")
            np.testing.assert_allclose(found, getattr(model, part).ravel(), atol=1e-4)
        board.page.evaluate("watch.paint()")
        z = evidence(model, sample_test.images[tested].reshape(500, -1) / 255)
        shown = numbers(board, f"#watch-{loss} td")
        assert shown[1] == pytest.approx(cross_entropy(z, sample_test.labels[tested]), abs=1e-3)
        assert shown[4] == pytest.approx(
            100 * (z.argmax(axis=1) == sample_test.labels[tested]).mean(), abs=0.11
        )


def test_the_drawn_digit_follows_the_training(reports: dict[str, Report], open_page: Open) -> None:
    """Its probabilities and the pictures of the weights change with each step; reset starts from zero."""
    board = open_page(reports["pixels"].page)
    board.draw(STROKES["0"])
    board.page.evaluate("watch.ready")
    live = lambda: numbers(board, "#watch-classes .number")  # noqa: E731
    assert live() == [10.0] * 10
    blank = board.pixels("#watch-classes canvas")
    assert not blank[..., 3].any()
    train(board, 20)
    assert np.argmax(live()) == 0
    assert board.page.locator("#watch-count").inner_text() == "step 20 · epoch 2"
    assert board.pixels("#watch-classes canvas")[..., 3].any()
    board.page.locator("#watch-reset").click()
    assert live() == [10.0] * 10
    assert board.page.locator("#watch-count").inner_text() == "step 0 · epoch 0"


def test_the_training_has_controls(reports: dict[str, Report], open_page: Open) -> None:
    """Play and pause, one epoch; the same seed gives the same batches, another one others."""
    board = open_page(reports["pixels"].page)
    page = board.page
    page.evaluate("watch.ready")
    page.locator("#watch-epoch").click()
    page.wait_for_selector("#watch-count:has-text('step 10 · epoch 1')")
    weights = "watch.run.models.ce.weights[400]"
    first = page.evaluate(weights)
    for seed, same in (("2", False), ("1", True)):
        page.locator("#watch-seed").fill(seed)
        page.locator("#watch-seed").press("Enter")
        page.locator("#watch-epoch").click()
        page.wait_for_selector("#watch-count:has-text('epoch 1')")
        assert (page.evaluate(weights) == first) == same
    page.locator("#watch-batch").select_option("0")
    page.locator("#watch-play").click()
    assert page.locator("#watch-play").inner_text() == "Pause"
    while page.evaluate("watch.run.step") < 14:
        page.wait_for_timeout(50)
    page.locator("#watch-play").click()
    step = page.evaluate("watch.run.step")
    assert page.evaluate("watch.run.last.length") == 500
    page.wait_for_timeout(200)
    assert page.evaluate("watch.run.step") == step


def test_divergence_is_shown(reports: dict[str, Report], open_page: Open) -> None:
    """A learning rate of 10 with batches of one image raises the loss above ln K."""
    board = open_page(reports["pixels"].page)
    board.page.locator("#watch-rate").fill("1")
    board.page.locator("#watch-batch").select_option("1")
    train(board, 60)
    assert board.page.locator("#watch-rate-text").inner_text() == "10"
    assert "the learning rate is too large" in board.page.locator("#watch-verdict").inner_text()


def test_the_curves_have_a_value_for_each_place(reports: dict[str, Report], open_page: Open) -> None:
    """By pointer and by keyboard; a screen reader gets the same text."""
    board = open_page(reports["pixels"].page)
    chart, values = board.page.locator("#plot-loss .chart"), board.page.locator("#plot-loss .values")
    history = reports["pixels"].model.state.history
    lines = [
        f"epoch {one.epoch}: training {one.train_loss:.4f}, validation {one.validation_loss:.4f}"
        for one in history
    ]
    assert values.inner_text() == lines[-1]
    chart.focus()
    board.page.keyboard.press("ArrowLeft")
    assert values.inner_text() == chart.get_attribute("aria-valuetext") == lines[-2]
    chart.hover(position={"x": 50, "y": 60})
    assert values.inner_text() == lines[0]


# Many classes


def test_many_classes_with_long_names_fit_a_phone(
    sample_test: Dataset, open_page: Open, tmp_path: Path
) -> None:
    """Every number that is a button opens its cell."""
    names = tuple(f"a class with a name that is rather long, number {k}" for k in range(47))
    data = replace(sample_test, class_names=names, labels=(np.arange(1000) % 47).astype(np.uint8))
    state = start(TrainConfig(), data)
    weights = np.random.default_rng(0).normal(size=state.model.weights.shape).astype(np.float32)
    state = replace(state, model=Model(weights, state.model.bias))
    model = Checkpoint.begin(TrainConfig(), data, state)
    board = open_page(write_report(tmp_path / "many.html", model, data), **NARROW)
    assert board.page.evaluate("document.documentElement.scrollWidth") <= 360
    assert "Here are the first 10 of 47 classes" in board.page.locator("#steps").inner_text()
    assert board.page.locator("#watch-classes li").count() == 47
    for button in board.page.locator("[data-cell]").all()[::100]:
        button.click()
        board.page.wait_for_selector("#cell canvas")
