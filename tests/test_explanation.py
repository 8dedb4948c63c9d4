"""Explanations: contributions of pixels that add up to the difference of the evidence."""

import numpy as np
import pytest

from softmax_cli.checkpoint import Checkpoint
from softmax_cli.config import TrainConfig
from softmax_cli.data.dataset import Dataset
from softmax_cli.explanation import explain
from softmax_cli.features import evidence_of
from softmax_cli.model import Model
from softmax_cli.training import State, fit


@pytest.fixture(scope="module")
def states(sample: Dataset) -> dict[str, State]:
    """Return a model for each value of `features`."""
    found = {}
    for text in ("pixels", "deskew", "fourier"):
        options = {"fourier_dimension": 200} if text == "fourier" else {}
        *_, found[text] = fit(TrainConfig(features=text, epochs=2, **options), sample)
    return found


@pytest.mark.parametrize("text", ["pixels", "deskew"])
def test_contributions_and_biases_add_up_to_the_difference(
    states: dict[str, State], sample_test: Dataset, text: str
) -> None:
    state = states[text]
    for image in state.features.prepare(sample_test.images[:50]):
        found = explain(state.model, state.features.prepared, image)
        assert abs(found.pixels.sum() + found.bias_difference - found.difference) < 1e-9
        k = found.winner
        slow = float(state.model.bias[k]) + sum(
            float(w) * int(v) / 255 for w, v in zip(state.model.weights[:, k], image.ravel(), strict=True)
        )
        assert found.evidence[k] == pytest.approx(slow, abs=1e-9)
        assert not found.pixels[image == 0].any()


@pytest.mark.parametrize("text", ["pixels", "deskew", "fourier"])
def test_the_evidence_is_that_of_the_model(states: dict[str, State], sample_test: Dataset, text: str) -> None:
    state = states[text]
    images = state.features.prepare(sample_test.images[:50])
    z = evidence_of(state.model, state.features.prepared, images)
    for row, image in zip(z, images, strict=True):
        found = explain(state.model, state.features.prepared, image)
        np.testing.assert_allclose(found.evidence, row, atol=2e-4)
        assert found.winner == row.argmax()
        assert found.evidence[found.runner_up] == sorted(found.evidence)[-2]


def test_two_classes_are_enough(trained: Checkpoint, sample_test: Dataset) -> None:
    two = Model(trained.state.model.weights[:, :2], trained.state.model.bias[:2])
    found = explain(two, trained.state.features, sample_test.images[0])
    assert {found.winner, found.runner_up} == {0, 1}
    assert found.difference >= 0
