"""What a reader of the report sees and does, and that the page computes what Python computes."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from softmax_cli.data.dataset import Dataset
from softmax_cli.features import evidence_of, prepare
from softmax_cli.image import draw_digit, draw_plain
from softmax_cli.model import cross_entropy_gradient, softmax, squared_error_gradient
from softmax_cli.report import page as report
from softmax_cli.report.findings import find
from tests.browser.conftest import STROKES, Board, Report

Open = Callable[..., Board]
AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
NARROW = {"viewport": {"width": 360, "height": 740}}


def predicted(invoke: Callable[..., Result], file: Path, picture: bytes) -> dict[str, float]:
    """Return what `softmax predict` says of a picture."""
    Path("board.png").write_bytes(picture)
    result = invoke("predict", "board.png", "-c", file, "--json")
    assert result.exit_code == 0, result.stderr
    return dict(json.loads(result.stdout)[0]["probabilities"])


def assert_close(found: dict[str, float], expected: dict[str, float]) -> None:
    assert list(found) == list(expected)
    np.testing.assert_allclose(list(found.values()), list(expected.values()), atol=1e-3)


# The page


@pytest.mark.parametrize("name", ["pixels", "deskew", "plain", "fourier"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_loads_without_a_complaint_and_asks_for_nothing(
    reports: dict[str, Report], open_page: Open, name: str, scheme: str
) -> None:
    board = open_page(reports[name].page, color_scheme=scheme)
    assert board.requests[0] == reports[name].page.as_uri()
    broken = "[...document.images].filter(i => !(i.complete && i.naturalWidth)).length"
    assert board.page.evaluate(broken) == 0
    shown = board.page.evaluate("[...document.images].map(i => i.currentSrc)")
    assert len(shown) > 20
    charts = board.page.evaluate("[...document.querySelectorAll('.chart')].map(i => i.currentSrc)")
    sources = board.page.evaluate("[...document.querySelectorAll('source')].map(s => s.srcset)")
    assert (charts == sources) == (scheme == "dark")


def test_the_policy_is_in_force(reports: dict[str, Report], open_page: Open) -> None:
    """A script that is added does not run, a style attribute is not followed, nothing is fetched."""
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
    path = tmp_path / "odd.html"
    path.write_text(report.render(model, sample_test, find(model.state, sample_test, np.arange(1000))))
    board = open_page(path)
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
    assert board.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


@pytest.mark.parametrize("name", ["pixels", "fourier"])
@pytest.mark.parametrize("options", [{}, {"color_scheme": "dark"}, NARROW], ids=["light", "dark", "narrow"])
def test_axe_finds_no_serious_fault(
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
    state = model.state
    samples = find(state, sample_test, np.arange(1000)).samples
    buttons = board.page.locator("#samples button").all()
    assert [button.inner_text() for button in buttons] == list("0123456789")
    for button, index in zip(buttons, samples, strict=True):
        button.click()
        image = prepare(state.features, sample_test.images[index][None])
        shares = softmax(evidence_of(state.model, state.features, image).astype(float))[0]
        assert_close(board.probabilities(), dict(zip(model.class_names, shares, strict=True)))
        assert board.page.locator("#answer").inner_text().startswith(f"{shares.argmax()}, ")
        np.testing.assert_array_equal(board.pixels("#seen")[..., 0], image)


@pytest.mark.parametrize("name", ["pixels", "deskew", "plain"])
def test_what_is_drawn_is_predicted_as_predict_does(
    reports: dict[str, Report],
    open_page: Open,
    invoke: Callable[..., Result],
    work: Path,
    name: str,
) -> None:
    board = open_page(reports[name].page)
    for strokes in STROKES.values():
        board.page.locator("#clear").click()
        board.draw(strokes)
        picture = board.picture()
        assert np.asarray(Image.open(io.BytesIO(picture)).convert("L")).min() == 0
        assert_close(board.probabilities(), predicted(invoke, reports[name].file, picture))


def test_the_drawn_digits_are_told(reports: dict[str, Report], open_page: Open) -> None:
    board, right = open_page(reports["deskew"].page), 0
    for digit, strokes in STROKES.items():
        board.page.locator("#clear").click()
        board.draw(strokes)
        right += board.page.locator("#answer").inner_text().startswith(f"{digit}, ")
    assert right >= 7


@pytest.mark.parametrize("name", ["pixels", "plain"])
def test_any_picture_is_prepared_as_in_python(
    reports: dict[str, Report], sample_test: Dataset, open_page: Open, name: str
) -> None:
    """Digits enlarged to odd sizes, dark on light, off the middle, with a spot beside them: within 1/255."""
    board, generator = open_page(reports[name].page), np.random.default_rng(0)
    draw = draw_digit if name == "pixels" else draw_plain
    for index, image in enumerate(sample_test.images[:12]):
        size = tuple(generator.integers(30, 200, 2).tolist())
        digit = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
        gray = np.pad(digit, generator.integers(0, 40, (2, 2)).tolist())
        gray[:4, :4] = 130
        if index % 2:
            gray = 255 - gray
        noise = generator.integers(0, 3, gray.shape)
        gray = np.clip(gray.astype(int) + noise, 0, 255).astype(np.uint8)
        height, width = gray.shape
        found = board.page.evaluate(
            "([width, height, data]) => [...draw({ width, height, data: Uint8Array.from(data) })]",
            [width, height, gray.ravel().tolist()],
        )
        expected = draw(gray, (28, 28)).image
        assert expected.any()
        assert np.abs(np.array(found).reshape(28, 28) - expected.astype(int)).max() <= 1


def test_images_are_set_upright_as_in_python(
    reports: dict[str, Report], sample_test: Dataset, open_page: Open
) -> None:
    """To the bit."""
    board = open_page(reports["deskew"].page)
    features = reports["deskew"].model.state.features
    for image in (*sample_test.images[:30], np.zeros((28, 28), np.uint8), np.full((28, 28), 255, np.uint8)):
        found = board.page.evaluate("data => [...prepared(Uint8Array.from(data))]", image.ravel().tolist())
        np.testing.assert_array_equal(np.array(found).reshape(28, 28), prepare(features, image[None])[0])


def test_undo_and_clear_take_back_what_was_drawn(reports: dict[str, Report], open_page: Open) -> None:
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
    board.page.locator("#clear").click()
    assert (board.probabilities(), board.picture()) == (blank, none)
    board.page.locator("#undo").click()
    assert board.probabilities() == blank


def test_a_sample_can_be_drawn_on(
    reports: dict[str, Report], open_page: Open, invoke: Callable[..., Result], work: Path
) -> None:
    board = open_page(reports["pixels"].page)
    board.page.locator("#samples button").nth(1).click()
    before = board.probabilities()
    board.draw([[(60, 60), (220, 60)]])
    assert board.probabilities() != before
    assert_close(board.probabilities(), predicted(invoke, reports["pixels"].file, board.picture()))


def test_the_evidence_of_any_class_can_be_seen(reports: dict[str, Report], open_page: Open) -> None:
    """The class that is hovered, else the one that was chosen, else the answer; pixels and bias add up."""
    board = open_page(reports["pixels"].page)
    board.draw(STROKES["7"])
    text, rows = board.page.locator("#speaks-text"), board.page.locator(".answer")
    answer = board.page.locator("#answer").inner_text().split(",")[0]
    assert text.inner_text().startswith(f"Evidence for {answer}:")
    rows.nth(2).hover()
    assert text.inner_text().startswith("Evidence for 2:")
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


def test_fingers_can_draw(reports: dict[str, Report], open_page: Open) -> None:
    board = open_page(reports["pixels"].page, has_touch=True, **NARROW)
    sheet = board.page.locator("#sheet")
    sheet.scroll_into_view_if_needed()
    blank = board.probabilities()
    sheet.tap(position={"x": 100, "y": 120})
    assert board.probabilities() != blank
    assert board.page.evaluate("getComputedStyle(document.getElementById('sheet')).touchAction") == "none"


def test_fourier_models_have_no_board(reports: dict[str, Report], open_page: Open) -> None:
    board = open_page(reports["fourier"].page)
    assert "too large for a page" in board.page.locator("#board").inner_text()
    assert board.page.locator("canvas").count() == 0


# By keyboard alone


def test_the_keyboard_is_enough(reports: dict[str, Report], open_page: Open) -> None:
    """Tab comes by the links, the board, its buttons, the sliders, the matrix; each does its work."""
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
    board, state = open_page(reports["pixels"].page), reports["pixels"].model.state
    cells = find(state, sample_test, np.arange(1000)).by_cell(12)
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
    """What one class gains, all the others lose, each in proportion."""
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
    """Sure and wrong: cross-entropy pushes with almost 1, squared error with almost nothing."""
    board = open_page(reports["pixels"].page)
    board.page.locator("#steps-target").select_option("4")
    board.page.locator("#steps-wrong").click()
    cells = board.rows()[4].locator("td").all_inner_texts()
    assert number(cells[-2]) == pytest.approx(-1, abs=1e-3)
    assert abs(number(cells[-1])) < 1e-6
    assert "Cross-entropy pushes it up with 1.0000" in board.page.locator("#steps-verdict").inner_text()
    assert board.page.locator("#steps-plot polyline").count() == 2
