"""Vowpal Wabbit: one against all with the logistic loss, by its L-BFGS.

It has no softmax loss and minimises another objective: for each class, the logistic loss of that class
against the others. With --bfgs, its penalty l2/2 · ‖W‖² is added to the sum over the images, not to the mean,
so that l2 is multiplied by n. The bias is not regularized. (The default online updates apply l2 per example
and adapt the learning rate; with l2 1e-4, their loss was much higher.) One pass is one evaluation of the
objective. The documentation recommends the text format and a cache for several passes. The weights are
computed from the scores of the origin and of each unit vector.
"""

import tempfile
from pathlib import Path

import mnist
import numpy as np
from numpy.typing import NDArray
from vowpalwabbit import Workspace


def write_examples(path: Path, pixels: NDArray[np.float32], labels: NDArray[np.uint8]) -> None:
    """Write a line ``label | pixel:value ...`` per image.

    Classes are numbered from 1; black pixels are left out.
    """
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
