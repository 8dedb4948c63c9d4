"""Measure all cases, then write RESULTS.md and results.svg. An interrupted run continues where it stopped."""

import argparse
import itertools
import json
import math
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timedelta
from os import getloadavg
from pathlib import Path

from benchmarks import cases, measure, records, report
from benchmarks.cases import Case
from benchmarks.records import Record

HERE = Path(__file__).resolve().parent

LOADS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    cases.ALL: nullcontext,
    cases.ONE: measure.one_core,
    cases.BUSY: measure.one_core_busy,
}

EVALUATION = 1.5
"""Expected seconds to evaluate the result of a case, which are not measured."""

Round = tuple[Case, int]
Paths = dict[str, str]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the file of measurements does not contain, and write the results."""
    options = parse(arguments)
    table = cases.table(baseline(options.baseline) if options.baseline else None)
    chosen = [case for case in table if not options.section or case.section in options.section]
    options.output.mkdir(parents=True, exist_ok=True)
    setup, file = records.setup(), options.output / "results.jsonl"
    rounds = remaining(order(chosen, options.runs), setup, records.load(file))
    with tempfile.TemporaryDirectory() as work:
        if rounds:
            where = paths(options.data.resolve(), Path(work))
            prepare(where)
            measure_all(rounds, setup, where, file, options.limit)
    report.write(options.output, table, setup, records.load(file))
    say(f"wrote {options.output / 'RESULTS.md'}")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="cache folder, with MNIST's files in mnist/")
    parser.add_argument("--baseline", type=Path, help="command `softmax` of another version to compare with")
    parser.add_argument("--section", nargs="+", choices=report.SECTIONS, help="parts to measure [all]")
    parser.add_argument("--runs", type=int, default=sys.maxsize, help="largest number of runs of each case")
    parser.add_argument(
        "--limit", type=float, default=420, help="largest number of seconds of a process [420]"
    )
    parser.add_argument("--output", type=Path, default=HERE, help="folder of the results")
    options = parser.parse_args(arguments)
    if not (options.data / "mnist").is_dir():
        parser.error(f"{options.data / 'mnist'} is not a folder; softmax download --data-dir {options.data}")
    if options.baseline and not options.baseline.is_file():
        parser.error(
            f"--baseline {options.baseline}: no such file; name the command softmax of another version"
        )
    return options


def baseline(softmax: Path) -> tuple[str, str]:
    """Return the path and the name of another version, such as "softmax 0.1.0"."""
    return str(softmax.absolute()), untimed([str(softmax), "--version"])


def order(chosen: Sequence[Case], runs: int) -> Iterator[Round]:
    """Yield cases and rounds, interleaved within each section: A B C A B C ...

    Other load of the machine then affects all cases of a section equally.
    """
    for _, group in itertools.groupby(chosen, lambda case: case.section):
        section = list(group)
        for number in range(max(min(case.runs, runs) for case in section)):
            yield from ((case, number) for case in section if number < min(case.runs, runs))


def remaining(rounds: Iterator[Round], setup: Record, known: Sequence[Record]) -> list[Round]:
    """Return the rounds that are not in the records and whose package is installed."""
    return [
        (case, number)
        for case, number in rounds
        if records.version(case.package) and not records.find(known, case, setup, number)
    ]


def paths(cache: Path, work: Path) -> Paths:
    """Return the placeholders of the commands of all cases, except ``{round}``."""
    return {
        "python": sys.executable,
        "softmax": str(Path(sys.executable).with_name("softmax")),
        "cache": str(cache),
        "mnist": str(cache / "mnist"),
        "work": str(work),
        "output": str(work / "output.npz"),
        "peers": str(HERE / "peers"),
        "picture": str(HERE.parent / "tests" / "pictures" / "seven.png"),
    }


def prepare(where: Paths) -> None:
    """Check the environment, train the models that are evaluated and write the images that are classified.

    The first training also unpacks the files of MNIST and verifies their digests.
    """
    script = "import softmax_cli; print(softmax_cli.__file__)"
    package = Path(untimed([where["python"], "-P", "-c", script]))  # -P: not from the current folder
    if not package.is_relative_to(HERE.parent):
        sys.exit(f"softmax is imported from {package.parent}: pip install --editable {HERE.parent}")
    for name in ("quick", "best"):
        say(f"prepare: train {name}")
        command = cases.train("--config", name)
        untimed([part.format(**where | {"output": f"{where['work']}/{name}.npz"}) for part in command])
    untimed([where["python"], str(HERE / "prepare.py"), where["mnist"], where["work"]])


def measure_all(rounds: Sequence[Round], setup: Record, where: Paths, file: Path, limit: float) -> None:
    """Measure and record all rounds, with a line of progress for each."""
    seen = {records.name(record): record["seconds"] for record in records.load(file)}
    for done, (case, number) in enumerate(rounds):
        left = timedelta(seconds=round(sum(expected(rest, seen) for rest, _ in rounds[done:])))
        title = (
            f"[{done + 1}/{len(rounds)}, {left} left] {case.section}: {case.title} {case.variant}".rstrip()
        )
        result = measure_case(case, number, where, limit)
        say(f"{title}, round {number + 1}: {describe(result)}")
        if not result["failure"].startswith("failed"):
            found = records.key(case) | {"round": number, "setup": setup} | result
            seen[records.name(found)] = result["seconds"]
            records.append(file, found)


def expected(case: Case, seen: dict[records.Name, float]) -> float:
    """Return the expected seconds of a round: those of the last one, and of the evaluation of the result."""
    return seen.get(records.name(records.key(case)), case.seconds) + EVALUATION * bool(case.result)


def measure_case(case: Case, number: int, where: Paths, limit: float) -> Record:
    """Run the commands of a case, and evaluate their result."""
    for path in Path(where["work"]).glob("output.*"):
        path.unlink()
    load, runs = getloadavg()[0], []
    with LOADS[case.load]():
        for command in case.commands:
            runs.append(measure.run([part.format(**where, round=number) for part in command], limit))
            if runs[-1].failure:
                break
    measured = {
        "seconds": round(sum(run.seconds for run in runs), 4),
        "processor": round(sum(run.processor for run in runs), 4),
        "mebibytes": round(max(run.mebibytes for run in runs), 1),
        "failure": runs[-1].failure,
        "load": round(load, 2),
        "time": f"{datetime.now():%Y-%m-%d %H:%M}",
    }
    return measured | ({} if runs[-1].failure else scores(case, runs[-1].output, where))


def scores(case: Case, output: str, where: Paths) -> Record:
    """Return the accuracy, and the objective if there is one, of what a case trained."""
    if case.result == "file":
        output = untimed([where["python"], str(HERE / "score.py"), where["mnist"], where["output"]])
    found = json.loads(output) if case.result else {}
    return {name: found[name] for name in ("accuracy", "objective") if name in found}


def describe(result: Record) -> str:
    """Return a result as text."""
    if result["failure"]:
        return str(result["failure"])
    text = f"{result['seconds']:.2f} s, {result['mebibytes']:.0f} MiB"
    if "accuracy" in result:
        text += f", accuracy {result['accuracy']:.4f}"
    if "objective" in result:
        text += f", {report.distance(result):.1e} from the optimum"
    return text


def untimed(command: Sequence[str]) -> str:
    """Run a command that is not measured, and return its output."""
    found = measure.run(command, math.inf)
    if found.failure:
        sys.exit(f"{' '.join(command)} {found.failure}")
    return found.output


def say(text: str) -> None:
    """Print progress to stderr."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command continues")
