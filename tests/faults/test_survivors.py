"""Tests for changes of the code that no other test noticed (see scripts/mutants.py)."""

import platform
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from softmax_cli import checkpoint
from softmax_cli.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from softmax_cli.config import TrainConfig
from softmax_cli.data.dataset import Dataset
from softmax_cli.errors import CheckpointError
from softmax_cli.metrics import score, total
from softmax_cli.novelty import novelty_arrays, novelty_shapes, restore_novelty
from softmax_cli.training import start
from tests.helpers import small_checkpoint


def test_a_bin_of_the_reliability_holds_means() -> None:
    """Of four images, three are correct, all with a probability of 0.9 for the predicted class."""
    z = np.log(np.array([[0.9, 0.1]] * 4))
    (found,) = total([score(z, np.array([0, 0, 0, 1]))]).reliability()
    assert (found.low, found.high, found.images, found.accuracy) == (13 / 15, 14 / 15, 4, 0.75)
    assert abs(found.confidence - 0.9) < 1e-12


def test_a_run_begins_at_zero_seconds(sample: Dataset) -> None:
    config = TrainConfig(dataset="sample")
    begun = Checkpoint.begin(config, sample, start(config, sample))
    assert (begun.run["seconds"], begun.run["versions"]["python"]) == (0, platform.python_version())
    assert begun.advance(begun.state, 1.5).advance(begun.state, 1.5).run["seconds"] == 3


def test_a_description_that_is_too_long_is_not_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path / "model.npz", small_checkpoint())
    monkeypatch.setattr(checkpoint, "META_LIMIT", 100)
    monkeypatch.setattr(checkpoint.json, "loads", lambda *_, **__: pytest.fail("it was parsed"))
    with pytest.raises(CheckpointError, match=r"meta.npy takes .* bytes, expected at most 100"):
        load_checkpoint(tmp_path / "model.npz")


def test_novelty_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    arrays = {
        name: generator.random(shape, np.float32) + np.float32(1) for name, shape in novelty_shapes(3).items()
    }
    saved = replace(small_checkpoint(), novelty=restore_novelty(arrays))
    save_checkpoint(tmp_path / "model.npz", saved)
    loaded = load_checkpoint(tmp_path / "model.npz").novelty
    assert loaded
    np.testing.assert_equal(novelty_arrays(loaded), arrays)
