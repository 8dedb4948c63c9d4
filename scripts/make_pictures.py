"""Write the pictures of the README.

    python scripts/make_pictures.py MODEL.npz

docs/report.png, docs/report-dark.png and docs/report-phone.png show the report of the model, with a digit on
the board and some training done. docs/explain.png shows the output of `softmax predict --explain` for
tests/pictures/seven.png on a light terminal with colours. Chromium is required.
"""

import html
import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal, NamedTuple

from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SEVEN = [(80, 62), (205, 62), (150, 140), (125, 235)]
TERMINAL = """<style>
body {{ background: #ffffff; color: #1b2430; margin: 0; padding: 12px; display: inline-block }}
pre {{ font: 14.949px/18px 'DejaVu Sans Mono', monospace; margin: 0 }}
</style><pre>{}</pre>"""
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


def on_terminal(line: list[str]) -> str:
    """Return what a command writes to a terminal with 256 colours."""
    ours, its = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}
    with subprocess.Popen(line, stdout=its, cwd=ROOT, env=environment) as process:
        os.close(its)
        written = b""
        while True:
            try:
                chunk = os.read(ours, 1 << 16)
            except OSError:  # on Linux, the end of the output
                break
            if not chunk:
                break
            written += chunk
    assert process.returncode == 0
    return written.decode().replace("\r\n", "\n")


def colour(number: int) -> str:
    """Return one of the 256 colours as CSS."""
    if number >= 232:
        return "rgb({0}, {0}, {0})".format(8 + 10 * (number - 232))
    levels = (0, 95, 135, 175, 215, 255)
    r, rest = divmod(number - 16, 36)
    return f"rgb({levels[r]}, {levels[rest // 6]}, {levels[rest % 6]})"


def as_html(text: str) -> str:
    """Return terminal output as HTML with its colours."""

    def coloured(match: re.Match[str]) -> str:
        front, back = colour(int(match[1])), colour(int(match[2]))
        return f'<span style="color: {front}; background: {back}">{match[3]}</span>'

    text = html.escape(text)
    text = re.sub(r"\x1b\[38;5;(\d+);48;5;(\d+)m([^\x1b]*)", coloured, text)
    return TERMINAL.format(text.replace("\x1b[0m", ""))


def shoot_explanation(browser: Browser, model: Path) -> None:
    """Write docs/explain.png."""
    line = [sys.executable, "-m", "softmax_cli", "predict", "tests/pictures/seven.png", "--explain"]
    page = browser.new_page(device_scale_factor=2)
    page.set_content(as_html(on_terminal([*line, "--checkpoint", str(model)])))
    page.locator("body").screenshot(path=DOCS / "explain.png")


class View(NamedTuple):
    """One picture of the report: its file, the window, the colours, and the section at the top of it."""

    name: str
    width: int
    height: int
    scheme: Literal["light", "dark"]
    section: str | None


VIEWS = (
    View("report.png", 1280, 940, "light", None),
    View("report-dark.png", 1280, 940, "dark", "watch"),
    View("report-phone.png", 390, 800, "light", None),
)


def draw(page: Page) -> None:
    """Draw a seven on the board."""
    sheet = page.locator("#sheet")
    sheet.scroll_into_view_if_needed()
    box = sheet.bounding_box()
    assert box
    scale = box["width"] / 280
    places = [(box["x"] + scale * x, box["y"] + scale * y) for x, y in SEVEN]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=8)
    page.mouse.up()
    page.mouse.move(2, 2)


def train(page: Page, epochs: int = 6) -> None:
    """Train in the page."""
    for epoch in range(1, epochs + 1):
        page.locator("#watch-epoch").click()
        page.wait_for_selector(f"#watch-count:has-text('epoch {epoch}')")


def shoot_report(browser: Browser, model: Path, folder: Path) -> None:
    """Write the pictures of the report."""
    line = [sys.executable, "-m", "softmax_cli", "report", "--checkpoint", str(model)]
    subprocess.run([*line, "--output", str(folder / "report.html")], check=True)
    for view in VIEWS:
        size = {"width": view.width, "height": view.height}
        page = browser.new_page(viewport=size, color_scheme=view.scheme)  # type: ignore[arg-type]
        page.goto((folder / "report.html").as_uri())
        draw(page)
        train(page)
        place = (
            f"document.getElementById('{view.section}').getBoundingClientRect().top"
            if view.section
            else "-1e9"
        )
        page.evaluate(f"scrollBy(0, {place})")
        page.wait_for_timeout(500)  # wait for the animation of the bars
        page.screenshot(path=DOCS / view.name)
        page.close()


def main(model: Path) -> None:
    """Write all of them."""
    DOCS.mkdir(exist_ok=True)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        path = os.environ.get("SOFTMAX_CHROMIUM") or shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=path, args=QUIET)
        shoot_explanation(browser, model.resolve())
        shoot_report(browser, model.resolve(), Path(folder))
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
