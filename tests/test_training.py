"""`fit`, the solver sgd and the validation split."""

import math
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softmax_cli import examples, training
from softmax_cli.calibration import fit_temperature
from softmax_cli.config import SOLVERS, SolverFacts, TrainConfig
from softmax_cli.data.dataset import Dataset, hold_out
from softmax_cli.errors import ConfigError, DivergenceError
from softmax_cli.features import evidence_blocks
from softmax_cli.features.deskew import deskew
from softmax_cli.metrics import Scores, score, total
from softmax_cli.model import Model, loss_and_gradient, penalty
from softmax_cli.solvers import sgd
from softmax_cli.solvers.objective import Objective, SolverStart, Step
from softmax_cli.solvers.sgd import learning_rate, steps_per_epoch
from softmax_cli.training import State, fit, has_converged, is_complete, start

Split = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def tiny() -> Dataset:
    """Return 50 random images of 3 by 4 pixels in 3 classes, whose brightness differs."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, 50).astype(np.uint8)
    images = rng.integers(0, 86 + 85 * labels[:, None, None].astype(int), (50, 3, 4)).astype(np.uint8)
    return Dataset("tiny", "0", "0", images, labels, ("a", "b", "c"), "plain")


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
    return list(fit(config, data, split=split))


def evaluate(state: State, data: Dataset, rows: np.ndarray) -> Scores:
    """Return the scores of the model of a state for ``data.images[rows]``."""
    blocks = evidence_blocks(state.model, state.features, data.images, rows)
    return total(score(z, data.labels[block]) for block, z in blocks)


def as_bytes(state: State) -> tuple[Any, ...]:
    """Return a state as bytes, which are equal if and only if the states are."""
    arrays = (*state.model, *state.last, *state.velocity)
    numbers = state.epoch, state.temperature, state.best_epoch, state.stale, repr(state.history)
    return *((array.dtype, array.shape, array.tobytes()) for array in arrays), *numbers


# The steps


def slow_features(state: State, data: Dataset) -> tuple[list[list[float]], float]:
    """Return the features of each image in float64, and the gain."""
    images = deskew(data.images) if state.features.image_stages else data.images
    rows = [[value / 255 for value in image.ravel().tolist()] for image in images]
    if not state.features.vector_stages:
        return rows, 1.0
    (fourier,) = state.features.vector_stages
    columns = list(zip(fourier.projection.T.tolist(), fourier.phase.tolist(), strict=True))
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
    """Train in float64, one image, class and feature at a time, by the definition."""
    rows, gain = slow_features(start(config, data, everything(data)), data)
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
        TrainConfig(epochs=2, batch_size=16, features="deskew,fourier", fourier_dimension=9),
        TrainConfig(epochs=2, batch_size=16, features="pixels,fourier", fourier_dimension=9),
    ],
)
def test_training_agrees_with_a_slow_loop(tiny: Dataset, config: TrainConfig) -> None:
    """Epoch e takes the images in the order ``default_rng((seed, e)).permutation(n)``.

    Each batch makes one step with momentum, schedule and l2 on the weights only; the last batch may be
    smaller. The train loss is the mean over images, each before the step of its batch, without l2.
    """
    state = train(config, tiny, everything(tiny))[-1]
    weights, bias, losses = slow_sgd(config, tiny)
    np.testing.assert_allclose(state.last.weights, weights, atol=2e-5)
    np.testing.assert_allclose(state.last.bias, bias, atol=2e-5)
    np.testing.assert_allclose([epoch.train_loss for epoch in state.history], losses, rtol=1e-5)


@pytest.mark.parametrize("batch_size", [51, 10**12, 10**20])
def test_a_batch_is_no_larger_than_the_data_set(tiny: Dataset, batch_size: int) -> None:
    """A batch size above the number of images gives one batch and requires no more memory."""
    one, all_at_once = (
        train(TrainConfig(epochs=1, batch_size=size), tiny, everything(tiny))[-1] for size in (50, batch_size)
    )
    assert as_bytes(one) == as_bytes(all_at_once)


def test_only_the_training_rows_are_used(tiny: Dataset) -> None:
    """The result is that of training on a data set of these images alone."""
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
def test_learning_rates_follow_the_schedule(schedule: str, expected: list[float]) -> None:
    """The cosine decreases to 3/4, 1/2 and 1/4 of the rate after 1/3, 1/2 and 2/3 of the steps."""
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


def test_training_with_the_defaults_reaches_about_90_percent_on_the_sample(
    sample: Dataset, sample_test: Dataset
) -> None:
    """With the defaults, the accuracy on the test images of the sample is about 90 %."""
    state = train(TrainConfig(), sample, hold_out(sample.labels, 0.1, 0))[-1]
    assert 0.87 < evaluate(state, sample_test, np.arange(1000)).accuracy < 0.93
    assert state.history[-1].train_loss < 0.25 < state.history[0].train_loss < math.log(10)


# Repeated runs


def test_n5_the_same_seed_twice_is_byte_equal(small: Dataset, split: Split) -> None:
    config = TrainConfig(batch_size=64, epochs=2)
    one, other = (list(map(as_bytes, train(config, small, split))) for _ in range(2))
    assert one == other


def test_another_seed_gives_a_different_run(small: Dataset, split: Split) -> None:
    runs = [train(TrainConfig(batch_size=64, epochs=1, seed=seed), small, split)[-1] for seed in (0, 1)]
    assert as_bytes(runs[0]) != as_bytes(runs[1])
    assert np.abs(runs[0].last.weights - runs[1].last.weights).max() > 1e-3


CHILD = """
import sys
from pathlib import Path
import numpy as np
from softmax_cli import Source, TrainConfig, fit, load_dataset

