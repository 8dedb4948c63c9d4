"""Mutation testing: change one operator, constant or statement at a time; some test must fail.

Usage: python scripts/mutants.py [--sample N] [MODULE ...]

Each mutant runs the tests of its module in a process of its own. A mutant that no test fails on survives:
either a test is missing, or the change has no effect. Texts of messages and annotations are not changed.
"""

import argparse
import ast
import importlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[1]

TESTS = {
    "model": [["test_model.py"]],
    "metrics": [["test_metrics.py", "faults/test_survivors.py"]],
    "checkpoint": [
        ["faults/test_metadata.py", "faults/test_survivors.py"],
        [
            "test_checkpoint.py",
            "faults/test_archives.py::test_c7_x6_a_long_list_of_members_is_never_read",
            "faults/test_reading.py::test_c22_a_read_error_is_not_damage",
        ],
    ],
    "data.readers.idx": [
        ["test_idx.py"],
        [
            "test_dataset.py",
            "test_readers.py::test_idx_files_are_found_under_the_names_in_use",
            "test_readers.py::test_two_idx_data_sets_in_a_folder_are_named",
            "test_readers.py::test_idx_labels_with_gaps_are_numbered_without",
        ],
    ],
}
"""The modules, and the tests that should notice a change of each: fast ones, then those for what is left."""

OWN = ("softmax_cli", "tests")
"""Modules that each child imports for itself."""

LIMIT = 120
"""Seconds of processor time after which the tests of a mutant count as failed."""

MEMORY = 8 << 30
"""Bytes of memory that they may use."""

SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    **{
        ast.Lt: ast.LtE,
        ast.LtE: ast.Lt,
        ast.Gt: ast.GtE,
        ast.GtE: ast.Gt,
        ast.Eq: ast.NotEq,
        ast.NotEq: ast.Eq,
    },
    **{
        ast.Is: ast.IsNot,
        ast.IsNot: ast.Is,
        ast.In: ast.NotIn,
        ast.NotIn: ast.In,
        ast.And: ast.Or,
        ast.Or: ast.And,
    },
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult},
    **{
        ast.Pow: ast.Mult,
        ast.BitOr: ast.BitAnd,
        ast.BitAnd: ast.BitOr,
        ast.LShift: ast.RShift,
        ast.MatMult: ast.Add,
    },
}


class Mutant(NamedTuple):
    """A changed module: the place and kind of the change, and the code."""

    name: str
    code: ast.Module


def mutants(source: str) -> Iterator[Mutant]:
    """Yield every mutant of a module."""
    for index, node in enumerate(places(ast.parse(source))):
        for number in range(len(list(changes(node)))):
            tree = ast.parse(source)
            target = list(places(tree))[index]
            before = ast.unparse(target)
            list(changes(target))[number]()
            place, after = difference(before, ast.unparse(target))
            name = f"line {getattr(node, 'lineno', 0)}: {place!r} -> {after!r}"
            yield Mutant(name, ast.fix_missing_locations(tree))


def difference(before: str, after: str) -> tuple[str, str]:
    """Return the first lines that differ in two texts."""
    lines = zip(before.splitlines(), after.splitlines(), strict=False)
    return next(((one.strip(), other.strip()) for one, other in lines if one != other), ("", ""))


