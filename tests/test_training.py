"""`fit`, mini-batch gradient descent and the split: exact, repeatable, and resumable at every epoch."""

import math
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softmax_cli import features, training
from softmax_cli.calibration import fit_temperature
from softmax_cli.config import TrainConfig
from softmax_cli.data.dataset import Dataset, hold_out
from softmax_cli.deskew import deskew
from softmax_cli.errors import ConfigError, DivergenceError
from softmax_cli.metrics import score
from softmax_cli.model import Model, loss_and_gradient
from softmax_cli.solvers import sgd
from softmax_cli.solvers.problem import Problem
from softmax_cli.solvers.sgd import learning_rate, steps_per_epoch
from softmax_cli.training import State, evaluate, fit, has_converged, is_complete, judge, start

Split = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def tiny() -> Dataset:
    """Return 50 random images of 3 by 4 pixels in 3 classes that the brightness tells apart, roughly."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, 50).astype(np.uint8)
    images = rng.integers(0, 86 + 85 * labels[:, None, None].astype(int), (50, 3, 4)).astype(np.uint8)
    return Dataset("tiny", "0", images, labels, ("a", "b", "c"), "plain")


@pytest.fixture(scope="module")
def small(sample: Dataset) -> Dataset:
    """Return the first 600 images of the sample."""
    return replace(sample, images=sample.images[:600], labels=sample.labels[:600])


@pytest.fixture(scope="module")
def split(small: Dataset) -> Split:
    return hold_out(small.labels, 0.2, 0)


def everything(data: Dataset) -> Split:
    return np.arange(len(data)), np.arange(0)


def train(config: TrainConfig, data: Dataset, split: Split) -> list[State]:
    return list(fit(config, data, split, start(config, data)))


def as_bytes(state: State) -> tuple[Any, ...]:
    """Return all that a state holds, in a form in which equal means byte-equal."""
    arrays = (*state.model, *state.last, *state.velocity)
    numbers = state.epoch, state.best_epoch, state.stale, repr(state.history)
    return *((array.dtype, array.shape, array.tobytes()) for array in arrays), *numbers


# One step after the other.


def slow_features(state: State, data: Dataset) -> tuple[list[list[float]], float]:
    """Return the features of each image in float64, and how much faster their weights may move."""
    images = deskew(data.images) if state.features.deskewed else data.images
    rows = [[value / 255 for value in image.ravel().tolist()] for image in images]
    if state.features.projection is None:
        return rows, 1.0
    columns = list(zip(state.features.projection.T.tolist(), state.features.phase.tolist(), strict=True))
    scale = math.sqrt(2 / len(columns))
    cosines = [
        [
            scale * math.cos(sum(a * b for a, b in zip(x, column, strict=True)) + phase)
            for column, phase in columns
        ]
        for x in rows
    ]
    return cosines, 400 * len(columns) / (len(columns) + 1000)


def slow_sgd(config: TrainConfig, data: Dataset) -> tuple[list[list[float]], list[float], list[float]]:
    """Train in float64, one image, class and feature at a time: the definition, written out."""
    rows, gain = slow_features(start(config, data), data)
    n, d, k = len(data), len(rows[0]), len(data.class_names)
    w, vw = [[0.0] * k for _ in range(d)], [[0.0] * k for _ in range(d)]
    b, vb = [0.0] * k, [0.0] * k
    train_losses = []
    steps = config.epochs * math.ceil(n / config.batch_size)
    step = 0
    for epoch in range(1, config.epochs + 1):
        order = np.random.default_rng((config.seed, epoch)).permutation(n).tolist()
        losses = []
        for first in range(0, n, config.batch_size):
            batch = order[first : first + config.batch_size]
            gw, gb = [[config.l2 * value for value in row] for row in w], [0.0] * k
            for i in batch:
                x = rows[i]
                z = [sum(x[p] * w[p][c] for p in range(d)) + b[c] for c in range(k)]
                y = [math.exp(value) / sum(map(math.exp, z)) for value in z]
                losses.append(-math.log(y[data.labels[i]]))
                for c in range(k):
                    slope = (y[c] - (c == data.labels[i])) / len(batch)
                    gb[c] += slope
                    for p in range(d):
                        gw[p][c] += slope * x[p]
            rate = config.learning_rate
            if config.schedule == "cosine":
                rate *= (1 + math.cos(math.pi * step / steps)) / 2
            for c in range(k):
                vb[c] = config.momentum * vb[c] - rate * gb[c]
                b[c] += vb[c]
                for p in range(d):
                    vw[p][c] = config.momentum * vw[p][c] - gain * rate * gw[p][c]
                    w[p][c] += vw[p][c]
            step += 1
        train_losses.append(sum(losses) / n)
    return w, b, train_losses


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(epochs=1, batch_size=16, schedule="constant", momentum=0.0, l2=0.0),
        TrainConfig(epochs=1, batch_size=50, seed=5),
        TrainConfig(epochs=3, batch_size=16, l2=0.05, seed=7),
        TrainConfig(epochs=2, batch_size=1, learning_rate=0.1, momentum=0.5, schedule="constant"),
        TrainConfig(epochs=2, batch_size=99),
        TrainConfig(epochs=2, batch_size=16, features="deskew"),
        TrainConfig(epochs=2, batch_size=16, features="fourier", fourier_dimension=9),
    ],
)
def test_training_agrees_with_a_slow_loop(tiny: Dataset, config: TrainConfig) -> None:
    """Epoch e goes through the images in the order ``default_rng((seed, e)).permutation(n)``.

    Each batch makes one step of momentum, schedule and l2 on the weights only; the last batch may be
    smaller. The train loss is the mean over images, each before its batch's step, without l2.
    """
    state = train(config, tiny, everything(tiny))[-1]
    weights, bias, losses = slow_sgd(config, tiny)
    np.testing.assert_allclose(state.last.weights, weights, atol=2e-5)
    np.testing.assert_allclose(state.last.bias, bias, atol=2e-5)
    np.testing.assert_allclose([epoch.train_loss for epoch in state.history], losses, rtol=1e-5)


@pytest.mark.parametrize("batch_size", [51, 10**12, 10**20])
def test_a_batch_takes_no_more_than_there_is(tiny: Dataset, batch_size: int) -> None:
    """A batch size beyond the number of images is one batch of them all, in memory too."""
    one, all_at_once = (
        train(TrainConfig(epochs=1, batch_size=size), tiny, everything(tiny))[-1] for size in (50, batch_size)
    )
    assert as_bytes(one) == as_bytes(all_at_once)


def test_only_the_chosen_images_are_learned(tiny: Dataset) -> None:
    """Training on some indices of a data set is training on a data set of those images alone."""
    config = TrainConfig(epochs=2, batch_size=8)
    chosen, held = hold_out(tiny.labels, 0.3, 0)
    part = replace(tiny, images=tiny.images[chosen], labels=tiny.labels[chosen])
    through_indices = train(config, tiny, (chosen, held))[-1]
    alone = train(config, part, everything(part))[-1]
    assert [a.tobytes() for a in through_indices.last] == [a.tobytes() for a in alone.last]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("constant", [0.8, 0.8, 0.8, 0.8, 0.8]), ("cosine", [0.8, 0.6, 0.4, 0.2, 0.0])],
)
def test_learning_rate_schedules(schedule: str, expected: list[float]) -> None:
    """The cosine is at 3/4, 1/2 and 1/4 of its height after 1/3, 1/2 and 2/3 of the steps."""
    config = TrainConfig(learning_rate=0.8, schedule=schedule)
    found = [learning_rate(step, 600, config) for step in (0, 200, 300, 400, 600)]
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_the_cosine_falls_and_stays_above_zero() -> None:
    rates = [learning_rate(step, 600, TrainConfig()) for step in range(600)]
    assert all(later < sooner for sooner, later in pairwise(rates))
    assert 0 < rates[-1] < 1e-5


@pytest.mark.parametrize(("schedule", "expected"), [("constant", [0.8] * 3), ("cosine", [0.8, 0.6, 0.2])])
def test_an_epoch_reports_the_rate_of_its_first_step(tiny: Dataset, schedule: str, expected) -> None:
    config = TrainConfig(epochs=3, batch_size=16, learning_rate=0.8, schedule=schedule)
    history = train(config, tiny, everything(tiny))[-1].history
    assert [epoch.learning_rate for epoch in history] == pytest.approx(expected, rel=1e-12)
    assert [epoch.epoch for epoch in history] == [1, 2, 3]


@pytest.mark.parametrize(
    ("images", "batch_size", "steps"),
    [(1, 256, 1), (256, 256, 1), (257, 256, 2), (60_000, 256, 235), (5, 1, 5)],
)
def test_steps_per_epoch(images: int, batch_size: int, steps: int) -> None:
    assert steps_per_epoch(images, TrainConfig(batch_size=batch_size)) == steps


def test_training_learns_the_sample(sample: Dataset, sample_test: Dataset) -> None:
    """Ten epochs, as they come, get about 90 % of the sample's test images right."""
    state = train(TrainConfig(), sample, hold_out(sample.labels, 0.1, 0))[-1]
    assert 0.87 < evaluate(state, sample_test, np.arange(1000)).accuracy < 0.93
    assert state.history[-1].train_loss < 0.25 < state.history[0].train_loss < math.log(10)