data = load_dataset("sample", "train", Source(Path("unused"), offline=True))
*_, state = fit(TrainConfig(epochs=3), data)
np.savez(sys.argv[1], *state.last)
"""


def test_blas_threads_change_no_more_than_rounding(tmp_path: Path) -> None:
    """With two BLAS threads, sums may have another order; the weights differ by at most 1e-6."""
    found = []
    for threads in ("1", "2"):
        path = tmp_path / f"{threads}.npz"
        limits = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), threads)
        subprocess.run([sys.executable, "-c", CHILD, str(path)], env=os.environ | limits, check=True)
        found.append(np.load(path))
    assert np.abs(found[0]["arr_0"]).max() > 0.1
    for name in ("arr_0", "arr_1"):
        np.testing.assert_allclose(found[0][name], found[1][name], rtol=0, atol=1e-6)


# Resumed runs


NOISY = TrainConfig(batch_size=64, epochs=5, learning_rate=3.0, schedule="constant")
"""A run whose validation loss does not fall in every epoch: the best and the last model differ."""


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(batch_size=64, epochs=5),
        replace(NOISY, patience=2),
        replace(NOISY, calibrate=True),
        TrainConfig(batch_size=1000, epochs=3, validation_size=0.0),
        TrainConfig(epochs=3, features="fourier", fourier_dimension=600),
    ],
    ids=["plain", "patience", "calibrated", "without validation", "fourier"],
)
def test_c4_a_run_resumed_from_any_epoch_is_byte_equal(small: Dataset, config: TrainConfig) -> None:
    """Every later state, not only the last one, is equal to that of the uninterrupted run."""
    states = [start(config, small), *fit(config, small)]
    whole = list(map(as_bytes, states))
    for stop in range(len(states)):
        resumed = [*states[: stop + 1], *fit(config, small, states[stop])]
        assert list(map(as_bytes, resumed)) == whole


def test_a_run_resumed_with_another_seed_differs(small: Dataset, split: Split) -> None:
    config = TrainConfig(batch_size=64, epochs=3)
    states = train(config, small, split)
    other = list(fit(replace(config, seed=1), small, states[0], split=split))
    assert as_bytes(other[-1]) != as_bytes(states[-1])


def test_a_run_resumed_without_its_velocity_differs(small: Dataset, split: Split) -> None:
    config = TrainConfig(batch_size=64, epochs=2)
    states = train(config, small, split)
    forgetful = replace(states[0], velocity=Model.zeros(784, 10))
    assert as_bytes(list(fit(config, small, forgetful, split=split))[-1]) != as_bytes(states[-1])


def test_training_modifies_no_state(tiny: Dataset) -> None:
    """States that were passed or yielded are not changed by later epochs."""
    config = TrainConfig(epochs=3, batch_size=16)
    begun = start(TrainConfig(), tiny)
    seen = [(begun, as_bytes(begun))]
    for state in fit(config, tiny, begun):
        seen.append((state, as_bytes(state)))
    assert all(as_bytes(state) == before for state, before in seen)


@pytest.mark.parametrize("stop_at", [1, 2, 4, 5, 6, 9, 10])
def test_a_stop_drops_the_unfinished_epoch(tiny: Dataset, stop_at: int) -> None:
    """A stop after any of the 4 steps of an epoch, or after the epoch, takes effect at once.

    A run that continues from there ends like an uninterrupted one.
    """
    config = TrainConfig(epochs=3, batch_size=16)
    whole = train(config, tiny, everything(tiny))
    calls = []

    def on_progress(images: int) -> bool:
        calls.append(images)
        return len(calls) == stop_at

    begun = start(config, tiny)
    states = [begun, *fit(config, tiny, begun, on_progress, everything(tiny))]
    assert len(calls) == stop_at
    assert len(states) - 1 == stop_at // 5
    assert as_bytes(begun) == as_bytes(start(config, tiny))
    resumed = list(fit(config, tiny, states[-1], split=everything(tiny)))
    assert as_bytes(resumed[-1]) == as_bytes(whole[-1])


def test_progress_is_the_number_of_images_of_each_step(tiny: Dataset) -> None:
    images: list[int] = []
    config = TrainConfig(epochs=3, batch_size=16)
    assert len(list(fit(config, tiny, on_progress=images.append, split=everything(tiny)))) == 3
    assert [count for count in images if count] == [16, 16, 16, 2] * 3


# The best epoch, and patience


def script(monkeypatch: pytest.MonkeyPatch, losses: Iterable[float]) -> None:
    """Replace the validation losses, one per epoch."""
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
def test_patience_stops_the_run_and_the_best_model_is_kept(
    tiny: Dataset, monkeypatch, losses, patience, epochs, best
) -> None:
    """Training ends after `patience` epochs without a lower validation loss.

    The model is that of the epoch with the lowest loss, and the first of those if several are equal.
    """
    script(monkeypatch, losses)
    states = train(TrainConfig(epochs=5, patience=patience), tiny, hold_out(tiny.labels, 0.2, 0))
    final = states[-1]
    assert (final.epoch, final.best_epoch, final.stale) == (epochs, best, epochs - best)
    assert [epoch.validation_loss for epoch in final.history] == losses[:epochs]
    assert final.model is states[best - 1].last
    assert final.last is not states[epochs - 2].last


def test_validation_does_not_affect_training(tiny: Dataset, monkeypatch) -> None:
    """Each epoch starts from the last parameters, not from the best ones."""
    script(monkeypatch, [1, 2, 3])
    chosen, held = hold_out(tiny.labels, 0.2, 0)
    validated = train(TrainConfig(epochs=3, batch_size=16), tiny, (chosen, held))[-1]
    unvalidated = train(TrainConfig(epochs=3, batch_size=16), tiny, (chosen, held[:0]))[-1]
    assert validated.best_epoch == 1
    assert [a.tobytes() for a in validated.last] == [a.tobytes() for a in unvalidated.last]


def test_more_patience_continues_a_run_that_stopped(tiny: Dataset, monkeypatch) -> None:
    split = hold_out(tiny.labels, 0.2, 0)
    config = TrainConfig(epochs=5, patience=1)
    script(monkeypatch, [2, 3, 1, 4, 5])
    stopped = train(config, tiny, split)[-1]
    assert list(fit(config, tiny, stopped, split=split)) == []
    final = list(fit(replace(config, patience=2), tiny, stopped, split=split))[-1]
    assert (stopped.epoch, final.epoch, final.best_epoch) == (2, 5, 3)


@pytest.mark.parametrize("options", [{}, {"features": "deskew"}, {"features": "fourier"}], ids=str)
def test_the_model_has_the_lowest_validation_loss(small: Dataset, split: Split, options) -> None:
    """Its scores on unprepared images are exactly those of the best epoch in the history."""
    states = train(replace(NOISY, **options), small, split)
    final = states[-1]
    losses = [epoch.validation_loss for epoch in final.history]
    assert losses != sorted(losses, reverse=True)  # otherwise, the best epoch is the last one
    assert final.best_epoch == 1 + losses.index(min(losses))
    scores = evaluate(final, small, split[1])
    assert (scores.loss, scores.accuracy) == final.history[final.best_epoch - 1][2:4]


def test_without_validation_images_the_last_model_is_kept(tiny: Dataset) -> None:
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
def test_a_run_is_complete_after_all_epochs_or_without_patience_left(
    tiny: Dataset, epoch: int, stale: int, patience: int, complete: bool
) -> None:
    """A run is complete after 10 epochs or if the patience is exhausted; patience 0 has no effect."""
    state = replace(start(TrainConfig(), tiny), epoch=epoch, stale=stale)
    assert is_complete(state, TrainConfig(patience=patience)) is complete


# Calibration


def test_calibration_changes_nothing_but_the_temperature(small: Dataset, split: Split) -> None:
    """The run is the same, but the parameters of the model are divided by the best temperature."""
    config = replace(NOISY, epochs=6)
    plain, calibrated = train(config, small, split), train(replace(config, calibrate=True), small, split)
    for one, other in zip(plain, calibrated, strict=True):
        assert (one.history, one.temperature, one.best_epoch) == (other.history, 1.0, other.best_epoch)
        uncalibrated = replace(other, model=other.last, temperature=1.0)
        assert as_bytes(replace(one, model=one.last)) == as_bytes(uncalibrated)
        ((rows, z),) = evidence_blocks(one.model, one.features, small.images, split[1])
        assert other.temperature == pytest.approx(fit_temperature(z, small.labels[rows]), rel=1e-9)
        np.testing.assert_allclose(
            other.model.weights * other.temperature, one.model.weights, rtol=1e-6, atol=1e-12
        )
        assert evaluate(other, small, split[1]).loss < evaluate(one, small, split[1]).loss
    assert len({state.temperature for state in calibrated}) == len({one.best_epoch for one in plain})


def test_newton_can_be_calibrated(small: Dataset, split: Split) -> None:
    state = train(TrainConfig(solver="newton", calibrate=True), small, split)[-1]
    assert state.temperature != 1
    np.testing.assert_allclose(
        state.model.weights * state.temperature, state.last.weights, rtol=1e-6, atol=1e-12
    )


# Features


@pytest.mark.parametrize(("text", "least"), [("pixels", 0.87), ("deskew", 0.92), ("fourier", 0.95)])
def test_every_feature_stage_increases_the_accuracy(
    sample: Dataset, sample_test: Dataset, text: str, least: float
) -> None:
    state = train(TrainConfig(features=text, validation_size=0, epochs=8), sample, everything(sample))[-1]
    assert least < evaluate(state, sample_test, np.arange(1000)).accuracy < least + 0.05


@pytest.mark.parametrize("text", ["deskew", "fourier"])
def test_newton_reaches_the_optimum_for_other_features(sample: Dataset, text: str) -> None:
    """The objective of 60 epochs of gradient descent is a little above it."""
    sample = replace(sample, images=sample.images[:2000], labels=sample.labels[:2000])
    config = TrainConfig(features=text, l2=1e-3, validation_size=0, epochs=60, batch_size=400, seed=2)
    if text == "fourier":
        config = replace(config, fourier_dimension=300, l2=1e-5)
    exact = train(replace(config, solver="newton"), sample, everything(sample))[-1]
    assert has_converged(exact, replace(config, solver="newton"))
    near = train(config, sample, everything(sample))[-1]
    x = exact.features.scale * exact.features.transform(exact.features.prepare(sample.images))
    low, high = (
        loss_and_gradient(one.last, x, sample.labels)[0] + penalty(one.last, config.l2)
        for one in (exact, near)
    )
    assert low * (1 - 1e-5) < high < 1.05 * low


# External solvers


def test_a_registered_solver_trains_through_fit(tiny: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry has its properties; the module in `softmax_cli.solvers` has `solve` and `memory`."""

    def solve(objective: Objective, config: TrainConfig, begun: SolverStart) -> Iterator[Step]:
        model = begun.model
        for _ in range(begun.epoch, config.epochs):
            value = objective.full(model)
            model = Model(*(p - np.float32(0.5) * g for p, g in zip(model, value.gradient, strict=True)))
            yield Step(model, begun.velocity, value.cross_entropy, 0.5)

    module = ModuleType("descent")
    module.solve, module.memory = solve, lambda features, classes: 0  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "softmax_cli.solvers.descent", module)
    facts = SolverFacts(
        title="gradient descent on all images",
        epochs=7,
        unit="pass",
        tolerance=None,
        keeps_best=False,
        uses_learning_rate=False,
        remedy="give up",
    )
    monkeypatch.setitem(SOLVERS, "descent", facts)
    config = TrainConfig(solver="descent")
    script(monkeypatch, range(7))
    states = train(config, tiny, hold_out(tiny.labels, 0.2, 0))
    losses = [epoch.train_loss for epoch in states[-1].history]
    assert len(losses) == 7
    assert losses[0] == pytest.approx(math.log(3))
    assert losses == sorted(losses, reverse=True)
    assert is_complete(states[-1], config)
    assert states[-1].model is states[-1].last  # the first one has the lowest validation loss


