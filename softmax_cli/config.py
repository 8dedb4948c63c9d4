"""The configuration of a training run: `TrainConfig`, and its TOML form.

All defaults are those of `TrainConfig`.

The registries of solvers and feature stages are here, so that `softmax train --help` and TOML files know
them without importing numpy. The solver NAME is the module ``softmax_cli.solvers.NAME``, the stage NAME the
module ``softmax_cli.features.NAME``.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from softmax_cli.errors import ConfigError
from softmax_cli.files import open_regular

DEFAULT_CHECKPOINT = Path("model.npz")
"""Default checkpoint file of all commands."""


AUTO = "auto"
"""Value of `l2` that stands for the one with the lowest validation loss."""

TOML_LIMIT = 1 << 14
"""Bytes that a TOML file may have."""


class SolverFacts(NamedTuple):
    """Properties of a solver that the rest of the package needs.

    Attributes:
        title: What it is, for the help of ``--solver``.
        epochs: Default number of epochs.
        unit: What `epochs` counts.
        tolerance: Estimated relative distance from the optimum at which the solver has converged; None if
            it runs for a given number of epochs.
        keeps_best: Keep the weights of the epoch with the lowest validation loss, not the last ones;
            required by ``--patience``.
        uses_learning_rate: Use ``--learning-rate`` and its schedule; then the number of epochs of a run
            cannot change, unless the schedule is constant.
        remedy: What to try if training diverges.
        uses_full_passes: Nearly all of its work is in passes over all images, which a cluster can do.
    """

    title: str
    epochs: int
    unit: str
    tolerance: float | None
    keeps_best: bool
    uses_learning_rate: bool
    remedy: str
    uses_full_passes: bool = False


SOLVERS = {
    "sgd": SolverFacts(
        title="mini-batch gradient descent",
        epochs=10,
        unit="epoch",
        tolerance=None,
        keeps_best=True,
        uses_learning_rate=True,
        remedy="choose a smaller --learning-rate (or --l2)",
    ),
    "newton": SolverFacts(
        title="second order, runs to convergence",
        epochs=100,
        unit="iteration",
        tolerance=1e-5,
        keeps_best=False,
        uses_learning_rate=False,
        remedy="raise --l2",
        uses_full_passes=True,
    ),
}
"""The registry of solvers."""


class StageFacts(NamedTuple):
    """Properties of a feature stage that the configuration needs.

    Attributes:
        title: What it computes, for the help of ``--features``.
        redraws: The stage maps images to images, so that it precedes the stages that do not.
        needs_images: The stage maps images to features, and only images.
        l2: Default of `l2` for features with this stage; None for that of the stage before it, or 1e-4.
    """

    title: str
    redraws: bool = False
    needs_images: bool = False
    l2: float | None = None


STAGES = {
    "deskew": StageFacts("images sheared until they stand upright", redraws=True),
    "normalize": StageFacts("images normalised by moments", redraws=True),
    "gradients": StageFacts("gradient directions by region", needs_images=True, l2=1e-6),
    "pca": StageFacts("principal components"),
    "fourier": StageFacts("random Fourier features of a Gaussian kernel", l2=1e-6),
}
"""The registry of feature stages."""

DEFAULT_L2 = 1e-4
"""Default of `l2`, unless the last feature stage has one of its own."""

ALIASES = {"pixels": (), "fourier": ("deskew", "fourier")}
"""Values of `features` that stand for a pipeline of other stages."""


def _listed(registry: Mapping[str, SolverFacts | StageFacts]) -> str:
    return ", ".join(f"{name} ({facts.title})" for name, facts in registry.items())


def _option(default: Any, help: str, **metadata: Any) -> Any:
    return field(default=default, metadata={"help": help, **metadata})


def _stage_option(stage: str, default: Any, help: str, **metadata: Any) -> Any:
    """Return the field of an option that only one stage reads; it is None if the stage is absent.

    With ``flag=False``, it is a key of TOML files, but no option of the command line.
    """
    return field(default=None, metadata={"help": help, "stage": stage, "shown": default, **metadata})


@dataclass(frozen=True)
class TrainConfig:
    """All options that determine the weights of a training run.

    `features` may be given as text (``"deskew,fourier"``) or as a list of names.

    Raises:
        ConfigError: A value is not valid. The message names the option, the value and what is valid.
    """

    dataset: str = _option(
        "auto",
        "auto, mnist, fashion-mnist, sample, or a path: pictures, IDX, .npz, .csv, .parquet.",
    )
    solver: str = _option("sgd", f"{_listed(SOLVERS)}.", choices=SOLVERS)
    features: str = _option("pixels", f"pixels, or stages in order, separated by commas: {_listed(STAGES)}.")
    gradients_grid: int = _stage_option(
        "gradients", 7, "Number of regions along each side.", minimum=1, maximum=100, flag=False
    )
    gradients_sigma: float = _stage_option(
        "gradients",
        1.6,
        "Standard deviation of the Gaussian weights of a region, in 28ths of the side.",
        minimum=0.1,
        maximum=28,
        flag=False,
    )
    pca_dimension: int = _stage_option(
        "pca", 128, "Number of principal components.", minimum=1, maximum=10_000, flag=False
    )
    fourier_dimension: int = _stage_option(
        "fourier", 4000, "Number of random Fourier features.", minimum=1, maximum=100_000
    )
    fourier_bandwidth: float = _stage_option(
        "fourier",
        0.5,
        "Width of the Gaussian kernel, as a multiple of the root-mean-square distance between two inputs.",
        minimum=0.001,
        maximum=1000,
    )
    fourier_smoothing: float = _stage_option(
        "fourier",
        1.0,
        "Standard deviation, in pixels, of the smoothing of images; 0 for none.",
        minimum=0,
        maximum=100,
        hidden=True,
    )
    augment: bool = _option(False, "Distort the training images at random, anew in every epoch.")
    epochs: int = _option(
        None,
        "Passes over the images, or the largest number of iterations of a solver that converges.",
        minimum=1,
        maximum=5_000,
        shown=", ".join(f"{facts.epochs} with {name}" for name, facts in SOLVERS.items()),
    )
    batch_size: int = _option(256, "Images per step.", minimum=1, limit=10**30)
    learning_rate: float = _option(
        0.5,
        "Initial learning rate; the same value suits all features.",
        minimum=0,
        limit=1e80,
        exclusive=True,
    )
    momentum: float = _option(0.9, "Momentum, in [0, 1).", minimum=0, below=1)
    schedule: str = _option("cosine", "Learning-rate schedule.", choices=("cosine", "linear", "constant"))
    l2: float = _option(
        None,
        "L2 regularization: l2/2 times the squared weights is added to the loss; auto chooses l2 by "
        "validation loss.",
        minimum=0,
        word=AUTO,
        limit=1e10,
        shown=", ".join(
            [f"{DEFAULT_L2:g}", *(f"{one.l2:g} with {name}" for name, one in STAGES.items() if one.l2)]
        ),
    )
    validation_size: float = _option(
        0.1, "Fraction of the training images used for validation, in [0, 1).", minimum=0, below=1
    )
    patience: int = _option(
        0, "Stop after this many epochs without a lower validation loss (0: never).", minimum=0, limit=5_000
    )
    calibrate: bool = _option(False, "Fit a temperature to the validation images to calibrate probabilities.")
    seed: int = _option(
        0,
        "Seed of the validation split, the order of the images, random features and distortions.",
        minimum=0,
        limit=2**128,
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", _canonical(_pipeline(self.features)))
        _checked("solver", self.solver, str, {"choices": tuple(SOLVERS)})
        stages, solver = self.stages, SOLVERS[self.solver]
        self._fill_in("epochs", solver.epochs)
        self._fill_in(
            "l2", next((one.l2 for name in reversed(stages) if (one := STAGES[name]).l2), DEFAULT_L2)
        )
        for item in fields(self):
            stage, value = item.metadata.get("stage"), getattr(self, item.name)
            if stage in stages:
                self._fill_in(item.name, item.metadata["shown"])
            elif stage and value is not None:
                raise ConfigError(
                    f"{option_name(item.name)} needs the feature stage {stage}, but features is "
                    f"{self.features}; leave it out"
                )
        for item in fields(self):
            value = getattr(self, item.name)
            if value is not None or "stage" not in item.metadata:
                object.__setattr__(self, item.name, _checked(item.name, value, item.type, item.metadata))
        self._check_combinations()

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of the feature stages, in order; none for pixels."""
        return _pipeline(self.features)

    @property
    def chooses_l2(self) -> bool:
        """Whether l2 is still to be chosen (see `softmax_cli.regularization`)."""
        return isinstance(self.l2, str)

    def _check_combinations(self) -> None:
        """Raise `ConfigError` for options that exclude each other."""
        converges = SOLVERS[self.solver].tolerance is not None
        if self.patience and not SOLVERS[self.solver].keeps_best:
            raise ConfigError(
                f"patience has no effect with solver {self.solver}, which does not keep the best epoch; "
                "leave it out"
            )
        if self.augment and converges:
            raise ConfigError(
                f"augment has no effect with solver {self.solver}, which converges to the optimum for fixed "
                "images; use solver sgd"
            )
        if self.patience and not self.validation_size:
            raise ConfigError(
                f"patience {self.patience} needs validation images: give a validation-size above 0, "
                "or patience 0"
            )
        if self.chooses_l2 and not self.validation_size:
            raise ConfigError("l2 auto needs validation images: give a validation-size above 0")
        if self.calibrate and not self.validation_size:
            raise ConfigError("calibrate needs validation images: give a validation-size above 0")

    def _fill_in(self, name: str, default: Any) -> None:
        """Set a field whose default depends on others, if it was not given."""
        if getattr(self, name) is None:
            object.__setattr__(self, name, default)


