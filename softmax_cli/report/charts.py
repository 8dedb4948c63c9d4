"""The report's charts, drawn by matplotlib as SVG, once for a light page and once for a dark one."""

import io
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from softmax_cli.metrics import Bin
from softmax_cli.training import Epoch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Theme(NamedTuple):
    """The colours of a page: of text, of what is less important, and of two series."""

    ink: str
    faint: str
    first: str
    second: str


LIGHT = Theme("#1c2733", "#8a96a3", "#1d5fd1", "#c2510a")
DARK = Theme("#e4e9ef", "#7d8895", "#7ab0ff", "#ffa25e")


class Chart(NamedTuple):
    """One chart as two SVG documents, and what it shows, in words."""

    light: bytes
    dark: bytes
    alt: str


def training_curves(history: Sequence[Epoch], best_epoch: int) -> Chart:
    """Draw the loss on the training and on the validation images, epoch by epoch."""
    epochs = [epoch.epoch for epoch in history]
    train = [epoch.train_loss for epoch in history]
    held = [epoch.validation_loss for epoch in history if epoch.validation_loss is not None]

    def draw(figure: "Figure", theme: Theme) -> None:
        from matplotlib.ticker import MaxNLocator

        axes = figure.add_subplot()
        mark = "o" if len(epochs) < 30 else ""
        axes.plot(epochs, train, marker=mark, color=theme.first, label="training images")
        if held:
            axes.plot(epochs, held, marker=mark, linestyle="--", color=theme.second, label="held out")
            axes.axvline(best_epoch, color=theme.faint, linewidth=1, label="weights kept")
        axes.set(xlabel="epoch", ylabel="loss in nats")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(frameon=False, labelcolor=theme.ink)
        _dress(axes, theme)

    alt = f"Loss by epoch: on the training images from {train[0]:.3f} to {train[-1]:.3f}"
    if held:
        alt += f", on those held out from {held[0]:.3f} to {held[-1]:.3f}"
    return _both(draw, alt)


def reliability_diagram(bins: Sequence[Bin], error: float) -> Chart:
    """Draw how often answers are right against how sure the model was of them, and how many there are."""

    def draw(figure: "Figure", theme: Theme) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        left, width = [one.low for one in bins], [one.high - one.low for one in bins]
        style = {"align": "edge", "color": theme.first, "edgecolor": theme.ink, "linewidth": 0.5}
        upper.bar(left, [one.accuracy for one in bins], width, alpha=0.6, label="share right", **style)
        upper.plot([0, 1], [0, 1], color=theme.second, linestyle="--", label="as sure as it should be")
        upper.set(ylabel="right", ylim=(0, 1))
        upper.legend(frameon=False, labelcolor=theme.ink, loc="upper left")
        lower.bar(left, [one.images for one in bins], width, **style)
        lower.set(xlabel="probability of the answer", ylabel="images", yscale="log", xlim=(0, 1))
        for axes in (upper, lower):
            _dress(axes, theme)

    sure = bins[-1]
    alt = (
        f"Reliability: expected calibration error {error:.4f}; of {sure.images:,} answers given with "
        f"{sure.confidence:.1%} on average, {sure.accuracy:.1%} are right"
    )
    return _both(draw, alt)


def _both(draw: Callable[["Figure", Theme], None], alt: str) -> Chart:
    return Chart(_svg(draw, LIGHT), _svg(draw, DARK), alt)


def _svg(draw: Callable[["Figure", Theme], None], theme: Theme) -> bytes:
    """Return what `draw` draws, the same bytes each time."""
    os.environ["MPLBACKEND"] = "svg"  # a notebook exports a backend that may not be installed
    from matplotlib import style
    from matplotlib.figure import Figure

    settings: dict[str, Any] = {"svg.hashsalt": "softmax", "font.size": 10.0, "lines.markersize": 4.0}
    with style.context(["default", settings]):  # whatever the reader's own settings are
        figure = Figure(figsize=(6, 4), layout="constrained")
        figure.patch.set_alpha(0)
        draw(figure, theme)
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()


def _dress(axes: "Axes", theme: Theme) -> None:
    """Give axes the colours of a page, and no more lines than they need."""
    axes.patch.set_alpha(0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(theme.faint)
    axes.tick_params(colors=theme.ink)
    axes.xaxis.label.set_color(theme.ink)
    axes.yaxis.label.set_color(theme.ink)