# Repeatable.


def test_the_same_seed_twice_is_byte_equal(small: Dataset, split: Split) -> None:
    config = TrainConfig(batch_size=64, epochs=2)
    assert list(map(as_bytes, train(config, small, split))) == list(
        map(as_bytes, train(config, small, split))
    )


def test_another_seed_is_another_run(small: Dataset, split: Split) -> None:
    runs = [train(TrainConfig(batch_size=64, epochs=1, seed=seed), small, split)[-1] for seed in (0, 1)]
    assert as_bytes(runs[0]) != as_bytes(runs[1])
    assert np.abs(runs[0].last.weights - runs[1].last.weights).max() > 1e-3


CHILD = """
import sys
from pathlib import Path
import numpy as np
from softmax_cli import Source, TrainConfig, fit, hold_out, load, start

data = load("sample", "train", Source(Path("unused"), offline=True))
config = TrainConfig(epochs=3)
*_, state = fit(config, data, hold_out(data.labels, 0.1, 0), start(config, data))
np.savez(sys.argv[1], *state.last)
"""


def test_threads_change_no_more_than_rounding(tmp_path: Path) -> None:
    """One and two BLAS threads may add up in another order, and the weights stay within 1e-6."""
    found = []
    for threads in ("1", "2"):
        path = tmp_path / f"{threads}.npz"
        limits = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), threads)
        subprocess.run([sys.executable, "-c", CHILD, str(path)], env=os.environ | limits, check=True)
        found.append(np.load(path))
    assert np.abs(found[0]["arr_0"]).max() > 0.1
    for name in ("arr_0", "arr_1"):
        np.testing.assert_allclose(found[0][name], found[1][name], rtol=0, atol=1e-6)


