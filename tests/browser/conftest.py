"""A browser, reports of several models, and pages that note whatever goes wrong in them."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from softmax_cli.checkpoint import Checkpoint, save
from softmax_cli.config import TrainConfig
from softmax_cli.data.dataset import Dataset, hold_out
from softmax_cli.report import page as report
from softmax_cli.report.findings import find
from softmax_cli.training import fit, start

QUIET = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
"""Chromium runs as root here, and calls nobody of its own accord."""

STROKES: dict[str, list[list[tuple[int, int]]]] = {
    "0": [
        [(140, 50), (90, 80), (75, 140), (95, 210), (140, 230), (190, 200), (205, 140), (185, 80), (140, 50)]
    ],
    "1": [[(150, 40), (140, 140), (130, 240)]],
    "2": [[(80, 90), (110, 55), (160, 50), (190, 90), (160, 150), (80, 230), (210, 225)]],
    "3": [[(85, 60), (150, 45), (190, 80), (130, 130), (195, 175), (160, 230), (80, 220)]],
    "4": [[(100, 50), (85, 140), (200, 140)], [(180, 60), (170, 240)]],
    "5": [[(195, 50), (100, 50), (90, 125), (150, 115), (195, 160), (160, 225), (80, 220)]],
    "6": [[(170, 45), (105, 110), (85, 180), (130, 235), (185, 205), (165, 160), (95, 175)]],
    "7": [[(70, 60), (205, 60), (130, 240)]],
    "8": [[(140, 135), (95, 90), (140, 45), (185, 90), (95, 190), (140, 235), (190, 190), (140, 135)]],
    "9": [[(190, 90), (140, 55), (95, 100), (140, 140), (190, 95), (180, 170), (150, 240)]],
}
"""Ten digits, as lists of strokes on a board of 280 by 280."""


@dataclass(frozen=True)
class Report:
    """A model, its file, and the report on it."""

    model: Checkpoint
    file: Path
    page: Path


@dataclass
class Board:
    """A page that is open, with all that it complained of and all that it asked for."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def draw(self, strokes: list[list[tuple[int, int]]]) -> None:
        """Draw strokes with the mouse, given in pixels of a board of 280 by 280."""
        sheet = self.page.locator("#sheet")
        sheet.scroll_into_view_if_needed()
        box = sheet.bounding_box()
        assert box
        scale = box["width"] / 280
        for stroke in strokes:
            places = [(box["x"] + x * scale, box["y"] + y * scale) for x, y in stroke]
            self.page.mouse.move(*places[0])
            self.page.mouse.down()
            for place in places[1:]:
                self.page.mouse.move(*place, steps=6)
            self.page.mouse.up()

    def probabilities(self) -> dict[str, float]:
        """Return what the board shows for each class."""
        rows = self.page.locator(".answer")
        return {
            row.locator(".name").inner_text(): float(row.get_attribute("data-probability") or "nan")
            for row in rows.all()
        }

    def evidence(self) -> list[float]:
        """Return the evidence that the board shows for each class."""
        rows = self.page.locator(".answer").all()
        return [float(row.get_attribute("data-evidence") or "nan") for row in rows]

    def picture(self) -> bytes:
        """Return the board's own picture, a PNG file."""
        import base64

        uri = self.page.evaluate("document.getElementById('sheet').toDataURL('image/png')")
        return base64.b64decode(uri.partition(",")[2])

    def pixels(self, selector: str) -> np.ndarray:
        """Return what is on canvases of 28 by 28, (n, 28, 28, 4), from copies: reading slows them down."""
        found = self.page.evaluate(
            """selector => [...document.querySelectorAll(selector)].map(canvas => {
                 const copy = new OffscreenCanvas(28, 28).getContext('2d', { willReadFrequently: true });
                 copy.drawImage(canvas, 0, 0);
                 return [...copy.getImageData(0, 0, 28, 28).data];
               })""",
            selector,
        )
        return np.array(found).reshape(-1, 28, 28, 4)

    def rows(self) -> list[Locator]:
        """Return the rows of softmax, step by step."""
        return self.page.locator("#steps-rows tr").all()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Return a headless Chromium: `SOFTMAX_CHROMIUM`, or the one that is installed."""
    path = os.environ.get("SOFTMAX_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    assert path, "no Chromium found; install it (Debian: apt-get install chromium), or set SOFTMAX_CHROMIUM"
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=QUIET.split())
        yield found
        found.close()


@pytest.fixture(scope="session")
def reports(
    sample: Dataset, sample_test: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Report]:
    """Return reports on models of pixels, deskewed ones, pictures that are taken whole, Fourier features."""
    folder = tmp_path_factory.mktemp("reports")
    found = {}
    for name, kind in {
        "pixels": "pixels",
        "deskew": "deskew",
        "plain": "pixels",
        "fourier": "fourier",
    }.items():
        more = {"fourier_dimension": 200} if kind == "fourier" else {}
        config = TrainConfig(dataset="sample", features=kind, epochs=3, **more)
        begun = start(config, sample)
        model = Checkpoint.begin(config, sample, begun)
        for state in fit(config, sample, hold_out(sample.labels, 0.1, 0), begun):
            model = model.advance(state, 0.1)
        if name == "plain":
            model = replace(model, preparation="plain")
        page = folder / f"{name}.html"
        text = report.render(model, sample_test, find(model.state, sample_test, np.arange(1000)))
        page.write_text(text, encoding="utf-8")
        save(folder / f"{name}.npz", model)
        found[name] = Report(model, folder / f"{name}.npz", page)
    return found


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Board]]:
    """Return a function that opens a file in a window of its own, in which nothing may then go wrong."""
    contexts, boards = [], []

    def open_one(path: Path, **options: Any) -> Board:
        contexts.append(browser.new_context(**{"viewport": {"width": 1100, "height": 900}} | options))
        board = Board(contexts[-1].new_page())
        boards.append(board)
        board.page.on("console", lambda message: board.complaints.append(message.text))
        board.page.on("pageerror", lambda error: board.complaints.append(str(error)))
        board.page.on("request", lambda request: board.requests.append(request.url))
        board.page.goto(path.as_uri())
        return board

    yield open_one
    for board in boards:
        assert board.complaints == []
        assert [url for url in board.requests[1:] if not url.startswith("data:image/")] == []
    for context in contexts:
        context.close()
