"""From uint8 images to the numbers that the model weighs."""

import math
from itertools import pairwise

import numpy as np
import pytest

from softmax_cli import features
from softmax_cli.config import TrainConfig
from softmax_cli.data.dataset import Dataset, hold_out
from softmax_cli.deskew import deskew
from softmax_cli.errors import ConfigError
from softmax_cli.features import batches, check_memory, draw, evidence_of, pixels, prepare, scaled, transform
from softmax_cli.model import Model
from softmax_cli.parallel import VARIABLE
from softmax_cli.training import fit, start

ALL_VALUES = np.arange(256, dtype=np.uint8).reshape(4, 8, 8)
MAP = pixels((8, 8))


def fourier(dimension: int, shape: tuple[int, int] = (28, 28), **options: float) -> features.FeatureMap:
    return draw(TrainConfig(features="fourier", fourier_dimension=dimension, **options), shape)


def test_pixels_are_intensities_over_255() -> None:
    """Every value is v/255 to float32 precision once the scale is on it; the shape is (n, D)."""
    x = transform(MAP, ALL_VALUES)
    assert (x.dtype, x.shape, MAP.dimension) == (np.float32, (4, 64), 64)
    np.testing.assert_allclose(MAP.scale * x.ravel(), [v / 255 for v in range(256)], rtol=1.5e-7)


def test_pixels_go_row_by_row() -> None:
    image = np.zeros((1, 3, 5), np.uint8)
    image[0, 2, 1] = 255
    assert np.flatnonzero(transform(pixels((3, 5)), image)).tolist() == [2 * 5 + 1]


@pytest.mark.parametrize("feature_map", [MAP, fourier(1300, (8, 8))], ids=lambda one: one.kind)
def test_a_buffer_that_is_given_is_filled(feature_map: features.FeatureMap) -> None:
    """The first rows of `out` are filled and returned, with no copy; the rows after them stay."""
    out = np.full((6, feature_map.dimension), 7, np.float32)
    x = transform(feature_map, ALL_VALUES, out)
    assert np.shares_memory(x, out)
    np.testing.assert_array_equal(out[:4], transform(feature_map, ALL_VALUES))
    assert (out[4:] == 7).all()


def test_the_scale_may_be_given_to_the_weights() -> None:
    """(scale · raw)·W + b = raw·(scale · W) + b, against float64."""
    generator = np.random.default_rng(0)
    model = Model(*(generator.normal(size=shape).astype(np.float32) for shape in ((64, 3), 3)))
    expected = ALL_VALUES.reshape(4, 64) / 255 @ model.weights.astype(float) + model.bias
    np.testing.assert_allclose(evidence_of(model, MAP, ALL_VALUES), expected, rtol=1e-4, atol=1e-5)
    assert scaled(model, MAP).weights.dtype == np.float32