def _pipeline(features: Any) -> tuple[str, ...]:
    """Return the stages that a value of `features` names.

    `pixels` is left out, because pixels are always the input.
    """
    names = features.split(",") if isinstance(features, str) else features
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"features must be text or a list of names, not {features!r}")
    names = [name.strip() for name in names]
    if "pixels" in names[1:]:
        raise ConfigError(f"features {','.join(names)}: pixels can only come first")
    if len(names) == 1 and names[0] in ALIASES:
        return ALIASES[names[0]]
    names = names[1:] if names[:1] == ["pixels"] else names
    for name in names:
        if name not in STAGES:
            raise ConfigError(f"unknown feature stage {name!r}{_suggestion(name, ('pixels', *STAGES))}")
    if len(set(names)) < len(names):
        raise ConfigError(f"features {','.join(names)} names a stage twice")
    redraws = [STAGES[name].redraws for name in names]
    if redraws != sorted(redraws, reverse=True):
        first = names[redraws.index(False)]
        raise ConfigError(f"features {','.join(names)}: stages that redraw images must come before {first}")
    return tuple(names)


def _canonical(stages: tuple[str, ...]) -> str:
    """Return the canonical text of a pipeline; it contains no alias of stages."""
    text = ",".join(stages) or "pixels"
    return f"pixels,{text}" if len(stages) == 1 and text in ALIASES else text


