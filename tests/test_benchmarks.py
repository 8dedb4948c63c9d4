"""The benchmark: measuring, resuming, the table of cases, and the page."""

import ast
import json
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import pytest

from benchmarks import __main__ as bench
from benchmarks import cases, measure, records, report
from benchmarks.cases import Case
from softmax_cli.cli.main import main

SETUP: dict[str, Any] = {
    "softmax": "1.0",
    "commit": "abc",
    "python": "3",
    "packages": {"numpy": "2"},
    "machine": "m",
}
TABLE = cases.table(("/old/softmax", "softmax 0.0"))


def record(case: Case, number: int, seconds: float, **more: Any) -> records.Record:
    """Return a record of a case."""
    measured = {
        "seconds": seconds,
        "mebibytes": 100.0,
        "failure": "",
        "load": 0.5,
        "time": "2026-01-01 00:00",
    }
    return records.key(case) | {"setup": SETUP, "round": number} | measured | more


class TestMeasure:
    def test_time_and_memory_are_those_of_the_process(self) -> None:
        """A process that spins for 0.3 s of processor time and fills 200 MiB."""
        script = "import time\nx = b'1' * (200 << 20)\nwhile time.process_time() < .3: pass\nprint('done')"
        found = measure.run([sys.executable, "-c", script], 60)
        assert (found.failure, found.output) == ("", "done")
        assert found.processor >= 0.3  # what the process waited for itself
        assert found.mebibytes > 200

    def test_a_failure_is_the_last_line_of_the_errors(self) -> None:
        assert measure.run([sys.executable, "-c", "import sys; sys.exit('a\\nb')"], 60).failure == "failed: b"

    def test_a_process_is_stopped_at_the_limit(self) -> None:
        assert measure.run(["sleep", "60"], 0.1).failure == "stopped after 0 s"

    def test_variables_of_the_caller_change_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("SOFTMAX_THREADS", "SOFTMAX_CHECKPOINT", "PYTHONPATH"):
            monkeypatch.setenv(name, "x")
        script = "import os; print([name for name in os.environ if name[:7] in ('SOFTMAX', 'PYTHONP')])"
        assert measure.run([sys.executable, "-c", script], 60).output == "[]"

    @pytest.mark.parametrize(("load", "cores"), [(cases.ONE, 1), (cases.ALL, None), (cases.BUSY, None)])
    def test_a_run_on_one_core_sees_one_core(self, load: str, cores: int | None) -> None:
        script = "import os; print(len(os.sched_getaffinity(0)))"
        expected = measure.run([sys.executable, "-c", script], 60).output if cores is None else str(cores)
        with bench.LOADS[load]():
            assert measure.run([sys.executable, "-c", script], 60).output == expected


