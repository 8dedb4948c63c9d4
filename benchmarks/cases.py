"""What is measured: a table of cases."""

from collections.abc import Iterator
from dataclasses import dataclass

OPTIMUM = 0.259248295
"""F*, the minimum of the objective on MNIST with l2 = 1e-4, computed in float64."""

LADDER = ("quick", "deskew", "gradients", "fast", "best")
"""Configurations of softmax, from the fastest to the most accurate."""

ALL, ONE, BUSY = "all cores", "one core", "one core taken"

SOFTMAX, SKLEARN, SKLEARNEX, TORCH = "softmax-regression", "scikit-learn", "scikit-learn-intelex", "torch"

Command = tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """A row of a table, or a part of a row: commands that run one after the other.

    Attributes:
        section: Table that the case belongs to.
        title: Name of the row.
        commands: Command lines with ``{placeholders}`` for paths, see `__main__.paths`.
        runs: Number of rounds in which the case runs.
        seconds: Expected time of a run, to estimate the remaining time.
        package: Package that must be installed.
        variant: Part of the row, if it has several.
        work: How much the commands do, such as "4 iterations".
        target: Distance from the optimum, (F − F*) / F*, that must be reached.
        result: Result of the commands: ``file`` is {output}, ``stdout`` a JSON object. Both have an accuracy.
        load: Cores to run on.
        items: Number of images that are classified.
    """

    section: str
    title: str
    commands: tuple[Command, ...]
    runs: int
    seconds: float
    package: str = SOFTMAX
    variant: str = ""
    work: str = ""
    target: float | None = None
    result: str = ""
    load: str = ALL
    items: int = 0


def train(*options: str, seed: str = "0") -> Command:
    """Return the command that trains softmax on all training images."""
    data = ("--dataset", "mnist", "--data-dir", "{cache}", "--offline")
    return ("{softmax}", "train", *data, "--quiet", "--output", "{output}", "--seed", seed, *options)


def sgd(epochs: int) -> Command:
    """Return the command that trains softmax on pixels by gradient descent."""
    return train("--epochs", str(epochs), "--validation-size", "0")


def newton(iterations: int) -> Command:
    """Return the command that trains softmax on pixels by Newton's method."""
    return train("--solver", "newton", "--epochs", str(iterations), "--validation-size", "0")


def evaluate(model: str) -> Command:
    """Return the command that evaluates a model on the test images."""
    return ("{softmax}", "eval", model, "--data-dir", "{cache}", "--offline", "--json")


def peer(script: str, number: int) -> Command:
    """Return the command that runs another trainer."""
    return ("{python}", f"{{peers}}/{script}.py", "{mnist}", "{output}", str(number))


def optimum() -> Iterator[Case]:
    """Yield the cases to the optimum.

    The numbers of iterations are close to the smallest that reach the target. They were found once. The
    report marks a run that misses the target.
    """
    for target, title, package, command, work, seconds in (
        (1e-3, "softmax, newton", SOFTMAX, newton(3), "3 iterations", 1),
        (1e-3, "softmax, sgd", SOFTMAX, sgd(28), "28 epochs", 3),
        (1e-3, "scikit-learn-intelex, lbfgs", SKLEARNEX, peer("sklearnex_lbfgs", 93), "93 iterations", 9),
        (1e-3, "scikit-learn, lbfgs", SKLEARN, peer("sklearn_lbfgs", 154), "154 iterations", 20),
        (1e-3, "PyTorch, LBFGS", TORCH, peer("torch_lbfgs", 154), "154 iterations", 28),
        (1e-4, "softmax, newton", SOFTMAX, newton(4), "4 iterations", 1),
        (1e-4, "softmax, sgd", SOFTMAX, sgd(136), "136 epochs", 12),
        (1e-4, "scikit-learn-intelex, lbfgs", SKLEARNEX, peer("sklearnex_lbfgs", 126), "126 iterations", 11),
        (1e-4, "scikit-learn, lbfgs", SKLEARN, peer("sklearn_lbfgs", 214), "214 iterations", 24),
        (1e-4, "PyTorch, LBFGS", TORCH, peer("torch_lbfgs", 212), "212 iterations", 39),
    ):
        runs, within = 5 if seconds == 1 else 3, f"{target:.0e}"
        yield Case(
            "optimum", title, (command,), runs, seconds, package, within, work, target=target, result="file"
        )