# Resumable.


@pytest.mark.parametrize(
    ("config", "fraction"),
    [
        (TrainConfig(batch_size=64, epochs=5), 0.1),
        (TrainConfig(batch_size=64, epochs=5, learning_rate=3.0, schedule="constant", patience=2), 0.1),
        (TrainConfig(batch_size=1000, epochs=3, validation_size=0.0), 0.0),
    ],
)
def test_a_run_resumed_from_any_epoch_is_byte_equal(small: Dataset, config: TrainConfig, fraction) -> None:
    """Every later state, not only the last, is the one of the run that was never stopped."""
    split = hold_out(small.labels, fraction, 0)
    states = [start(config, small), *train(config, small, split)]
    whole = list(map(as_bytes, states))
    for stop in range(len(states)):
        resumed = [*states[: stop + 1], *fit(config, small, split, states[stop])]
        assert list(map(as_bytes, resumed)) == whole


def test_a_run_resumed_with_another_seed_differs(small: Dataset, split: Split) -> None:
    config = TrainConfig(batch_size=64, epochs=3)
    states = train(config, small, split)
    other = list(fit(replace(config, seed=1), small, split, states[0]))
    assert as_bytes(other[-1]) != as_bytes(states[-1])


def test_a_run_resumed_without_its_velocity_differs(small: Dataset, split: Split) -> None:
    config = TrainConfig(batch_size=64, epochs=2)
    states = train(config, small, split)
    forgetful = replace(states[0], velocity=Model.zeros(784, 10))
    assert as_bytes(list(fit(config, small, split, forgetful))[-1]) != as_bytes(states[-1])


