"""Compare softmax with other trainers; write RESULTS.md and results.svg.

    python benchmarks/run.py --data FOLDER [--quick] [--only NAME ...] [--section NAME ...] [--runs 5]

Every measurement is a whole process. This one imports neither numpy nor a trainer, because Linux includes the
memory of the parent process at the start of a child in the child's peak memory.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

HERE = Path(__file__).resolve().parent
PICTURE = HERE.parent / "tests" / "pictures" / "seven.png"
OPTIMUM = 0.259248295
"""F*, the minimum of the objective on MNIST with l2 = 1e-4, computed in float64."""

TARGETS = (1e-3, 1e-4)
"""Relative distances from the optimum, (F − F*) / F*."""

SGD_EPOCHS = 10
SECTIONS = ("optimum", "sgd", "startup", "epoch")


@dataclass(frozen=True)
class Trainer:
    """A trainer: its command line, and the range of iterations to search."""

    name: str
    title: str
    unit: str
    package: str | None = None
    solver: str | None = None
    first: int = 1
    last: int = 4096
    note: str = ""

    def command(self, cache: Path, output: Path, iterations: int) -> list[str]:
        """Return the command line that trains and saves the weights."""
        if self.solver:
            return train_command(cache, output, self.solver, iterations)
        script = HERE / "peers" / f"{self.name}.py"
        return [sys.executable, str(script), str(cache / "mnist"), str(output), str(iterations)]


@dataclass(frozen=True)
class Run:
    """Time and peak memory of one process."""

    seconds: float
    mebibytes: float
    failure: str = ""


@dataclass(frozen=True)
class Trial:
    """A training run and the scores of its weights.

    The distance is infinite if the run failed.
    """

    iterations: int
    run: Run
    distance: float
    accuracy: float


@dataclass
class Search:
    """All runs of a trainer, and the shortest that reached each target."""

    trainer: Trainer
    trials: dict[int, Trial] = field(default_factory=dict)
    best: dict[float, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """Settings of the benchmark: folders, number of runs, limit in seconds."""

    cache: Path
    scratch: Path
    runs: int
    limit: float

    def trial(self, trainer: Trainer, iterations: int) -> Trial:
        """Train in one process, then evaluate the weights in another."""
        output = self.scratch / "weights.npz"
        output.unlink(missing_ok=True)
        result = run(trainer.command(self.cache, output, iterations), self.limit)
        if result.failure:
            say(f"{trainer.name} {iterations}: {result.failure}")
            return Trial(iterations, result, float("inf"), 0.0)
        score = report([sys.executable, str(HERE / "score.py"), str(self.cache / "mnist"), str(output)])
        distance = (score["objective"] - OPTIMUM) / OPTIMUM
        say(
            f"{trainer.name} {iterations}: {result.seconds:.2f} s, {result.mebibytes:.0f} MiB, "
            f"{distance:.2e} from the optimum, accuracy {score['accuracy']:.4f}"
        )
        return Trial(iterations, result, distance, score["accuracy"])


TRAINERS = (
    Trainer("softmax", "softmax, newton", "iterations", solver="newton", last=128),
    Trainer("softmax_sgd", "softmax, sgd", "epochs", solver="sgd"),
    Trainer("sklearn_lbfgs", "scikit-learn, lbfgs", "iterations", "scikit-learn", first=16),
    Trainer("sklearn_saga", "scikit-learn, saga", "epochs", "scikit-learn"),
    Trainer("sklearnex_lbfgs", "scikit-learn-intelex, lbfgs", "iterations", "scikit-learn-intelex", first=16),
    Trainer("torch_sgd", "PyTorch, sgd on tensors", "epochs", "torch"),
    Trainer("torch_dataloader", "PyTorch, sgd with DataLoader", "epochs", "torch"),
    Trainer("torch_lbfgs", "PyTorch, LBFGS", "iterations", "torch", first=16),
    Trainer(
        "mlpack_lbfgs",
        "mlpack, softmax_regression",
        "iterations",
        "mlpack",
        note="its penalty includes the bias, and its start is random",
    ),
    Trainer(
        "vw_oaa",
        "Vowpal Wabbit, one against all",
        "passes",
        "vowpalwabbit",
        first=4,
        last=64,
        note="it has no softmax loss and minimises another objective, one logistic loss per class",
    ),
)
SGD_NAMES = ("softmax_sgd", "torch_sgd", "torch_dataloader")
PACKAGES = ("numpy", "scikit-learn", "scikit-learn-intelex", "torch", "mlpack", "vowpalwabbit")


def say(text: str) -> None:
    """Print progress to stderr."""
    print(text, file=sys.stderr, flush=True)


def train_command(cache: Path, output: Path, solver: str, epochs: int) -> list[str]:
    """Return the command line of this program."""
    line = f"-m softmax_cli train --dataset mnist --offline --solver {solver} --validation-size 0 -q"
    return [
        sys.executable,
        *line.split(),
        "--epochs",
        str(epochs),
        "--data-dir",
        str(cache),
        "-o",
        str(output),
    ]


def run(command: list[str], limit: float) -> Run:
    """Run a command for at most `limit` seconds; return its time and peak memory."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}  # compile once
    with tempfile.TemporaryFile() as errors:
        begin = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=errors)
        timer = threading.Timer(limit, process.kill)
        timer.start()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        lines = errors.read().decode(errors="replace").strip().splitlines()
    unit = 1 if sys.platform == "darwin" else 1024
    return Run(seconds, usage.ru_maxrss * unit / 2**20, _failure(process.returncode, seconds, limit, lines))


