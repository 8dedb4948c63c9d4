"""The Newton solver reaches the optimum, from anywhere, for every shape of data."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from softmax_cli.checkpoint import load
from softmax_cli.config import TrainConfig, continued
from softmax_cli.data.dataset import Dataset, hold_out
from softmax_cli.errors import ConfigError
from softmax_cli.features import pixels
from softmax_cli.model import Model
from softmax_cli.solvers import newton
from softmax_cli.solvers.problem import Problem
from softmax_cli.training import State, fit, has_converged, start
from tests.conftest import assert_fails

EXACT = TrainConfig(solver="newton", validation_size=0, l2=1e-3)


def toy(classes: int, shape: tuple[int, int], n: int, seed: int = 0) -> Dataset:
    """Return noisy images around a mean for each class; the first pixel is constant, the last always 0."""
    generator = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), generator.integers(0, classes, n - classes)])
    means = generator.integers(0, 200, (classes, *shape))
    images = np.clip(means[labels] + generator.normal(0, 70, (n, *shape)), 0, 255).astype(np.uint8)
    images[:, 0, 0], images[:, -1, -1] = 77, 0
    names = tuple(map(str, range(classes)))
    return Dataset("toy", "", images, labels.astype(np.uint8), names, "plain")


def run(data: Dataset, config: TrainConfig = EXACT, state: State | None = None) -> list[State]:
    split = hold_out(data.labels, config.validation_size, config.seed)
    return list(fit(config, data, split, state or start(config, data)))


def objective(data: Dataset, model: Model, l2: float) -> float:
    """Return the regularised loss in float64, without the package's own formulas."""
    z = data.images.reshape(len(data), -1) / 255 @ model.weights.astype(float) + model.bias
    log_sums = np.log(np.exp(z - z.max(axis=1, keepdims=True)).sum(axis=1)) + z.max(axis=1)
    loss = (log_sums - z[np.arange(len(data)), data.labels]).mean()
    return float(loss + l2 / 2 * (model.weights.astype(float) ** 2).sum())


def optimum(data: Dataset, l2: float) -> float:
    """Return the least objective, by plain Newton on the whole Hessian in float64."""
    n, k = len(data), len(data.class_names)
    x = np.hstack([data.images.reshape(n, -1) / 255, np.ones((n, 1))])
    d, t = x.shape[1], np.eye(k)[data.labels]
    ridge = np.tile(np.append(np.full(d - 1, l2), 1e-12), k)  # the biases share a free direction
    theta = np.zeros((k, d))
    for _ in range(60):
        z = x @ theta.T
        y = np.exp(z - z.max(axis=1, keepdims=True))
        y /= y.sum(axis=1, keepdims=True)
        gradient = ((y - t).T @ x / n).ravel() + ridge * theta.ravel()
        hessian = np.zeros((k * d, k * d))
        for i in range(k):
            for j in range(k):
                curvature = y[:, i] * ((i == j) - y[:, j])
                hessian[i * d : (i + 1) * d, j * d : (j + 1) * d] = (x * curvature[:, None]).T @ x / n
        theta -= np.linalg.solve(hessian + np.diag(ridge), gradient).reshape(k, d)
    model = Model(theta[:, :-1].T, theta[:, -1])
    assert np.abs(gradient).max() < 1e-9
    return objective(data, model, l2)


@pytest.mark.parametrize(
    ("classes", "shape", "n"),
    [(2, (5, 4), 300), (3, (4, 4), 12), (10, (4, 6), 2000), (47, (3, 3), 900), (5, (1, 7), 6)],
)
def test_it_reaches_the_optimum_for_every_shape_of_data(classes: int, shape: tuple[int, int], n: int) -> None:
    """Constant pixels, fewer images than features, 2 to 47 classes: the loss is that of a slow Newton."""
    data = toy(classes, shape, n)
    states = run(data)
    assert has_converged(states[-1])
    least = optimum(data, EXACT.l2)
    assert objective(data, states[-1].model, EXACT.l2) == pytest.approx(least, rel=1e-4)