def test_training_leaves_a_state_as_it_is(tiny: Dataset) -> None:
    """No state that was given or yielded is written to by the epochs after it."""
    config = TrainConfig(epochs=3, batch_size=16)
    begun = start(TrainConfig(), tiny)
    seen = [(begun, as_bytes(begun))]
    for state in fit(config, tiny, hold_out(tiny.labels, 0.2, 0), begun):
        seen.append((state, as_bytes(state)))
    assert all(as_bytes(state) == before for state, before in seen)


@pytest.mark.parametrize("stop_at", [1, 2, 4, 5, 7, 8])
def test_a_stop_discards_the_unfinished_epoch(tiny: Dataset, stop_at: int) -> None:
    """With 4 steps an epoch, a stop asked for at step s leaves ⌊(s − 1) / 4⌋ epochs, at once.

    What is left goes on to the same end as a run that was never stopped.
    """
    config = TrainConfig(epochs=3, batch_size=16)
    whole = train(config, tiny, everything(tiny))
    calls = []

    def on_batch() -> bool:
        calls.append(None)
        return len(calls) == stop_at

    begun = start(TrainConfig(), tiny)
    states = [begun, *fit(config, tiny, everything(tiny), begun, on_batch)]
    assert len(calls) == stop_at
    assert len(states) - 1 == (stop_at - 1) // 4
    assert as_bytes(begun) == as_bytes(start(TrainConfig(), tiny))
    resumed = list(fit(config, tiny, everything(tiny), states[-1]))
    assert as_bytes(resumed[-1]) == as_bytes(whole[-1])


def test_on_batch_is_called_after_each_step(tiny: Dataset) -> None:
    calls = []
    states = list(
        fit(
            TrainConfig(epochs=3, batch_size=16),
            tiny,
            everything(tiny),
            start(TrainConfig(), tiny),
            lambda: calls.append(None),
        )
    )
    assert (len(states), len(calls)) == (3, 12)


# The best weights, and patience.


def script(monkeypatch: pytest.MonkeyPatch, losses: Iterable[float]) -> None:
    """Let the validation losses be these, one an epoch."""
    remaining: Iterator[float] = iter(losses)
    scores = lambda *_: (SimpleNamespace(loss=next(remaining), accuracy=0.5), 1.0)  # noqa: E731
    monkeypatch.setattr(training, "_validate", scores)


@pytest.mark.parametrize(
    ("losses", "patience", "epochs", "best"),
    [
        ([5, 4, 3, 2, 1], 1, 5, 5),
        ([3, 2, 2.5, 1, 4], 0, 5, 4),
        ([1, 2, 3, 4, 5], 0, 5, 1),
        ([3, 2, 2.5, 1, 4], 1, 3, 2),
        ([3, 2, 2.5, 1, 4], 2, 5, 4),
        ([1, 2, 3, 4, 5], 2, 3, 1),
        ([2, 2, 2, 2, 2], 3, 4, 1),
        ([2, 3, 1, 4, 4], 2, 5, 3),
        ([3, 1, 2.5, 2, 4], 0, 5, 2),
    ],
)
def test_patience_and_the_best(tiny: Dataset, monkeypatch, losses, patience, epochs, best) -> None:
    """Training ends after `patience` epochs in a row without a new best; an equal loss is none.

    The weights to use are those of the epoch with the lowest validation loss, wherever training ended.
    """
    script(monkeypatch, losses)
    states = train(TrainConfig(epochs=5, patience=patience), tiny, hold_out(tiny.labels, 0.2, 0))
    final = states[-1]
    assert (final.epoch, final.best_epoch, final.stale) == (epochs, best, epochs - best)
    assert [epoch.validation_loss for epoch in final.history] == losses[:epochs]
    assert final.model is states[best - 1].last
    assert final.last is not states[epochs - 2].last