def _failure(code: int, seconds: float, limit: float, lines: list[str]) -> str:
    if code == 0:
        return ""
    if seconds >= limit:
        return f"stopped after {limit:.0f} s"
    return f"failed: {lines[-1] if lines else f'exit code {code}'}"


def report(command: list[str]) -> dict[str, float]:
    """Run an untimed helper and return the JSON object that it prints."""
    result: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return result


def version(package: str) -> str | None:
    """Return the version of an installed package, else None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def is_installed(trainer: Trainer) -> bool:
    """Return whether the package of a trainer is installed."""
    return trainer.package is None or version(trainer.package) is not None


def interleave(bench: Bench, cases: list[tuple[Trainer, int]]) -> list[list[Trial]]:
    """Run all cases in turn, A B C A B C ..., and return the trials of each."""
    rounds = [[bench.trial(*case) for case in cases] for _ in range(bench.runs)]
    return [list(trials) for trials in zip(*rounds, strict=True)] if cases else []


# To the optimum


def search(bench: Bench, trainer: Trainer) -> Search:
    """Return a search: double the iterations, then bisect for each target.

    The iterations are doubled until the last target is reached. The bisection ends at an interval of about a
    tenth.
    """
    found = Search(trainer)
    iterations = trainer.first
    while iterations <= trainer.last:
        trial = found.trials[iterations] = bench.trial(trainer, iterations)
        if trial.distance <= min(TARGETS) or trial.run.failure:
            break
        growth = min(2.0, 0.9 * bench.limit / trial.run.seconds)  # so that the last run stays below the limit
        if growth < 1.1:
            break
        iterations = max(iterations + 1, int(growth * iterations))
    for target in TARGETS:
        _bisect(bench, found, target)
    return found


def _bisect(bench: Bench, found: Search, target: float) -> None:
    reached = [n for n, trial in found.trials.items() if trial.distance <= target]
    if not reached:
        return
    high = min(reached)
    low = max((n for n in found.trials if n < high), default=0)
    while high - low > max(1, high // 10):
        middle = (low + high) // 2
        trial = found.trials[middle] = bench.trial(found.trainer, middle)
        low, high = (low, middle) if trial.distance <= target else (middle, high)
    found.best[target] = high


def optimum_section(bench: Bench, trainers: list[Trainer], output: Path) -> list[str]:
    """Return the table of times to the optimum, and draw the plot."""
    searches = [search(bench, trainer) for trainer in trainers if is_installed(trainer)]
    cases = [(found.trainer, target) for found in searches for target in found.best]
    best = {found.trainer.name: found.best for found in searches}
    timed = interleave(bench, [(trainer, best[trainer.name][target]) for trainer, target in cases])
    trials = {(trainer.name, target): runs for (trainer, target), runs in zip(cases, timed, strict=True)}
    draw(searches, output)
    lines = [
        "| trainer | within | shortest run | seconds: median (least to most) | times softmax | peak MiB |",
        "|---|---|---|---|---|---|",
    ]
    lines += [optimum_row(found, target, trials, bench.limit) for target in TARGETS for found in searches]
    lines += [
        f"| {trainer.title} | | not installed | | | |" for trainer in trainers if not is_installed(trainer)
    ]
    notes = [f"- {found.trainer.title}: {found.trainer.note}." for found in searches if found.trainer.note]
    return [*lines, "", *notes, *([""] if notes else []), "![](results.svg)"]


def optimum_row(
    found: Search, target: float, trials: dict[tuple[str, float], list[Trial]], limit: float
) -> str:
    """Return one line of the table, for a trainer and a target."""
    trainer = found.trainer
    head = f"| {trainer.title} | {target:.0e}"
    runs = trials.get((trainer.name, target))
    if not runs:
        return f"{head} | {_best_of(found, limit)} | | | |"
    ours = trials.get((TRAINERS[0].name, target))
    ratio = f"{_median_seconds(runs) / _median_seconds(ours):.1f}" if ours else ""
    misses = sum(trial.distance > target for trial in runs)
    missed = f"; {misses} of {len(runs)} runs missed" if misses else ""
    return (
        f"{head} | {found.best[target]} {trainer.unit}{missed} | {seconds_text(runs)} | {ratio} "
        f"| {_median_memory(runs):.0f} |"
    )


def _best_of(found: Search, limit: float) -> str:
    """Return the closest distance of a trainer that did not reach a target."""
    ended = [trial for trial in found.trials.values() if not trial.run.failure]
    if not ended:
        return next(iter(found.trials.values())).run.failure
    best = min(ended, key=lambda trial: trial.distance)
    most = max(ended, key=lambda trial: trial.iterations)
    return (
        f"not reached: {best.distance:.1e} after {best.iterations} {found.trainer.unit}, "
        f"{best.run.seconds:.0f} s (searched to {most.iterations}; at most {limit:.0f} s a run)"
    )


def draw(searches: list[Search], output: Path) -> None:
    """Plot the trials of each search, if matplotlib is installed."""
    if version("matplotlib") is None:
        say("matplotlib is not installed: no plot")
        return
    points = {
        found.trainer.title: [
            (trial.run.seconds, trial.distance)
            for trial in found.trials.values()
            if not trial.run.failure and trial.distance > 0
        ]
        for found in searches
    }
    lines = json.dumps({title: line for title, line in points.items() if line})
    command = [sys.executable, str(HERE / "plot.py"), str(output / "results.svg")]
    subprocess.run(command, input=lines, text=True, check=True)


def _median_seconds(trials: Iterable[Trial]) -> float:
    return statistics.median(trial.run.seconds for trial in trials)


def _median_memory(trials: Iterable[Trial]) -> float:
    return statistics.median(trial.run.mebibytes for trial in trials)


def seconds_text(trials: list[Trial]) -> str:
    """Return the median and the range of the seconds of some runs."""
    seconds = [trial.run.seconds for trial in trials]
    return f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"


# The same work


def sgd_section(bench: Bench, trainers: list[Trainer], _: Path) -> list[str]:
    """Return the table of ten epochs of gradient descent by each trainer."""
    chosen = [trainer for trainer in trainers if trainer.name in SGD_NAMES]
    present = [trainer for trainer in chosen if is_installed(trainer)]
    for trainer in present:
        bench.trial(trainer, 1)  # fills the caches; not counted
    timed = interleave(bench, [(trainer, SGD_EPOCHS) for trainer in present])
    lines = [
        "| trainer | seconds: median (least to most) | times softmax | peak MiB | test accuracy | distance |",
        "|---|---|---|---|---|---|",
    ]
    ours = next((trials for trainer, trials in zip(present, timed, strict=True) if trainer.solver), None)
    lines += [sgd_row(trainer, trials, ours) for trainer, trials in zip(present, timed, strict=True)]
    return lines + [
        f"| {trainer.title} | not installed | | | | |" for trainer in chosen if trainer not in present
    ]


def sgd_row(trainer: Trainer, trials: list[Trial], ours: list[Trial] | None) -> str:
    """Return one line of the table."""
    failure = next((trial.run.failure for trial in trials if trial.run.failure), "")
    if failure:
        return f"| {trainer.title} | {failure} | | | | |"
    ratio = f"{_median_seconds(trials) / _median_seconds(ours):.1f}" if ours else ""
    accuracy = statistics.median(trial.accuracy for trial in trials)
    distance = statistics.median(trial.distance for trial in trials)
    memory = _median_memory(trials)
    return (
        f"| {trainer.title} | {seconds_text(trials)} | {ratio} | {memory:.0f} | {100 * accuracy:.2f} % "
        f"| {distance:.1e} |"
    )


# Start-up


def startup_section(bench: Bench, _: list[Trainer], __: Path) -> list[str]:
    """Return the table of start-up times against those of the imports alone."""
    softmax, model = str(Path(sys.executable).parent / "softmax"), str(bench.scratch / "model.npz")
    check(run(train_command(bench.cache, Path(model), "sgd", 1), bench.limit))
    pairs = {
        "`softmax --help`": ([softmax, "--help"], "import click"),
        "`softmax predict PICTURE`": (
            [softmax, "predict", str(PICTURE), "--checkpoint", model],
            "import numpy, click, PIL.Image",
        ),
    }
    lines = ["| command | seconds | imports alone | seconds | ratio |", "|---|---|---|---|---|"]
    for title, (command, imports) in pairs.items():
        ours, least = _alternate(command, [sys.executable, "-c", imports], 4 * bench.runs)
        lines.append(f"| {title} | {ours:.3f} | `python -c '{imports}'` | {least:.3f} | {ours / least:.2f} |")
    return lines


def _alternate(first: list[str], second: list[str], runs: int) -> tuple[float, float]:
    """Return the median seconds of two commands that run alternately.

    The first run of each is not counted.
    """
    rounds = [[check(run(command, 60)).seconds for command in (first, second)] for _ in range(runs + 1)]
    ours, least = (statistics.median(seconds) for seconds in zip(*rounds[1:], strict=True))
    return ours, least


def check(result: Run) -> Run:
    """Return a run that succeeded; exit if it failed."""
    if result.failure:
        sys.exit(f"softmax {result.failure}")
    return result


# An epoch and its floor


def epoch_section(bench: Bench, _: list[Trainer], __: Path) -> list[str]:
    """Return the table of the time of an epoch against its matrix products.

    They run on one thread, as in the program, and on all.
    """
    lines = [
        "| threads | epoch of `fit`, ms | its two matrix products alone, ms | ratio |",
        "|---|---|---|---|",
    ]
    command = [sys.executable, str(HERE / "epoch.py"), str(bench.cache), str(4 * bench.runs)]
    for threads in (1, os.cpu_count()):
        names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
        environment = os.environ | dict.fromkeys(names, str(threads))
        output = subprocess.run(command, env=environment, check=True, capture_output=True).stdout
        epoch, floor = (1000 * statistics.median(json.loads(output)[name]) for name in ("epoch", "floor"))
        lines.append(f"| {threads} | {epoch:.1f} | {floor:.1f} | {epoch / floor:.2f} |")
    return lines


# The page

Section = Callable[[Bench, list[Trainer], Path], list[str]]
PARTS: dict[str, tuple[str, Section]] = {
    "optimum": ("To the optimum", optimum_section),
    "sgd": (f"The same {SGD_EPOCHS} epochs of gradient descent", sgd_section),
    "startup": ("Start-up", startup_section),
    "epoch": ("An epoch and its floor", epoch_section),
}


def machine() -> list[str]:
    """Return a description of the machine and of the versions."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    versions = [f"{name} {version(name)}" for name in PACKAGES if version(name)]
    system = platform.system()
    return [
        f"- {processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, {system}",
        f"- softmax {version('softmax-regression')}, Python {platform.python_version()}, "
        f"{', '.join(versions)}",
        f"- {date.today().isoformat()}; load average at the start {os.getloadavg()[0]:.1f}",
    ]