def find_config(name: str) -> Path:
    """Return the path of a TOML file.

    It is `name` if that ends in ``.toml``, else that of a packaged file.

    Raises:
        ConfigError: No packaged file has this name.
    """
    if name.endswith(".toml"):
        return Path(name)
    package = Path(__file__).parent
    folders = (package / "configs", package.parent / "configs")  # of an installation, of a source tree
    known = {path.stem: path for folder in reversed(folders) for path in sorted(folder.glob("*.toml"))}
    if name not in known:
        raise ConfigError(
            f"unknown config {name!r}{_suggestion(name, known)}; for a file, give a name that ends in .toml"
        )
    return known[name]


def read_toml(path: str | Path) -> dict[str, Any]:
    """Return the overrides in a TOML file, whose keys are the fields of `TrainConfig`.

    Raises:
        ConfigError: The file cannot be read, is not TOML, or has a key that is not a field.
    """
    import tomllib

    with open_regular(Path(path), ConfigError) as file:
        content = file.read(TOML_LIMIT + 1)
    if len(content) > TOML_LIMIT:
        raise ConfigError(f"{path} has more than {TOML_LIMIT:,} bytes, too many for a configuration")
    try:
        overrides = tomllib.loads(content.decode("utf-8-sig"))  # skips a byte order mark
        repr(overrides)  # or a message could not: Python does not print integers of 5,000 digits
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    known = [item.name for item in fields(TrainConfig)]
    for key in overrides:
        if key not in known:
            raise ConfigError(f"{path}: unknown key {key!r}{_suggestion(key, known)}")
    return overrides


