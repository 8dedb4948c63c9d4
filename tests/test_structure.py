"""The structure of the package: layers, lazy imports, the public API, the wheel."""

import ast
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import mypy.api
import pytest

import softmax_cli
from softmax_cli.config import ALIASES, SOLVERS, STAGES
from softmax_cli.data.dataset import Dataset
from tests.helpers import PICTURE, folder_of

PACKAGE = Path(softmax_cli.__file__).parent

LAYERS = """
softmax_cli model metrics calibration comparison backend config files errors
solvers examples features augment pictures data cluster
training regularization checkpoint explanation novelty
runs classifier evaluation batch report estimator export
cli __main__
"""
"""The layers, from the lowest to the highest. A module imports from its own layer and lower ones."""

PLACES = {
    "click": ("cli",),
    "tqdm": ("cli",),
    "requests": ("data.download",),
    "urllib3": ("data.download",),
    "PIL": ("pictures",),
    "jinja2": ("report.page",),
    "dask": ("cluster",),
    "distributed": ("cluster",),
    "onnx": ("export",),
    "pyarrow": ("data.readers.parquet",),
    "sklearn": ("estimator",),
    "threadpoolctl": ("estimator",),
    "numpy": ("",),
}
"""The only modules or packages that may import an external package."""


def module_name(path: Path) -> str:
    """Return the name of a module without that of the package.

    The name of the package itself is ``softmax_cli``.
    """
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__") or "softmax_cli"


