"""Gradient-direction features: a slow definition, exact symmetries, finite differences."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from softmax_cli import features
from softmax_cli.config import TrainConfig, find_config, read_toml
from softmax_cli.data.dataset import Dataset
from softmax_cli.data.download import Source
from softmax_cli.data.loading import load_dataset
from softmax_cli.errors import ConfigError
from softmax_cli.features.gradients import DELTA, EPSILON_SQUARED, Gradients
from softmax_cli.training import fit

SHAPES = [(8, 8), (9, 17), (28, 28), (40, 33)]


def stage(shape: tuple[int, ...], grid: int = 7, sigma: float = 1.6) -> Gradients:
    config = TrainConfig(features="gradients", gradients_grid=grid, gradients_sigma=sigma)
    return Gradients.from_arrays({}, config, shape)


def noise(count: int, shape: tuple[int, int], seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def sobel_at(x: NDArray[np.float64], r: int, c: int) -> tuple[float, float]:
    """Return the gradient of an image at a pixel by the definition of Sobel's operator."""
    at = np.zeros((3, 3))
    for i in range(3):
        for j in range(3):
            if 0 <= r + i - 1 < x.shape[0] and 0 <= c + j - 1 < x.shape[1]:
                at[i, j] = x[r + i - 1, c + j - 1]
    weights = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    return float((at * weights).sum()), float((at * weights.T).sum())


def split(g: tuple[float, float]) -> NDArray[np.float64]:
    """Return the coordinates of a vector in the two of eight unit vectors between which it lies."""
    found = np.zeros(8)
    if g == (0.0, 0.0):
        return found
    k = int(math.atan2(g[1], g[0]) % (2 * math.pi) / (math.pi / 4)) % 8
    two = [(math.cos(math.pi / 4 * j), math.sin(math.pi / 4 * j)) for j in (k, k + 1)]
    found[k], found[(k + 1) % 8] = np.linalg.solve(np.array(two).T, g)
    return found


def slow(x: NDArray[np.float64], grid: int, sigma: float) -> NDArray[np.float64]:
    """Return φ of one image of intensities, by the definition, one pixel and one centre at a time."""
    rows, columns = x.shape
    averages = np.zeros((8, grid, grid))
    for i in range(grid):
        for j in range(grid):
            centre = rows / grid * (i + 0.5) - 0.5, columns / grid * (j + 0.5) - 0.5
            total = 0.0
            for r in range(rows):
                for c in range(columns):
                    square = ((r - centre[0]) / (sigma * rows / 28)) ** 2
                    square += ((c - centre[1]) / (sigma * columns / 28)) ** 2
                    weight = math.exp(-square / 2)
                    total += weight
                    averages[:, i, j] += weight * split(sobel_at(x, r, c))
            averages[:, i, j] /= total
    roots = np.sqrt(averages.ravel() + DELTA) - math.sqrt(DELTA)
    return roots / math.sqrt(EPSILON_SQUARED + (roots**2).sum())


