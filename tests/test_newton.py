"""Newton converges to the optimum for all shapes of data, sgd approximately."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from softmax_cli import training
from softmax_cli.checkpoint import load_checkpoint
from softmax_cli.config import SOLVERS, TrainConfig
from softmax_cli.data.dataset import Dataset
from softmax_cli.data.download import Source
from softmax_cli.data.loading import load_dataset
from softmax_cli.errors import ConfigError
from softmax_cli.features import FeatureMap
from softmax_cli.model import Floats, Model
from softmax_cli.solvers import newton
from softmax_cli.solvers.objective import Objective, SolverStart, Step, solver_module
from softmax_cli.training import State, fit, has_converged, start
from tests.helpers import assert_fails

EXACT = TrainConfig(solver="newton", validation_size=0, l2=1e-3)


def toy(classes: int, shape: tuple[int, int], n: int, seed: int = 0) -> Dataset:
    """Return noisy images around a mean for each class.

    The first pixel is constant and the last one always 0.
    """
    generator = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), generator.integers(0, classes, n - classes)])
    means = generator.integers(0, 200, (classes, *shape))
    images = np.clip(means[labels] + generator.normal(0, 70, (n, *shape)), 0, 255).astype(np.uint8)
    images[:, 0, 0], images[:, -1, -1] = 77, 0
    names = tuple(map(str, range(classes)))
    return Dataset("toy", "", "", images, labels.astype(np.uint8), names, "plain")


def run(data: Dataset, config: TrainConfig = EXACT) -> list[State]:
    return list(fit(config, data))


def intensities(data: Dataset) -> Floats:
    return data.images.reshape(len(data), -1) / 255


def objective(x: Floats, labels: np.ndarray, model: Model, l2: float, weights: Floats | float = 1.0) -> float:
    """Return the objective in float64, independent of the package's formulas."""
    z = x @ model.weights.astype(float) + model.bias
    log_sums = np.log(np.exp(z - z.max(axis=1, keepdims=True)).sum(axis=1)) + z.max(axis=1)
    loss = (weights * (log_sums - z[np.arange(len(z)), labels])).mean()
    return float(loss + l2 / 2 * (model.weights.astype(float) ** 2).sum())


def objective_of(data: Dataset, state: State, l2: float) -> float:
    return objective(intensities(data), data.labels, state.model, l2)


def optimum(inputs: Floats, labels: np.ndarray, l2: float, weights: Floats | float = 1.0) -> float:
    """Return the minimum of the objective, by Newton's method with the full Hessian.

    It is computed in float64.
    """
    n, k = len(inputs), int(labels.max()) + 1
    x = np.hstack([inputs, np.ones((n, 1))])
    d, t, s = x.shape[1], np.eye(k)[labels], np.broadcast_to(weights, n)[:, None]
    ridge = np.tile(np.append(np.full(d - 1, l2), 1e-12), k)  # makes the biases unique
    theta = np.zeros((k, d))
    for _ in range(60):
        z = x @ theta.T
        y = np.exp(z - z.max(axis=1, keepdims=True))
        y /= y.sum(axis=1, keepdims=True)
        gradient = ((s * (y - t)).T @ x / n).ravel() + ridge * theta.ravel()
        hessian = np.zeros((k * d, k * d))
        for i in range(k):
            for j in range(k):
                curvature = s[:, 0] * y[:, i] * ((i == j) - y[:, j])
                hessian[i * d : (i + 1) * d, j * d : (j + 1) * d] = (x * curvature[:, None]).T @ x / n
        theta -= np.linalg.solve(hessian + np.diag(ridge), gradient).reshape(k, d)
        if np.abs(gradient).max() < 1e-9:
            break
    assert np.abs(gradient).max() < 1e-9
    return objective(inputs, labels, Model(theta[:, :-1].T, theta[:, -1]), l2, weights)


@pytest.fixture(scope="module")
def states(sample: Dataset) -> list[State]:
    """Return the states of a run on the sample."""
    return run(sample)