def continued(saved: TrainConfig, given: dict[str, Any]) -> TrainConfig:
    """Return the config that continues a run: `saved` with the overrides `given`.

    Only patience may change, and the number of epochs if the learning rate does not depend on it: with a
    constant schedule, or a solver that uses no learning rate.

    Raises:
        ConfigError: Another value differs. The message names both values.
    """
    free = {"patience"}
    if saved.schedule == "constant" or not SOLVERS[saved.solver].uses_learning_rate:
        free.add("epochs")
    if "features" in given:
        given = given | {"features": _canonical(_pipeline(given["features"]))}
    for key, now in given.items():
        before = getattr(saved, key)
        if before is None and now is not None:
            raise ConfigError(
                f"the run to resume has features {saved.features}, which have no {option_name(key)}; "
                "leave it out"
            )
        if before != now and key not in free:
            raise ConfigError(
                f"the run to resume has {option_name(key)} {before}, but {_brief(now)} was given; "
                f"{_way_out(key, now)}"
            )
    return replace(saved, **given)


def _way_out(key: str, value: Any) -> str:
    """Return advice for a run that cannot be resumed with another value."""
    remedy = (
        f"leave it out, or start a new run with --{option_name(key)} {_brief(value)} and without --resume"
    )
    if key == "epochs":
        remedy += (
            " (the cosine schedule depends on the number of epochs; with --schedule constant it may grow)"
        )
    return remedy


def option_name(key: str) -> str:
    """Return the name of a field on the command line, without leading dashes."""
    return key.replace("_", "-")


def _suggestion(key: str, known: Iterable[str]) -> str:
    import difflib

    near = difflib.get_close_matches(key.replace("-", "_"), known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; expected one of {', '.join(known)}"


def _brief(value: Any) -> str:
    """Return a value for a message; Python refuses to print integers of thousands of digits."""
    if type(value) is int and value.bit_length() > 100:
        return f"a number of {value.bit_length()} bits"
    return str(value)


def _checked(key: str, value: Any, kind: Any, rules: Any) -> Any:
    """Return a valid value, as a float if the field is one.

    Raises:
        ConfigError: The value is not valid.
    """
    name = option_name(key)
    if "word" in rules and value == rules["word"]:
        return value
    if kind is float and type(value) is int:
        try:
            value = float(value)  # TOML's 1 stands for 1.0
        except OverflowError as error:
            raise ConfigError(f"{name} must be finite, not a number of {value.bit_length()} bits") from error
    if type(value) is not kind:
        word = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}[kind]
        raise ConfigError(
            f"{name} must be {word}, not {_brief(value) if type(value) is int else repr(value)}"
        )
    if kind is float and not math.isfinite(value):
        raise ConfigError(f"{name} must be finite, not {value!r}")
    if "choices" in rules and value not in rules["choices"]:
        raise ConfigError(f"{name} must be {' or '.join(rules['choices'])}, not {value!r}")
    if "minimum" not in rules:
        return value
    if value > rules.get("limit", math.inf):
        raise ConfigError(f"{name} must be at most {rules['limit']:,}, not {_brief(value)}")
    minimum, maximum, below = (rules.get(key, math.inf) for key in ("minimum", "maximum", "below"))
    too_low = value <= minimum if rules.get("exclusive") else value < minimum
    if too_low or value > maximum or value >= below:
        least = f"above {minimum}" if rules.get("exclusive") else f"at least {minimum}"
        most = f" and at most {maximum:,}" if maximum < math.inf else f" and below {below}"
        raise ConfigError(f"{name} must be {least}{most.removesuffix(' and below inf')}, not {_brief(value)}")
    return value
