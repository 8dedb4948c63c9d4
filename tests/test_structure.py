"""The shape of the package: who may import whom, and what costs nothing."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import softmax_cli

PACKAGE = Path(softmax_cli.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

LAYERS = [
    ["softmax_cli", "errors"],
    ["config"],
    ["files", "parallel"],
    ["data.idx", "data.catalog"],
    ["pictures.formats", "pictures.colour", "pictures.prepared", "pictures.resize", "pictures.shapes"],
    ["pictures.encode", "pictures.read", "pictures.paper", "pictures.digit", "pictures.segment"],
    ["pictures.marks", "pictures.page", "pictures.plain", "pictures.doubt"],
    ["pictures.prepare"],
    ["pictures"],
    ["data.download"],
    ["data.dataset"],
    ["model", "deskew"],
    ["features", "metrics", "calibration"],
    ["comparison", "explanation", "solvers.problem"],
    ["solvers.sgd"],
    ["solvers.newton"],
    ["training"],
    ["checkpoint"],
    ["report.findings"],
    ["report.charts", "report.pictures"],
    ["report.page"],
    ["commands.terminal", "commands.threads"],
    ["commands.messages", "commands.progress", "commands.signals"],
    ["commands.options"],
    [f"commands.{name}" for name in ("download", "train", "eval", "predict", "report", "info")],
    ["cli"],
    ["__main__"],
]
DEPTH = {name: depth for depth, layer in enumerate(LAYERS) for name in layer}
OWNERS = {
    "click": ("cli", "commands"),
    "tqdm": ("cli", "commands"),
    "requests": ("data.download",),
    "PIL": ("pictures",),
    "matplotlib": ("report.charts",),
    "jinja2": ("report.page",),
}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__") or "softmax_cli"


def imports(path: Path) -> set[str]:
    """Return the modules that a file names in imports, anywhere in it, of the package without its name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            children = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {child for child in children if child.removeprefix("softmax_cli.") in DEPTH}
            found |= modules or {str(node.module)}
    return {name.removeprefix("softmax_cli.") for name in found}


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_go_one_way(path: Path) -> None:
    name = module_name(path)
    if name not in DEPTH:  # a folder's __init__.py, which holds a sentence and nothing else
        assert not imports(path)
        return
    for other in imports(path) & set(DEPTH):
        assert DEPTH[other] < DEPTH[name], f"{name} imports {other}"


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_each_foreign_package_has_one_home(path: Path) -> None:
    used = {name.partition(".")[0] for name in imports(path)}
    for package, homes in OWNERS.items():
        if package in used:
            assert module_name(path).startswith(homes), f"{path} imports {package}"


def loaded_by(*line: str) -> set[str]:
    """Return the top-level modules that are loaded after a command has run."""
    code = f"import sys, atexit; sys.argv = {['softmax', *line]}\n"
    code += "atexit.register(lambda: print('LOADED', *sys.modules))\nfrom softmax_cli.cli import main\nmain()"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return {name.partition(".")[0] for name in output.rpartition("LOADED")[2].split()}


@pytest.mark.parametrize("line", [("--help",), ("--version",), ("train", "--help"), ("predict", "--help")])
def test_help_loads_nothing_heavy(line: tuple[str, ...]) -> None:
    assert not {"numpy", "requests", "PIL", "tqdm"} & loaded_by(*line)


def test_predict_does_not_load_requests(model_file: Path) -> None:
    picture = Path(__file__).parent / "pictures" / "seven.png"
    loaded = loaded_by("predict", str(picture), "--checkpoint", str(model_file))
    assert "numpy" in loaded
    assert "requests" not in loaded


def test_public_names_can_be_imported() -> None:
    for name in softmax_cli.__all__:
        assert getattr(softmax_cli, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        softmax_cli.nonsense  # noqa: B018


def test_public_functions_are_documented() -> None:
    for path in FILES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{node.name} in {path}"


def test_the_wheel_is_told_to_hold_the_package_alone() -> None:
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["softmax_cli"]
    assert project["project"]["scripts"] == {"softmax": "softmax_cli.cli:main"}
