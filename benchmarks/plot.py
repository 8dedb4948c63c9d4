"""Plot the test error against the time to train and evaluate.

    python benchmarks/plot.py OUTPUT.svg < points.json

The input is a list of points: title, seconds, test accuracy. The colours are readable on white and on black.
"""

import json
import sys

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

Point = tuple[str, float, float]

SOFTMAX, OTHERS = "#2f81f7", "#808080"
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "softmax",
    "font.family": "sans-serif",
    "font.size": 9,
    **dict.fromkeys(
        ("axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color", "ytick.color"), OTHERS
    ),
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def main(output: str, points: list[Point]) -> None:
    """Save the plot; both axes are logarithmic."""
    plt.rcParams.update(STYLE)
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    ours, others = ([point for point in points if is_ours(point[0]) == kind] for kind in (True, False))
    others.sort(key=lambda point: point[2])  # titles of neighbours are on different sides
    draw(axes, ours, SOFTMAX, "-")
    draw(axes, others[::2], OTHERS, "none")
    draw(axes, others[1::2], OTHERS, "none", below=True)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="seconds to train and evaluate, whole processes",
        ylabel="test error in per cent",
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
    axes.set_yticks([0.5, 1, 2, 5, 10])
    axes.minorticks_off()
    figure.savefig(output, transparent=True, metadata={"Date": None})


def draw(axes: Axes, points: list[Point], color: str, line: str, below: bool = False) -> None:
    """Draw points with their titles above or below them, and a line through them."""
    errors = [100 - 100 * accuracy for _, _, accuracy in points]
    axes.plot(
        [seconds for _, seconds, _ in points], errors, linestyle=line, color=color, marker="o", markersize=5
    )
    for (title, seconds, _), error in zip(points, errors, strict=True):
        axes.annotate(
            title, (seconds, error), (6, -12 if below else 4), textcoords="offset points", color=color
        )


def is_ours(title: str) -> bool:
    """Return whether a point is one of softmax."""
    return title.startswith("softmax")


if __name__ == "__main__":
    main(sys.argv[1], json.load(sys.stdin))