# Divergence


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_learning_rate_that_is_too_large_diverges(sample: Dataset, schedule: str) -> None:
    """The error contains the epoch, the step and the learning rate, and recommends a smaller one."""
    config = TrainConfig(learning_rate=1e10, schedule=schedule)
    with pytest.raises(
        DivergenceError, match=r"epoch 1, step \d, with learning rate 1e\+10: .* a smaller --learning-rate"
    ):
        train(config, sample, hold_out(sample.labels, 0.1, 0))


def test_divergence_names_the_step_whose_loss_is_not_finite(tiny: Dataset) -> None:
    """Step 1 overflows float32, which the loss of step 2 shows; no further step is made."""
    calls = []
    config = TrainConfig(learning_rate=1e60, batch_size=16, schedule="constant")
    with pytest.raises(DivergenceError, match=r"epoch 1, step 2, with learning rate 1e\+60"):
        list(fit(config, tiny, on_progress=calls.append, split=everything(tiny)))
    assert len(calls) == 1


def test_divergence_in_the_last_step_is_detected(tiny: Dataset) -> None:
    """If an epoch has one step, its loss is finite, and only the parameters are not."""
    config = TrainConfig(learning_rate=1e60, batch_size=50, schedule="constant")
    with pytest.raises(DivergenceError, match="epoch 1, step 1, "):
        train(config, tiny, everything(tiny))


