"""Plot the test error against the time to train and evaluate.

    python benchmarks/plot.py OUTPUT.svg < points.json

The input is a list of points: title, seconds, test accuracy. The colours are readable on white and on black.
"""

import json
import sys

import matplotlib.pyplot as plt

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


def main(output: str, points: list[tuple[str, float, float]]) -> None:
    """Save the plot; both axes are logarithmic."""
    plt.rcParams.update(STYLE)
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    ours = [(seconds, 100 - 100 * accuracy) for title, seconds, accuracy in points if is_ours(title)]
    axes.plot(*zip(*ours, strict=True), color=SOFTMAX, marker="o", markersize=5)
    for title, seconds, accuracy in points:
        color = SOFTMAX if is_ours(title) else OTHERS
        error = 100 - 100 * accuracy
        axes.plot(seconds, error, color=color, marker="o", markersize=5)
        axes.annotate(title, (seconds, error), (6, 4), textcoords="offset points", color=color)
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


def is_ours(title: str) -> bool:
    """Return whether a point is one of softmax."""
    return title.startswith("softmax")


if __name__ == "__main__":
    main(sys.argv[1], json.load(sys.stdin))