@pytest.fixture(scope="module")
def long_run(sample: Dataset) -> list[tuple[State, float]]:
    """Return the states and the objectives of a run that float32 precision limits.

    The tolerance is too small to stop it.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SOLVERS, "newton", SOLVERS["newton"]._replace(tolerance=1e-9))
        states = run(sample, replace(EXACT, epochs=25))
    return [(state, objective_of(sample, state, EXACT.l2)) for state in states]


@pytest.mark.parametrize(
    ("classes", "shape", "n"),
    [(2, (5, 4), 300), (3, (4, 4), 12), (10, (4, 6), 2000), (47, (3, 3), 900), (5, (1, 7), 6)],
)
def test_newton_converges_to_the_optimum_for_every_shape_of_data(
    classes: int, shape: tuple[int, int], n: int
) -> None:
    """The data have constant pixels, fewer images than features, and 2 to 47 classes."""
    data = toy(classes, shape, n)
    state = run(data)[-1]
    assert has_converged(state, EXACT)
    least = optimum(intensities(data), data.labels, EXACT.l2)
    assert objective_of(data, state, EXACT.l2) == pytest.approx(least, rel=1e-4)


@pytest.mark.parametrize(("solver", "tolerance"), [("newton", 1e-4), ("sgd", 1e-2)])
@pytest.mark.parametrize("weighted", [False, True], ids=["equal", "weighted"])
def test_solvers_converge_on_rows_of_floats(solver: str, tolerance: float, weighted: bool) -> None:
    """They reach the optimum of the weighted objective; the inputs are not modified."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 900)
    x = (rng.normal(size=(3, 8))[labels] + rng.normal(size=(900, 8))).astype(np.float32)
    weights = None
    if weighted:  # the first class has a small weight
        weights = np.where(labels == 0, 0.1, rng.uniform(1, 3, 900)).astype(np.float32)
        weights /= weights.mean()
    before, one = x.copy(), np.ones(900) if weights is None else weights.astype(float)
    target = Objective(FeatureMap((8,), (), 1.0), x, labels, np.arange(900), 1e-2, sample_weights=weights)
    config = TrainConfig(solver=solver, epochs=100, l2=1e-2, learning_rate=0.1)
    zeros = Model.zeros(8, 3)
    steps: list[Step] = list(solver_module(solver).solve(target, config, SolverStart(zeros, zeros, 0)))
    least = optimum(x.astype(float), labels, 1e-2, one)
    found = objective(x.astype(float), labels, steps[-1].model, 1e-2, one)
    assert least * (1 - 1e-6) <= found <= least * (1 + tolerance)
    np.testing.assert_array_equal(x, before)


def test_newton_converges_to_the_optimum_of_the_sample_for_any_seed(
    sample: Dataset, states: list[State], long_run: list[tuple[State, float]]
) -> None:
    least = min(loss for _, loss in long_run)
    for state in (states[-1], run(sample, replace(EXACT, seed=1))[-1]):
        assert least * (1 - 1e-6) <= objective_of(sample, state, EXACT.l2) <= least * (1 + 1e-4)


def test_the_estimated_distance_is_within_a_factor_of_three(long_run: list[tuple[State, float]]) -> None:
    least = min(loss for _, loss in long_run)
    for state, loss in long_run[:6]:
        true = loss / least - 1
        assert true / 3 < state.history[-1].distance < 3 * true


def test_the_objective_never_rises(long_run: list[tuple[State, float]]) -> None:
    losses = [np.log(10), *(loss for _, loss in long_run)]
    assert all(after <= before + 1e-7 for before, after in pairwise(losses))


@pytest.mark.parametrize(
    "options", [{"learning_rate": 1e3, "epochs": 1}, {"l2": 10}], ids=["worse", "divergent"]
)
def test_a_warm_up_that_does_not_help_is_discarded(sample: Dataset, options: dict[str, float]) -> None:
    config = replace(EXACT, **options)
    assert objective_of(sample, run(sample, config)[-1], config.l2) < np.log(10)


def test_the_same_seed_gives_the_same_bytes(sample: Dataset, states: list[State]) -> None:
    assert run(sample)[-1].model.weights.tobytes() == states[-1].model.weights.tobytes()


def test_separable_data_without_l2_use_all_epochs() -> None:
    states = run(toy(3, (4, 4), 30), replace(EXACT, l2=0, epochs=6))
    assert np.isfinite(states[-1].model.weights).all()
    losses = [state.history[-1].train_loss for state in states]
    assert losses == sorted(losses, reverse=True)


