"""What a training run is: `TrainConfig`, the only home of every default, and its TOML form."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from softmax_cli.errors import ConfigError, reason

DEFAULT_CHECKPOINT = Path("model.npz")
"""Where `train` writes and the other commands read, unless told otherwise."""

FOURIER_DEFAULTS = {"fourier_dimension": 4000, "fourier_bandwidth": 3.5, "fourier_smoothing": 1.0}
"""What is asked of Fourier features, where nothing else is; other features have no use for it."""


def _option(default: Any, help: str, **metadata: Any) -> Any:
    return field(default=default, metadata={"help": help, **metadata})


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a training run learns; two equal configs learn the same weights.

    Raises `ConfigError` for a value that has no meaning, naming the option, the value and what would do.
    """

    dataset: str = _option("auto", "auto, mnist, fashion-mnist, sample, or a folder with four IDX files.")
    solver: str = _option(
        "sgd", "Gradient descent, or, after a little of it, to the very optimum.", choices=("sgd", "newton")
    )
    features: str = _option(
        "pixels",
        "What is weighed: pixels, deskewed pixels, or random Fourier features of these.",
        choices=("pixels", "deskew", "fourier"),
    )
    fourier_dimension: int = _option(
        None,
        "How many Fourier features.",
        minimum=1,
        maximum=100_000,
        shown=FOURIER_DEFAULTS["fourier_dimension"],
    )
    fourier_bandwidth: float = _option(
        None,
        "Distance between images, pixels in [0, 1], at which they count as different.",
        minimum=0.001,
        maximum=1000,
        shown=FOURIER_DEFAULTS["fourier_bandwidth"],
    )
    fourier_smoothing: float = _option(
        None,
        "Pixels by which images are smoothed before their distance is taken; 0 for not at all.",
        minimum=0,
        maximum=100,
        shown=FOURIER_DEFAULTS["fourier_smoothing"],
    )
    epochs: int = _option(
        None,
        "Passes over the images; with newton, iterations at most.",
        minimum=1,
        maximum=5_000,
        shown="10, newton 100",
    )
    batch_size: int = _option(256, "Images per step.", minimum=1)
    learning_rate: float = _option(
        0.5,
        "Size of the first step along the gradient, suited to the features.",
        minimum=0,
        exclusive=True,
    )
    momentum: float = _option(0.9, "Share of the last step that is kept, in [0, 1).", minimum=0, below=1)
    schedule: str = _option("cosine", "How the learning rate goes on.", choices=("cosine", "constant"))
    l2: float = _option(
        None,
        "Weight decay: l2/2 times the squared weights joins the loss.",
        minimum=0,
        shown="1e-4, fourier 1e-6",
    )
    validation_size: float = _option(
        0.1, "Share of the training images held out, in [0, 1).", minimum=0, below=1
    )
    patience: int = _option(
        0, "Stop after this many epochs without a lower validation loss (0: never).", minimum=0
    )
    calibrate: bool = _option(
        False, "Fit a temperature to the images held out, so that probabilities mean what they say."
    )
    seed: int = _option(0, "Decides the split, the order of the images, the Fourier features.", minimum=0)

    def __post_init__(self) -> None:
        is_fourier = self.features == "fourier"
        for key, default in FOURIER_DEFAULTS.items():
            if is_fourier:
                self._fill_in(key, default)
            elif getattr(self, key) is not None:
                raise ConfigError(
                    f"{option_name(key)} is for features fourier, not {self.features}; leave it out"
                )
        self._fill_in("epochs", 100 if self.solver == "newton" else 10)
        self._fill_in("l2", 1e-6 if is_fourier else 1e-4)
        for item in fields(self):
            value = getattr(self, item.name)
            if value is not None or item.default is not None:
                value = _checked(item.name, value, item.type, item.metadata)
                object.__setattr__(self, item.name, value)
        if self.patience and self.solver == "newton":
            raise ConfigError("patience is for solver sgd; newton stops by itself, at the optimum")
        if self.patience and not self.validation_size:
            raise ConfigError(
                f"patience {self.patience} needs a validation split to watch: "
                "give a validation-size above 0, or patience 0"
            )
        if self.calibrate and not self.validation_size:
            raise ConfigError("calibrate needs images held out to fit to: give a validation-size above 0")

    def _fill_in(self, name: str, default: Any) -> None:
        """Set a field whose default depends on others, where nothing was given."""
        if getattr(self, name) is None:
            object.__setattr__(self, name, default)


def read_toml(path: Path) -> dict[str, Any]:
    """Return the overrides in a TOML file, whose keys are the fields of `TrainConfig`.

    Raises `ConfigError` where the file cannot be read, is not TOML, or holds a key that is no field.
    """
    import tomllib

    try:
        overrides = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {reason(error)}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    known = [item.name for item in fields(TrainConfig)]
    for key in overrides:
        if key not in known:
            raise ConfigError(f"{path}: unknown key {key!r}{_suggestion(key, known)}")
    return overrides


def continued(saved: TrainConfig, given: dict[str, Any]) -> TrainConfig:
    """Return the config with which a run that was trained with `saved` goes on, if `given` is asked of it.

    Only patience may change, and the number of epochs where the learning rate does not depend on it: with
    a constant schedule, or newton. Raises `ConfigError` naming both values for anything else that differs.
    """
    free = {"patience"}
    if saved.schedule == "constant" or saved.solver == "newton":
        free.add("epochs")
    for key, now in given.items():
        before = getattr(saved, key)
        if before is None and now is not None:
            raise ConfigError(
                f"the run to resume has features {saved.features}, which have no {option_name(key)}; "
                "leave it out"
            )
        if before != now and key not in free:
            raise ConfigError(
                f"the run to resume has {option_name(key)} {before}, but {now} was given; "
                "leave it out, or start a new run without --resume"
            )
    return replace(saved, **given)


def option_name(key: str) -> str:
    """Return a field's name as it is spelled on the command line, without the dashes before it."""
    return key.replace("_", "-")


def _suggestion(key: str, known: Iterable[str]) -> str:
    import difflib

    near = difflib.get_close_matches(key.replace("-", "_"), known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; the keys are {', '.join(known)}"


def _checked(key: str, value: Any, kind: Any, rules: Any) -> Any:
    """Return the value, as a float where one is wanted; raise `ConfigError` if it will not do."""
    name = option_name(key)
    if kind is float and type(value) is int:
        try:
            value = float(value)  # TOML's 1 is as good as 1.0
        except OverflowError as error:
            raise ConfigError(f"{name} must be finite, not a number of {value.bit_length()} bits") from error
    if type(value) is not kind:
        word = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}[kind]
        raise ConfigError(f"{name} must be {word}, not {value!r}")
    if kind is float and not math.isfinite(value):
        raise ConfigError(f"{name} must be finite, not {value!r}")
    if "choices" in rules and value not in rules["choices"]:
        raise ConfigError(f"{name} must be {' or '.join(rules['choices'])}, not {value!r}")
    if "minimum" not in rules:
        return value
    minimum, maximum, below = (rules.get(key, math.inf) for key in ("minimum", "maximum", "below"))
    too_low = value <= minimum if rules.get("exclusive") else value < minimum
    if too_low or value > maximum or value >= below:
        least = f"above {minimum}" if rules.get("exclusive") else f"at least {minimum}"
        most = f" and at most {maximum:,}" if maximum < math.inf else f" and below {below}"
        raise ConfigError(f"{name} must be {least}{most.removesuffix(' and below inf')}, not {value}")
    return value