@pytest.mark.parametrize("rate", [1e10, 1e38])
def test_divergence_that_only_validation_shows_is_detected(sample: Dataset, rate: float) -> None:
    """Weights that float32 can represent may give evidence that it cannot."""
    config = TrainConfig(learning_rate=rate, batch_size=5000)
    with pytest.raises(DivergenceError, match=r"diverged in epoch \d(, step 1)?, with"):
        train(config, sample, hold_out(sample.labels, 0.1, 0))


def test_divergence_does_not_modify_the_epochs_before_it(tiny: Dataset) -> None:
    """The states that were yielded are finite and unchanged."""
    config = TrainConfig(epochs=50, learning_rate=1e3, l2=1.0, batch_size=50, schedule="constant")
    run = fit(config, tiny, split=everything(tiny))
    seen = []
    with pytest.raises(DivergenceError, match="diverged in epoch "):
        seen.extend((state, as_bytes(state)) for state in run)
    assert seen
    for state, before in seen:
        assert as_bytes(state) == before
        assert all(np.isfinite(array).all() for array in (*state.last, *state.velocity))


@pytest.mark.parametrize(
    ("solver", "where", "remedy"),
    [
        ("sgd", "epoch 1, with learning rate 0.5", "choose a smaller --learning-rate (or --l2)"),
        ("newton", "iteration 1", "raise --l2"),
    ],
)
def test_the_remedy_for_divergence_suits_the_solver(
    tiny: Dataset, monkeypatch: pytest.MonkeyPatch, solver: str, where: str, remedy: str
) -> None:
    """Newton has no learning rate to lower."""
    monkeypatch.setattr(examples, "evidence", lambda model, x: np.full((len(x), 3), np.inf))
    with pytest.raises(DivergenceError) as caught:
        list(fit(TrainConfig(solver=solver), tiny))
    assert str(caught.value) == f"training diverged in {where}: a value is not finite; {remedy}"


