"""What a run may be asked to do, and what it may not."""

from pathlib import Path
from typing import Any

import pytest

from softmax_cli.config import TrainConfig, continued, read_toml
from softmax_cli.errors import ConfigError


def test_the_defaults_are_those_of_the_documentation() -> None:
    config = TrainConfig()
    assert (config.epochs, config.batch_size, config.learning_rate, config.momentum) == (10, 256, 0.5, 0.9)
    assert (config.schedule, config.l2, config.validation_size, config.patience) == ("cosine", 1e-4, 0.1, 0)
    assert (config.dataset, config.seed) == ("auto", 0)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("epochs", 0, "epochs must be at least 1 and at most 5,000, not 0"),
        ("epochs", 5001, "at most 5,000, not 5001"),
        ("epochs", 2.5, "epochs must be a whole number, not 2.5"),
        ("epochs", True, "must be a whole number"),
        ("batch_size", -1, "batch-size must be at least 1, not -1"),
        ("learning_rate", 0, "learning-rate must be above 0, not 0"),
        ("learning_rate", float("nan"), "learning-rate must be finite, not nan"),
        ("learning_rate", float("inf"), "must be finite"),
        ("learning_rate", -0.1, "above 0"),
        ("learning_rate", "fast", "learning-rate must be a number, not 'fast'"),
        ("momentum", 1.0, "momentum must be at least 0 and below 1, not 1.0"),
        ("l2", -1e-9, "l2 must be at least 0"),
        ("schedule", "step", "schedule must be cosine or constant, not 'step'"),
        ("validation_size", 1.0, "below 1"),
        ("patience", -1, "at least 0"),
        ("seed", -1, "at least 0"),
        ("dataset", 3, "dataset must be text, not 3"),
    ],
)
def test_a_value_without_meaning_is_refused(key: str, value: Any, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        TrainConfig(**{key: value})


def test_patience_needs_something_to_watch() -> None:
    with pytest.raises(ConfigError, match="patience 3 needs a validation split"):
        TrainConfig(patience=3, validation_size=0)


def test_toml_holds_overrides_only(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("# nothing but\nepochs = 3\nlearning_rate = 1\n")
    assert read_toml(path) == {"epochs": 3, "learning_rate": 1}
    assert TrainConfig(**read_toml(path)).learning_rate == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("epoch = 3", "unknown key 'epoch'; did you mean 'epochs'"),
        ("batch-size = 3", "unknown key 'batch-size'; did you mean 'batch_size'"),
        ("zebra = 1", "unknown key 'zebra'; the keys are dataset, "),
        ("epochs =", "is not valid TOML"),
        ("\x00", "is not valid TOML"),
    ],
)
def test_toml_that_cannot_be_used_is_refused(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=reason):
        read_toml(path)


def test_a_config_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_toml(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="is a directory"):
        read_toml(tmp_path)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"learning_rate": 0.1}, "learning-rate 0.5, but 0.1"),
        ({"epochs": 20}, "epochs 10, but 20"),
        ({"seed": 1, "patience": 2}, "seed 0, but 1"),
        ({"schedule": "constant", "epochs": 20}, "schedule cosine, but constant"),
    ],
)
def test_a_run_goes_on_as_it_began(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        continued(TrainConfig(), given)


def test_a_run_may_go_on_with_other_patience_or_if_constant_with_more_epochs() -> None:
    assert continued(TrainConfig(), {"patience": 5, "seed": 0}) == TrainConfig(patience=5)
    constant = TrainConfig(schedule="constant")
    assert continued(constant, {"epochs": 30}).epochs == 30
    with pytest.raises(ConfigError, match="at least 1"):
        continued(constant, {"epochs": 0})
