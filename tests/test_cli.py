"""The command line as a whole: help, wrong usage, exit codes."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import Result

from softmax_cli import __version__
from softmax_cli.cli.main import COMMANDS, main
from softmax_cli.cli.progress import work_bar
from softmax_cli.cli.terminal import bars, escape, half_blocks, table
from softmax_cli.cli.threads import BLAS_VARIABLES
from tests.helpers import PICTURE, assert_fails

Invoke = Callable[..., Result]
Command = Callable[..., Any]


def command_named(name: str) -> click.Command:
    found = main.get_command(click.Context(main), name)  # type: ignore[attr-defined]
    assert found
    return found


def test_version_and_list_of_commands_are_printed(invoke: Invoke) -> None:
    """The list contains the first sentence of each command's help."""
    assert invoke("--version").stdout == f"softmax {__version__}\n"
    assert "..." not in invoke("--help").stdout.replace("[ARGS]...", "")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, invoke: Invoke) -> None:
    """The help is the sentence in the list, an example, and a line for each option."""
    found = command_named(name)
    assert found.help
    assert found.help.startswith(COMMANDS[name] + "\n")
    assert "Example:" in found.help
    assert f"softmax {name}" in found.help
    for parameter in found.params:
        assert isinstance(parameter, click.Argument) or parameter.help, parameter.name  # type: ignore[attr-defined]
    result = invoke(name, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: main {name}")


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        (["trian"], "Did you mean 'train'"),
        (["train", "--epoch", "3"], "--epochs"),
        (["train", "--lr", "1"], "Did you mean --learning-rate"),
        (["train", "--epochs", "many"], "not a valid integer"),
        (["train", "--schedule", "cosin"], "constant"),
        (["predict"], "Missing argument"),
        (["eval", "--split", "tset"], "test"),
    ],
)
def test_l1_wrong_usage_exits_with_2_and_a_suggestion(line: list[str], hint: str, invoke: Invoke) -> None:
    result = invoke(*line)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Usage:" in result.stderr
    assert hint in result.stderr


@pytest.mark.parametrize(
    "line", [("eval",), ("predict", PICTURE), ("report",), ("info",), ("train", "--resume")], ids=str
)
def test_a_missing_checkpoint_is_an_error_with_the_command_that_writes_one(
    line: tuple[object, ...], invoke: Invoke, work: Path
) -> None:
    assert_fails(invoke(*line), "no checkpoint at model.npz; train one with: softmax train")
    option = "-o" if "train" in line else "-c"
    assert_fails(invoke(*line, option, "a b.npz"), "softmax train --output 'a b.npz'")
    assert list(work.iterdir()) == []