# The validation split


@settings(deadline=None, derandomize=True, database=None)
@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=6).filter(lambda counts: sum(counts) > 1),
    st.just(0.0) | st.floats(0.01, 0.99),
    st.integers(0, 9),
)
def test_the_split_is_stratified_exact_and_disjoint(counts: list[int], fraction: float, seed: int) -> None:
    """The sizes are exact, and each class is within one image of its fraction.

    Each image is in one part. With fraction 0, all images are for training; otherwise, an empty part is an
    error.
    """
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.uint8)
    n = len(labels)
    if fraction and round(fraction * n) in (0, n):
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


def test_the_split_depends_on_the_seed(sample: Dataset) -> None:
    held, again, other = (hold_out(sample.labels, 0.1, seed)[1] for seed in (0, 0, 1))
    np.testing.assert_array_equal(again, held)
    assert len(np.intersect1d(other, held)) < 100 < len(held) == 500


def test_the_split_draws_from_all_of_a_class() -> None:
    """Over 100 seeds, every image is about equally often in the validation set."""
    labels = np.repeat([0, 1], 10).astype(np.uint8)
    times = np.bincount(np.concatenate([hold_out(labels, 0.5, seed)[1] for seed in range(100)]), minlength=20)
    assert times.min() > 30
    assert times.max() < 70


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


