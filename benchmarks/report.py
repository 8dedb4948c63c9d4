"""Write RESULTS.md and the data of the plot from the records."""

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import cases, records
from benchmarks.cases import Case
from benchmarks.records import Record

PLOT = Path(__file__).resolve().parent / "plot.py"


class Row(NamedTuple):
    """A case and its records."""

    case: Case
    found: list[Record]
    problem: str

    @property
    def key(self) -> tuple[str, str]:
        """Return the title and the variant, which no other case of the section has."""
        return self.case.title, self.case.variant


Rows = list[Row]


def write(output: Path, table: Sequence[Case], setup: dict[str, Any], known: Sequence[Record]) -> None:
    """Write RESULTS.md and results.svg into a folder."""
    page = ["# Results", "", *header(setup, known)]
    for section, (title, lines) in SECTIONS.items():
        rows = [row(case, setup, known) for case in table if case.section == section]
        if any(one.found for one in rows):
            page += ["", f"## {title}", "", *lines(rows)]
        if section == "accuracy":
            plot(output / "results.svg", rows)
    page += cluster(output / "cluster.jsonl")
    (output / "RESULTS.md").write_text("\n".join([*page, ""]), "utf-8")


def row(case: Case, setup: dict[str, Any], known: Sequence[Record]) -> Row:
    """Return a case with its records, and the reason if there is nothing to show."""
    found = records.find(known, case, setup)
    stopped = [record["failure"] for record in found if record["failure"]]
    absent = "not measured" if records.version(case.package) else "not installed"
    return Row(case, found, stopped[0] if stopped else "" if found else absent)


def header(setup: dict[str, Any], known: Sequence[Record]) -> list[str]:
    """Return a description of the machine, the versions and the load."""
    found = [record for record in known if record["setup"] == setup]
    versions = ", ".join(f"{name} {number}" for name, number in setup["packages"].items())
    lines = [
        f"- {setup['machine']}",
        f"- softmax {setup['softmax']} (commit {setup['commit']}), Python {setup['python']}, {versions}",
        "- whole processes; medians, with the least and the most, of interleaved runs",
        "- a ratio is the median of the ratios of runs in the same round",
    ]
    if found:
        begin, end = (choose(record["time"] for record in found) for choose in (min, max))
        lines.append(f"- {begin} to {end}; load average at the start {found[0]['load']}")
    return lines


# Cells


def seconds(one: Row, digits: int = 2) -> str:
    """Return the median and the range of the seconds, or why there are none."""
    if one.problem:
        return one.problem
    values = [record["seconds"] for record in one.found]
    median = f"{statistics.median(values):.{digits}f}"
    return f"{median} ({min(values):.{digits}f} to {max(values):.{digits}f})" if len(values) > 1 else median


def median(one: Row, name: str, form: str) -> str:
    """Return the median of a value; nothing if there is none."""
    values = [record[name] for record in one.found if name in record]
    return format(statistics.median(values), form) if values and not one.problem else ""


def ratio(one: Row, other: Row) -> float | None:
    """Return the median, over the rounds that both have, of the ratio of their seconds."""
    if one.problem or other.problem:
        return None
    others = {record["round"]: record["seconds"] for record in other.found}
    pairs = [(record["seconds"], others.get(record["round"])) for record in one.found]
    ratios = [mine / theirs for mine, theirs in pairs if theirs]
    return statistics.median(ratios) if ratios else None


def ratio_text(one: Row, other: Row, digits: int = 2) -> str:
    """Return a ratio as text; nothing if there is none."""
    value = ratio(one, other)
    return "" if value is None else f"{value:.{digits}f}"


def accuracy_text(one: Row) -> str:
    """Return the mean test accuracy in per cent."""
    values = [record["accuracy"] for record in one.found if "accuracy" in record]
    return f"{100 * statistics.mean(values):.2f} %" if values else ""


def distance(record: Record) -> float:
    """Return the relative distance of an objective from the optimum."""
    return float(record["objective"] - cases.OPTIMUM) / cases.OPTIMUM


def memory(one: Row) -> str:
    """Return the median of the peak memory in MiB."""
    return median(one, "mebibytes", ".0f")


