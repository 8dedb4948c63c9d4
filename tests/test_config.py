"""Limits, defaults and TOML form of `TrainConfig`; changes of a resumed run."""

import math
from dataclasses import FrozenInstanceError, asdict, fields
from pathlib import Path
from typing import Any

import pytest

from softmax_cli.config import TrainConfig, continued, find_config, option_name, read_toml
from softmax_cli.errors import ConfigError


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("learning_rate", math.nan, "learning-rate must be finite, not nan"),
        ("learning_rate", math.inf, "learning-rate must be finite, not inf"),
        ("learning_rate", -math.inf, "learning-rate must be finite, not -inf"),
        ("learning_rate", 0.0, "learning-rate must be above 0, not 0.0"),
        ("learning_rate", -0.5, "learning-rate must be above 0, not -0.5"),
        ("learning_rate", "0.5", "learning-rate must be a number, not '0.5'"),
        ("learning_rate", True, "learning-rate must be a number, not True"),
        pytest.param(
            "learning_rate", 10**400, "learning-rate must be finite, not a number of", id="too long"
        ),
        ("momentum", math.nan, "momentum must be finite, not nan"),
        ("momentum", -0.1, "momentum must be at least 0 and below 1, not -0.1"),
        ("momentum", 1.0, "momentum must be at least 0 and below 1, not 1.0"),
        ("l2", math.nan, "l2 must be finite, not nan"),
        ("l2", math.inf, "l2 must be finite, not inf"),
        ("l2", -1e-9, "l2 must be at least 0, not -1e-09"),
        ("validation_size", math.nan, "validation-size must be finite, not nan"),
        ("validation_size", -0.1, "validation-size must be at least 0 and below 1, not -0.1"),
        ("validation_size", 1, "validation-size must be at least 0 and below 1, not 1"),
        ("epochs", 0, "epochs must be at least 1 and at most 5,000, not 0"),
        ("epochs", 5001, "epochs must be at least 1 and at most 5,000, not 5001"),
        ("epochs", 1.0, "epochs must be a whole number, not 1.0"),
        ("epochs", False, "epochs must be a whole number, not False"),
        ("batch_size", 0, "batch-size must be at least 1, not 0"),
        ("batch_size", "256", "batch-size must be a whole number, not '256'"),
        ("patience", -1, "patience must be at least 0, not -1"),
        ("seed", -1, "seed must be at least 0, not -1"),
        ("seed", None, "seed must be a whole number, not None"),
        ("schedule", "step", "schedule must be cosine or linear or constant, not 'step'"),
        ("schedule", 1, "schedule must be text, not 1"),
        ("dataset", ["mnist"], "dataset must be text, not ['mnist']"),
        ("solver", "adam", "solver must be sgd or newton, not 'adam'"),
        (
            "features",
            "",
            "unknown feature stage ''; expected one of pixels, deskew, normalize, gradients, pca, fourier",
        ),
        (
            "features",
            "edges",
            "unknown feature stage 'edges'; expected one of pixels, deskew, normalize, gradients, ",
        ),
        ("features", "deskew,furier", "unknown feature stage 'furier'; did you mean 'fourier'?"),
        ("features", ["deskew,fourier"], "unknown feature stage 'deskew,fourier'"),
        ("features", "deskew,deskew", "features deskew,deskew names a stage twice"),
        (
            "features",
            "fourier,deskew",
            "features fourier,deskew: stages that redraw images must come before fourier",
        ),
        ("features", "deskew,pixels", "features deskew,pixels: pixels can only come first"),
        ("features", None, "features must be text or a list of names, not None"),
        ("features", ["deskew", 1], "features must be text or a list of names, not ['deskew', 1]"),
        ("calibrate", 1, "calibrate must be true or false, not 1"),
    ],
)
def test_an_invalid_value_is_refused(key: str, value: Any, message: str) -> None:
    """The message contains the name of the option on the command line, the valid values and the value."""
    with pytest.raises(ConfigError) as caught:
        TrainConfig(**{key: value})
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "given",
    [
        {"learning_rate": 1e-300},
        {"learning_rate": 1},
        {"momentum": 0},
        {"momentum": 0.999},
        {"l2": 0.0},
        {"validation_size": 0},
        {"validation_size": 0.999},
        {"epochs": 1, "batch_size": 1},
        {"epochs": 5000},
        {"patience": 1},
        {"seed": 2**64},
        {"schedule": "constant"},
    ],
)
def test_a_value_at_its_limit_is_accepted(given: dict[str, Any]) -> None:
    config = TrainConfig(**given)
    assert {key: getattr(config, key) for key in given} == given


