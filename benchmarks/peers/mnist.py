"""Functions that the peers share: read the images, save the weights or the predictions."""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

L2 = 1e-4
"""Factor of the penalty L2/2 · ‖W‖², added to the mean cross-entropy; the bias is not regularized."""


def arguments() -> tuple[Path, Path, int]:
    """Return the arguments of a peer: folder of the IDX files, output, and a number such as of iterations."""
    data, output, number = sys.argv[1:]
    return Path(data), Path(output), int(number)


def load(data: Path, split: str = "train") -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Return pixels in [0, 1], float32 (n, 784), and labels (n,) of a split.

    `split` is ``train`` or ``t10k``.
    """
    raw = np.fromfile(data / f"{split}-images-idx3-ubyte", np.uint8, offset=16)
    pixels = raw.reshape(-1, 784).astype(np.float32)
    pixels /= 255
    return pixels, np.fromfile(data / f"{split}-labels-idx1-ubyte", np.uint8, offset=8)


def save(output: Path, weights: ArrayLike, bias: ArrayLike) -> None:
    """Save weights (784, 10) and bias (10,) as a .npz file."""
    weights, bias = np.asarray(weights), np.asarray(bias)
    assert weights.shape == (784, 10), weights.shape
    assert bias.shape == (10,), bias.shape
    np.savez(output, weights=weights, bias=bias)


def save_predictions(output: Path, labels: ArrayLike) -> None:
    """Save the predicted labels of the test images as a .npz file."""
    labels = np.asarray(labels)
    assert labels.shape == (10_000,), labels.shape
    np.savez(output, predictions=labels)