def test_the_environment_names_the_checkpoint(
    invoke: Invoke, model_file: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOFTMAX_CHECKPOINT", str(model_file))
    assert invoke("info").stdout.startswith(f"{model_file}: softmax checkpoint, format ")


def test_an_invalid_number_of_cores_exits_with_2(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTMAX_THREADS", "many")
    assert_fails(invoke("info"), "SOFTMAX_THREADS must be a whole number above 0, not 'many'", code=2)


def test_debug_shows_the_traceback(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTMAX_DEBUG", "1")
    result = invoke("info", "--checkpoint", "nowhere.npz")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert "\nerror: " in result.stderr


def test_a_bug_shows_its_traceback_and_ctrl_c_exits_with_130(
    invoke: Invoke, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("softmax_cli.checkpoint.load_checkpoint", lambda path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        invoke("info", "-c", model_file)
    monkeypatch.setattr("softmax_cli.checkpoint.load_checkpoint", interrupt)
    result = invoke("info", "-c", model_file)
    assert (result.exit_code, result.stdout) == (130, "")


def test_a_command_restores_signals_and_logging(invoke: Invoke, model_file: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    invoke("info", "--checkpoint", model_file)
    assert signal.getsignal(signal.SIGTERM) is before
    assert not logging.getLogger("softmax_cli").handlers


@pytest.mark.parametrize(
    ("redirection", "code", "errors"),
    [("| true", 0, 0), ("> /dev/full", 1, 1), (">&-", 1, 1), ("2>&-", 0, 0)],
    ids=["closed pipe", "full disk", "closed stdout", "closed stderr"],
)
def test_l3_l4_a_result_that_cannot_be_printed_is_a_failure(
    redirection: str, code: int, errors: int, model_file: Path
) -> None:
    """A closed pipe or a closed stderr is not a failure."""
    line = f"{sys.executable} -m softmax_cli info -c '{model_file}' {redirection}"
    result = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert (result.returncode, len(result.stderr.splitlines())) == (code, errors)
    assert result.stderr.count("error: ") == errors
    assert result.stdout.count("softmax checkpoint") == (redirection == "2>&-")


def test_output_can_be_ascii(command: Command, model_file: Path) -> None:
    environment = {"PYTHONIOENCODING": "ascii", "PATH": "/usr/bin:/bin"}
    result = command("predict", PICTURE, "-c", model_file, "--show", env=environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout.isascii()


def test_control_characters_are_escaped() -> None:
    assert escape("a\x1b[31m\n\tb\udcffé") == "a\\x1b[31m\\n\\tb\\udcffé"


def test_table_aligns_its_columns() -> None:
    assert table(["", "a"], [["x", "100"], ["long", "1"]]) == "        a\nx     100\nlong    1"


def test_bars_are_proportional_to_their_shares() -> None:
    lines = bars({"a": 0.5, "bb": 0.25, "c": 0.0}).splitlines()
    assert [line.count("█") for line in lines] == [20, 10, 0]
    assert lines[2] == " c    0.00 %"


def test_half_blocks_draw_two_rows_per_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are two tones, or shades of grey on a terminal with colour."""
    image = np.array([[255, 0, 255, 0], [255, 255, 0, 0], [0, 255, 255, 0]], np.uint8)
    assert half_blocks(image) == "█▄▀\n ▀▀"
    monkeypatch.setattr("softmax_cli.cli.terminal._has_colour", lambda: True)
    text = half_blocks(np.array([[0, 255], [255, 128]], np.uint8))
    assert text == "\x1b[38;5;232;48;5;255m▀\x1b[38;5;255;48;5;244m▀\x1b[0m"


CHILD = """
from softmax_cli.cli.threads import use_threads
use_threads(None)
import os
print(os.environ["OPENBLAS_NUM_THREADS"])
"""


def test_a_matrix_product_uses_one_thread_by_default() -> None:
    clean = {name: value for name, value in os.environ.items() if name not in BLAS_VARIABLES}
    for environment, threads in (({}, "1"), ({"OPENBLAS_NUM_THREADS": "3"}, "3")):
        line = [sys.executable, "-c", CHILD]
        result = subprocess.run(line, env=clean | environment, capture_output=True, text=True, check=True)
        assert result.stdout == f"{threads}\n"


@pytest.mark.parametrize(
    "line",
    [
        ("predict", "{}.png", "-c", "model.npz"),
        ("predict", "picture.png", "-c", "{}.npz"),
        ("eval", "-c", "{}.npz"),
        ("info", "-c", "{}.npz"),
        ("train", "--config", "{}.toml"),
        ("train", "--dataset", "{}"),
        ("train", "--dataset", "sample", "--output", "{}/m.npz"),
        ("report", "-c", "{}.npz"),
    ],
    ids=" ".join,
)
def test_a_name_cannot_add_a_line_to_stderr(
    line: tuple[str, ...], invoke: Invoke, model_file: Path, work: Path
) -> None:
    """Newlines, carriage returns and escape sequences in names are escaped."""
    (work / "model.npz").write_bytes(model_file.read_bytes())
    result = invoke(*(part.format("x\nerror: y\r\x1b[31m") for part in line))
    assert result.exit_code in (1, 2)
    assert result.stdout == ""
    assert [text[:7] for text in result.stderr.splitlines()] == ["error: "]
    assert "x\\nerror: y\\r\\x1b[31m" in result.stderr


def test_l5_long_work_shows_a_bar_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for terminal in (True, False):
        monkeypatch.setattr("softmax_cli.cli.progress.on_terminal", lambda: terminal)  # noqa: B023
        with work_bar(100, "evaluating") as bar:
            time.sleep(0.6)
            bar.update(50)
        text = capsys.readouterr().err
        assert ("evaluating:  50%" in text) == terminal
        assert terminal or text == ""
