"""Deskewing agrees with its formula, evaluated one pixel at a time."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from softmax_cli.data.dataset import Dataset
from softmax_cli.features import FeatureMap
from softmax_cli.features.deskew import Deskew, deskew, slant

Gray = NDArray[np.uint8]


def slow_deskew(image: Gray) -> list[list[float]]:
    """Return the formula of the module, one pixel at a time, before rounding."""
    rows, columns = image.shape
    ink = [[float(value) for value in line] for line in image]
    places = [(r, c) for r in range(rows) for c in range(columns)]
    mass = sum(ink[r][c] for r, c in places)
    if not mass:
        return ink
    mean_r = sum(r * ink[r][c] for r, c in places) / mass
    mean_c = sum(c * ink[r][c] for r, c in places) / mass
    variance = sum((r - mean_r) ** 2 * ink[r][c] for r, c in places) / mass
    covariance = sum((r - mean_r) * (c - mean_c) * ink[r][c] for r, c in places) / mass
    slope = covariance / variance if variance > 1e-9 else 0.0

    def at(r: int, c: int) -> float:
        return ink[r][c] if 0 <= r < rows and 0 <= c < columns else 0.0

    def between(r: float, c: float) -> float:
        r0, c0 = math.floor(r), math.floor(c)
        a, b = r - r0, c - c0
        upper = at(r0, c0) * (1 - b) + at(r0, c0 + 1) * b
        lower = at(r0 + 1, c0) * (1 - b) + at(r0 + 1, c0 + 1) * b
        return upper * (1 - a) + lower * a

    return [
        [
            between(r + mean_r - rows // 2, c + mean_c - columns // 2 + slope * (r - rows // 2))
            for c in range(columns)
        ]
        for r in range(rows)
    ]


def symmetric(seed: int) -> Gray:
    """Return a random image of 28 x 28 pixels with two axes of symmetry.

    The axes are the middle row and the middle column.
    """
    quarter = np.random.default_rng(seed).integers(0, 256, (13, 13), np.uint8)
    image = np.zeros((28, 28), np.uint8)
    image[15:, 15:], image[13:0:-1, 15:] = quarter, quarter
    image[1:, 13:0:-1] = image[1:, 15:]
    return image


def test_deskewed_digits_agree_with_the_formula(sample: Dataset) -> None:
    for image in sample.images[:20]:
        np.testing.assert_allclose(deskew(image[None])[0], slow_deskew(image), atol=0.5 + 1e-4)


@settings(max_examples=60, deadline=None, database=None)
@given(st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(lambda shape: arrays(np.uint8, shape)))
def test_any_deskewed_image_agrees_with_the_formula(image: Gray) -> None:
    np.testing.assert_allclose(deskew(image[None])[0], slow_deskew(image), atol=0.5 + 1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_an_upright_centred_image_is_unchanged(seed: int) -> None:
    image = symmetric(seed)
    assert np.abs(deskew(image[None])[0].astype(int) - image).max() <= 1


@pytest.mark.parametrize("shape", [(28, 28), (1, 1), (5, 8)])
def test_a_blank_image_is_unchanged(shape: tuple[int, int]) -> None:
    assert not deskew(np.zeros((3, *shape), np.uint8)).any()


def test_a_deskewed_digit_is_upright_and_centred(sample: Dataset) -> None:
    before, after = slant(sample.images), slant(deskew(sample.images))
    assert np.median(np.abs(before[2])) > 0.15
    assert np.quantile(np.abs(after[2]), 0.99) < 0.05
    assert max(np.abs(after[0]).max(), np.abs(after[1]).max()) < 0.5


def test_a_deskewed_image_does_not_depend_on_the_other_images(
    sample: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result is identical for other batches, and for other sizes of the blocks."""
    images = np.random.default_rng(0).integers(0, 256, (120, 28, 28), np.uint8)
    images[:50] = sample.images[:50]
    whole = deskew(images)
    for part in (slice(0, 1), slice(47, 53), slice(119, None), slice(0, None, 97)):
        np.testing.assert_array_equal(deskew(images[part]), whole[part])
    for block in (1, 7 * 784):
        monkeypatch.setattr("softmax_cli.features.PREPARE_VALUES", block)
        prepared = FeatureMap((28, 28), (Deskew((28, 28)),)).prepare(images)
        np.testing.assert_array_equal(prepared, whole)