def test_it_reaches_the_optimum_of_the_sample_from_any_seed(sample: Dataset) -> None:
    losses = [objective(sample, run(sample, replace(EXACT, seed=seed))[-1].model, 1e-3) for seed in (0, 1)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(newton, "TOLERANCE", 1e-9)
        least = objective(sample, run(sample, replace(EXACT, epochs=25, seed=2))[-1].model, 1e-3)
    for loss in losses:
        assert least * (1 - 1e-6) <= loss <= least * (1 + 1e-4)


def test_the_estimated_distance_is_of_the_right_size(sample: Dataset) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(newton, "TOLERANCE", 1e-9)
        states = run(sample, replace(EXACT, epochs=25))
    losses = [objective(sample, state.model, 1e-3) for state in states]
    for state, loss in zip(states[:6], losses, strict=False):
        true = loss / min(losses) - 1
        assert true / 3 < state.history[-1].distance < 3 * true


def test_the_objective_never_rises(sample: Dataset) -> None:
    losses = [np.log(10), *(objective(sample, state.model, 1e-3) for state in run(sample))]
    assert all(after <= before + 1e-7 for before, after in pairwise(losses))


def test_it_is_never_worse_than_where_it_started(sample: Dataset) -> None:
    """A warm-up that blows up is left out."""
    state = run(sample, replace(EXACT, learning_rate=1e3, epochs=1))[-1]
    assert objective(sample, state.model, 1e-3) < np.log(10)


def test_the_same_seed_gives_the_same_bytes(sample: Dataset) -> None:
    one, same = (run(sample)[-1].model for _ in range(2))
    assert one.weights.tobytes() == same.weights.tobytes()


def test_separable_data_without_l2_stop_at_the_cap(sample: Dataset) -> None:
    data = toy(3, (4, 4), 30)
    states = run(data, replace(EXACT, l2=0, epochs=6))
    assert np.isfinite(states[-1].model.weights).all()
    losses = [state.history[-1].train_loss for state in states]
    assert losses == sorted(losses, reverse=True)


def bright(shape: tuple[int, int], n: int) -> Dataset:
    """Return two classes of nearly white images: all pixels nearly the same, and far from 0."""
    data = toy(2, shape, n)
    return replace(data, images=(255 - data.images // 100).astype(np.uint8))


@pytest.mark.parametrize("l2", [0.0, 1e-9, 1e-4])
def test_blocks_that_float32_finds_singular_get_more_ridge(l2: float) -> None:
    states = run(bright((24, 24), 300), replace(EXACT, l2=l2, epochs=5))
    assert np.isfinite(states[-1].model.weights).all()
    assert states[-1].history[-1].train_loss < np.log(2)


def test_a_loss_of_zero_is_the_optimum() -> None:
    images = np.zeros((2, 4, 4), np.uint8)
    images[1] = 255
    data = Dataset("two", "", images, np.array([0, 1], np.uint8), ("0", "1"), "plain")
    assert np.isfinite(run(data, replace(EXACT, l2=0))[-1].history[-1].distance)


def test_a_warm_up_that_diverges_is_left_out(sample: Dataset) -> None:
    states = run(sample, replace(EXACT, l2=10))
    assert has_converged(states[-1])


def test_a_block_of_the_hessian_is_that_of_a_slow_sum() -> None:
    """With all images in the draw and equal curvature, the estimate is exact."""
    data, generator = toy(3, (4, 5), 200), np.random.default_rng(0)
    problem = Problem(pixels((4, 5)), data.images, data.labels, np.arange(200), EXACT, lambda: False)
    x = np.hstack([data.images.reshape(200, -1) / 255, np.ones((200, 1))])
    expected = sum(0.2 * np.outer(row, row) for row in x) / 200 + np.diag([*[1e-3] * 20, 0])
    block = newton._block(problem, np.arange(200), np.full(200, 0.2, np.float32), generator)
    np.testing.assert_allclose(block, expected, rtol=1e-5, atol=1e-5)


def test_a_triangle_is_inverted() -> None:
    lower = np.tril(np.random.default_rng(0).normal(size=(201, 201))) / 20 + np.eye(201)
    np.testing.assert_allclose(newton._invert_triangular(lower) @ lower, np.eye(201), atol=1e-9)


def test_the_parameters_sum_to_zero_over_the_classes(sample: Dataset) -> None:
    """The optimum has that property, because the softmax does not notice what all classes gain."""
    model = run(sample)[-1].model
    for part in model:
        assert np.abs(part.sum(axis=-1)).max() < 1e-5 * np.abs(part).max()


def test_more_memory_than_there_may_be_is_refused_naming_it() -> None:
    newton.check_memory(784, 47)
    with pytest.raises(ConfigError, match=r"would need 2,804 MiB .* may take 2,048; use solver sgd"):
        newton.check_memory(6_999, 10)


@pytest.mark.parametrize(("blocks", "workers"), [(10 + 5, 1), (10 + 10, 2), (10 + 50, 4)])
def test_there_are_no_more_workers_than_there_is_memory_for(
    sample: Dataset, monkeypatch: pytest.MonkeyPatch, blocks: int, workers: int
) -> None:
    """Ten factors stay, and each worker takes five matrices of their size; there are four cores."""
    asked = []

    def share_out(function: Callable[[int], None], items: range, count: int) -> None:
        asked.append(count)
        for item in items:
            function(item)

    monkeypatch.setattr(newton, "MEMORY_LIMIT", blocks * 785**2 * 4)
    monkeypatch.setattr(newton, "cores", lambda: 4)
    monkeypatch.setattr(newton, "for_each", share_out)
    run(sample, replace(EXACT, epochs=1))
    assert asked == [workers]


def test_a_stop_forgets_the_unfinished_iteration(sample: Dataset) -> None:
    split = hold_out(sample.labels, 0, 0)
    whole = run(sample)
    for stop_at in (1, 30, 60, 75):
        calls = iter(range(1, 10_000))
        states = list(fit(EXACT, sample, split, start(EXACT, sample), lambda: next(calls) == stop_at))  # noqa: B023
        assert len(states) < len(whole)
        assert [state.epoch for state in states] == list(range(1, len(states) + 1))


def test_its_epochs_default_to_a_hundred_and_it_has_no_patience() -> None:
    assert TrainConfig(solver="newton").epochs == 100
    assert TrainConfig(solver="newton", epochs=3).epochs == 3
    assert continued(TrainConfig(solver="newton", epochs=3), {"epochs": 50}).epochs == 50
    with pytest.raises(ConfigError, match="newton stops by itself"):
        TrainConfig(solver="newton", patience=2)


# The command


def test_the_command_says_whether_it_converged(invoke: Callable[..., Result], work: Path) -> None:
    result = invoke("train", "--dataset", "sample", "--solver", "newton", "--log", "n.jsonl")
    assert result.exit_code == 0, result.stderr
    assert "converged after " in result.stderr
    assert "gradient norm" in result.stderr
    assert re.match(r"model.npz: sample, \d+ iterations in .* s: validation accuracy", result.stdout)
    last = json.loads(Path("n.jsonl").read_text().splitlines()[-1])
    assert last["distance"] <= newton.TOLERANCE
    assert last["gradient_norm"] > 0
    assert last["validation_loss"] > 0
    state = load(Path("model.npz")).state
    assert np.array_equal(state.model.weights, state.last.weights)
    short = invoke("train", "--dataset", "sample", "--solver", "newton", "--epochs", 1, "-o", "short.npz")
    for epochs, converged in ((1, False), (100, True)):
        line = ("train", "--dataset", "sample", "--solver", "newton", "--epochs", epochs, "-o", "again.npz")
        quiet = invoke(*line, "--quiet", "--json")
        assert json.loads(quiet.stdout)["converged"] is converged
        assert ("warning: did not converge" in quiet.stderr) is not converged
    assert "did not converge after 1 iteration:" in short.stderr
    assert "raise --epochs" in short.stderr


def test_a_stopped_run_goes_on_to_the_same_optimum(
    invoke: Callable[..., Result], work: Path, sample: Dataset
) -> None:
    exact = ("--dataset", "sample", "--solver", "newton", "--validation-size", 0)
    invoke("train", *exact, "--epochs", 2)
    invoke("train", "--resume", "--epochs", 100)
    invoke("train", *exact, "-o", "whole.npz")
    gone_on, whole = (load(Path(name)).state for name in ("model.npz", "whole.npz"))
    assert has_converged(gone_on)
    losses = [objective(sample, state.model, 1e-4) for state in (gone_on, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    again = invoke("train", "--resume")
    assert "already complete" in again.stderr


def test_patience_is_refused(invoke: Callable[..., Result], work: Path) -> None:
    result = invoke("train", "--dataset", "sample", "--solver", "newton", "--patience", 3)
    assert_fails(result, "patience is for solver sgd", code=2)


def test_too_many_features_are_refused_before_anything_is_written(
    invoke: Callable[..., Result], work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(newton, "MEMORY_LIMIT", 2**20)
    result = invoke("train", "--dataset", "sample", "--solver", "newton")
    assert_fails(result, "would need 35 MiB", "use solver sgd", code=2)
    assert list(work.iterdir()) == []


@pytest.mark.full
def test_it_comes_within_a_ten_thousandth_of_the_optimum_of_mnist(
    invoke: Callable[..., Result], full_mnist: Path, work: Path
) -> None:
    """The optimum on MNIST with l2 1e-4 is 0.259248295, found in float64."""
    path = Path(__file__).parents[1] / "configs" / "exact.toml"
    result = invoke("train", "--config", path, "--data-dir", full_mnist)
    assert "converged after " in result.stderr
    from softmax_cli.data.dataset import load as load_data
    from softmax_cli.data.download import Source

    data = load_data("mnist", "train", Source(full_mnist, offline=True))
    model = load(Path("model.npz")).state.model
    assert objective(data, model, 1e-4) <= 0.259248295 * (1 + 1e-4)