TREES = {module_name(path): ast.parse(path.read_text("utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}


def imports(module: str) -> Iterator[str]:
    """Yield the names of all imports in a module.

    Modules of the package are named without the package.
    """
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            yield from (alias.name.removeprefix("softmax_cli.") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{module} has a relative import"
            parent = node.module.removeprefix("softmax_cli").lstrip(".") or "softmax_cli"
            for alias in node.names:
                child = f"{parent}.{alias.name}".removeprefix("softmax_cli.")
                yield child if child in TREES and "softmax_cli" in node.module else parent


GRAPH = {module: set(imports(module)) & set(TREES) for module in TREES if module != "softmax_cli"}
"""The imports of each module; the package itself imports public names lazily."""


def test_modules_import_only_from_their_own_layer_and_lower_ones() -> None:
    depth = {name: number for number, layer in enumerate(LAYERS.splitlines()) for name in layer.split()}
    for module, others in GRAPH.items():
        for other in others:
            above = depth[other.split(".")[0]] > depth[module.split(".")[0]]
            assert not above, f"{module} imports {other} from a higher layer"


def test_imports_have_no_cycle() -> None:
    list(TopologicalSorter(GRAPH).static_order())  # raises CycleError, which names the modules


def test_external_packages_are_imported_only_by_their_modules() -> None:
    for module in TREES:
        used = {name.split(".")[0] for name in set(imports(module)) - set(TREES)}
        for package in used - sys.stdlib_module_names:
            allowed = any(f"{module}.".startswith(f"{place}.".lstrip(".")) for place in PLACES[package])
            assert allowed, f"{module} imports {package}"


def test_names_of_solvers_and_stages_are_compared_in_the_registry_only() -> None:
    names = {*SOLVERS, *STAGES, *ALIASES}
    for module in TREES.keys() - {"config"}:
        for node in ast.walk(TREES[module]):
            if isinstance(node, ast.Compare | ast.MatchValue):
                values = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
                assert not names & values, f"{module}, line {node.lineno}: {ast.unparse(node)}"


def loaded_by(*line: object) -> set[str]:
    """Return the top-level modules that are loaded after a command has run."""
    code = f"""if True:
        import atexit, sys
        sys.argv = {["softmax", *map(str, line)]}
        atexit.register(lambda: print("LOADED", *sys.modules))
        from softmax_cli.cli.main import main
        main()
    """
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return {name.partition(".")[0] for name in output.rpartition("LOADED")[2].split()}


@pytest.mark.parametrize(
    "line", [("--help",), ("--version",), ("train", "--help"), ("predict", "--help")], ids=str
)
def test_l8_help_loads_no_large_package(line: tuple[str, ...]) -> None:
    assert not {"numpy", "requests", "PIL", "tqdm"} & loaded_by(*line)


def test_predict_does_not_load_requests(model_file: Path) -> None:
    loaded = loaded_by("predict", PICTURE, "--checkpoint", model_file)
    assert "numpy" in loaded
    assert "requests" not in loaded


# The public API


def test_public_names_are_listed_and_can_be_imported() -> None:
    assert dir(softmax_cli) == sorted(softmax_cli.__all__)
    for name in softmax_cli.__all__:
        assert getattr(softmax_cli, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        softmax_cli.nonsense  # noqa: B018


def test_public_names_have_types(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """mypy reveals the signature of `fit` in a program that imports the package, and no name is Any."""
    program = tmp_path / "program.py"
    lines = [f"reveal_type(softmax_cli.{name})" for name in softmax_cli.__all__]
    program.write_text("\n".join(["import softmax_cli", *lines]))
    assert pytestconfig.cache
    cache = pytestconfig.cache.mkdir("mypy")
    output, errors, code = mypy.api.run([f"--cache-dir={cache}", "--config-file=", str(program)])
    revealed = [line.partition("Revealed type is ")[2].strip('"') for line in output.splitlines()[:-1]]
    assert (code, errors, len(revealed)) == (0, "", len(lines)), output
    assert "Any" not in revealed
    fit = revealed[softmax_cli.__all__.index("fit")]
    assert fit.startswith(
        "def (config: softmax_cli.config.TrainConfig, data: softmax_cli.data.dataset.Dataset, "
    )
    assert fit.endswith(" -> typing.Iterator[softmax_cli.training.State]")


@pytest.mark.parametrize("kind", [str, Path])
def test_paths_are_strings_or_path_objects(
    kind: Any, model_file: Path, sample_test: Dataset, work: Path
) -> None:
    checkpoint = softmax_cli.load_checkpoint(kind(model_file))
    softmax_cli.save_checkpoint(kind("copy.npz"), checkpoint)
    assert softmax_cli.Classifier.load(kind("copy.npz")).predict_picture(kind(PICTURE)).class_name == "7"
    assert softmax_cli.prepare_picture(kind(PICTURE), (28, 28), "digit").image.any()
    folder_of(work / "folder", sample_test)
    source = softmax_cli.Source(kind("cache"))
    assert softmax_cli.load_dataset(kind("folder"), "test", source).name == "folder"
    config = softmax_cli.TrainConfig(dataset="folder", epochs=1)
    softmax_cli.train(config, kind("model.npz"), source=source)
    assert softmax_cli.load_checkpoint(kind("model.npz")).state.epoch == 1


def test_public_functions_have_docstrings() -> None:
    for module, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{node.name} in {module}"


# The wheel


def run(*line: object, **options: Any) -> str:
    """Run a command that must succeed, and return what it prints."""
    done = subprocess.run(list(map(str, line)), capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_an_installed_wheel_trains_and_predicts(work: Path) -> None:
    """The wheel is installed in an environment in which the source tree is not visible."""
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", "dist", PACKAGE.parent)
    venv.create("env", with_pip=False)
    (wheel,) = Path("dist").iterdir()
    python = work / "env" / "bin" / "python"
    run(*pip, "--python", python, "install", "--no-index", "--no-deps", wheel)
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    site.joinpath("dependencies.pth").write_text(sysconfig.get_path("purelib"))  # its own .pth are not read
    assert Path(run(python, "-c", "import softmax_cli; print(softmax_cli.__file__)").strip()).is_relative_to(
        site
    )
    softmax = python.with_name("softmax")
    for config in ("quick", "best"):
        run(softmax, "train", "--dataset", "sample", "--config", config, "--epochs", 1, "--offline")
        assert "7 (" in run(softmax, "predict", PICTURE)
    assert not {path.name for path in site.iterdir()} & {"tests", "configs", "benchmarks"}