def epochs() -> Iterator[Case]:
    """Yield the cases of ten epochs of gradient descent."""
    for title, package, command, seconds in (
        ("softmax, sgd", SOFTMAX, sgd(10), 1),
        ("PyTorch, sgd on tensors", TORCH, peer("torch_sgd", 10), 4),
        ("PyTorch, sgd with DataLoader", TORCH, peer("torch_dataloader", 10), 7),
    ):
        yield Case("epochs", title, (command,), 5, seconds, package, result="file")


def accuracy() -> Iterator[Case]:
    """Yield the cases of accuracy against time; the seed of softmax is the round."""
    for name, seconds in zip(LADDER, (1, 3, 2, 4, 20), strict=True):
        commands = (train("--config", name, seed="{round}"), evaluate("{output}"))
        yield Case("accuracy", f"softmax, {name}", commands, 3, seconds, result="stdout")
    for title, package, command, seconds in (
        ("Nyström, 500 features", SKLEARN, peer("sklearn_nystroem", 500), 10),
        ("Nyström, 2000 features", SKLEARN, peer("sklearn_nystroem", 2000), 60),
        ("k nearest neighbours", SKLEARN, peer("sklearn_neighbors", 3), 15),
        ("SVC, scikit-learn", SKLEARN, peer("sklearn_svc", 5), 300),
        ("SVC, scikit-learn-intelex", SKLEARNEX, peer("sklearnex_svc", 5), 45),
    ):
        yield Case("accuracy", title, (command,), 1, seconds, package, result="file")


def startup() -> Iterator[Case]:
    """Yield the cases of start-up: a command, and its imports alone."""
    picture = ("{softmax}", "predict", "{picture}", "--checkpoint")
    for title, command, imports in (
        ("`softmax --help`", ("{softmax}", "--help"), "import click"),
        ("`softmax predict`, pixels", (*picture, "{work}/quick.npz"), "import numpy, click, PIL.Image"),
        ("`softmax predict`, best", (*picture, "{work}/best.npz"), "import numpy, click, PIL.Image"),
    ):
        yield Case("startup", title, (command,), 20, 0.15, variant="command")
        yield Case("startup", title, (("{python}", "-c", imports),), 20, 0.1, variant=f"`{imports}`")


def throughput() -> Iterator[Case]:
    """Yield the cases of predictions of many images."""
    for source, path, items in (
        ("1,000 PNG files", "{work}/pictures", 1000),
        ("CSV file with 10,000 rows", "{work}/test.csv", 10_000),
    ):
        for model in ("quick", "best"):
            command = ("{softmax}", "predict", path, "-c", f"{{work}}/{model}.npz", "-o", "{output}.csv")
            yield Case("throughput", f"{source}, model {model}", (command,), 5, 1, items=items)


def cores() -> Iterator[Case]:
    """Yield the cases on all cores, on one core, and on all cores of which another process takes one."""
    for title, command, runs, seconds in (
        ("newton, 4 iterations", newton(4), 5, 1),
        ("newton, to convergence", train("--config", "exact"), 5, 1.5),
        ("sgd, 10 epochs", sgd(10), 5, 1),
        ("eval, 10,000 images", evaluate("{work}/quick.npz"), 5, 0.3),
        ("fast", train("--config", "fast"), 3, 5),
        ("best", train("--config", "best"), 2, 25),
    ):
        for load in (ALL, ONE, BUSY):
            yield Case("cores", title, (command,), runs, seconds, variant=load, load=load)


def baseline(softmax: str, name: str) -> Iterator[Case]:
    """Yield the run that defines T, of another version of softmax, and those that are compared with it."""
    command = train("--epochs", "10", "--validation-size", "0")
    yield Case("baseline", f"T: {name}, sgd, 10 epochs", ((softmax, *command[1:]),), 11, 1.2)
    for title, ours, seconds in (
        ("newton, to 1e-3", newton(3), 1),
        ("newton, to 1e-4", newton(4), 1),
        ("sgd, 10 epochs", sgd(10), 1),
        ("eval, 10,000 images", evaluate("{work}/quick.npz"), 0.3),
    ):
        yield Case("baseline", title, (ours,), 11, seconds)


def table(other: tuple[str, str] | None = None) -> list[Case]:
    """Return all cases in the order of the report.

    `other` is the path and the name of another version of softmax to compare with.
    """
    compared = list(baseline(*other)) if other else []
    return [
        *optimum(),
        *epochs(),
        *accuracy(),
        *startup(),
        *throughput(),
        *cores(),
        *compared,
    ]