def test_validation_has_no_say_in_what_is_learned(tiny: Dataset, monkeypatch) -> None:
    """Each epoch goes on from the last weights, not from the best; what is held out only judges."""
    script(monkeypatch, [1, 2, 3])
    chosen, held = hold_out(tiny.labels, 0.2, 0)
    judged = train(TrainConfig(epochs=3, batch_size=16), tiny, (chosen, held))[-1]
    unjudged = train(TrainConfig(epochs=3, batch_size=16), tiny, (chosen, held[:0]))[-1]
    assert judged.best_epoch == 1
    assert [a.tobytes() for a in judged.last] == [a.tobytes() for a in unjudged.last]


def test_more_patience_takes_a_stopped_run_further(tiny: Dataset, monkeypatch) -> None:
    split = hold_out(tiny.labels, 0.2, 0)
    config = TrainConfig(epochs=5, patience=1)
    script(monkeypatch, [2, 3, 1, 4, 5])
    stopped = train(config, tiny, split)[-1]
    assert list(fit(config, tiny, split, stopped)) == []
    final = list(fit(replace(config, patience=2), tiny, split, stopped))[-1]
    assert (stopped.epoch, final.epoch, final.best_epoch) == (2, 5, 3)


def test_the_best_weights_have_the_lowest_validation_loss(small: Dataset, split: Split) -> None:
    """The weights that are kept score exactly what the history says of the best epoch."""
    states = train(TrainConfig(epochs=6, batch_size=64, learning_rate=3.0, schedule="constant"), small, split)
    final = states[-1]
    losses = [epoch.validation_loss for epoch in final.history]
    assert losses != sorted(losses, reverse=True)  # else best and last could not be told apart
    assert final.best_epoch == 1 + losses.index(min(losses))
    scores = evaluate(final, small, split[1])
    assert (scores.loss, scores.accuracy) == final.history[final.best_epoch - 1][2:4]


def test_without_a_split_the_last_weights_are_kept(tiny: Dataset) -> None:
    for state in train(TrainConfig(epochs=3, batch_size=16), tiny, everything(tiny)):
        assert state.model is state.last
        assert (state.best_epoch, state.stale) == (state.epoch, 0)
        assert (state.history[-1].validation_loss, state.history[-1].validation_accuracy) == (None, None)


@pytest.mark.parametrize(
    ("epoch", "stale", "patience", "complete"),
    [
        (0, 0, 0, False),
        (9, 9, 0, False),
        (10, 0, 0, True),
        (11, 0, 0, True),
        (5, 2, 3, False),
        (5, 3, 3, True),
    ],
)
def test_a_run_is_complete(tiny: Dataset, epoch: int, stale: int, patience: int, complete: bool) -> None:
    """After all of its epochs (10), or when patience has run out; patience 0 never does."""
    state = replace(start(TrainConfig(), tiny), epoch=epoch, stale=stale)
    assert is_complete(state, TrainConfig(patience=patience)) is complete


def test_judging_in_blocks_is_judging_at_once(sample: Dataset) -> None:
    """`evaluate` goes through 2,048 images at a time; the scores are those of all at once."""
    rng = np.random.default_rng(4)
    model = Model(rng.normal(size=(784, 10)).astype(np.float32), rng.normal(size=10).astype(np.float32))
    indices = rng.permutation(5000)[:4500]
    whole = score(
        features.evidence_of(model, features.pixels(sample.image_shape), sample.images[indices]),
        sample.labels[indices],
    )
    found = evaluate(replace(start(TrainConfig(), sample), model=model), sample, indices)
    np.testing.assert_array_equal(found.confusion, whole.confusion)
    assert (found.loss, found.brier, found.ece) == pytest.approx(
        (whole.loss, whole.brier, whole.ece), rel=1e-5
    )


