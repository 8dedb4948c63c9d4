"""The training loop: what it learns, in which order, and how it stops."""

import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from softmax_cli.config import TrainConfig
from softmax_cli.data.dataset import Dataset, hold_out
from softmax_cli.errors import ConfigError, DivergenceError
from softmax_cli.solvers.sgd import learning_rate
from softmax_cli.training import State, evaluate, fit, is_complete, start


def run(
    data: Dataset,
    config: TrainConfig,
    state: State | None = None,
    on_batch: Callable[[], bool] = lambda: False,
) -> list[State]:
    split = hold_out(data.labels, config.validation_size, config.seed)
    begun = state or start(data.images[0].size, len(data.class_names))
    return list(fit(config, data, split, begun, on_batch))


def same_bytes(one: State, other: State) -> bool:
    arrays = zip(
        (*one.model, *one.last, *one.velocity), (*other.model, *other.last, *other.velocity), strict=True
    )
    return all(a.tobytes() == b.tobytes() for a, b in arrays) and replace(one, **parts(other)) == one


def parts(state: State) -> dict[str, object]:
    """Return the fields of a state that are no arrays, after a check of which there are."""
    return {name: getattr(state, name) for name in ("epoch", "best_epoch", "stale", "history")}


def test_an_epoch_is_that_of_a_slow_loop(sample: Dataset) -> None:
    """One epoch equals momentum SGD written out in float64, with the order drawn by seed and epoch."""
    data = replace(sample, images=sample.images[:300], labels=sample.labels[:300])
    config = TrainConfig(epochs=2, validation_size=0, batch_size=64, l2=1e-2, seed=5)
    weights, bias = np.zeros((784, 10)), np.zeros(10)
    speed_w, speed_b = np.zeros((784, 10)), np.zeros(10)
    step, losses = 0, []
    for epoch in (1, 2):
        order = np.random.default_rng((5, epoch)).permutation(300)
        losses.append(0.0)
        for begin in range(0, 300, 64):
            chosen = order[begin : begin + 64]
            x, t = data.images[chosen].reshape(-1, 784) / 255, np.eye(10)[data.labels[chosen]]
            powers = np.exp(x @ weights + bias)
            y = powers / powers.sum(axis=1, keepdims=True)
            losses[-1] -= np.log(y[t == 1]).sum() / 300
            rate = 0.5 * (1 + math.cos(math.pi * step / 10)) / 2
            speed_w = 0.9 * speed_w - rate * (x.T @ (y - t) / len(x) + 1e-2 * weights)
            speed_b = 0.9 * speed_b - rate * (y - t).mean(axis=0)
            weights, bias, step = weights + speed_w, bias + speed_b, step + 1
    state = run(data, config)[-1]
    np.testing.assert_allclose(state.last.weights, weights, atol=2e-5)
    np.testing.assert_allclose(state.last.bias, bias, atol=2e-5)
    np.testing.assert_allclose([epoch.train_loss for epoch in state.history], losses, rtol=1e-5)


def test_a_run_that_stops_after_any_epoch_goes_on_to_the_same_bytes(sample: Dataset) -> None:
    config = TrainConfig(epochs=5, patience=3)
    whole = run(sample, config)
    for stop in range(5):
        before = whole[stop - 1] if stop else None
        assert same_bytes(run(sample, config, before)[-1], whole[-1])
    assert not same_bytes(run(sample, replace(config, seed=1))[-1], whole[-1])


def test_a_run_does_not_change_the_state_that_it_starts_from(sample: Dataset) -> None:
    first, second = run(sample, TrainConfig(epochs=2))
    copies = [a.copy() for a in (*first.last, *first.velocity)]
    run(sample, TrainConfig(epochs=2), first)
    assert all(np.array_equal(a, b) for a, b in zip((*first.last, *first.velocity), copies, strict=True))
    assert second.epoch == 2


def test_a_stop_forgets_the_unfinished_epoch(sample: Dataset) -> None:
    batches = math.ceil(4500 / 256)
    for stop_at, finished in ((1, 0), (batches - 1, 0), (batches + 1, 1), (3 * batches - 1, 2)):
        calls = iter(range(1, 1000))
        states = run(sample, TrainConfig(epochs=3), on_batch=lambda: next(calls) == stop_at)  # noqa: B023
        assert len(states) == finished


