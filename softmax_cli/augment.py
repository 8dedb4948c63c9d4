"""Augmentation: smooth random displacements of the pixels of training images.

The pixel at (r, c) of an image with `rows` rows and `cols` columns is read from (r + δ_r, c + δ_c), with

    δ_r(r, c) = rows/28 · Σ_uv a_uv · n_u · n_v · cos(πu(r + ½)/rows) · cos(πv(c + ½)/cols),  u, v < 6,

n_0 = 1 and n_u = √2 otherwise, so that each term has a root mean square of a_uv pixels of a 28 x 28 image.
The amplitudes a_uv are drawn from a normal distribution with mean 0 and the standard deviation
`AMPLITUDE` / (1 + (u² + v²) / `SMOOTHNESS`). δ_c is drawn in the same way. The terms of low frequency contain
shifts, and approximate scaling, shear and rotation.

Source: Simard, Steinkraus & Platt, Best practices for convolutional neural networks (2003), for smooth
random displacements. The basis of cosines replaces their Gaussian blur of white noise.
"""

import functools
import math

import numpy as np
from numpy.typing import NDArray

AMPLITUDE = 0.4
"""Standard deviation of the mean shift, in pixels of a 28 x 28 image.

On 10,000 validation images of MNIST, 0.3 to 0.45 are equally good within the noise; twice as much is worse.
On Fashion-MNIST it lowers the accuracy, from 92.8 to 91.8 %.
"""

SMOOTHNESS = 6.0
"""Squared frequency at which the amplitude is half of `AMPLITUDE`; chosen on the same images."""

FREQUENCIES = 6
"""Number of frequencies along each axis; the amplitude of the next one would be a seventh."""


def displacements(
    count: int, shape: tuple[int, int], generator: "np.random.Generator"
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return random displacements (δ_r, δ_c) in pixels, each float32 (count, rows · cols)."""
    waves = _waves(shape)
    amplitudes = generator.standard_normal((2, count, len(waves)), np.float32)
    rows, columns = (a @ waves for a in amplitudes)
    rows *= np.float32(shape[0] / 28)
    columns *= np.float32(shape[1] / 28)
    return rows, columns


@functools.cache
def _waves(shape: tuple[int, int]) -> NDArray[np.float32]:
    """Return the terms of δ for amplitudes of standard deviation 1, (FREQUENCIES², rows · cols)."""
    rows, columns = (_cosines(side) for side in shape)
    squares = np.add.outer(np.arange(FREQUENCIES) ** 2, np.arange(FREQUENCIES) ** 2)
    deviations = AMPLITUDE / (1 + squares / SMOOTHNESS)
    waves: NDArray[np.float64] = np.einsum("uv,ur,vc->uvrc", deviations, rows, columns)
    return waves.reshape(FREQUENCIES**2, -1).astype(np.float32)


def _cosines(side: int) -> NDArray[np.float64]:
    """Return n_u · cos(πu(i + ½)/side), shape (FREQUENCIES, side)."""
    frequencies = np.arange(FREQUENCIES)
    norms = np.where(frequencies, math.sqrt(2), 1)
    cosines: NDArray[np.float64] = norms[:, None] * np.cos(
        math.pi / side * np.outer(frequencies, np.arange(side) + 0.5)
    )
    return cosines