@pytest.mark.parametrize("given", [{"patience": 3}, {"calibrate": True}])
def test_some_options_need_validation_images(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"needs validation images: give a validation-size above 0"):
        TrainConfig(validation_size=0, **given)


def test_defaults_are_unchanged() -> None:
    """A changed default changes every result; therefore the defaults are repeated here."""
    assert asdict(TrainConfig()) == {
        "dataset": "auto",
        "solver": "sgd",
        "features": "pixels",
        "gradients_grid": None,
        "gradients_sigma": None,
        "pca_dimension": None,
        "fourier_dimension": None,
        "fourier_bandwidth": None,
        "fourier_smoothing": None,
        "augment": False,
        "epochs": 10,
        "batch_size": 256,
        "learning_rate": 0.5,
        "momentum": 0.9,
        "schedule": "cosine",
        "l2": 1e-4,
        "validation_size": 0.1,
        "patience": 0,
        "calibrate": False,
        "seed": 0,
    }
    fourier = {"fourier_dimension": 4000, "fourier_bandwidth": 0.5, "fourier_smoothing": 1.0, "l2": 1e-6}
    for text in ("deskew,fourier", "pixels,fourier"):
        expected = asdict(TrainConfig()) | fourier | {"features": text}
        assert asdict(TrainConfig(features=text)) == expected
    assert asdict(TrainConfig(solver="newton")) == asdict(TrainConfig()) | {"solver": "newton", "epochs": 100}


@pytest.mark.parametrize(
    ("given", "features", "stages"),
    [
        ("pixels", "pixels", ()),
        ("deskew", "deskew", ("deskew",)),
        ("pixels,deskew", "deskew", ("deskew",)),
        ("fourier", "deskew,fourier", ("deskew", "fourier")),
        ("deskew, fourier", "deskew,fourier", ("deskew", "fourier")),
        ("pixels,fourier", "pixels,fourier", ("fourier",)),
    ],
)
def test_features_have_one_spelling(given: str, features: str, stages: tuple[str, ...]) -> None:
    """A list, as in TOML, and a text give equal configs; `fourier` alone includes deskewing."""
    config = TrainConfig(features=given)
    assert (config.features, config.stages) == (features, stages)
    assert TrainConfig(features=given.split(",")) == TrainConfig(features=features) == config
    assert continued(config, {"features": given}) == config


@pytest.mark.parametrize("key", ["fourier_dimension", "fourier_bandwidth", "fourier_smoothing"])
def test_an_option_of_an_absent_stage_is_refused(key: str) -> None:
    message = f"{option_name(key)} needs the feature stage fourier, but features is deskew; leave it out"
    with pytest.raises(ConfigError, match=f"^{message}$"):
        TrainConfig(features="deskew", **{key: 2})
    assert getattr(TrainConfig(features="fourier", **{key: 2}), key) == 2


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("dimension", 0, "fourier-dimension must be at least 1 and at most 100,000, not 0"),
        ("dimension", 100_001, "fourier-dimension must be at least 1 and at most 100,000, not 100001"),
        ("bandwidth", 1e-4, "fourier-bandwidth must be at least 0.001 and at most 1,000, not 0.0001"),
        ("bandwidth", 1e4, "fourier-bandwidth must be at least 0.001 and at most 1,000, not 10000.0"),
        ("bandwidth", math.inf, "fourier-bandwidth must be finite, not inf"),
        ("smoothing", -1, "fourier-smoothing must be at least 0 and at most 100, not -1.0"),
    ],
)
def test_an_invalid_option_of_a_stage_is_refused(key: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}$"):
        TrainConfig(features="fourier", **{f"fourier_{key}": value})


def test_a_config_cannot_change() -> None:
    with pytest.raises(FrozenInstanceError):
        TrainConfig().epochs = 3  # type: ignore[misc]


def test_every_field_has_a_help_text() -> None:
    assert all(item.metadata["help"].endswith(".") for item in fields(TrainConfig))


def test_option_names_have_dashes() -> None:
    assert option_name("learning_rate") == "learning-rate"