# Calibration.


def test_calibration_changes_nothing_but_the_temperature(small: Dataset, split: Split) -> None:
    """The run is the same; the weights to use are divided by the temperature that their evidence wants."""
    config = TrainConfig(epochs=6, batch_size=64, learning_rate=3.0, schedule="constant")
    plain, calibrated = train(config, small, split), train(replace(config, calibrate=True), small, split)
    for one, other in zip(plain, calibrated, strict=True):
        assert (one.history, one.temperature, one.best_epoch) == (other.history, 1.0, other.best_epoch)
        assert as_bytes(replace(one, model=one.last)) == as_bytes(replace(other, model=other.last))
        ((z, labels),) = judge(one.model, one.features, small, split[1])
        assert other.temperature == pytest.approx(fit_temperature(z, labels), rel=1e-9)
        np.testing.assert_allclose(
            other.model.weights * other.temperature, one.model.weights, rtol=1e-6, atol=1e-12
        )
        assert evaluate(other, small, split[1]).loss < evaluate(one, small, split[1]).loss
    assert len({state.temperature for state in calibrated}) == len({one.best_epoch for one in plain})


def test_a_calibrated_run_resumed_from_any_epoch_is_byte_equal(small: Dataset, split: Split) -> None:
    config = TrainConfig(epochs=5, batch_size=64, learning_rate=3.0, schedule="constant", calibrate=True)
    whole = train(config, small, split)
    for state in whole[:-1]:
        resumed = list(fit(config, small, split, state))[-1]
        assert as_bytes(resumed) == as_bytes(whole[-1])
        assert resumed.temperature == whole[-1].temperature


@pytest.mark.parametrize("kind", ["deskew", "fourier"])
def test_validation_sees_images_as_every_judgement_does(small: Dataset, split: Split, kind: str) -> None:
    """Prepared once: the history says exactly what `evaluate` says of the weights that were kept."""
    state = train(TrainConfig(features=kind, epochs=2), small, split)[-1]
    scores = evaluate(state, small, split[1])
    assert (scores.loss, scores.accuracy) == state.history[state.best_epoch - 1][2:4]


@pytest.mark.parametrize(("dimension", "most"), [(100_000, 167), (10, 2048)])
def test_many_features_are_judged_fewer_at_a_time(sample: Dataset, dimension: int, most: int) -> None:
    features_ = features.fourier(np.zeros((784, dimension), np.float32), np.zeros(dimension, np.float32))
    blocks = judge(Model.zeros(dimension, 10), features_, sample, np.arange(min(2 * most, 4000)))
    assert len(next(blocks)[1]) == most


def test_newton_can_be_calibrated(small: Dataset, split: Split) -> None:
    state = train(TrainConfig(solver="newton", calibrate=True), small, split)[-1]
    assert state.temperature != 1
    np.testing.assert_allclose(
        state.model.weights * state.temperature, state.last.weights, rtol=1e-6, atol=1e-12
    )


# Features.


def test_resuming_with_fourier_features_is_byte_equal(small: Dataset, split: Split) -> None:
    config = TrainConfig(epochs=3, features="fourier", fourier_dimension=600)
    whole = train(config, small, split)
    assert as_bytes(list(fit(config, small, split, whole[0]))[-1]) == as_bytes(whole[-1])


@pytest.mark.parametrize(("kind", "least"), [("pixels", 0.87), ("deskew", 0.92), ("fourier", 0.95)])
def test_each_step_of_the_features_is_worth_it(
    sample: Dataset, sample_test: Dataset, kind: str, least: float
) -> None:
    config = TrainConfig(features=kind, validation_size=0, epochs=8)
    state = train(config, sample, everything(sample))[-1]
    assert least < evaluate(state, sample_test, np.arange(1000)).accuracy < least + 0.05