class TestResume:
    A, B = (
        Case("cores", title, ((sys.executable, "-c", f"open({title!r}, 'a').write('x')"),), runs, 1.0)
        for title, runs in (("a", 3), ("b", 2))
    )

    def run(self, table: list[Case], setup: dict[str, Any] = SETUP) -> list[tuple[str, int]]:
        """Measure what is missing, and return the titles and rounds that were measured."""
        file = Path("results.jsonl")
        rounds = bench.remaining(bench.order(table, 99), setup, records.load(file))
        bench.measure_all(rounds, setup, bench.paths(Path("data"), Path.cwd()), file, 60)
        return [(case.title, number) for case, number in rounds]

    def test_runs_are_interleaved(self, work: Path) -> None:
        assert self.run([self.A, self.B]) == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2)]
        assert (Path("a").read_text(), Path("b").read_text()) == ("xxx", "xx")

    def test_an_interrupted_benchmark_measures_only_the_rest(self, work: Path) -> None:
        """The interruption leaves part of a line."""
        self.run([self.A, self.B])
        lines = Path("results.jsonl").read_text().splitlines(keepends=True)
        Path("results.jsonl").write_text("".join(lines[:3]) + lines[3][:20])
        assert self.run([self.A, self.B]) == [("b", 1), ("a", 2)]
        assert len(records.load(Path("results.jsonl"))) == 5
        assert self.run([self.A, self.B]) == []

    def test_another_setup_or_command_is_measured_again(self, work: Path) -> None:
        self.run([self.A])
        assert len(self.run([self.A], SETUP | {"commit": "def"})) == 3
        assert len(self.run([replace(self.A, commands=((sys.executable, "--version"),))])) == 3

    def test_a_case_that_failed_is_tried_again(self, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
        case = replace(self.A, commands=((sys.executable, "-c", "1 / 0"),), runs=1)
        assert self.run([case]) == self.run([case]) == [("a", 0)]
        assert "failed: ZeroDivisionError" in capsys.readouterr().err

    def test_the_setup_names_the_state_of_the_program_alone(
        self, work: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Commits of other files change nothing; changes that are not committed are part of the name."""
        monkeypatch.setattr(records, "ROOT", work)
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.com")

        def save(path: str, content: str) -> str:
            """Write and commit a file; return the name of the state before the commit."""
            (work / path).write_text(content)
            before = records.commit()
            for arguments in (("add", "."), (*identity, "commit", "--quiet", "-m", path)):
                subprocess.run(["git", *arguments], check=True)
            return before

        subprocess.run(["git", "init", "--quiet"], check=True)
        for folder in records.MEASURED:
            (work / folder).mkdir(parents=True)
        save("softmax_cli/a.py", "1")
        first = records.commit()
        assert len(first) >= 7
        assert save("README.md", "1") == records.commit() == first
        assert save("softmax_cli/a.py", "2").startswith(f"{first}+")
        assert not records.commit().startswith(first)


COMMANDS = list(dict.fromkeys(command for case in TABLE for command in case.commands))


class TestCases:
    @pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
    def test_command_lines_are_valid(self, command: tuple[str, ...], work: Path) -> None:
        paths = bench.paths(work, work)
        Path("pictures").mkdir()
        for name in ("quick.npz", "best.npz", "test.csv"):
            Path(name).touch()
        program, *arguments = (part.format(**paths, round=0) for part in command)
        if command[0] == "{python}" and arguments[0] == "-c":
            compile(arguments[1], "imports", "exec")
        elif command[0] == "{python}":
            script, _, output, number = arguments
            tree = ast.parse(Path(script).read_text("utf-8"))
            assert "mnist.arguments()" in ast.unparse(tree)
            assert output == paths["output"]
            assert int(number) > 0
        elif "--help" not in arguments:
            assert Path(program).name == "softmax"
            subcommand = main.get_command(click.Context(main), arguments[0])
            assert subcommand is not None
            assert subcommand.make_context(arguments[0], arguments[1:]).params

    def test_cases_have_different_names(self) -> None:
        names = [(case.section, case.title, case.variant) for case in TABLE]
        assert len(names) == len(set(names))

    def test_all_cases_fit_into_40_minutes(self) -> None:
        """By the expected times. Five minutes remain for the preparation and for slower machines."""
        assert sum(case.runs * bench.expected(case, {}) for case in TABLE) < 35 * 60


class TestCommand:
    def test_one_call_measures_and_writes_the_page(self, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A second call measures nothing, and writes the same page."""
        (startup,) = (case for case in TABLE if case.commands == (("{python}", "-c", "import click"),))
        table = [replace(startup, variant="command"), startup]
        monkeypatch.setattr(cases, "table", lambda other: table)
        monkeypatch.setattr(bench, "prepare", lambda where: None)
        Path("data/mnist").mkdir(parents=True)
        pages = []
        for _ in range(2):
            bench.main(["--data", "data", "--output", "out", "--runs", "1"])
            pages.append(Path("out/RESULTS.md").read_text("utf-8"))
        assert "| `softmax --help` |" in pages[0]
        assert pages[0] == pages[1]
        assert len(records.load(Path("out/results.jsonl"))) == 2

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--data", "nowhere"], "nowhere/mnist is not a folder"),
            (["--data", ".", "--baseline", "nothing"], "--baseline nothing: no such file"),
        ],
    )
    def test_wrong_paths_are_found_at_the_start(
        self, arguments: list[str], message: str, work: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Path("mnist").mkdir()
        with pytest.raises(SystemExit):
            bench.main(arguments)
        assert message in capsys.readouterr().err


class TestReport:
    def page(self, work: Path, known: list[records.Record]) -> list[str]:
        """Return the lines of RESULTS.md."""
        report.write(work, TABLE, SETUP, known)
        return (work / "RESULTS.md").read_text("utf-8").splitlines()

    def test_ratios_compare_runs_of_the_same_round(self, work: Path) -> None:
        """The machine was slow in the second round; the ratio of the medians would be 1.5."""
        first, newton = [case for case in TABLE if case.section == "baseline"][:2]
        known = [record(first, number, seconds) for number, seconds in enumerate((1.0, 10.0, 2.0))]
        known += [record(newton, number, seconds) for number, seconds in enumerate((0.5, 5.0, 3.0))]
        assert "| newton, to 1e-3 | 3.00 (0.50 to 5.00) | 0.50 | 100 |" in self.page(work, known)

    def test_a_run_that_misses_its_target_is_marked(self, work: Path) -> None:
        case = next(case for case in TABLE if case.section == "optimum")
        near, far = (cases.OPTIMUM * (1 + distance) for distance in (9e-4, 2e-3))
        known = [record(case, 0, 1.0, objective=near, accuracy=0.92)]
        assert f"| softmax, newton | 1e-03 | {case.work} | 1.00 | 1.0 | 100 |" in self.page(work, known)
        known.append(record(case, 1, 3.0, objective=far, accuracy=0.92))
        missed = (
            f"| softmax, newton | 1e-03 | {case.work}; missed: 2.0e-03 | 2.00 (1.00 to 3.00) | 1.0 | 100 |"
        )
        assert missed in self.page(work, known)

    def test_processes_that_are_stopped_or_missing_are_in_the_table(
        self, work: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(records, "version", lambda package: None if package == "torch" else "1")
        ours, tensors, loader = (case for case in TABLE if case.section == "epochs")
        known = [
            record(ours, 0, 1.0, objective=0.26, accuracy=0.9),
            record(tensors, 0, 300.0, failure="stopped after 300 s"),
        ]
        page = self.page(work, known)
        assert f"| {tensors.title} | stopped after 300 s |  |  |  |  |" in page
        assert f"| {loader.title} | not installed |  |  |  |  |" in page

    def test_records_of_another_setup_are_left_out(self, work: Path) -> None:
        ours = next(case for case in TABLE if case.section == "epochs")
        known = [record(ours, 0, 1.0, objective=0.26, accuracy=0.9)]
        assert any(ours.title in line for line in self.page(work, known))
        assert not any(ours.title in line for line in self.page(work, [known[0] | {"setup": {}}]))

    def test_every_section_becomes_a_table(self, work: Path) -> None:
        """With all cases measured once, every table has the same number of cells in each line."""
        known = [record(case, 0, 2.0, objective=0.26, accuracy=0.9) for case in TABLE]
        Path("cluster.jsonl").write_text(
            json.dumps({"run": "two workers", "seconds": 1234.501, "MiB": 100}) + "\n"
        )
        page = self.page(work, known)
        titles = [title for title, _ in report.SECTIONS.values()]
        assert [line[3:] for line in page if line.startswith("## ")] == [*titles, "Many machines"]
        for before, line in pairwise(page):
            if before.startswith("|") and line.startswith("|"):
                assert line.count("|") == before.count("|")
        assert "| two workers | 1,234.5 | 100 |" in page
