"""Measure the time of an epoch and of its matrix products alone.

    python benchmarks/epoch.py CACHE EPOCHS

The output is JSON: the seconds of each epoch, and of each pass of the floor. The floor is the work that
every epoch of mini-batch gradient descent requires: the two matrix products of each batch, x·W and xᵀ·r,
in float32. Its batches are consecutive rows of an array of all images, so that memory is read as in an
epoch. Epochs of `fit` and passes of the floor alternate in one process.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from softmax_cli import Source, TrainConfig, fit, load_dataset


def floor_pass(images: NDArray[np.float32], size: int) -> None:
    """Compute the matrix products of one epoch, with batches of `size`."""
    columns = images.shape[1]
    weights, gradient = np.full((columns, 10), 0.01, np.float32), np.empty((columns, 10), np.float32)
    residual = np.full((size, 10), 0.01, np.float32)
    evidence = np.empty((size, 10), np.float32)
    for begin in range(0, len(images), size):
        x = images[begin : begin + size]
        np.matmul(x, weights, out=evidence[: len(x)])
        np.matmul(x.T, residual[: len(x)], out=gradient)


def main(cache: Path, epochs: int) -> None:
    """Print the seconds of `epochs` epochs and passes of the floor, after one of each."""
    data = load_dataset("mnist", "train", Source(cache, offline=True))
    config = TrainConfig(epochs=epochs + 1, validation_size=0.0)
    images = data.images.reshape(len(data), -1).astype(np.float32)
    training = fit(config, data)
    seconds: dict[str, list[float]] = {"epoch": [], "floor": []}
    for _ in range(epochs + 1):
        begin = time.perf_counter()
        next(training)
        middle = time.perf_counter()
        floor_pass(images, config.batch_size)
        seconds["epoch"].append(middle - begin)
        seconds["floor"].append(time.perf_counter() - middle)
    print(json.dumps({name: values[1:] for name, values in seconds.items()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
