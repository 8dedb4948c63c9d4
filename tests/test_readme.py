"""The README tells the truth about the program."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from softmax_cli.cli import COMMANDS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_help_in_the_readme_is_that_of_the_program() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "cogapp", "--check", "README.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, "run make readme"


def test_every_command_is_in_the_readme() -> None:
    for name in COMMANDS:
        assert f"softmax {name}" in README


def test_every_file_that_is_named_exists() -> None:
    for name in re.findall(r"\]\(([\w./]+)\)|--config (configs/\w+\.toml)", README):
        assert (ROOT / (name[0] or name[1])).exists(), name


def test_the_library_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a network the example of the README trains on the sample."""
    code = README.partition("```python\nfrom softmax_cli")[2].partition("```")[0]
    exec("from softmax_cli" + code.replace("cache_folder())", "cache_folder(), offline=True)"), {})
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list("12345")
