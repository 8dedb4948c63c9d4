"""Deskewing: against the formula written out, and what it promises of every image."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from softmax_cli.data.dataset import Dataset
from softmax_cli.deskew import BLOCK, deskew, lean

Gray = NDArray[np.uint8]


def slow_deskew(image: Gray) -> list[list[float]]:
    """Return what the module's text defines, one pixel at a time, before it is rounded."""
    rows, columns = image.shape
    ink = [[float(value) for value in line] for line in image]
    where = [(r, c) for r in range(rows) for c in range(columns)]
    mass = sum(ink[r][c] for r, c in where)
    if not mass:
        return ink
    mean_r = sum(r * ink[r][c] for r, c in where) / mass
    mean_c = sum(c * ink[r][c] for r, c in where) / mass
    variance = sum((r - mean_r) ** 2 * ink[r][c] for r, c in where) / mass
    covariance = sum((r - mean_r) * (c - mean_c) * ink[r][c] for r, c in where) / mass
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
    """Return a random image of 28 x 28 whose two halves mirror each other, up and down, left and right."""
    quarter = np.random.default_rng(seed).integers(0, 256, (13, 13), np.uint8)
    image = np.zeros((28, 28), np.uint8)
    image[15:, 15:], image[13:0:-1, 15:] = quarter, quarter
    image[1:, 13:0:-1] = image[1:, 15:]
    return image


def test_digits_are_those_of_the_formula(sample: Dataset) -> None:
    for image in sample.images[:20]:
        np.testing.assert_allclose(deskew(image[None])[0], slow_deskew(image), atol=0.5 + 1e-4)


@settings(max_examples=60, deadline=None, database=None)
@given(st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(lambda shape: arrays(np.uint8, shape)))
def test_any_image_is_that_of_the_formula(image: Gray) -> None:
    np.testing.assert_allclose(deskew(image[None])[0], slow_deskew(image), atol=0.5 + 1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_what_stands_upright_in_the_middle_stays(seed: int) -> None:
    image = symmetric(seed)
    assert np.abs(deskew(image[None])[0].astype(int) - image).max() <= 1


@pytest.mark.parametrize("shape", [(28, 28), (1, 1), (5, 8)])
def test_a_blank_image_stays(shape: tuple[int, int]) -> None:
    assert not deskew(np.zeros((3, *shape), np.uint8)).any()


def test_a_digit_ends_upright_in_the_middle(sample: Dataset) -> None:
    before, after = lean(sample.images), lean(deskew(sample.images))
    assert np.median(np.abs(before[2])) > 0.15
    assert np.quantile(np.abs(after[2]), 0.99) < 0.05
    assert max(np.abs(after[0]).max(), np.abs(after[1]).max()) < 0.5


def test_an_image_comes_out_the_same_in_any_company(sample: Dataset) -> None:
    """Not one bit depends on the images beside it, nor on where the blocks end."""
    size = BLOCK // 784
    images = np.random.default_rng(0).integers(0, 256, (size + 70, 28, 28), np.uint8)
    images[:50] = sample.images[:50]
    whole = deskew(images)
    for part in (slice(0, 1), slice(size - 3, size + 3), slice(size + 69, None), slice(0, None, 97)):
        np.testing.assert_array_equal(deskew(images[part]), whole[part])


def test_large_images_are_sheared_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory does not grow with their size times a thousand."""
    images = np.random.default_rng(1).integers(0, 256, (5, 40, 30), np.uint8)
    whole = deskew(images)
    monkeypatch.setattr("softmax_cli.deskew.BLOCK", 1)
    np.testing.assert_array_equal(deskew(images), whole)
