"""Evidence, taken apart: it adds up, and where it cannot, the gradient is one."""

import numpy as np
import pytest

from softmax_cli.checkpoint import Checkpoint
from softmax_cli.config import TrainConfig
from softmax_cli.data.dataset import Dataset, hold_out
from softmax_cli.explanation import explain
from softmax_cli.features import evidence_of, prepare
from softmax_cli.training import State, fit, start


@pytest.fixture(scope="module")
def states(sample: Dataset) -> dict[str, State]:
    """Return a model of each kind of features."""
    found = {}
    for kind in ("pixels", "deskew", "fourier"):
        more = {"fourier_dimension": 200} if kind == "fourier" else {}
        config = TrainConfig(features=kind, epochs=2, **more)
        *_, found[kind] = fit(config, sample, hold_out(sample.labels, 0.1, 0), start(config, sample))
    return found


@pytest.mark.parametrize("kind", ["pixels", "deskew"])
def test_contributions_and_biases_add_up_to_the_difference(
    states: dict[str, State], sample_test: Dataset, kind: str
) -> None:
    state = states[kind]
    for image in prepare(state.features, sample_test.images[:50]):
        found = explain(state.model, state.features, image)
        assert found.adds_up
        assert abs(found.pixels.sum() + found.bias_difference - found.difference) < 1e-9
        k = found.winner
        slow = float(state.model.bias[k]) + sum(
            float(w) * int(v) / 255 for w, v in zip(state.model.weights[:, k], image.ravel(), strict=True)
        )
        assert found.evidence[k] == pytest.approx(slow, abs=1e-9)
        assert not found.pixels[image == 0].any()


@pytest.mark.parametrize("kind", ["pixels", "deskew", "fourier"])
def test_the_evidence_is_that_of_the_model(states: dict[str, State], sample_test: Dataset, kind: str) -> None:
    state = states[kind]
    images = prepare(state.features, sample_test.images[:50])
    z = evidence_of(state.model, state.features, images)
    for row, image in zip(z, images, strict=True):
        found = explain(state.model, state.features, image)
        np.testing.assert_allclose(found.evidence, row, atol=2e-4)
        assert found.winner == row.argmax()
        assert found.evidence[found.runner_up] == sorted(found.evidence)[-2]


def test_the_gradient_of_fourier_features_is_that_of_finite_differences(
    states: dict[str, State], sample_test: Dataset
) -> None:
    state = states["fourier"]
    image = prepare(state.features, sample_test.images[:1])[0]
    found = explain(state.model, state.features, image)
    assert not found.adds_up
    weights = state.model.weights.astype(float)

    def difference(x: np.ndarray) -> float:
        angles = x @ state.features.projection.astype(float) + state.features.phase
        z = np.sqrt(2 / 200) * np.cos(angles) @ weights + state.model.bias
        return float(z[found.winner] - z[found.runner_up])

    x = image.ravel() / 255
    assert difference(x) == pytest.approx(found.difference, abs=1e-9)
    for pixel in (0, 300, 410, 500, 783):
        step = np.eye(1, 784, pixel)[0] * 1e-5
        slope = (difference(x + step) - difference(x - step)) / 2e-5
        assert found.pixels.ravel()[pixel] == pytest.approx(slope, rel=1e-5, abs=1e-7)


def test_two_classes_are_enough(trained: Checkpoint, sample_test: Dataset) -> None:
    two = type(trained.state.model)(trained.state.model.weights[:, :2], trained.state.model.bias[:2])
    found = explain(two, trained.state.features, sample_test.images[0])
    assert {found.winner, found.runner_up} == {0, 1}
    assert found.difference >= 0
