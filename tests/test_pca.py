"""Principal components against the singular value decomposition, and Fourier features of any inputs."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from softmax_cli.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from softmax_cli.config import TrainConfig
from softmax_cli.data.dataset import Dataset
from softmax_cli.errors import ConfigError
from softmax_cli.features.fourier import Fourier, root_mean_square_distance
from softmax_cli.features.pca import PCA
from softmax_cli.training import fit


def inputs(count: int = 200, dimension: int = 12) -> NDArray[np.float32]:
    """Return correlated numbers with a mean far from 0."""
    generator = np.random.default_rng(0)
    mixed = generator.standard_normal((count, dimension)) * np.arange(1, dimension + 1)
    rotation = np.linalg.qr(generator.standard_normal((dimension, dimension)))[0]
    return (mixed @ rotation + 5).astype(np.float32)


def fitted(x: NDArray[np.float32], dimension: int) -> PCA:
    return PCA.fit(x, TrainConfig(features="pca", pca_dimension=dimension), 0)


def test_the_components_are_the_right_singular_vectors() -> None:
    x = inputs()
    one = fitted(x, 5)
    centred = x.astype(float) - x.astype(float).mean(axis=0)
    _, values, vectors = np.linalg.svd(centred, full_matrices=False)
    signs = np.sign((vectors[:5] * one.components.T).sum(axis=1))
    np.testing.assert_allclose(one.components.T, signs[:, None] * vectors[:5], atol=1e-5)
    np.testing.assert_allclose(one.variances, values[:5] ** 2 / 199, rtol=1e-5)
    np.testing.assert_allclose(one.transform(x), centred @ one.components, atol=1e-4)


def test_the_largest_entry_of_each_component_is_positive() -> None:
    components = fitted(inputs(), 12).components
    assert (components[np.abs(components).argmax(axis=0), np.arange(12)] > 0).all()


def test_all_components_keep_all_distances() -> None:
    x = inputs(30)
    y = fitted(x, 12).transform(x)
    np.testing.assert_allclose(np.linalg.norm(y - y[3], axis=1), np.linalg.norm(x - x[3], axis=1), rtol=1e-4)


def test_pixels_are_intensities() -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 4, 3), np.uint8)
    one = fitted(images, 6)  # type: ignore[arg-type]
    np.testing.assert_allclose(one.mean, (images / 255).reshape(50, 12).mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(one.transform(images).mean(axis=0), 0, atol=1e-6)


def test_the_backward_pass_is_the_transpose() -> None:
    x = inputs(6)
    one, gradient = fitted(x, 5), np.random.default_rng(1).standard_normal((6, 5))
    step = np.eye(1, 12, 7)
    change = (one.transform(x + 100 * step) - one.transform(x)).astype(float) / 100
    np.testing.assert_allclose(
        one.backward(x, gradient)[:, 7], (change * gradient).sum(axis=1), rtol=1e-3, atol=1e-5
    )


def test_more_components_than_inputs_are_refused() -> None:
    with pytest.raises(ConfigError, match="pca-dimension 13 is more than the number of inputs, 12"):
        fitted(inputs(), 13)


def test_the_gain_makes_the_learning_rate_independent_of_the_scale() -> None:
    assert fitted(inputs(), 5).gain == pytest.approx(100 * fitted(10 * inputs(), 5).gain, rel=1e-4)


def test_the_regularization_is_that_of_the_stage_before() -> None:
    found = [TrainConfig(features=f).l2 for f in ("deskew,pca", "gradients,pca", "pca,fourier", "deskew")]
    assert found == [1e-4, 1e-6, 1e-6, 1e-4]


def test_a_checkpoint_keeps_every_stage(sample: Dataset, tmp_path: Path) -> None:
    config = TrainConfig(
        features="normalize,gradients,pca,fourier",
        gradients_grid=4,
        pca_dimension=9,
        fourier_dimension=30,
        epochs=1,
        augment=True,
    )
    *_, state = fit(config, sample)
    save_checkpoint(tmp_path / "model.npz", Checkpoint.begin(config, sample, state))
    loaded = load_checkpoint(tmp_path / "model.npz").state.features
    assert loaded.is_random
    images = state.features.redraw(sample.images[:20])
    np.testing.assert_array_equal(loaded.redraw(sample.images[:20]), images)
    np.testing.assert_array_equal(loaded.transform(images), state.features.transform(images))


# Fourier features


def test_the_width_follows_the_distances_of_the_inputs() -> None:
    """φ(x)·φ(x') approximates exp(−d² / (2·(b·rms)²)), with the root-mean-square distance of all pairs."""
    x = inputs(150)
    pairs = np.linalg.norm(x[:, None].astype(float) - x[None], axis=2)
    rms = math.sqrt((pairs**2).mean())
    assert root_mean_square_distance(x) == pytest.approx(rms, rel=1e-5)
    config = TrainConfig(features="pca,fourier", fourier_dimension=40_000, fourier_bandwidth=0.7)
    one = Fourier.fit(x, config, 0)
    phi = one.scale * one.transform(x[:20]).astype(float)
    np.testing.assert_allclose(
        phi @ phi.T, np.exp(-(pairs[:20, :20] ** 2) / (2 * (0.7 * rms) ** 2)), atol=0.03
    )


def test_scale_and_origin_of_the_inputs_do_not_matter() -> None:
    config = TrainConfig(features="pca,fourier", fourier_dimension=50)
    first, second = (
        Fourier.fit(x, config, 0).transform(x) for x in (inputs(40), 8 * inputs(40) + np.float32(16))
    )
    np.testing.assert_allclose(first, second, atol=1e-4)


def test_blank_images_have_finite_features() -> None:
    one = Fourier.fit(np.zeros((3, 8, 8), np.uint8), TrainConfig(features="pixels,fourier"), 0)
    assert np.isfinite(one.transform(np.zeros((2, 8, 8), np.uint8))).all()


@pytest.mark.parametrize("pipeline", ["pixels,fourier", "normalize,gradients,pca,fourier"])
@pytest.mark.parametrize("dimension", [30, 300, 1500])
def test_one_learning_rate_suits_features_of_all_kinds(
    sample: Dataset, pipeline: str, dimension: int
) -> None:
    more = {"pca_dimension": 40} if "pca" in pipeline else {}
    config = TrainConfig(features=pipeline, fourier_dimension=dimension, epochs=6, **more)
    *_, state = fit(config, sample)
    last = state.history[-1]
    assert last.validation_accuracy > {30: 0.6, 300: 0.88, 1500: 0.92}[dimension]  # type: ignore[operator]
    assert last.validation_loss < 2 * last.train_loss + 0.3  # type: ignore[operator]


def test_a_run_of_format_1_continues_with_its_projection(sample: Dataset) -> None:
    """Nothing is fitted again: its absolute bandwidth of 3.5 is in its arrays."""
    checkpoint = load_checkpoint(Path(__file__).parent / "data" / "format1-fourier.npz")
    images = np.random.default_rng(0).integers(0, 256, (60, 4, 3), np.uint8)
    labels = np.arange(60, dtype=np.uint8) % len(checkpoint.class_names)
    data = replace(sample, images=images, labels=labels, class_names=checkpoint.class_names)
    *_, state = fit(checkpoint.config, data, checkpoint.state)
    assert (checkpoint.config.fourier_bandwidth, state.epoch) == (3.5, checkpoint.config.epochs)
    assert state.features is checkpoint.state.features