# TOML


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        ("", {}),
        ('features = ["deskew", "fourier"]\n', {"features": ["deskew", "fourier"]}),
        ("# nothing\n", {}),
        ("epochs = 20\nlearning_rate = 1\n", {"epochs": 20, "learning_rate": 1}),
        ('dataset = "Zahlen/größer"\nmomentum = 0.5\n', {"dataset": "Zahlen/größer", "momentum": 0.5}),
    ],
)
def test_toml_holds_overrides_only(tmp_path: Path, text: str, overrides: dict[str, Any]) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text, encoding="utf-8")
    assert read_toml(path) == overrides
    assert TrainConfig(**read_toml(path)) == TrainConfig(**overrides)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"learning_rte = 1\n", "unknown key 'learning_rte'; did you mean 'learning_rate'?"),
        (b"learning-rate = 1\n", "unknown key 'learning-rate'; did you mean 'learning_rate'?"),
        (b"[train]\nepochs = 1\n", "unknown key 'train'"),
        (
            b"xyzzy = 1\n",
            "unknown key 'xyzzy'; expected one of dataset, solver, features, gradients_grid",
        ),
        (b"epochs = \n", "is not valid TOML"),
        (b"epochs = 1\nepochs = 2\n", "is not valid TOML"),
        (b'dataset = "\xff"\n', "is not valid TOML"),
        (b"\x00", "is not valid TOML"),
        (b"seed = " + b"9" * 5000, "is not valid TOML"),
    ],
)
def test_invalid_toml_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_toml(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-1", "0", "true", '"fast"', "[1]", "1979-05-27"])
def test_an_invalid_value_in_toml_is_refused(tmp_path: Path, value: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(f"learning_rate = {value}\n")
    with pytest.raises(ConfigError, match=r"^learning-rate must be "):
        TrainConfig(**read_toml(path))


@pytest.mark.parametrize(("name", "reason"), [("none.toml", "no such file"), ("", "is a folder")])
def test_toml_that_cannot_be_read_is_refused(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        read_toml(tmp_path / name)


def test_a_packaged_config_is_found_by_its_name() -> None:
    """A name that ends in ``.toml`` is a path."""
    assert TrainConfig(**read_toml(find_config("exact"))).solver == "newton"
    assert find_config("exact.toml") == Path("exact.toml")
    with pytest.raises(ConfigError, match=r"unknown config 'exakt'; did you mean 'exact'\?"):
        find_config("exakt")


# Resumed runs


@pytest.mark.parametrize(
    ("given", "before", "now"),
    [
        ({"learning_rate": 0.25}, "learning-rate 0.5", "0.25"),
        ({"batch_size": 128}, "batch-size 256", "128"),
        ({"momentum": 0.5}, "momentum 0.9", "0.5"),
        ({"l2": 0.0}, "l2 0.0001", "0.0"),
        ({"seed": 7}, "seed 0", "7"),
        ({"validation_size": 0.2}, "validation-size 0.1", "0.2"),
        ({"schedule": "constant"}, "schedule cosine", "constant"),
        ({"epochs": 20}, "epochs 10", "20"),
        ({"epochs": 20, "schedule": "constant"}, "10", "20"),
        ({"patience": 3, "seed": 7}, "seed 0", "7"),
        ({"features": "fourier"}, "features pixels", "deskew,fourier"),
        ({"calibrate": True}, "calibrate False", "True"),
    ],
)
def test_a_resumed_run_refuses_another_value(given: dict[str, Any], before: str, now: str) -> None:
    """The message contains the option, the value of the run and the given value."""
    with pytest.raises(ConfigError, match=f"the run to resume has .*{before}, but {now} was given"):
        continued(TrainConfig(), given)


def test_a_resumed_run_of_pixels_refuses_options_of_other_features() -> None:
    with pytest.raises(ConfigError, match="features pixels, which have no fourier-dimension; leave it out"):
        continued(TrainConfig(), {"fourier_dimension": 9})


def test_a_resumed_run_accepts_the_values_that_it_has() -> None:
    saved = TrainConfig(epochs=4, learning_rate=1.0, seed=3, schedule="constant")
    assert continued(saved, {}) == saved
    assert continued(saved, asdict(saved)) == saved
    assert continued(saved, {"learning_rate": 1}) == saved


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_a_resumed_run_may_change_its_patience(schedule: str) -> None:
    saved = TrainConfig(schedule=schedule, seed=3)
    assert continued(saved, {"patience": 2}) == TrainConfig(schedule=schedule, seed=3, patience=2)


@pytest.mark.parametrize("given", [{"schedule": "constant"}, {"solver": "newton"}])
@pytest.mark.parametrize("epochs", [1, 20])
def test_a_resumed_run_may_change_its_epochs_if_no_rate_depends_on_them(
    given: dict[str, Any], epochs: int
) -> None:
    """With the cosine schedule, the learning rate of each step depends on the number of epochs."""
    assert continued(TrainConfig(**given), {"epochs": epochs}) == TrainConfig(**given, epochs=epochs)


@pytest.mark.parametrize(
    ("saved", "given"),
    [
        (TrainConfig(), {"patience": -1}),
        (TrainConfig(schedule="constant"), {"epochs": 0}),
        (TrainConfig(validation_size=0.0), {"patience": 2}),
        (TrainConfig(), {"seed": -1}),
    ],
)
def test_a_resumed_run_refuses_an_invalid_value(saved: TrainConfig, given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=option_name(next(iter(given)))):
        continued(saved, given)