@pytest.mark.parametrize(
    ("shape", "grid", "sigma"), [((8, 8), 3, 4.0), ((11, 7), 2, 3.0), ((28, 28), 2, 1.6)]
)
def test_the_features_are_those_of_the_definition(shape: tuple[int, int], grid: int, sigma: float) -> None:
    images = noise(2, shape)
    found = stage(shape, grid, sigma).transform(images)
    assert (found.dtype, found.shape) == (np.float32, (2, 8 * grid**2))
    for image, row in zip(images, found, strict=True):
        np.testing.assert_allclose(row, slow(image / 255, grid, sigma), atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_an_image_has_the_same_features_in_any_batch(shape: tuple[int, int]) -> None:
    """Within 1e-6, for batches of one and of sizes that are no multiple of a block."""
    images, one = noise(75, shape), stage(shape)
    whole = one.transform(images)
    for rows in ([0], [74], [31, 32], list(range(5, 70))):
        np.testing.assert_allclose(one.transform(images[rows]), whole[rows], rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_blank_image_has_no_features_and_others_a_norm_below_one(shape: tuple[int, int]) -> None:
    dots = np.zeros((2, *shape), np.uint8)
    dots[1, 3, 4] = 255
    assert not stage(shape).transform(dots[:1]).any()
    norms = np.linalg.norm(stage(shape).transform(np.concatenate([dots[1:], noise(3, shape)])), axis=1)
    assert (norms > 0.1).all()
    assert (norms < 1).all()


def test_floats_stand_for_themselves() -> None:
    images = noise(3, (28, 28))
    np.testing.assert_allclose(
        stage((28, 28)).transform(images / 255), stage((28, 28)).transform(images), atol=1e-6
    )


def test_a_buffer_that_is_given_is_filled() -> None:
    out = np.full((5, 392), 7, np.float32)
    found = stage((28, 28)).transform(noise(3, (28, 28)), out)
    assert np.shares_memory(found, out)
    np.testing.assert_array_equal(found, stage((28, 28)).transform(noise(3, (28, 28))))
    assert (out[3:] == 7).all()


@pytest.mark.parametrize(
    ("turn", "direction"),
    [
        (lambda x: np.rot90(x, axes=(1, 2)), lambda k: (k - 2) % 8),
        (lambda x: x[:, :, ::-1], lambda k: (4 - k) % 8),
        (lambda x: x[:, ::-1], lambda k: -k % 8),
        (lambda x: x.swapaxes(1, 2), lambda k: (2 - k) % 8),
    ],
    ids=["a quarter turn", "left and right", "up and down", "transposed"],
)
def test_symmetries_of_a_square_permute_the_features(
    turn: Callable[[NDArray[np.float32]], NDArray[np.float32]], direction: Callable[[int], int]
) -> None:
    images, one = noise(4, (20, 20)), stage((20, 20), grid=5)
    before = one.transform(images).reshape(4, 8, 5, 5)
    after = one.transform(np.ascontiguousarray(turn(images))).reshape(4, 8, 5, 5)
    for k in range(8):
        np.testing.assert_allclose(after[:, direction(k)], turn(before[:, k]), atol=1e-6)


def test_the_backward_pass_does_not_prefer_a_side_of_an_axis_or_a_diagonal() -> None:
    """The gradient of a transposed image is transposed; with two grey levels, many pixels are on them."""
    x, one = np.random.default_rng(3).integers(0, 2, (4, 20, 20)) / 3, stage((20, 20), grid=5)
    gradient = np.random.default_rng(4).standard_normal((4, 8, 5, 5))
    turned = np.stack([gradient[:, (2 - k) % 8] for k in range(8)], axis=1).swapaxes(2, 3)
    found = one.backward(x, gradient.reshape(4, -1))
    again = one.backward(np.ascontiguousarray(x.swapaxes(1, 2)), turned.reshape(4, -1))
    np.testing.assert_allclose(again, found.swapaxes(1, 2), atol=1e-9)


def test_the_backward_pass_is_that_of_finite_differences() -> None:
    """Against the slow definition, in float64, at pixels in the corners, on the edges and inside."""
    x, one = np.random.default_rng(1).random((9, 8)), stage((9, 8), grid=2, sigma=5)
    gradient = np.random.default_rng(2).standard_normal((1, 32))
    found = one.backward(x[None], gradient)
    assert found.shape == (1, 9, 8)
    for at in [(0, 0), (8, 7), (0, 4), (5, 0), (4, 4), (2, 6)]:
        step = np.zeros_like(x)
        step[at] = 1e-5
        change = gradient[0] @ (slow(x + step, 2, 5) - slow(x - step, 2, 5)) / 2e-5
        assert found[0][at] == pytest.approx(change, rel=1e-5, abs=1e-8)


def test_the_backward_pass_is_finite_on_flat_images() -> None:
    flat = np.stack([np.zeros((28, 28), np.uint8), np.full((28, 28), 255, np.uint8)])
    assert np.isfinite(stage((28, 28)).backward(flat, np.ones((2, 392)))).all()


def test_the_grid_and_the_width_are_keys_but_not_flags(invoke: Callable[..., object]) -> None:
    text = invoke("train", "--help").output  # type: ignore[attr-defined]
    assert "--augment" in text
    assert "gradients-grid" not in text
    assert "pca-dimension" not in text
    assert TrainConfig(features="gradients").gradients_grid == 7
    with pytest.raises(ConfigError, match="gradients-grid needs the feature stage gradients"):
        TrainConfig(gradients_grid=5)


def test_only_images_have_gradients() -> None:
    with pytest.raises(ConfigError, match="gradients needs images"):
        stage((30,))


def test_features_that_never_change_are_computed_once(
    sample: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are the same, within 1e-6; if they take too much memory, only the images are redrawn."""
    config = TrainConfig(features="normalize,gradients,pca,fourier", pca_dimension=20, fourier_dimension=50)
    images = sample.images[:300]
    whole = features.fit_features(config, images, np.arange(300))
    expected = whole.transform(whole.redraw(images))
    stored, rest = features.precompute(whole, images)
    assert (stored.shape, len(rest.stages), rest.gain) == ((300, 20), 1, whole.gain)
    np.testing.assert_allclose(rest.transform(stored), expected, atol=1e-5)
    monkeypatch.setattr(features, "STORED_LIMIT", 1000)
    stored, rest = features.precompute(whole, images)
    assert (stored.dtype, len(rest.stages)) == (np.uint8, 3)
    np.testing.assert_allclose(rest.transform(stored), expected, atol=1e-5)


@pytest.mark.parametrize("pipeline", ["gradients", "deskew,gradients", "normalize,gradients,pca"])
def test_gradients_beat_pixels(sample: Dataset, pipeline: str) -> None:
    """With the default learning rate; pixels reach 88 % here."""
    *_, state = fit(TrainConfig(features=pipeline, epochs=5), sample)
    assert state.history[-1].validation_accuracy > 0.93  # type: ignore[operator]


def test_newton_converges_on_gradients(sample: Dataset) -> None:
    *_, state = fit(TrainConfig(features="gradients", gradients_grid=4, solver="newton", l2=1e-4), sample)
    assert state.history[-1].distance < 1e-5  # type: ignore[operator]


@pytest.mark.full
def test_a_linear_model_of_gradients_reaches_99_percent(full_mnist: Path) -> None:
    source = Source(full_mnist, offline=True)
    *_, state = fit(
        TrainConfig(features="normalize,gradients", epochs=5), load_dataset("mnist", "train", source)
    )
    assert state.history[-1].validation_accuracy > 0.987  # type: ignore[operator]


@pytest.mark.full
def test_two_epochs_with_augmentation_reach_99_percent(full_mnist: Path) -> None:
    config = TrainConfig(
        **{**read_toml(find_config("fast")), "validation_size": 0.1, "fourier_dimension": 1000}
    )
    *_, state = fit(config, load_dataset("mnist", "train", Source(full_mnist, offline=True)))
    assert state.history[-1].validation_accuracy > 0.99  # type: ignore[operator]
