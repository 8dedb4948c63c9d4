"""The page of a report in a browser, as the tests use it: drawings, and what the page shows."""

import base64
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from playwright.sync_api import Locator, Page

from softmax_cli.checkpoint import Checkpoint
from softmax_cli.report.findings import Findings

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
    """A model, the findings on the test images, its checkpoint file, and its report."""

    model: Checkpoint
    findings: Findings
    file: Path
    page: Path


@dataclass
class Board:
    """An open page, with its console messages and errors, and the URLs that it requested."""

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
                self.page.mouse.move(*place, steps=3)
            self.page.mouse.up()

    def probabilities(self) -> dict[str, float]:
        """Return the probability that the board shows for each class."""
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
        """Return the drawing as a PNG file."""
        uri = self.page.evaluate("document.getElementById('sheet').toDataURL('image/png')")
        return base64.b64decode(uri.partition(",")[2])

    def pixels(self, selector: str) -> np.ndarray:
        """Return the pixels of canvases of 28 by 28, (n, 28, 28, 4); copies are read, which is faster."""
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
        """Return the rows of the section on softmax, step by step."""
        return self.page.locator("#steps-rows tr").all()

    def drawn_as_image(self, gray: np.ndarray) -> np.ndarray:
        """Return a grey picture (h, w) as the page prepares it for the model, flat."""
        height, width = gray.shape
        return np.array(
            self.page.evaluate(
                "([width, height, data]) => [...draw({ width, height, data: bytesOf(data) })]",
                [width, height, base64.b64encode(gray.tobytes()).decode()],
            )
        )

    def redrawn(self, image: np.ndarray) -> np.ndarray:
        """Return an image (rows, cols) as the feature stages of the page redraw it, flat."""
        return np.array(
            self.page.evaluate("data => [...MODEL.redraw(Uint8Array.from(data))]", image.ravel().tolist())
        )