def grid(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table."""
    return [f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows)]


# Sections


def optimum(rows: Rows) -> list[str]:
    """Return the table of times to the optimum."""
    best = {one.case.variant: one for one in reversed(rows)}
    return grid(
        ("trainer", "within", "run", "seconds", "times softmax", "peak MiB"),
        [
            (
                one.case.title,
                one.case.variant,
                one.case.work + missed(one),
                seconds(one),
                ratio_text(one, best[one.case.variant], 1),
                memory(one),
            )
            for one in rows
        ],
    )


def missed(one: Row) -> str:
    """Return how far the worst run stayed from its target, if it missed it."""
    worst = max((distance(record) for record in one.found if "objective" in record), default=0.0)
    return f"; missed: {worst:.1e}" if one.case.target and worst > one.case.target else ""


def epochs(rows: Rows) -> list[str]:
    """Return the table of ten epochs of gradient descent."""
    return grid(
        ("trainer", "seconds", "times softmax", "peak MiB", "test accuracy", "distance"),
        [
            (
                one.case.title,
                seconds(one),
                ratio_text(one, rows[0], 1),
                memory(one),
                accuracy_text(one),
                "" if one.problem else f"{statistics.median(map(distance, one.found)):.1e}",
            )
            for one in rows
        ],
    )


def accuracy(rows: Rows) -> list[str]:
    """Return the table of accuracy against time."""
    lines = grid(
        ("trainer", "test accuracy", "seconds to train and evaluate", "peak MiB"),
        [(one.case.title, accuracy_text(one), seconds(one), memory(one)) for one in rows],
    )
    return [*lines, "", "![Test error against time](results.svg)"]


def startup(rows: Rows) -> list[str]:
    """Return the table of start-up times against those of the imports alone."""
    pairs = zip(rows[::2], rows[1::2], strict=True)
    return grid(
        ("command", "seconds", "imports alone", "seconds", "ratio", "peak MiB"),
        [
            (
                one.case.title,
                seconds(one, 3),
                least.case.variant,
                seconds(least, 3),
                ratio_text(one, least),
                memory(one),
            )
            for one, least in pairs
        ],
    )


def throughput(rows: Rows) -> list[str]:
    """Return the table of predictions of many images."""
    return grid(
        ("images", "seconds", "images per second", "peak MiB"),
        [
            (
                one.case.title,
                seconds(one),
                "" if one.problem else f"{one.case.items / float(median(one, 'seconds', 'f')):.0f}",
                memory(one),
            )
            for one in rows
        ],
    )


def cores(rows: Rows) -> list[str]:
    """Return the table of one and all cores."""
    found = {one.key: one for one in rows}
    titles = list(dict.fromkeys(one.case.title for one in rows))
    lines = []
    for title in titles:
        every, one, busy = (found[title, load] for load in (cases.ALL, cases.ONE, cases.BUSY))
        cells = (title, seconds(every), seconds(one), ratio_text(one, every), seconds(busy))
        lines.append((*cells, ratio_text(busy, every), memory(every)))
    return grid(
        (
            "run",
            "seconds, all cores",
            "one core",
            "times as long",
            "one core taken by another process",
            "times as long",
            "peak MiB",
        ),
        lines,
    )


def baseline(rows: Rows) -> list[str]:
    """Return the table of the comparison with another version."""
    return grid(
        ("run", "seconds", "of T", "peak MiB"),
        [(one.case.title, seconds(one), ratio_text(one, rows[0]), memory(one)) for one in rows],
    )


def cluster(file: Path) -> list[str]:
    """Return the table that cluster.py measured, if it did: a row for each record of the file."""
    found = records.load(file)
    if not found:
        return []
    heads = list(found[0])
    return [
        "",
        "## Many machines",
        "",
        *grid(heads, [[cell(record.get(head, "")) for head in heads] for record in found]),
    ]


def cell(value: Any) -> str:
    """Return a value as text, numbers with at most two decimals."""
    return f"{value:,.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


SECTIONS: dict[str, tuple[str, Callable[[Rows], list[str]]]] = {
    "optimum": ("To the optimum", optimum),
    "epochs": ("The same ten epochs of gradient descent", epochs),
    "accuracy": ("Accuracy against time", accuracy),
    "startup": ("Start-up", startup),
    "throughput": ("Predictions of many images", throughput),
    "cores": ("One core and all", cores),
    "baseline": ("Compared with an earlier version", baseline),
}
"""The sections in the order of the page: title, and the function that returns the lines."""


def points(rows: Rows) -> list[tuple[str, float, float]]:
    """Return the points of the plot: title, median seconds, mean test accuracy."""
    return [
        (
            one.case.title,
            statistics.median(record["seconds"] for record in one.found),
            statistics.mean(record["accuracy"] for record in one.found),
        )
        for one in rows
        if not one.problem
    ]


def plot(output: Path, rows: Rows) -> None:
    """Draw accuracy against time, if matplotlib is installed."""
    if points(rows) and records.version("matplotlib"):
        subprocess.run(
            [sys.executable, str(PLOT), str(output)], input=json.dumps(points(rows)), text=True, check=True
        )
