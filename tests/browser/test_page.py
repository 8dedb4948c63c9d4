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
from softmax_cli.model import Model, cross_entropy_gradient, squared_error_gradient
from softmax_cli.pictures import draw_digit, draw_plain, read_luminance
from softmax_cli.report import page as report
from softmax_cli.report.findings import find_mistakes
from softmax_cli.training import start
from tests.browser.board import STROKES, Board, Report

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


def write_report(path: Path, model: Checkpoint, data: Dataset) -> Path:
    """Write the report on a model and a data set, and return its path."""
    path.write_text(report.render(model, data, find_mistakes(Classifier(model), data)), encoding="utf-8")
    return path


# The page


@pytest.mark.parametrize("name", ["pixels", "deskew", "plain", "fourier"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_loads_without_an_error_or_a_request(
    reports: dict[str, Report], open_page: Open, name: str, scheme: str
) -> None:
    board = open_page(reports[name].page, color_scheme=scheme)
    assert board.requests[0] == reports[name].page.as_uri()
    broken = "[...document.images].filter(i => !(i.complete && i.naturalWidth)).length"
    assert board.page.evaluate(broken) == 0
    shown = board.page.evaluate("[...document.images].map(i => i.currentSrc)")
    assert len(shown) > 20
    seen = board.page.locator(".chart").filter(visible=True).all()
    assert len(seen) == 2
    assert all(f"on-{scheme}" in (chart.get_attribute("class") or "") for chart in seen)


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


@pytest.mark.parametrize("name", ["pixels", "fourier"])
def test_it_fits_a_phone(reports: dict[str, Report], open_page: Open, name: str) -> None:
    board = open_page(reports[name].page, **NARROW)
    assert board.page.evaluate("document.documentElement.scrollWidth") <= 360
    for target in board.page.locator("section").all():
        box = target.bounding_box()
        assert box
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360


def test_on_paper_there_is_no_board(reports: dict[str, Report], open_page: Open) -> None:
    board = open_page(reports["pixels"].page, color_scheme="dark")
    board.page.emulate_media(media="print")
    assert not board.page.locator("#board").is_visible()
    assert board.page.locator("#confusion").is_visible()
    assert board.page.locator(".chart.on-light").first.is_visible()
    assert not board.page.locator(".chart.on-dark").first.is_visible()
    assert board.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


@pytest.mark.parametrize("name", ["pixels", "fourier"])
@pytest.mark.parametrize("options", [{}, {"color_scheme": "dark"}, NARROW], ids=["light", "dark", "narrow"])
def test_axe_finds_no_violation(
    reports: dict[str, Report], open_page: Open, name: str, options: dict[str, object]
) -> None:
    assert AXE.exists(), "axe-core is missing: make browser-test installs it"
    board = open_page(reports[name].page, **options)
    if name == "pixels":
        board.draw(STROKES["3"])
    board.page.locator("[data-cell]").first.click()
    board.page.wait_for_selector("#cell canvas")
    board.page.evaluate(AXE.read_text(encoding="utf-8"))
    found = board.page.evaluate("axe.run()")
    faults = [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]]
    assert len(found["passes"]) > 20
    assert faults == []


# The board


@pytest.mark.parametrize("name", ["pixels", "deskew"])
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


@pytest.mark.parametrize("name", ["pixels", "deskew", "plain"])
def test_what_is_drawn_is_predicted_as_predict_does(
    reports: dict[str, Report],
    open_page: Open,
    invoke: Callable[..., Result],
    work: Path,
    name: str,
) -> None:
    """Within 0.01; the numbers shown are rounded probabilities and evidence."""
    board = open_page(reports[name].page)
    for strokes in STROKES.values():
        board.page.locator("#clear").click()
        board.draw(strokes)
        picture = board.picture()
        assert gray_of(picture).min() == 0
        assert_close(board.probabilities(), predicted(invoke, reports[name].file, picture), 1e-2)
        texts = board.page.locator(".answer .number").all_inner_texts()
        shown = [number(text.rstrip("%").strip()) for text in texts]
        shares = [100 * share for share in board.probabilities().values()]
        np.testing.assert_allclose(shown[1::2], shares, atol=0.051)
        np.testing.assert_allclose(shown[::2], board.evidence(), atol=0.0051)


def test_most_drawn_digits_are_recognised(reports: dict[str, Report], open_page: Open) -> None:
    board, correct = open_page(reports["deskew"].page), 0
    for digit, strokes in STROKES.items():
        board.page.locator("#clear").click()
        board.draw(strokes)
        correct += board.page.locator("#answer").inner_text().startswith(f"{digit}, ")
    assert correct >= 7


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
    generator, config = np.random.default_rng(1), TrainConfig(features="deskew")
    labels, images = np.arange(20, dtype=np.uint8) % 2, generator.integers(0, 256, (20, *shape), np.uint8)
    if shape == (28, 28):
        images = np.stack([*sample_test.images[:18], np.zeros_like(images[0]), np.full_like(images[0], 255)])
    data = replace(sample_test, images=images, labels=labels, class_names=("a", "b"), preparation=preparation)
    model = Checkpoint.begin(config, data, start(config, data))
    board = open_page(write_report(tmp_path / "shape.html", model, data))
    draw = draw_digit if preparation == "digit" else draw_plain
    for picture in placed(generator, sample_test.images[:12]):
        assert_near(board.drawn_as_image(picture), draw(picture, shape).image)
    for image in images:
        assert_near(board.redrawn(image), model.state.features.redraw(image[None]))


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
    """For the hovered class, else the selected one, else the answer; pixels and bias add up."""
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
    minus = rows.nth(2).locator(".bar").first.evaluate("bar => bar.classList.contains('minus')")
    assert minus == (float(rows.nth(2).get_attribute("data-evidence") or "nan") < 0)
    parts = text.inner_text().split(": ")[1].split(", ")
    evidence = float(rows.nth(2).get_attribute("data-evidence") or "nan")
    assert sum(number(part.split()[0]) for part in parts) == pytest.approx(evidence, abs=0.02)
    board.page.mouse.move(5, 5)
    assert text.inner_text().startswith(f"Evidence for {answer}:")
    rows.nth(4).click()
    board.page.mouse.move(5, 5)
    assert text.inner_text().startswith("Evidence for 4:")
    assert rows.nth(4).get_attribute("aria-pressed") == "true"
    rows.nth(4).click()
    board.page.mouse.move(5, 5)
    assert text.inner_text().startswith(f"Evidence for {answer}:")


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
          sheet.setPointerCapture = () => {};
          sheet.dispatchEvent(new PointerEvent(kind, { clientX: box.left + x, clientY: box.top + y,
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


def test_fourier_models_have_no_board(reports: dict[str, Report], open_page: Open) -> None:
    board = open_page(reports["fourier"].page)
    assert "random Fourier features" in board.page.locator("#board").inner_text()
    assert board.page.locator("canvas").count() == 0


# By keyboard alone


def test_the_keyboard_is_enough(reports: dict[str, Report], open_page: Open) -> None:
    """Tab reaches the links, the board, its buttons, the sliders and the matrix, and each works."""
    board, focused = (
        open_page(reports["pixels"].page),
        "document.activeElement.id || document.activeElement.outerHTML",
    )
    press, page = board.page.keyboard.press, board.page
    press("Tab")
    assert "Skip to the report" in page.evaluate(focused)
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
    press("Tab")
    press("Tab")
    assert page.evaluate(focused) == "undo"
    press("Enter")
    assert board.probabilities() == blank
    for _ in range(60):
        press("Tab")
        if page.evaluate("document.activeElement.type") == "range":
            break
    before = page.evaluate("document.activeElement.valueAsNumber")
    press("ArrowLeft")
    assert page.evaluate("document.activeElement.valueAsNumber") == pytest.approx(before - 0.1)
    for _ in range(60):
        press("Tab")
        if page.evaluate("Boolean(document.activeElement.dataset.cell)"):
            break
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
        board.page.wait_for_selector(f"#cell h3:text('{true} taken for {guess}: {len(mistakes)} of')")
        expected = sample_test.images[[one.image for one in mistakes]]
        np.testing.assert_array_equal(board.pixels("#cell canvas")[..., 0], expected)
        shares = f"{true} {100 * mistakes[0].true_probability:.1f}"
        assert board.page.locator("#cell figcaption").first.inner_text().startswith(shares)


# Softmax, step by step


def number(text: str) -> float:
    return float(text.replace("−", "-"))


def shares(board: Board) -> list[float]:
    return [number(row.locator(".number").inner_text()) for row in board.rows()]


def test_the_sliders_keep_the_sum_at_one(reports: dict[str, Report], open_page: Open) -> None:
    """If the probability of one class rises, the others fall in proportion."""
    board, generator = open_page(reports["pixels"].page), np.random.default_rng(0)
    board.page.locator("#steps-reset").click()
    for slider in range(10):
        board.rows()[slider].locator("input").fill(f"{generator.uniform(-2, 2):.1f}")
    for slider in generator.permutation(10).tolist():
        before = np.array(shares(board))
        board.rows()[slider].locator("input").fill(f"{generator.uniform(-3, 3):.1f}")
        after = np.array(shares(board))
        assert after.sum() == pytest.approx(1, abs=1e-3)
        assert board.page.locator("#steps-total").inner_text() == "1.0000"
        change = after - before
        others = np.delete(change, slider)
        assert change[slider] == pytest.approx(-others.sum(), abs=1e-3)
        left, right = np.delete(before, slider), np.delete(after, slider)
        np.testing.assert_allclose(right, left * (right.sum() / left.sum()), atol=3e-4)
        name, gained, *_, lost = board.page.locator("#steps-change").inner_text().rstrip(".").split()
        assert int(name) == slider
        assert number(gained.rstrip(",")) == pytest.approx(change[slider], abs=2e-4)
        assert number(lost) == pytest.approx(-change[slider], abs=2e-4)


def test_a_constant_for_all_changes_nothing(reports: dict[str, Report], open_page: Open) -> None:
    board = open_page(reports["pixels"].page)
    for slider in range(10):
        board.rows()[slider].locator("input").fill(str(slider / 2 - 3))
    before, sums = shares(board), board.page.locator("#steps-sum").inner_text()
    board.page.locator("#steps-more").click()
    assert shares(board) == before
    assert board.page.locator("#steps-sum").inner_text() != sums
    assert "no probability moved by more than" in board.page.locator("#steps-change").inner_text()
    for _ in range(12):
        board.page.locator("#steps-more").click()
    assert "A slider is at its end" in board.page.locator("#steps-change").inner_text()
    assert shares(board) == before
    while board.page.locator("#steps-sum").inner_text() != sums:
        board.page.locator("#steps-less").click()
    assert (shares(board), board.page.locator("#steps-sum").inner_text()) == (before, sums)


def test_the_losses_and_their_gradients_are_those_of_python(
    reports: dict[str, Report], open_page: Open
) -> None:
    board, generator = open_page(reports["pixels"].page), np.random.default_rng(1)
    for _ in range(20):
        z, target = generator.normal(0, 4, (1, 10)), int(generator.integers(10))
        found = board.page.evaluate("([z, t]) => steps.losses(z, t)", [z[0].tolist(), target])
        labels = np.array([target])
        for key, formula in (("ce", cross_entropy_gradient), ("se", squared_error_gradient)):
            loss, gradient = formula(z, labels)
            assert found[key] == pytest.approx(loss, rel=1e-12)
            np.testing.assert_allclose(found[f"{key}Gradient"], gradient[0], rtol=1e-9, atol=1e-15)


def test_the_plateau_of_the_squared_error_is_shown(reports: dict[str, Report], open_page: Open) -> None:
    """Confident and wrong: the gradient of the cross-entropy is almost 1, of the squared error almost 0."""
    board = open_page(reports["pixels"].page)
    board.page.locator("#steps-target").select_option("4")
    board.page.locator("#steps-wrong").click()
    cells = board.rows()[4].locator("td").all_inner_texts()
    assert number(cells[-2]) == pytest.approx(-1, abs=1e-3)
    assert abs(number(cells[-1])) < 1e-6
    assert "Cross-entropy pushes it up with 1.0000" in board.page.locator("#steps-verdict").inner_text()
    lines = board.page.locator("#steps-plot polyline").all()
    assert len(lines) == 2
    ce, se = (
        [float(pair.split(",")[1]) for pair in (line.get_attribute("points") or "").split()] for line in lines
    )
    assert ce[0] == pytest.approx(30, abs=0.1)  # a gradient of -1 is drawn at the top, 0 at the bottom
    assert ce[-1] > 100
    assert se[0] == pytest.approx(180, abs=0.1)
    assert ce == sorted(ce)


@pytest.mark.parametrize("name", ["pixels", "deskew", "fourier"])
def test_the_sliders_start_at_the_evidence_of_the_first_sample(
    reports: dict[str, Report], sample_test: Dataset, open_page: Open, name: str
) -> None:
    board, first = open_page(reports[name].page), reports[name].findings.samples[0]
    (expected,) = Classifier(reports[name].model).predict_proba(sample_test.images[first][None])
    np.testing.assert_allclose(shares(board), expected, atol=0.03)  # sliders move by 0.1
    assert board.page.locator("#steps-target").input_value() == "0"


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
    for button in board.page.locator("[data-cell]").all()[::100]:
        button.click()
        board.page.wait_for_selector("#cell canvas")
