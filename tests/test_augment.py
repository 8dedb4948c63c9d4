"""Augmentation: the displacements by their formula, random in training only, the same bytes every time."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from softmax_cli.augment import AMPLITUDE, FREQUENCIES, SMOOTHNESS, displacements
from softmax_cli.backend import VARIABLE
from softmax_cli.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from softmax_cli.config import TrainConfig
from softmax_cli.data.dataset import Dataset
from softmax_cli.errors import ConfigError
from softmax_cli.features import FeatureMap, fit_features, resampling
from softmax_cli.features.deskew import Deskew, deskew
from softmax_cli.solvers.objective import Objective
from softmax_cli.training import State, fit

PIPELINES = ["pixels", "deskew", "gradients", "deskew,fourier", "normalize,gradients,pca,fourier"]


def config(pipeline: str, **more: Any) -> TrainConfig:
    small: dict[str, Any] = {"augment": True, "epochs": 2}
    small |= {"gradients_grid": 4} if "gradients" in pipeline else {}
    small |= {"pca_dimension": 20} if "pca" in pipeline else {}
    small |= {"fourier_dimension": 60} if "fourier" in pipeline else {}
    return TrainConfig(features=pipeline, **(small | more))


def test_the_displacements_are_sums_of_cosines() -> None:
    """Against the formula, one term at a time, for an image that is not square."""
    shape = (6, 9)
    found = displacements(2, shape, np.random.default_rng(4))
    amplitudes = np.random.default_rng(4).standard_normal((2, 2, FREQUENCIES, FREQUENCIES), np.float32)
    for axis in (0, 1):
        for image in (0, 1):
            expected = np.zeros(shape)
            for u in range(FREQUENCIES):
                for v in range(FREQUENCIES):
                    a = amplitudes[axis, image, u, v] * AMPLITUDE / (1 + (u * u + v * v) / SMOOTHNESS)
                    a *= (math.sqrt(2) if u else 1) * (math.sqrt(2) if v else 1)
                    for r in range(6):
                        for c in range(9):
                            waves = math.cos(math.pi * u * (r + 0.5) / 6)
                            waves *= math.cos(math.pi * v * (c + 0.5) / 9)
                            expected[r, c] += shape[axis] / 28 * a * waves
            np.testing.assert_allclose(found[axis][image], expected.ravel(), atol=1e-6)


@pytest.mark.parametrize("side", [8, 28, 40])
def test_the_mean_shift_has_the_amplitude_in_28ths_of_the_side(side: int) -> None:
    rows, columns = displacements(4000, (side, side), np.random.default_rng(0))
    for moved in (rows, columns):
        assert moved.mean(axis=1).std() == pytest.approx(AMPLITUDE * side / 28, rel=0.05)
        assert abs(moved.mean()) < 0.03 * side / 28


@pytest.mark.parametrize("shape", [(8, 8), (9, 17), (40, 33)])
def test_images_of_any_size_are_displaced(shape: tuple[int, int]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, *shape), np.uint8)
    images[0] = 0
    drawn = FeatureMap(shape, is_random=True).redraw(images, np.random.default_rng(1))
    assert (drawn.dtype, drawn.shape) == (np.uint8, images.shape)
    assert not drawn[0].any()
    assert (drawn[1:] != images[1:]).mean() > 0.5


def test_deskewing_without_displacement_is_deskewing(
    sample: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One bilinear resampling gives what shearing in two steps gives, up to rounding."""
    still = np.zeros((2, 50, 784), np.float32)
    monkeypatch.setattr(resampling, "displacements", lambda *_: still)
    drawn = Deskew((28, 28)).transform(sample.images[:50], None, np.random.default_rng(0))
    difference = np.abs(drawn.astype(int) - deskew(sample.images[:50]))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.001


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_batch_draws_from_seed_epoch_and_its_number(sample: Dataset, pipeline: str) -> None:
    one = config(pipeline, seed=3)
    features = fit_features(one, sample.images, np.arange(500))
    objective = Objective(features, sample.images, sample.labels, np.arange(500), 0.0, seed=3)
    rows = np.arange(300)[::-1]
    for index, batch in enumerate(objective.batches(rows, 128, epoch=7)):
        chosen = rows[128 * index : 128 * index + 128]
        generator = np.random.default_rng((3, 7, 2, index))
        expected = features.transform(features.redraw(sample.images[chosen], generator))
        np.testing.assert_array_equal(batch.x, expected)
    assert index == 2


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_only_training_is_random(sample: Dataset, pipeline: str) -> None:
    plain, random = (
        fit_features(config(pipeline, augment=on), sample.images, np.arange(500)) for on in (False, True)
    )
    images = sample.images[:20]
    assert (plain.is_random, random.is_random) == (False, True)
    np.testing.assert_array_equal(plain.redraw(images), random.redraw(images))
    first, again, other = (random.redraw(images, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.tobytes() == again.tobytes()
    assert (first != other).any()
    assert (first != plain.redraw(images)).any()


def final(states: Any) -> State:
    *_, state = states
    return state  # type: ignore[no-any-return]


def parameters(state: State) -> bytes:
    return b"".join(part.tobytes() for model in (state.model, state.last, state.velocity) for part in model)


@pytest.mark.parametrize("pipeline", ["pixels", "normalize,gradients,pca,fourier"])
def test_neither_cores_nor_interruptions_change_a_bit(
    sample: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pipeline: str
) -> None:
    sample = replace(sample, images=sample.images[:700], labels=sample.labels[:700])
    one = config(pipeline, schedule="linear", batch_size=100)
    found = []
    for cores in ("1", "2"):
        monkeypatch.setenv(VARIABLE, cores)
        found.append(parameters(final(fit(one, sample))))
    path = tmp_path / "model.npz"
    save_checkpoint(path, Checkpoint.begin(one, sample, next(fit(one, sample))))
    found.append(parameters(final(fit(one, sample, load_checkpoint(path).state))))
    assert found[0] == found[1] == found[2]


def test_augmentation_makes_the_training_loss_larger(sample: Dataset) -> None:
    plain, random = (final(fit(config("gradients", augment=on), sample)) for on in (False, True))
    assert random.history[-1].train_loss > 1.05 * plain.history[-1].train_loss


def test_newton_refuses_it() -> None:
    with pytest.raises(ConfigError, match=r"augment has no effect with solver newton, .* use solver sgd"):
        TrainConfig(solver="newton", augment=True)


def test_rows_of_numbers_cannot_be_displaced() -> None:
    with pytest.raises(ConfigError, match="augment needs images"):
        fit_features(TrainConfig(augment=True), np.zeros((9, 4), np.float32), np.arange(9))
