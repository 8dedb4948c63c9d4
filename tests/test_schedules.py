"""Learning-rate schedules by their formulas, and the packaged configurations that use them."""

import math
from pathlib import Path

import pytest

from softmax_cli.config import TrainConfig, find_config, read_toml
from softmax_cli.errors import ConfigError
from softmax_cli.solvers.sgd import learning_rate

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.toml"))


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("linear", [0.8, 0.6, 0.4, 0.2]),
        ("cosine", [0.4 * (1 + math.cos(angle)) for angle in (0, math.pi / 4, math.pi / 2, 3 * math.pi / 4)]),
        ("constant", [0.8, 0.8, 0.8, 0.8]),
    ],
)
def test_the_learning_rate_follows_the_schedule(schedule: str, rates: list[float]) -> None:
    config = TrainConfig(schedule=schedule, learning_rate=0.8)
    assert [learning_rate(step, 4, config) for step in range(4)] == pytest.approx(rates)


def test_other_schedules_are_refused() -> None:
    with pytest.raises(ConfigError, match="schedule must be cosine or linear or constant, not 'step'"):
        TrainConfig(schedule="step")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_configuration_states_its_purpose_its_command_and_what_to_expect(path: Path) -> None:
    """It is found by name, and holds overrides that are valid and differ from the defaults."""
    purpose, command, expected, *_ = path.read_text(encoding="utf-8").splitlines()
    assert purpose.startswith("# Purpose: ")
    assert command == f"# Command: softmax train --config {path.stem}"
    assert expected.startswith("# Expected: ")
    overrides = read_toml(find_config(path.stem))
    config = TrainConfig(**overrides)
    defaults = TrainConfig(solver=config.solver, features=config.features)
    assert all(
        getattr(defaults, key) != value
        for key, value in overrides.items()
        if key not in ("features", "solver")
    )
