"""The README agrees with the program."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import pytest

from softmax_cli.cli.main import COMMANDS
from softmax_cli.config import find_config
from softmax_cli.data.catalog import CATALOG, MNIST, SAMPLE

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_help_in_the_readme_is_up_to_date() -> None:
    line = [sys.executable, "-m", "cogapp", "--check", "README.md"]
    result = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, "run make readme"


def test_commands_files_and_configs_of_the_readme_exist() -> None:
    for name in COMMANDS:
        assert re.search(rf"`(softmax )?{name}`", README), name
    for name in re.findall(r"\]\(([\w./]+)\)", README):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"--config ([a-z]\w*)", README):
        assert find_config(name).exists()


def test_the_python_examples_run(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """MNIST is replaced by the bundled sample. The example for numpy agrees with the library."""
    entry = replace(SAMPLE, name="mnist", mirrors=MNIST.mirrors)
    monkeypatch.setitem(CATALOG, "mnist", entry)
    monkeypatch.setattr("softmax_cli.data.loading.MNIST", entry)
    Path("tests").symlink_to(ROOT / "tests")
    blocks = map(dedent, re.findall(r"^ *```python\n(.*?)^ *```$", README, re.DOTALL | re.MULTILINE))
    for_numpy, *examples = sorted(blocks, key=lambda block: "np.load" not in block)
    names: dict[str, object] = {}
    exec("\n".join(examples), names)
    accuracy, *lines = capsys.readouterr().out.splitlines()
    assert float(accuracy) > 0.85
    epochs = lines.index("7") + 1
    assert [line.split()[0] for line in lines[epochs:]] == list("12345")
    exec(f"images = test.images\n{for_numpy}\nassert (predicted == classifier.predict(images)).all()", names)
