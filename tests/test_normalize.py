"""Moment normalisation and the resampling that it shares with augmentation."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from softmax_cli.config import TrainConfig
from softmax_cli.data.dataset import Dataset
from softmax_cli.errors import ConfigError
from softmax_cli.features.normalize import Normalize, moments
from softmax_cli.features.resampling import interpolate, resample

SHAPES = [(8, 8), (9, 17), (28, 28), (40, 33)]
CONFIG = TrainConfig(features="normalize")


def noise(count: int, shape: tuple[int, int], seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def blob(shape: tuple[int, int], row: float, column: float, size: float, slant: float) -> NDArray[np.uint8]:
    """Return a Gaussian blob around a place, of standard deviation `size`, sheared."""
    r, c = np.mgrid[: shape[0], : shape[1]]
    r, c = r - row, c - column
    return np.rint(255 * np.exp(-(r**2 + (c - slant * r) ** 2) / (2 * size**2))).astype(np.uint8)


def read(image: NDArray[np.uint8], r: float, c: float) -> float:
    """Return the value at a place by bilinear interpolation, one of the four neighbours at a time."""
    total = 0.0
    for i in (math.floor(r), math.floor(r) + 1):
        for j in (math.floor(c), math.floor(c) + 1):
            if 0 <= i < image.shape[0] and 0 <= j < image.shape[1]:
                total += (1 - abs(r - i)) * (1 - abs(c - j)) * int(image[i, j])
    return total


def test_values_between_pixels_are_interpolated() -> None:
    """At random places, inside and outside of the image, against the four neighbours."""
    images = noise(3, (7, 5))
    rows, columns = np.random.default_rng(1).uniform(-4, 10, (2, 3, 35)).astype(np.float32)
    found = interpolate(images, rows, columns).reshape(3, 35)
    for image, r, c, values in zip(images, rows, columns, found, strict=True):
        expected = [read(image, *place) for place in zip(r.tolist(), c.tolist(), strict=True)]
        np.testing.assert_allclose(values, expected, atol=0.5 + 1e-3)  # rounded


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_not_moved_is_unchanged(shape: tuple[int, int]) -> None:
    images = noise(70, shape)
    np.testing.assert_array_equal(resample(images), images)


def test_whole_pixels_are_shifted_exactly() -> None:
    images = noise(70, (6, 9))
    shifted = resample(images, lambda block, r, c: (r + 2, c - 3))
    expected = np.zeros_like(images)
    expected[:, :-2, 3:] = images[:, 2:, :-3]
    np.testing.assert_array_equal(shifted, expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_moments_are_weighted_means_and_covariances(shape: tuple[int, int]) -> None:
    """Against numpy's weighted covariance, with the intensities as frequencies."""
    images = noise(5, shape)
    found = moments(images)
    for k, image in enumerate(images):
        places = np.stack([axis.ravel() for axis in np.mgrid[: shape[0], : shape[1]]])
        mean = np.average(places, axis=1, weights=image.ravel())
        cov = np.cov(places, fweights=image.ravel().astype(int), ddof=0)
        slant = cov[0, 1] / cov[0, 0]
        assert found.row[k] == pytest.approx(mean[0] - shape[0] // 2)
        assert found.column[k] == pytest.approx(mean[1] - shape[1] // 2)
        assert found.slant[k] == pytest.approx(slant)
        assert found.size[k] == pytest.approx(math.sqrt(cov[0, 0] + cov[1, 1] - slant * cov[0, 1]))


def test_the_images_are_those_of_the_formula() -> None:
    images = noise(4, (11, 8))
    images[:, :2] = 0
    one = Normalize((11, 8), np.array([2.5], np.float32))
    for image, drawn, row, column, slant, size in zip(
        images, one.transform(images), *moments(images), strict=True
    ):
        zoom = size / 2.5
        for r in range(11):
            for c in range(8):
                at = zoom * (r - 5) + row + 5, zoom * (c - 4 + slant * (r - 5)) + column + 4
                assert abs(int(drawn[r, c]) - read(image, *at)) < 0.51


def test_normalised_images_are_upright_centred_and_of_one_size() -> None:
    images = np.stack([blob((40, 36), 17, 20, 3, 0.4), blob((40, 36), 22, 16, 5, -0.3)])
    one = Normalize((40, 36), np.array([6], np.float32))
    found = moments(one.transform(images))
    np.testing.assert_allclose([found.row, found.column, found.slant], 0, atol=0.05)
    np.testing.assert_allclose(found.size, 6, rtol=0.02)


def test_the_size_is_the_mean_of_the_training_images(sample: Dataset) -> None:
    one = Normalize.fit(sample.images[:50], CONFIG, 0)
    assert one.size == pytest.approx([moments(sample.images[:50]).size.mean()])
    assert one.arrays().keys() == Normalize.array_shapes(CONFIG, (28, 28)).keys()
    assert Normalize.from_arrays(one.arrays(), CONFIG, (28, 28)).size == one.size


@pytest.mark.parametrize("shape", SHAPES)
def test_images_stay_what_they_are_in_any_batch(shape: tuple[int, int]) -> None:
    """Blank and nearly blank images included; to the bit."""
    images = noise(70, shape)
    images[3], images[4] = 0, 0
    images[4, 2, 5] = 255
    one = Normalize.fit(images, CONFIG, 0)
    drawn = one.transform(images)
    assert (drawn.dtype, drawn.shape) == (np.uint8, images.shape)
    assert not drawn[3].any()
    assert drawn[4].any()
    for rows in ([3], [4], [69], list(range(2, 68))):
        np.testing.assert_array_equal(one.transform(images[rows]), drawn[rows])


def test_only_images_can_be_normalised() -> None:
    with pytest.raises(ConfigError, match="normalize needs images"):
        Normalize.fit(np.zeros((3, 9), np.float32), CONFIG, 0)
    with pytest.raises(ConfigError, match="must come before gradients"):
        TrainConfig(features="gradients,normalize")
