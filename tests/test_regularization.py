"""--l2 auto: the path of values, the choice, and what becomes of it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result

from softmax_cli.checkpoint import load_checkpoint
from softmax_cli.config import SOLVERS, TrainConfig
from softmax_cli.data.dataset import Dataset
from softmax_cli.errors import ConfigError
from softmax_cli.regularization import DISTANCE, VALUES, choose_l2
from softmax_cli.runs import train
from softmax_cli.solvers.objective import Objective
from softmax_cli.training import fit, start
from tests.helpers import assert_fails

NEWTON = TrainConfig(solver="newton", l2="auto")  # type: ignore[arg-type]


def test_the_choice_has_the_lowest_validation_loss_of_runs_of_their_own(sample: Dataset) -> None:
    """Each point of the path agrees with a run to the optimum; the path ends after the lowest one."""
    sample = replace(sample, images=sample.images[:2000], labels=sample.labels[:2000])
    config, path = choose_l2(NEWTON, sample)
    assert [point.l2 for point in path] == list(VALUES[: len(path)])
    for point in path:
        *_, state = fit(replace(NEWTON, l2=point.l2), sample)
        assert point.validation_loss == pytest.approx(state.history[-1].validation_loss, rel=20 * DISTANCE)
    losses = [point.validation_loss for point in path]
    assert config == replace(NEWTON, l2=path[losses.index(min(losses))].l2)
    assert len(path) in (losses.index(min(losses)) + 2, len(VALUES))


def test_the_path_takes_at_most_four_times_the_passes_of_a_run(
    sample: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes, full = [0], Objective.full

    def counted(self: Objective, *args: object) -> object:
        passes[0] += 1
        return full(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Objective, "full", counted)
    config, _ = choose_l2(NEWTON, sample)
    along, passes[0] = passes[0], 0
    *_, state = fit(config, sample)
    assert state.history[-1].distance <= SOLVERS["newton"].tolerance  # type: ignore[operator]
    assert along <= 4 * passes[0]


def test_the_model_is_that_of_a_run_with_the_chosen_value(sample: Dataset, tmp_path: Path) -> None:
    sample = replace(sample, images=sample.images[:1000], labels=sample.labels[:1000])
    chosen = train(NEWTON, tmp_path / "auto.npz", sample)
    assert chosen.config.l2 in VALUES
    plain = train(replace(NEWTON, l2=chosen.config.l2), tmp_path / "plain.npz", sample)
    assert chosen.state.model.weights.tobytes() == plain.state.model.weights.tobytes()
    loaded = load_checkpoint(tmp_path / "auto.npz")
    assert loaded.l2_path == chosen.l2_path
    assert load_checkpoint(tmp_path / "plain.npz").l2_path == ()


def test_sgd_runs_its_epochs_for_each_value(sample: Dataset) -> None:
    few = replace(sample, images=sample.images[:600], labels=sample.labels[:600])
    config = TrainConfig(features="gradients", gradients_grid=3, epochs=2, l2="auto")  # type: ignore[arg-type]
    chosen, path = choose_l2(config, few)
    assert path[0].validation_loss > path[1].validation_loss
    assert chosen.l2 < VALUES[0]


def test_the_choice_and_the_path_are_in_the_result_the_log_and_info(
    work: Path, invoke: Callable[..., Result]
) -> None:
    line = ("train", "--dataset", "sample", "--solver", "newton", "--l2", "auto", "--log", "log.jsonl")
    result = invoke(*line, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["l2"] in [point["l2"] for point in found["l2_path"]]
    assert f"l2 {found['l2']:g}: validation" in result.stderr
    first, *others = map(json.loads, Path("log.jsonl").read_text().splitlines())
    assert (first["l2"], first["l2_path"]) == (found["l2"], found["l2_path"])
    assert not any("l2" in line for line in others)
    assert json.loads(invoke("info", "--json").stdout)["l2_path"] == found["l2_path"]
    assert f"{found['l2']:g}, chosen by validation loss from 0.01 (" in invoke("info").stdout
    assert invoke("train", "--resume", "--l2", "auto").exit_code == 0


def test_bad_values_are_refused(work: Path, invoke: Callable[..., Result], sample: Dataset) -> None:
    assert_fails(
        invoke("train", "--dataset", "sample", "--l2", "auto", "--validation-size", 0),
        "l2 auto needs validation images",
        code=2,
    )
    assert invoke("train", "--l2", "best").exit_code == 2
    with pytest.raises(ConfigError, match="l2 must be a number, not 'best'"):
        TrainConfig(l2="best")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="l2 auto is not a number yet"):
        start(NEWTON, sample)
