"""Integrated gradients: exact for pixels, complete for every pipeline."""

from typing import Any

import numpy as np
import pytest

from softmax_cli.config import TrainConfig
from softmax_cli.data.dataset import Dataset
from softmax_cli.explanation import explain, integrated_gradients
from softmax_cli.features import evidence_of
from softmax_cli.training import State, fit

PIPELINES = ["pixels", "deskew", "pixels,fourier", "gradients", "normalize,gradients,pca,fourier"]


@pytest.fixture(scope="module")
def states(sample: Dataset) -> dict[str, State]:
    """Return a model of each pipeline."""
    found = {}
    for pipeline in PIPELINES:
        more: dict[str, Any] = {"pca_dimension": 40} if "pca" in pipeline else {}
        more |= {"fourier_dimension": 300} if "fourier" in pipeline else {}
        *_, found[pipeline] = fit(TrainConfig(features=pipeline, epochs=2, **more), sample)
    return found


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_the_contributions_add_up_to_the_difference(
    states: dict[str, State], sample_test: Dataset, pipeline: str
) -> None:
    """Within 1 % of the sum of their magnitudes over, and of the change if it is not small."""
    state = states[pipeline]
    images = state.features.redraw(sample_test.images[:25])
    z = evidence_of(state.model, state.features.prepared, images)
    for image, row in zip(images, z, strict=True):
        found = explain(state.model, state.features.prepared, image)
        assert (found.winner, found.runner_up) == tuple(np.argsort(-row, kind="stable")[:2])
        np.testing.assert_allclose(found.evidence, row, atol=1e-3)
        change = found.difference - found.blank_difference
        assert found.pixels.sum() == pytest.approx(change, rel=0.01, abs=0.002)
        assert found.pixels.shape == (28, 28)
        assert not found.pixels[image == 0].any()


@pytest.mark.parametrize("pipeline", ["pixels", "deskew"])
def test_the_contributions_of_pixels_are_weight_times_intensity(
    states: dict[str, State], sample_test: Dataset, pipeline: str
) -> None:
    state = states[pipeline]
    image = state.features.redraw(sample_test.images[:1])[0]
    found = explain(state.model, state.features.prepared, image)
    margin = state.model.weights[:, found.winner].astype(float) - state.model.weights[:, found.runner_up]
    np.testing.assert_allclose(found.pixels.ravel(), margin * (image.ravel() / 255), atol=1e-12)
    np.testing.assert_array_equal(found.blank, found.bias)
    assert abs(found.error) < 1e-9


def test_the_integral_is_the_limit_of_a_sum(states: dict[str, State], sample_test: Dataset) -> None:
    """Against the midpoint rule in α with 4,000 points."""
    features = states["pixels,fourier"].features.prepared
    image, margin = sample_test.images[0], states["pixels,fourier"].model.weights[:, 3].astype(float)
    x = image / 255
    path = ((np.arange(4000) + 0.5) / 4000)[:, None, None] * x
    expected = x * features.gradient(path, np.broadcast_to(margin, (4000, 300))).mean(axis=0)
    np.testing.assert_allclose(integrated_gradients(features, image, margin), expected, atol=1e-5)


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_blank_image_has_no_contributions(states: dict[str, State], pipeline: str) -> None:
    state = states[pipeline]
    found = explain(state.model, state.features.prepared, np.zeros((28, 28), np.uint8))
    assert not found.pixels.any()
    assert found.difference == found.blank_difference
