"""Plot time against distance from the optimum.

    python benchmarks/plot.py OUTPUT.svg < lines.json

The input maps the title of each trainer to its runs. A run is a pair: seconds, and relative distance.
"""

import json
import sys

import matplotlib.pyplot as plt

MARKERS = "os^vDP*X<>"


def main(output: str, lines: dict[str, list[tuple[float, float]]]) -> None:
    """Save a plot with one line per trainer; both axes are logarithmic."""
    figure, axes = plt.subplots(figsize=(8, 5.5), layout="constrained")
    for index, (title, points) in enumerate(lines.items()):
        seconds, distances = zip(*sorted(points), strict=True)
        axes.plot(
            seconds,
            distances,
            marker=MARKERS[index % len(MARKERS)],
            markersize=4,
            linewidth=2.5 if title.startswith("softmax") else 1.2,
            label=title,
        )
    for target in (1e-3, 1e-4):
        axes.axhline(target, color="grey", linewidth=0.8, linestyle=":")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="seconds, whole process, from start to saved weights",
        ylabel="distance from the optimum, (F − F*) / F*",
    )
    axes.legend(fontsize=8)
    axes.grid(alpha=0.25)
    figure.savefig(output)


if __name__ == "__main__":
    main(sys.argv[1], json.load(sys.stdin))