@pytest.mark.parametrize("kind", ["deskew", "fourier"])
def test_newton_finds_the_optimum_of_other_features(sample: Dataset, kind: str) -> None:
    """Gradient descent for 60 epochs comes close to its loss from above, and no lower."""
    config = TrainConfig(features=kind, l2=1e-3, validation_size=0, epochs=60, batch_size=1000, seed=2)
    if kind == "fourier":
        config = replace(config, fourier_dimension=300, l2=1e-5)
    exact = train(replace(config, solver="newton"), sample, everything(sample))[-1]
    assert has_converged(exact)
    near = train(config, sample, everything(sample))[-1]
    x = exact.features.scale * features.transform(
        exact.features, features.prepare(exact.features, sample.images)
    )
    low, high = (loss_and_gradient(one.last, x, sample.labels, config.l2)[0] for one in (exact, near))
    assert low * (1 - 1e-5) < high < 1.05 * low


def test_what_takes_too_much_memory_is_refused_at_the_start(tiny: Dataset) -> None:
    with pytest.raises(ConfigError, match=r"solver newton would need .* use solver sgd"):
        start(TrainConfig(solver="newton", features="fourier", fourier_dimension=100_000), tiny)
    many = replace(tiny, images=np.broadcast_to(np.uint8(0), (90_000_000, 3, 4)))
    with pytest.raises(ConfigError, match=r"deskewed copy of 90,000,000 images would take 1,030 MiB"):
        start(TrainConfig(features="deskew"), many)


# Divergence.


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_learning_rate_that_is_too_large_diverges(sample: Dataset, schedule: str) -> None:
    """At 1e10, with the default l2, training stops; the error names epoch, step and learning rate."""
    config = TrainConfig(learning_rate=1e10, schedule=schedule)
    with pytest.raises(DivergenceError, match=r"epoch 1, step \d, with learning rate 1e\+10: .* smaller"):
        train(config, sample, hold_out(sample.labels, 0.1, 0))


def test_divergence_names_the_step_at_which_the_loss_is_lost(tiny: Dataset) -> None:
    """Step 1 overflows float32 and step 2 finds its loss not finite; no further step is made."""
    calls = []
    config = TrainConfig(learning_rate=1e60, batch_size=16, schedule="constant")
    with pytest.raises(DivergenceError, match=r"epoch 1, step 2, with learning rate 1e\+60"):
        list(fit(config, tiny, everything(tiny), start(TrainConfig(), tiny), lambda: calls.append(None)))
    assert len(calls) == 1


def test_divergence_in_the_last_step_is_noticed(tiny: Dataset) -> None:
    """Where one step is the whole epoch, its loss is finite and only the weights tell."""
    config = TrainConfig(learning_rate=1e60, batch_size=50, schedule="constant")
    with pytest.raises(DivergenceError, match="epoch 1, step 1, "):
        train(config, tiny, everything(tiny))


@pytest.mark.parametrize("rate", [1e10, 1e38])
def test_divergence_that_only_validation_shows_is_noticed(sample: Dataset, rate: float) -> None:
    """Weights that float32 still holds can give evidence that it does not."""
    config = TrainConfig(learning_rate=rate, batch_size=5000)
    with pytest.raises(DivergenceError, match=r"diverged in epoch \d, step 1, "):
        train(config, sample, hold_out(sample.labels, 0.1, 0))


def test_divergence_leaves_the_epochs_before_it(tiny: Dataset) -> None:
    """The states that were yielded are finite and as they were."""
    config = TrainConfig(epochs=50, learning_rate=1e3, l2=1.0, batch_size=50, schedule="constant")
    run = fit(config, tiny, everything(tiny), start(TrainConfig(), tiny))
    seen = []
    with pytest.raises(DivergenceError, match="diverged in epoch "):
        seen.extend((state, as_bytes(state)) for state in run)
    assert seen
    for state, before in seen:
        assert as_bytes(state) == before
        assert all(np.isfinite(array).all() for array in (*state.last, *state.velocity))