def test_the_best_epoch_on_validation_loss_is_kept(sample: Dataset) -> None:
    states = run(sample, TrainConfig(epochs=8, learning_rate=2))
    losses = [epoch.validation_loss for epoch in states[-1].history]
    best = losses.index(min(losses)) + 1
    assert best < 8, "choose a rate that makes the last epoch another than the best"
    assert states[-1].best_epoch == best
    assert np.array_equal(states[-1].model.weights, states[best - 1].last.weights)
    assert states[-1].stale == 8 - best


def test_without_a_split_the_last_weights_are_kept(sample: Dataset) -> None:
    state = run(sample, TrainConfig(epochs=3, validation_size=0))[-1]
    assert state.model is state.last
    assert (state.best_epoch, state.history[-1].validation_loss) == (3, None)


def test_patience_counts_epochs_without_a_new_best(sample: Dataset) -> None:
    config = TrainConfig(epochs=30, learning_rate=3, patience=2)
    states = run(sample, config)
    patient = run(sample, replace(config, patience=0))
    assert len(patient) == 30
    assert [state.stale for state in states] == [state.stale for state in patient[: len(states)]]
    assert all(state.stale < 2 for state in states[:-1])
    assert states[-1].stale == 2
    assert is_complete(states[-1], config)


def test_the_schedules() -> None:
    constant, cosine = TrainConfig(schedule="constant"), TrainConfig(learning_rate=1)
    assert [learning_rate(step, 100, constant) for step in (0, 50, 99)] == [0.5, 0.5, 0.5]
    expected = [1, (1 + math.sqrt(0.5)) / 2, 0.5, 0]
    assert [learning_rate(step, 100, cosine) for step in (0, 25, 50, 100)] == pytest.approx(expected)


def test_a_rate_that_is_far_too_large_is_noticed_at_once(sample: Dataset) -> None:
    with pytest.raises(DivergenceError, match=r"in epoch 1, step \d, with learning rate 1e\+10"):
        run(sample, TrainConfig(learning_rate=1e10))


def test_evaluate_is_the_same_in_blocks_of_any_size(sample: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    state = run(sample, TrainConfig(epochs=1))[-1]
    whole = evaluate(state.model, sample, np.arange(len(sample)))
    monkeypatch.setattr("softmax_cli.training.BLOCK", 999)
    blocks = evaluate(state.model, sample, np.arange(len(sample)))
    assert (blocks.confusion == whole.confusion).all()
    assert blocks.loss == pytest.approx(whole.loss, rel=1e-6)


CHILD = """
import sys
from pathlib import Path
import numpy as np
from softmax_cli import Source, TrainConfig, fit, hold_out, load, start
data = load("sample", "train", Source(Path("unused"), offline=True))
*_, state = fit(TrainConfig(epochs=2), data, hold_out(data.labels, 0.1, 0), start(784, 10))
np.save(sys.argv[1], state.model.weights)
"""


def test_one_and_two_threads_agree(tmp_path: Path) -> None:
    weights = []
    for threads in ("1", "2", "1"):
        path = tmp_path / f"{len(weights)}.npy"
        environment = os.environ | {"OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
        subprocess.run([sys.executable, "-c", CHILD, str(path)], env=environment, check=True)
        weights.append(np.load(path))
    np.testing.assert_allclose(weights[0], weights[1], atol=1e-6)
    assert weights[0].tobytes() == weights[2].tobytes()


# Holding out


@pytest.mark.parametrize("fraction", [0.001, 0.1, 1 / 3, 0.9])
def test_the_split_is_stratified(fraction: float, sample: Dataset) -> None:
    """Each class is held out within one image of its share, the total exactly, no image twice."""
    trained, held = hold_out(sample.labels, fraction, seed=3)
    assert len(held) == round(fraction * 5000)
    assert sorted([*trained, *held]) == list(range(5000))
    shares = np.bincount(sample.labels[held], minlength=10) - fraction * np.bincount(sample.labels)
    assert (np.abs(shares) < 1).all()


def test_the_split_depends_on_the_seed_alone(sample: Dataset) -> None:
    one, same, other = (hold_out(sample.labels, 0.1, seed)[1] for seed in (0, 0, 1))
    assert (one == same).all()
    assert not np.array_equal(one, other)


@pytest.mark.parametrize(("fraction", "part"), [(1e-9, "validation"), (1 - 1e-9, "training")])
def test_no_part_of_the_split_may_be_empty(fraction: float, part: str, sample: Dataset) -> None:
    with pytest.raises(ConfigError, match=f"of 5,000 images leaves none for {part}"):
        hold_out(sample.labels, fraction, seed=0)