def test_batches_are_the_rows_in_order_whether_gathered_or_not() -> None:
    images = np.random.default_rng(0).integers(0, 256, (100, 4, 4), np.uint8)
    labels = np.arange(100, dtype=np.uint8)
    for rows in (np.arange(20, 61), np.array([5]), np.array([3, 9, 9, 1, 4]), np.array([7, 6, 5, 4])):
        pairs = [(x.copy(), y) for x, y in batches(pixels((4, 4)), images, labels, rows, 7)]
        assert [len(y) for _, y in pairs] == [7] * (len(rows) // 7) + [len(rows) % 7] * (len(rows) % 7 > 0)
        np.testing.assert_array_equal(np.concatenate([x for x, _ in pairs]), images[rows].reshape(-1, 16))
        np.testing.assert_array_equal(np.concatenate([y for _, y in pairs]), labels[rows])


# Preparation


def test_each_kind_prepares_images_as_it_says(sample: Dataset) -> None:
    images, upright = sample.images[:30], deskew(sample.images[:30])
    assert prepare(pixels((28, 28)), images) is images
    for feature_map in (draw(TrainConfig(features="deskew"), (28, 28)), fourier(10)):
        np.testing.assert_array_equal(prepare(feature_map, images), upright)
        assert prepare(feature_map.prepared, images) is images
        np.testing.assert_array_equal(
            transform(feature_map, upright), transform(feature_map.prepared, upright)
        )


def test_a_copy_that_is_too_large_is_refused() -> None:
    many = np.broadcast_to(np.uint8(0), (1_400_000, 28, 28))  # no memory behind it
    check_memory(pixels((28, 28)), many, 256)
    check_memory(pixels((28, 28), deskewed=True), many[:1_300_000], 256)
    with pytest.raises(ConfigError, match=r"copy of 1,400,000 images would take 1,047 MiB, .* 1,024"):
        check_memory(pixels((28, 28), deskewed=True), many, 256)


def test_a_batch_that_is_too_large_is_refused() -> None:
    images = np.broadcast_to(np.uint8(0), (400_000, 28, 28))
    check_memory(pixels((28, 28)), images[:300_000], 10**9)
    with pytest.raises(ConfigError, match=r"batch of 400,000 images with 784 .* choose a smaller batch-size"):
        check_memory(pixels((28, 28)), images, 10**9)


def test_a_projection_that_is_too_large_is_refused_before_it_is_drawn() -> None:
    with pytest.raises(
        ConfigError, match=r"projection of 16,384 pixels to 100,000 features would take 6,250"
    ):
        fourier(100_000, (128, 128))


# Fourier features


def kernel(x: np.ndarray, smoothing: float, bandwidth: float) -> np.ndarray:
    """Return exp(−‖S·x_i − S·x_j‖² / (2σ²)), S by the definition: one pixel, one neighbour at a time."""
    rows, columns = x.shape[1:]
    if smoothing:
        line = [math.exp(-(d**2) / (2 * smoothing**2)) for d in range(-40, 41)]
        share = [value / sum(line) for value in line]
        spread = np.zeros_like(x)
        for r in range(rows):
            for c in range(columns):
                for i in range(rows):
                    for j in range(columns):
                        spread[:, r, c] += share[40 + r - i] * share[40 + c - j] * x[:, i, j]
        x = spread
    distances = [[((a - b) ** 2).sum() for b in x] for a in x]
    return np.exp(-np.array(distances) / (2 * bandwidth**2))


@pytest.mark.parametrize(("smoothing", "bandwidth"), [(0.0, 1.5), (1.0, 0.5), (0.6, 0.8)])
def test_the_kernel_is_estimated_with_an_error_of_one_over_the_root_of_the_dimension(
    smoothing: float, bandwidth: float
) -> None:
    """φ(x)·φ(x') has a standard deviation of at most 1/sqrt(D); four times the features halve the error."""
    images = np.random.default_rng(5).integers(0, 256, (12, 7, 6), np.uint8)
    exact = kernel(images / 255, smoothing, bandwidth)
    assert 0.01 < exact.min() < exact[~np.eye(12, dtype=bool)].max() < 0.9
    errors = []
    for dimension in (100, 400, 1600, 6400):
        squares = []
        for seed in range(8):
            options = {"fourier_smoothing": smoothing, "fourier_bandwidth": bandwidth, "seed": seed}
            feature_map = fourier(dimension, (7, 6), **options)
            phi = feature_map.scale * transform(feature_map, images)
            squares.append(np.square(phi @ phi.T - exact).mean())
        errors.append(math.sqrt(np.mean(squares)))
        assert errors[-1] < 1.2 / math.sqrt(dimension)  # of eight drawings
    for few, more in pairwise(errors):
        assert few / more == pytest.approx(2, rel=0.25)


def test_fourier_features_are_the_cosines_of_the_formula(sample: Dataset) -> None:
    """Against cos(x·Ω + φ₀) in float64; D is no multiple of the columns that are made at a time."""
    feature_map, images = fourier(features.COLUMNS + 100), sample.images[:5]
    x = images.reshape(5, -1) / 255
    expected = np.cos(x @ feature_map.projection.astype(float) + feature_map.phase)
    np.testing.assert_allclose(transform(feature_map, images), expected, atol=1e-4)
    assert feature_map.scale == math.sqrt(2 / feature_map.dimension)


@pytest.mark.parametrize("kind", ["pixels", "deskew", "fourier"])
def test_features_of_an_image_are_the_same_in_any_batch(sample: Dataset, kind: str) -> None:
    """Exactly for pixels, deskewed or not; within 1e-5 for Fourier features."""
    feature_map = draw(TrainConfig(features=kind), (28, 28))
    tolerance = 1e-5 if kind == "fourier" else 0
    whole = feature_map.scale * transform(feature_map, prepare(feature_map, sample.images[:300]))
    for rows in ([0], [299], [7, 5], list(range(100, 231))):
        part = feature_map.scale * transform(feature_map, prepare(feature_map, sample.images[rows]))
        np.testing.assert_allclose(part, whole[rows], rtol=0, atol=tolerance)


def test_the_cores_do_not_change_the_features(sample: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    feature_map, found = fourier(3000), []
    for count in ("1", "2"):
        monkeypatch.setenv(VARIABLE, count)
        found.append(transform(feature_map, sample.images[:64]).tobytes())
    assert found[0] == found[1]


@pytest.mark.parametrize("width", [0.2, 0.5, 1.0, 4.0])
def test_smoothing_spreads_a_pixel_like_a_normal_distribution(width: float) -> None:
    """Far from the edges nothing is lost, and each neighbour has its share, by the definition."""
    line = [math.exp(-(d**2) / (2 * width**2)) for d in range(-50, 51)]
    image = np.zeros((101, 3), np.float32)
    image[50, 1] = 1
    smoothed = features.smooth(image.reshape(-1, 1), (101, 3), width).reshape(101, 3)
    across = [math.exp(-(d**2) / (2 * width**2)) / sum(line) for d in (-1, 0, 1)]
    np.testing.assert_allclose(smoothed, np.outer(line, across) / sum(line), rtol=1e-5, atol=1e-7)


def test_the_gain_grows_with_the_dimension_up_to_its_limit() -> None:
    found = [fourier(dimension, (2, 2)).gain for dimension in (1, 1000, 100_000)]
    assert found == pytest.approx([400 / 1001, 200, 400 / 1.01])
    assert pixels((28, 28)).gain == 1


def test_the_features_have_random_numbers_of_their_own() -> None:
    """They share none with the split, nor with the order of an epoch."""
    projection = fourier(50, fourier_smoothing=0, fourier_bandwidth=1, seed=3).projection
    for others in ((3, 0), (3, 1), (3, 2), (3, 1, 0)):
        drawn = np.random.default_rng(others).standard_normal((784, 50), np.float32)
        assert (projection == drawn).mean() < 0.01


def test_the_seed_decides_the_features() -> None:
    first, again, other = (fourier(50, seed=seed) for seed in (0, 0, 1))
    assert first.projection.tobytes() == again.projection.tobytes()
    assert first.phase.tobytes() == again.phase.tobytes()
    assert not np.isclose(first.projection, other.projection).any()
    assert 0 <= first.phase.min() < 1
    assert 5 < first.phase.max() < 2 * math.pi


@pytest.mark.parametrize("dimension", [30, 300, 3000])
def test_one_learning_rate_does_for_any_number_of_features(sample: Dataset, dimension: int) -> None:
    """With the default rate, a few epochs on the sample learn what that many features can."""
    config = TrainConfig(features="fourier", fourier_dimension=dimension, epochs=8)
    *_, state = fit(config, sample, hold_out(sample.labels, 0.1, 0), start(config, sample))
    least = {30: 0.7, 300: 0.92, 3000: 0.95}
    assert state.history[-1].validation_accuracy > least[dimension]
    assert state.history[-1].validation_loss < 2 * state.history[-1].train_loss + 0.3