# Shuffling of images that do not fit in memory


def test_images_that_do_not_fit_in_memory_are_shuffled_in_blocks(
    sample: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each order is a permutation that depends on seed and epoch; rows of a block stay together."""
    monkeypatch.setattr(sgd, "fits_in_memory", lambda images: False)
    monkeypatch.setattr(sgd, "SHUFFLE_BLOCK", 100 * 784)
    rows = np.arange(7, 1007)
    order = sgd.shuffle(sample.images, rows, 1, seed=4)
    assert sorted(order) == rows.tolist()
    blocks = ((order - 7) // 100).reshape(10, 100)
    assert (blocks == blocks[:, :1]).all()
    assert blocks[:, 0].tolist() != list(range(10))
    assert not any((np.diff(order[i : i + 100]) == 1).all() for i in range(0, 1000, 100))
    assert np.array_equal(order, sgd.shuffle(sample.images, rows, 1, seed=4))
    for epoch, seed in ((2, 4), (1, 5)):
        assert not np.array_equal(order, sgd.shuffle(sample.images, rows, epoch, seed))


def test_images_larger_than_memory_do_not_fit_in_it() -> None:
    one = np.zeros(1, np.uint8)
    assert sgd.fits_in_memory(one)
    assert not sgd.fits_in_memory(np.broadcast_to(one, (1 << 50,)))
