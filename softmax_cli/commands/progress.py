"""Progress bars on stderr; where that is no terminal, a line now and then."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def on_terminal() -> bool:
    """Tell whether stderr shows a bar as one."""
    import os

    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def download_bars() -> Callable[[str, int, int], None] | None:
    """Return a function that shows, for each file, how much of it is there; None off a terminal."""
    if not on_terminal():
        return None
    bars: dict[str, Any] = {}

    def show(name: str, done: int, size: int) -> None:
        from tqdm import tqdm

        if name not in bars:
            bars[name] = tqdm(total=size, desc=name, unit="B", unit_scale=True, file=sys.stderr)
        bars[name].update(done - bars[name].n)
        if done >= size:
            bars[name].close()

    return show


@contextmanager
def work_bar(size: int, name: str) -> Iterator[Any]:
    """Yield a bar over work of that size; it shows nothing off a terminal, nor where it is soon done."""
    from tqdm import tqdm

    with tqdm(
        total=size, desc=name, file=sys.stderr, disable=not on_terminal(), delay=0.5, leave=False
    ) as bar:
        yield bar


@contextmanager
def training_bar(steps: int, done: int, quiet: bool) -> Iterator[Any]:
    """Yield a bar over all steps of a run, `done` of them behind it; it shows nothing off a terminal."""
    from tqdm import tqdm

    hidden = quiet or not on_terminal()
    look = "{desc} {bar:10} {percentage:3.0f} %, {remaining} left{postfix}"
    with tqdm(
        total=steps, initial=done, desc="training", bar_format=look, file=sys.stderr, disable=hidden
    ) as bar:
        yield bar