def bright(shape: tuple[int, int], n: int) -> Dataset:
    """Return two classes of nearly white images.

    All pixels are nearly equal and far from 0.
    """
    data = toy(2, shape, n)
    return replace(data, images=(255 - data.images // 100).astype(np.uint8))


@pytest.mark.parametrize("l2", [0.0, 1e-9, 1e-4])
def test_blocks_that_are_singular_in_float32_get_a_larger_ridge(l2: float) -> None:
    states = run(bright((24, 24), 300), replace(EXACT, l2=l2, epochs=5))
    assert np.isfinite(states[-1].model.weights).all()
    assert states[-1].history[-1].train_loss < np.log(2)


def test_a_loss_of_zero_is_the_optimum() -> None:
    images = np.zeros((2, 4, 4), np.uint8)
    images[1] = 255
    data = Dataset("two", "", "", images, np.array([0, 1], np.uint8), ("0", "1"), "plain")
    assert np.isfinite(run(data, replace(EXACT, l2=0))[-1].history[-1].distance)


def test_the_warm_up_reads_part_of_a_large_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its images are evenly spaced, and their number is bounded."""
    data, read = toy(3, (4, 5), 2000), list[Objective]()
    run_epoch = newton.sgd.run_epoch

    def recorded(objective: Objective, *arguments: Any) -> Step:
        read.append(objective)
        return run_epoch(objective, *arguments)

    monkeypatch.setattr(newton.sgd, "run_epoch", recorded)
    for most, spacing in ((2000, 1), (1999, 2), (300, 7)):
        monkeypatch.setattr(newton, "WARM_UP_IMAGES", most)
        read.clear()
        next(fit(EXACT, data))
        assert read
        for objective in read:
            np.testing.assert_array_equal(objective.rows, np.arange(0, 2000, spacing))


@pytest.mark.parametrize("blank", [0, 7], ids=["all pixels inked", "blank pixels"])
def test_an_inverse_factor_agrees_with_a_slow_sum(blank: int) -> None:
    """If all images are drawn and have equal curvature, the estimate is exact, up to the ridge."""
    data, generator = toy(3, (4, 5), 200), np.random.default_rng(0)
    data.images.reshape(200, 20)[:, :blank] = 0
    target = Objective(FeatureMap((4, 5)), data.images, data.labels, np.arange(200), 1e-3)
    x = np.hstack([intensities(data), np.ones((200, 1))])
    block = sum(0.2 * np.outer(row, row) for row in x) / 200 + np.diag([*[1e-3] * 20, 0])
    inverse = newton._inverse_factor(target, np.arange(200), np.full(200, 0.2, np.float32), generator)
    np.testing.assert_array_equal(inverse, np.tril(inverse))
    np.testing.assert_allclose(inverse.T @ inverse @ block, np.eye(21), atol=2e-3)


def test_a_triangular_matrix_is_inverted() -> None:
    lower = np.tril(np.random.default_rng(0).normal(size=(201, 201))) / 20 + np.eye(201)
    np.testing.assert_allclose(newton._invert_triangular(lower) @ lower, np.eye(201), atol=1e-9)


def test_the_parameters_sum_to_zero_over_the_classes(states: list[State]) -> None:
    """The optimum has this property: a constant in all classes does not change the probabilities."""
    for part in states[-1].model:
        assert np.abs(part.sum(axis=-1)).max() < 1e-5 * np.abs(part).max()


def test_too_much_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are (K + 5) matrices of (D + 1)² floats; the limit is 2 GiB."""
    data, config = toy(10, (2, 2), 20), TrainConfig(solver="newton", features="fourier")
    start(replace(config, fourier_dimension=5900), data)
    message = "would need 2,804 MiB for 10 classes and 6,999 features; the limit is 2,048 MiB; use solver sgd"
    with pytest.raises(ConfigError, match=f"^solver newton {message}$"):
        start(replace(config, fourier_dimension=6_999), data)


@pytest.mark.parametrize(("blocks", "workers"), [(10 + 5, 1), (10 + 10, 2), (10 + 50, 4)])
def test_memory_limits_the_number_of_threads(
    sample: Dataset, monkeypatch: pytest.MonkeyPatch, blocks: int, workers: int
) -> None:
    """There are ten factors, five matrices of their size per thread, and four cores."""
    asked = []

    def record(function: Callable[[int], None], items: range, count: int) -> None:
        asked.append(count)
        for item in items:
            function(item)

    monkeypatch.setattr(newton, "MEMORY_TARGET", blocks * 785**2 * 4)
    monkeypatch.setattr(newton, "cores", lambda: 4)
    monkeypatch.setattr(newton, "for_each", record)
    run(sample, replace(EXACT, epochs=1))
    assert asked == [workers]


def test_a_stop_drops_the_unfinished_iteration(sample: Dataset) -> None:
    """Stops are requested in the first pass, before and after the first factors, and in the last pass."""
    calls: list[int] = []
    whole = list(fit(EXACT, sample, on_progress=calls.append))
    factors, last = calls.index(0) + 1, len(calls)
    for stop_at in (1, factors - 1, factors, last - 1):
        calls.clear()
        stop = lambda images: calls.append(images) or len(calls) == stop_at  # noqa: B023, E731
        states = list(fit(EXACT, sample, on_progress=stop))
        assert len(calls) == stop_at < last
        assert len(states) < len(whole)
        assert [state.epoch for state in states] == list(range(1, len(states) + 1))


def test_patience_is_refused_with_newton() -> None:
    with pytest.raises(ConfigError, match="patience has no effect with solver newton, which does not keep"):
        TrainConfig(solver="newton", patience=2)


# The command


LINE = ("train", "--dataset", "sample", "--solver", "newton", "--l2", 0.01)


def test_the_command_reports_convergence(invoke: Callable[..., Result], work: Path) -> None:
    result = invoke(*LINE, "--log", "n.jsonl")
    assert result.exit_code == 0, result.stderr
    assert "converged after " in result.stderr
    assert "did not converge" not in result.stderr
    assert "gradient norm" in result.stderr
    assert re.match(r"model.npz: sample, \d+ iterations in .* s: validation accuracy", result.stdout)
    last = json.loads(Path("n.jsonl").read_text().splitlines()[-1])
    assert last["distance"] <= SOLVERS["newton"].tolerance
    assert last["gradient_norm"] > 0
    assert last["validation_loss"] > 0
    state = load_checkpoint(Path("model.npz")).state
    assert np.array_equal(state.model.weights, state.last.weights)


@pytest.mark.parametrize(("epochs", "converged"), [(1, False), (100, True)])
def test_json_and_warnings_report_convergence(
    invoke: Callable[..., Result], work: Path, epochs: int, converged: bool
) -> None:
    result = invoke(*LINE, "--epochs", epochs, "--quiet", "--json")
    assert json.loads(result.stdout)["converged"] is converged
    assert ("warning: did not converge after 1 iteration: " in result.stderr) is not converged
    assert ("raise --epochs with --resume" in result.stderr) is not converged


def test_a_resumed_run_converges_to_the_same_optimum(
    invoke: Callable[..., Result], work: Path, sample: Dataset
) -> None:
    invoke(*LINE, "--validation-size", 0, "--epochs", 2)
    invoke("train", "--resume", "--epochs", 100)
    invoke(*LINE, "--validation-size", 0, "-o", "whole.npz")
    resumed, whole = (load_checkpoint(Path(name)).state for name in ("model.npz", "whole.npz"))
    assert has_converged(resumed, TrainConfig(solver="newton"))
    losses = [objective_of(sample, state, 0.01) for state in (resumed, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    again = invoke("train", "--resume")
    assert "already complete" in again.stderr


def test_too_many_features_are_refused_before_anything_is_written(
    invoke: Callable[..., Result], work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SOLVER_MEMORY", 2**20)
    result = invoke("train", "--dataset", "sample", "--solver", "newton")
    assert_fails(result, "would need 35 MiB", "use solver sgd", code=2)
    assert list(work.iterdir()) == []


@pytest.mark.full
def test_newton_comes_within_1e_4_of_the_optimum_of_mnist(
    invoke: Callable[..., Result], full_mnist: Path, work: Path
) -> None:
    """The optimum on MNIST with l2 1e-4 is 0.259248295, found in float64."""
    path = Path(__file__).parents[1] / "configs" / "exact.toml"
    result = invoke("train", "--config", path, "--data-dir", full_mnist)
    assert "converged after " in result.stderr
    data = load_dataset("mnist", "train", Source(full_mnist, offline=True))
    state = load_checkpoint(Path("model.npz")).state
    assert objective_of(data, state, 1e-4) <= 0.259248295 * (1 + 1e-4)
