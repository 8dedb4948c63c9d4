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
def work_bar(size: int | None, name: str) -> Iterator[Any]:
    """Yield a bar over work of that size, if known; it is hidden off a terminal and for less than 0.5 s."""
    from tqdm import tqdm

    with tqdm(
        total=size, desc=name, file=sys.stderr, disable=not on_terminal(), delay=0.5, leave=False
    ) as bar:
        yield bar


@contextmanager
def training_bar(steps: int, done: int, quiet: bool) -> Iterator[Any]:
    """Yield a progress bar over the steps of a run, of which `done` are finished.

    It is hidden if stderr is not a terminal.
    """
    from tqdm import tqdm

    look = "training {bar} {percentage:3.0f} %, {remaining} left"
    with tqdm(
        total=steps,
        initial=done,
        bar_format=look,
        file=sys.stderr,
        disable=quiet or not on_terminal(),
        dynamic_ncols=True,
        leave=False,
    ) as bar:
        yield bar