# The split.


@settings(deadline=None, derandomize=True, database=None)
@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=6).filter(lambda counts: sum(counts) > 1),
    st.floats(0.01, 0.99),
    st.integers(0, 9),
)
def test_the_split_is_stratified_exact_and_disjoint(counts: list[int], fraction: float, seed: int) -> None:
    """All images are in one part, round(fraction · n) are held out, each class within 1 of its share."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.uint8)
    n = len(labels)
    if round(fraction * n) in (0, n):
        with pytest.raises(ConfigError, match="leaves none for"):
            hold_out(labels, fraction, seed)
        return
    chosen, held = hold_out(labels, fraction, seed)
    assert sorted([*chosen, *held]) == list(range(n))
    assert len(held) == round(fraction * n)
    assert chosen.tolist() == sorted(chosen)
    assert held.tolist() == sorted(held)
    shares = np.bincount(labels[held], minlength=len(counts))
    assert (np.abs(shares - fraction * np.array(counts)) < 1).all()


def test_the_split_of_the_sample(sample: Dataset) -> None:
    """A tenth of 5,000 is 500, and the same 500 for the same seed only."""
    chosen, held = hold_out(sample.labels, 0.1, 0)
    assert (len(chosen), len(held)) == (4500, 500)
    np.testing.assert_array_equal(hold_out(sample.labels, 0.1, 0)[1], held)
    other = hold_out(sample.labels, 0.1, 1)[1]
    assert len(other) == 500
    assert len(np.intersect1d(other, held)) < 100


def test_the_split_draws_from_all_of_a_class() -> None:
    """Every image is held out under some seed: none is preferred for where it stands."""
    labels = np.repeat([0, 1], 10).astype(np.uint8)
    times = np.bincount(np.concatenate([hold_out(labels, 0.5, seed)[1] for seed in range(100)]), minlength=20)
    assert times.min() > 30
    assert times.max() < 70


def test_no_validation_is_an_empty_part() -> None:
    chosen, held = hold_out(np.array([0, 1, 1], np.uint8), 0.0, 0)
    assert (chosen.tolist(), held.tolist()) == ([0, 1, 2], [])


@pytest.mark.parametrize(
    ("fraction", "part"),
    [(1e-9, "validation"), (0.04, "validation"), (0.96, "training"), (0.9999, "training")],
)
def test_a_split_with_an_empty_part_is_refused(fraction: float, part: str) -> None:
    labels = np.array([0, 1] * 6, np.uint8)
    with pytest.raises(
        ConfigError, match=f"^validation-size {fraction} of 12 images leaves none for {part}$"
    ):
        hold_out(labels, fraction, 0)


# Shuffling what does not fit in memory


def test_images_that_do_not_fit_in_memory_are_shuffled_in_blocks(
    sample: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each order is a permutation; a block's rows stay together; seed and epoch decide."""
    monkeypatch.setattr(sgd, "fits_in_memory", lambda images: False)
    monkeypatch.setattr(sgd, "SHUFFLE_BLOCK", 100 * 784)
    rows = np.arange(7, 1007)
    problem = Problem(
        features.pixels((28, 28)), sample.images, sample.labels, rows, TrainConfig(seed=4), lambda: False
    )
    order = sgd.shuffle(problem, 1)
    assert sorted(order) == rows.tolist()
    blocks = ((order - 7) // 100).reshape(10, 100)
    assert (blocks == blocks[:, :1]).all()
    assert blocks[:, 0].tolist() != list(range(10))
    assert not any((np.diff(order[i : i + 100]) == 1).all() for i in range(0, 1000, 100))
    assert np.array_equal(order, sgd.shuffle(problem, 1))
    assert not np.array_equal(order, sgd.shuffle(problem, 2))


def test_what_fits_in_memory_is_known() -> None:
    one = np.zeros(1, np.uint8)
    assert sgd.fits_in_memory(one)
    assert not sgd.fits_in_memory(np.broadcast_to(one, (1 << 50,)))
