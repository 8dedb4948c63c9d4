"""SECURITY.md names a test for every fault, and the package never does what it says is not done."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import softmax_cli

ROOT = Path(__file__).parents[2]
PACKAGE = Path(softmax_cli.__file__).parent
TREES = {path.relative_to(PACKAGE): ast.parse(path.read_text("utf-8")) for path in PACKAGE.rglob("*.py")}

ROW = re.compile(r"\| ([A-Z]\d+[bc]?) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|")
ROWS = [
    match.groups() for match in map(ROW.fullmatch, (ROOT / "SECURITY.md").read_text().splitlines()) if match
]

TESTS = {
    node.name
    for path in (ROOT / "tests").rglob("test_*.py")
    for node in ast.walk(ast.parse(path.read_text("utf-8")))
    if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
}


def ids_in(name: str) -> list[str]:
    """Return the ids that the name of a test carries."""
    start = re.match(r"test_((?:[dcixnlk]\d+[bc]?_)*)", name)
    return start[1].split("_")[:-1] if start else []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_every_row_names_tests_that_exist_and_carry_its_id(row: tuple[str, ...]) -> None:
    names = re.findall(r"`(test_\w+)`", row[3])
    assert set(names) <= TESTS, set(names) - TESTS
    assert any(row[0].lower() in ids_in(name) for name in names)


def test_the_catalogue_is_complete() -> None:
    """No number of a series is missing, and none is there twice."""
    ids = [row[0] for row in ROWS]
    assert len(ids) == len(set(ids))
    for letter in "DCIXNLK":
        numbers = [int(name[1:]) for name in ids if name[0] == letter and name[1:].isdecimal()]
        assert numbers == list(range(1, len(numbers) + 1)), letter


def test_every_test_with_an_id_is_in_the_row_of_that_id() -> None:
    listed = {row[0].lower(): row[3] for row in ROWS}
    for name in TESTS:
        for part in ids_in(name):
            assert f"`{name}`" in listed[part], name


# What is never done


def calls() -> list[tuple[str, ast.Call]]:
    """Return every call in the package, with its place."""
    return [
        (f"{path}:{node.lineno}", node)
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    ]


FORBIDDEN = {
    *(
        "eval",
        "exec",
        "compile",
        "__import__",
        "os.system",
        "os.popen",
        "np.load",
        "numpy.load",
        "np.fromfile",
    ),
    *("np.loadtxt", "np.genfromtxt", "tempfile.mktemp", "yaml.load", "torch.load", "joblib.load"),
    *("tarfile.open", "archive.extract", "archive.extractall", "ssl._create_unverified_context"),
}


def test_no_function_that_trusts_its_input_is_called() -> None:
    for place, call in calls():
        assert ast.unparse(call.func) not in FORBIDDEN, place


def test_nothing_is_unpickled_and_no_shell_is_started() -> None:
    """Except for calls that a process exchanges with its own children."""
    modules = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "xmlrpc"}
    for path, tree in TREES.items():
        if path.name == "decoding.py":
            continue
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not modules & {name.split(".")[0] for name in names}, path


def test_no_argument_switches_a_check_off() -> None:
    off = {"verify": False, "shell": True, "allow_pickle": True, "check_hostname": False}
    for place, call in calls():
        for keyword in call.keywords:
            if keyword.arg in off and isinstance(keyword.value, ast.Constant):
                assert keyword.value.value is not off[keyword.arg], place


def test_files_of_the_user_are_opened_in_one_place() -> None:
    """Elsewhere, only the null device, the log that is appended to, and descriptors are opened."""
    allowed = {"files.py", "cli/main.py", "runs.py", "pictures/read.py"}
    for place, call in calls():
        if ast.unparse(call.func) in ("open", "os.open", "io.open", "Image.open"):
            assert place.split(":")[0] in allowed, place


def test_every_temporary_file_is_created_exclusively() -> None:
    source = (PACKAGE / "files.py").read_text()
    created = re.findall(r"os\.open\([^)]*O_CREAT[^)]*\)", source)
    assert len(created) == 2
    assert all("_SAFE" in call for call in created)
    assert sum("O_EXCL" in call for call in created) == 1  # the other one is the lock


def test_l12_the_report_needs_neither_a_home_nor_a_display(model_file: Path, tmp_path: Path) -> None:
    """A notebook exports the name of its backend; a container has no home."""
    environment = os.environ | {
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "MPLCONFIGDIR": "/proc/no",
        "HOME": "/proc/no",
    }
    line = [sys.executable, "-m", "softmax_cli", "report", "-c", str(model_file), "--dataset", "sample"]
    result = subprocess.run(
        line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert (tmp_path / "report.html").stat().st_size > 1000
