"""Vowpal Wabbit: one against all with the logistic loss, by its L-BFGS; a pass is an evaluation.

It has no softmax loss, so it minimises something else: for each class, the logistic loss of that class
against the others. With --bfgs its penalty, l2/2 · ‖W‖², joins the sum over the images, not the mean, so
l2 is given times n; the bias is free. (Its default online updates take l2 per example, against a rate that
they adapt, and learned far less with 1e-4.) Its own text format and a cache are what its documentation
recommends for several passes. The weights are read off the scores of the origin and of each pixel alone.
"""

import tempfile
from pathlib import Path

import mnist
import numpy as np
from numpy.typing import NDArray
from vowpalwabbit import Workspace


def write_examples(path: Path, pixels: NDArray[np.float32], labels: NDArray[np.uint8]) -> None:
    """Write ``label | pixel:value ...`` per image; classes count from 1, black pixels are left out."""
    values = [f"{level / 255:.4g}" for level in range(256)]
    words = [[f"{pixel}:{value}" for value in values] for pixel in range(784)]
    with path.open("w") as file:
        for row, label in zip(np.rint(pixels * 255).astype(np.uint8), labels.tolist(), strict=True):
            ink = np.flatnonzero(row)
            pairs = zip(ink.tolist(), row[ink].tolist(), strict=True)
            file.write(f"{label + 1} | {' '.join([words[pixel][level] for pixel, level in pairs])}\n")


data, output, passes = mnist.arguments()
with tempfile.TemporaryDirectory() as folder:
    examples = Path(folder, "train.vw")
    pixels, labels = mnist.load(data)
    write_examples(examples, pixels, labels)
    trained = Workspace(
        f"--data {examples} --oaa 10 --loss_function logistic --bfgs --passes {passes} --holdout_off "
        f"--l2 {mnist.L2 * len(labels)} --no_bias_regularization --scores "
        f"--cache --cache_file {folder}/cache --kill_cache --quiet"
    )
    bias = np.array(trained.predict("|"))
    weights = np.array([trained.predict(f"| {pixel}:1") for pixel in range(784)]) - bias
    trained.finish()
mnist.save(output, weights, bias)