def processor() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    names = [trainer.name for trainer in TRAINERS]
    parser.add_argument("--data", type=Path, required=True, help="cache folder, with MNIST's files in mnist/")
    parser.add_argument("--quick", action="store_true", help="one run of each, and at most 20 s for a run")
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--section", nargs="+", choices=SECTIONS, default=SECTIONS, help="parts to measure")
    parser.add_argument("--runs", type=int, default=5, help="runs per median [5]")
    parser.add_argument("--limit", type=float, default=180, help="largest number of seconds per run [180]")
    parser.add_argument("--output", type=Path, default=HERE, help="folder for RESULTS.md and results.svg")
    return parser.parse_args(arguments)


def main() -> None:
    """Measure, and write the results."""
    options = parse()
    runs, limit = (1, min(options.limit, 20.0)) if options.quick else (options.runs, options.limit)
    trainers = [trainer for trainer in TRAINERS if not options.only or trainer.name in options.only]
    page = ["# Results", "", *machine(), f"- medians of {runs} interleaved runs of whole processes"]
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(options.data.resolve(), Path(scratch), runs, limit)
        # unpack .gz files, verify the digests and fill the caches
        check(run(train_command(bench.cache, Path(scratch, "first.npz"), "sgd", 1), limit))
        for name in options.section:
            title, section = PARTS[name]
            say(f"# {title}")
            page += ["", f"## {title}", "", *section(bench, trainers, options.output)]
    (options.output / "RESULTS.md").write_text("\n".join([*page, ""]), encoding="utf-8")
    say(f"wrote {options.output / 'RESULTS.md'}")


if __name__ == "__main__":
    main()
