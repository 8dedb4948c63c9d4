"""Progress bars on stderr, if it is a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def on_terminal() -> bool:
    """Return whether stderr is a terminal that can show a bar."""
    import os

    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def download_bars() -> Callable[[str, int, int], None] | None:
    """Return a callback that shows a bar for each file.

    Return None if stderr is not a terminal.
    """
    if not on_terminal():
        return None
    bars: dict[str, Any] = {}

    def show(name: str, done: int, size: int) -> None:
        from tqdm import tqdm

        if name not in bars:
            bars[name] = tqdm(
                total=size, desc=name, unit="B", unit_scale=True, file=sys.stderr, dynamic_ncols=True
            )
        bars[name].update(done - bars[name].n)
        if done >= size:
            bars[name].close()

    return show


@contextmanager
def work_bar(size: int | None, name: str, least: int = 0) -> Iterator[Any]:
    """Yield a bar over work of that size, if it is known.

    It is hidden off a terminal, for work of less than 0.5 s, and for sizes up to `least`.
    """
    hidden = size is not None and size <= least
    with _bar(hidden, total=size, desc=name, delay=0.5) as bar:
        yield bar


@contextmanager
def training_bar(steps: int, done: int, quiet: bool) -> Iterator[Any]:
    """Yield a progress bar over the steps of a run, of which `done` are finished.

    It is hidden if stderr is not a terminal.
    """
    look = "training {bar} {percentage:3.0f} %, {remaining} left"
    with _bar(quiet, total=steps, initial=done, bar_format=look, dynamic_ncols=True) as bar:
        yield bar


class _HiddenBar:
    """A bar that is not shown; it spares the import of tqdm."""

    disable = True

    def update(self, steps: int = 1) -> None:
        """Do nothing."""


@contextmanager
def _bar(hidden: bool, **options: Any) -> Iterator[Any]:
    if hidden or not on_terminal():
        yield _HiddenBar()
        return
    from tqdm import tqdm

    with tqdm(file=sys.stderr, leave=False, **options) as bar:
        yield bar
