"""Evaluate what a trainer saved.

    python benchmarks/score.py MNIST_FOLDER FILE.npz

The output is a JSON object:

- accuracy: fraction of the test images that are classified correctly;
- objective: mean cross-entropy over the 60,000 training images + l2/2 · ‖W‖², in float64; left out if the
  file contains predictions instead of weights.
"""

import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent / "peers"))
import mnist

BLOCK = 4096
"""Number of images that are converted to float64 at a time."""


def objective(
    pixels: NDArray[np.float32],
    labels: NDArray[np.uint8],
    weights: NDArray[np.float64],
    bias: NDArray[np.float64],
) -> float:
    """Return the objective by which all trainers are compared."""
    total = 0.0
    for begin in range(0, len(labels), BLOCK):
        rows = slice(begin, begin + BLOCK)
        z = np.rint(pixels[rows] * 255).astype(np.float64) / 255 @ weights + bias
        z -= z.max(axis=1, keepdims=True)
        chosen = z[np.arange(len(z)), labels[rows]]
        total += float((np.log(np.exp(z).sum(axis=1)) - chosen).sum())
    return total / len(labels) + mnist.L2 / 2 * float(np.square(weights).sum())


def main(data: Path, path: Path) -> None:
    """Print the scores of the weights or of the predictions in a file."""
    saved = dict(np.load(path))
    pixels, labels = mnist.load(data, "t10k")
    scores = {}
    if "predictions" in saved:
        predictions = saved["predictions"]
    else:
        weights, bias = saved["weights"].astype(np.float64), saved["bias"].astype(np.float64)
        predictions = (pixels @ weights + bias).argmax(axis=1)
        scores["objective"] = objective(*mnist.load(data), weights, bias)
    print(json.dumps(scores | {"accuracy": float((predictions == labels).mean())}))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
