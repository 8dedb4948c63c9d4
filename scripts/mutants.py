"""Mutation testing: change one operator, constant or statement at a time; some test must fail.

Usage: python scripts/mutants.py [--sample N] [MODULE ...]

Each mutant runs the tests of its module in a process of its own. A mutant that no test fails on survives:
either a test is missing, or the change has no effect. Texts of messages and annotations are not changed.
"""

import argparse
import ast
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]

TESTS = {
    "model": ["test_model.py"],
    "metrics": ["test_metrics.py", "faults/test_survivors.py"],
    "checkpoint": ["test_checkpoint.py", "faults/test_survivors.py", "faults/test_metadata.py"],
    "data.readers.idx": ["test_idx.py", "test_dataset.py"],
}
"""The modules, and the tests that should notice a change of each."""

TIMEOUT = 300
"""Seconds after which the tests of a mutant count as failed."""

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
        for kind in range(2):
            tree = ast.parse(source)
            target = list(places(tree))[index]
            before = ast.unparse(target)
            if change(target, kind):
                after = ast.unparse(target)
                yield Mutant(
                    f"line {node.lineno}: {before[:60]!r} -> {after[:60]!r}", ast.fix_missing_locations(tree)
                )


def places(tree: ast.AST) -> Iterator[ast.stmt | ast.expr]:
    """Yield the nodes that can be changed; not those of annotations, docstrings and messages."""
    for field, value in ast.iter_fields(tree):
        if field in ("annotation", "returns", "decorator_list"):
            continue
        for node in value if isinstance(value, list) else [value]:
            if not isinstance(node, ast.AST) or isinstance(node, ast.JoinedStr | ast.Import | ast.ImportFrom):
                continue
            if isinstance(node, ast.stmt | ast.expr):
                yield node
            yield from places(node)


def change(node: ast.AST, kind: int) -> bool:
    """Change a node in place; return whether there is a change of that kind."""
    if kind:
        return remove(node)
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        node.ops[0] = SWAPS[type(node.ops[0])]()  # type: ignore[call-overload]
    elif isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign) and type(node.op) in SWAPS:
        node.op = SWAPS[type(node.op)]()  # type: ignore[assignment]
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        node.op = ast.UAdd() if isinstance(node.op, ast.USub) else ast.Not()
        if isinstance(node.op, ast.Not):
            node.operand = ast.UnaryOp(ast.Not(), node.operand)
    elif isinstance(node, ast.Constant) and type(node.value) in (bool, int, float):
        node.value = not node.value if type(node.value) is bool else node.value + 1
    elif isinstance(node, ast.If | ast.IfExp | ast.While) and isinstance(node.test, ast.Name | ast.Call):
        node.test = ast.UnaryOp(ast.Not(), node.test)
    else:
        return False
    return True


def remove(node: ast.AST) -> bool:
    """Remove a call, a raise or an update from a block, in place."""
    body = getattr(node, "body", None)
    if isinstance(node, ast.If | ast.For | ast.With) and isinstance(body, list):
        for number, line in enumerate(body):
            call = isinstance(line, ast.Expr) and isinstance(line.value, ast.Call)
            if call or isinstance(line, ast.Raise | ast.AugAssign):
                body[number] = ast.Pass()
                return True
    return False


def survives(tree: Path, path: str, source: str, tests: list[str]) -> bool:
    """Return whether all tests pass in a copy of the repository, in which one file has another content."""
    original = (tree / path).read_text("utf-8")
    (tree / path).write_text(source, "utf-8")
    child = os.fork()
    if not child:
        code = 1
        try:
            os.setpgid(0, 0)
            signal.alarm(TIMEOUT)
            os.chdir(tree)
            os.environ["PYTHONPATH"] = str(tree)  # for child processes of tests
            sys.path.insert(0, str(tree))
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1), os.dup2(quiet, 2)
            import pytest

            code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", *(f"tests/{test}" for test in tests)])
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    (tree / path).write_text(original, "utf-8")
    return status == 0


def judge(tree: Path, name: str, sample: int | None) -> tuple[int, list[str]]:
    """Return the number of mutants of a module, and those that survive."""
    path, tests = f"softmax_cli/{name.replace('.', '/')}.py", TESTS[name]
    source = (ROOT / path).read_text("utf-8")
    found = list(mutants(source))
    if sample:
        found = random.Random(0).sample(found, min(sample, len(found)))
    if survives(tree, path, "1 / 0", tests) or not survives(tree, path, source, tests):
        raise SystemExit(f"the tests of {name} fail without a change, or do not import it")
    left = []
    for mutant in found:
        if survives(tree, path, ast.unparse(mutant.code), tests):
            left.append(mutant.name)
            print(f"  {name}: {mutant.name}", flush=True)
    return len(found), left


def main() -> None:
    """Print the survivors and the share of mutants that are killed; exit with 1 if it is below 90 %."""
    parser = argparse.ArgumentParser()
    parser.add_argument("modules", nargs="*", default=list(TESTS))
    parser.add_argument("--sample", type=int)
    arguments = parser.parse_args()
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    for package in ("numpy", "pytest", "click.testing", "requests", "PIL.Image"):
        importlib.import_module(package)  # once, not in every child
    total = killed = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(
            ROOT, tree, ignore=shutil.ignore_patterns(".git", ".venv*", "__pycache__", "node_modules")
        )
        for name in arguments.modules:
            count, left = judge(tree, name, arguments.sample)
            print(f"{name}: {count - len(left)} of {count} killed", flush=True)
            total, killed = total + count, killed + count - len(left)
    print(f"together: {killed} of {total} killed, {100 * killed / total:.1f} %")
    raise SystemExit(killed < 0.9 * total)


if __name__ == "__main__":
    main()