def places(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that can be changed; not those of annotations, docstrings and messages."""
    for field, value in ast.iter_fields(tree):
        if field in ("annotation", "returns", "decorator_list"):
            continue
        for node in value if isinstance(value, list) else [value]:
            if not isinstance(node, ast.AST) or is_kept(node):
                continue
            if isinstance(node, ast.stmt | ast.expr | ast.ExceptHandler):
                yield node
            yield from places(node)


def is_kept(node: ast.AST) -> bool:
    """Return whether a node is a message, an import, or ``strict=True``, which never fails."""
    if isinstance(node, ast.keyword):
        return node.arg == "strict"
    return isinstance(node, ast.JoinedStr | ast.Import | ast.ImportFrom)


def changes(node: Any) -> Iterator[Callable[[], None]]:
    """Yield functions, each of which changes a node in place."""
    yield from operator_changes(node)
    match node:
        case ast.Constant(value=bool()):
            yield partial(setattr, node, "value", not node.value)
        case ast.Constant(value=int() | float()):
            yield partial(setattr, node, "value", node.value + 1)
        case ast.If(test=ast.Name() | ast.Call()) | ast.IfExp(test=ast.Name() | ast.Call()) | ast.While():
            yield partial(setattr, node, "test", ast.UnaryOp(ast.Not(), node.test))
    for block in ("body", "orelse", "finalbody"):
        lines = getattr(node, block, None)
        for number, line in enumerate(lines if isinstance(lines, list) else []):
            if can_be_removed(line):
                yield partial(lines.__setitem__, number, ast.Pass())


def operator_changes(node: Any) -> Iterator[Callable[[], None]]:
    """Yield functions, each of which replaces an operator of a node in place."""
    match node:
        case ast.Compare():
            for number, operator in enumerate(node.ops):
                if type(operator) in SWAPS:
                    yield partial(node.ops.__setitem__, number, SWAPS[type(operator)]())
        case ast.BinOp() | ast.BoolOp() | ast.AugAssign():
            if type(node.op) in SWAPS:
                yield partial(setattr, node, "op", SWAPS[type(node.op)]())
        case ast.UnaryOp(op=ast.USub()):
            yield partial(setattr, node, "op", ast.UAdd())
        case ast.UnaryOp(op=ast.Not()):
            yield partial(setattr, node, "operand", ast.UnaryOp(ast.Not(), node.operand))


def can_be_removed(line: ast.stmt) -> bool:
    """Return whether a statement is a call, a raise, an update, or an assignment to a part of something."""
    match line:
        case ast.Expr(value=ast.Call()) | ast.Raise() | ast.AugAssign():
            return True
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            return True
    return False


class Order:
    """A plugin for pytest: tests that noticed an earlier mutant first, slow ones last."""

    def __init__(self) -> None:
        self.killed: Counter[str] = Counter()
        self.seconds: Counter[str] = Counter()
        self.failed = ""

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Sort the tests."""
        items.sort(key=lambda item: (-self.killed[item.nodeid], self.seconds[item.nodeid]))

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Remember how long a test took, and whether it failed."""
        self.seconds[report.nodeid] += report.duration
        if report.failed:
            self.failed = report.nodeid


class Outcome(NamedTuple):
    """What the tests of a mutant did: whether all passed, the first that failed, times, imported modules."""

    passed: bool
    failed: str
    seconds: dict[str, float]
    modules: list[str]


def run(tree: Path, path: str, source: str, tests: list[str], order: Order) -> Outcome:
    """Run tests in a copy of the repository in which one file has another content, in a child process."""
    original = (tree / path).read_text("utf-8")
    (tree / path).write_text(source, "utf-8")
    result = tree.parent / "result"
    result.unlink(missing_ok=True)
    child = os.fork()
    if not child:
        try:
            os.setpgid(0, 0)
            resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT))
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            os.chdir(tree)
            os.environ["PYTHONPATH"] = str(tree)  # for child processes of tests
            sys.path.insert(0, str(tree))
            output = os.open(tree.parent / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1), os.dup2(output, 2)
            options = ["-x", "-o", "addopts=", "-p", "no:cacheprovider", "-p", "no:xdist"]
            options += ["-k", "not every_key"]  # slow, and no better than the tables
            options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # it has been imported already
            code = pytest.main([*options, *(f"tests/{test}" for test in tests)], plugins=[order])
            modules = [name for name in sys.modules if not name.startswith(OWN)]
            result.write_text(json.dumps([code == 0, order.failed, order.seconds, modules]))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(0)
    os.waitpid(child, 0)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what the tests have started
    (tree / path).write_text(original, "utf-8")
    return Outcome(*json.loads(result.read_text())) if result.exists() else Outcome(False, "", {}, [])


def judge(tree: Path, name: str, sample: int | None) -> tuple[int, list[str]]:
    """Return the number of mutants of a module, and those that survive."""
    path, stages, order = f"softmax_cli/{name.replace('.', '/')}.py", TESTS[name], Order()
    source = (ROOT / path).read_text("utf-8")
    found = list(mutants(source))
    if sample:
        found = random.Random(0).sample(found, min(sample, len(found)))
    prepare(tree, path, source, stages, order)
    left = []
    for mutant in found:
        for tests in stages:
            outcome = run(tree, path, ast.unparse(mutant.code), tests, order)
            if not outcome.passed:
                order.killed[outcome.failed] += 1
                break
        else:
            left.append(mutant.name)
            print(f"  {name}: {mutant.name}", flush=True)
    return len(found), left


def prepare(tree: Path, path: str, source: str, stages: list[list[str]], order: Order) -> None:
    """Compile and import everything but the project once; end if a test fails without a change."""
    tests = [test for stage in stages for test in stage]
    sys.dont_write_bytecode = False  # for all modules but the changed one
    plain = run(tree, path, source, tests, order)
    for cached in (tree / path).parent.glob(f"__pycache__/{Path(path).stem}.*"):
        cached.unlink()
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    order.seconds.update(plain.seconds)
    for module in plain.modules:
        with suppress(ImportError):
            importlib.import_module(module)
    if run(tree, path, "1 / 0", tests, order).passed:
        raise SystemExit(f"the tests of {path} do not import it")
    if not run(tree, path, source, tests, order).passed:
        raise SystemExit(f"{(tree.parent / 'output').read_text()}\nthe tests of {path} fail without a change")


def main() -> None:
    """Print the survivors and the share of mutants that are killed; exit with 1 if one is below 90 %."""
    parser = argparse.ArgumentParser()
    parser.add_argument("modules", nargs="*", default=list(TESTS))
    parser.add_argument("--sample", type=int)
    arguments = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(
            ROOT, tree, ignore=shutil.ignore_patterns(".git", ".venv*", "__pycache__", "node_modules")
        )
        for name in arguments.modules:
            count, left = judge(tree, name, arguments.sample)
            killed = count - len(left)
            print(f"{name}: {killed} of {count} killed, {100 * killed / count:.1f} %", flush=True)
            failed |= killed < 0.9 * count
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
