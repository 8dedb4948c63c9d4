"""Fixtures of the browser tests: a browser, reports on several models, pages without errors."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from softmax_cli.checkpoint import Checkpoint, save_checkpoint
from softmax_cli.classifier import Classifier
from softmax_cli.config import TrainConfig
from softmax_cli.data.dataset import Dataset
from softmax_cli.report import page as report
from softmax_cli.report.findings import find_mistakes
from softmax_cli.training import fit, start
from tests.browser.board import Board, Report

QUIET = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
"""Options that let Chromium run as root, and keep it from opening connections of its own."""


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
    """Return reports on models of pixels (digits, and pictures resized whole) and of other features.

    The arrays of `rounded` fit only with 16 bits a number, those of `fourier` do not fit.
    """
    folder = tmp_path_factory.mktemp("reports")
    found = {}
    for name, options in {
        "pixels": {},
        "deskew": {"features": "deskew"},
        "plain": {},
        "gradients": {"features": "normalize,gradients"},
        "rounded": {
            "features": "normalize,gradients,pca,fourier",
            "pca_dimension": 96,
            "fourier_dimension": 2000,
        },
        "fourier": {"features": "fourier", "fourier_dimension": 900},
    }.items():
        config = TrainConfig(dataset="sample", epochs=3, **options)  # type: ignore[arg-type]
        begun = start(config, sample)
        model = Checkpoint.begin(config, sample, begun)
        for state in fit(config, sample, begun):
            model = model.advance(state, 0.1)
        if name == "plain":
            model = replace(model, preparation="plain")
        page = folder / f"{name}.html"
        findings = find_mistakes(Classifier(model), sample_test)
        page.write_text(report.render(model, sample_test, findings, sample), encoding="utf-8")
        save_checkpoint(folder / f"{name}.npz", model)
        found[name] = Report(model, findings, folder / f"{name}.npz", page)
    return found


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Board]]:
    """Return a function that opens a file in a new window; errors and requests of the page fail the test."""
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
