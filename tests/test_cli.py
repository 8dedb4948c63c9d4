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
import pytest
from click.testing import Result

from softmax_cli import __version__
from softmax_cli.cli import COMMANDS, main
from softmax_cli.commands.progress import work_bar
from softmax_cli.commands.terminal import bars, escape, half_blocks, table
from softmax_cli.commands.threads import BLAS_VARIABLES

Invoke = Callable[..., Result]
Command = Callable[..., Any]


def command_named(name: str) -> click.Command:
    found = main.get_command(click.Context(main), name)  # type: ignore[attr-defined]
    assert found
    return found


def test_version(invoke: Invoke) -> None:
    assert invoke("--version").stdout == f"softmax {__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, invoke: Invoke) -> None:
    """A command's help is a sentence, an example, and a line for each option."""
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


def test_short_help_is_not_cut(invoke: Invoke) -> None:
    assert "..." not in invoke("--help").stdout.replace("[ARGS]...", "")


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        (["trian"], "Did you mean 'train'"),
        (["train", "--epoch", "3"], "--epochs"),
        (["train", "--epochs", "many"], "not a valid integer"),
        (["train", "--schedule", "cosin"], "constant"),
        (["predict"], "Missing argument"),
        (["eval", "--split", "tset"], "test"),
    ],
)
def test_wrong_usage_exits_with_2_and_says_what_is_near(line: list[str], hint: str, invoke: Invoke) -> None:
    result = invoke(*line)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Usage:" in result.stderr
    assert hint in result.stderr


def test_debug_shows_the_traceback(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTMAX_DEBUG", "1")
    result = invoke("info", "--checkpoint", "nowhere.npz")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert "\nerror: " in result.stderr


def test_a_bug_shows_its_traceback(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("softmax_cli.commands.options.load_checkpoint", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        invoke("info")


def test_ctrl_c_exits_with_130(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("softmax_cli.commands.options.load_checkpoint", interrupt)
    result = invoke("info")
    assert (result.exit_code, result.stdout) == (130, "")


def test_a_run_leaves_signals_and_logging_as_they_were(invoke: Invoke, model_file: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    invoke("info", "--checkpoint", model_file)
    assert signal.getsignal(signal.SIGTERM) is before
    assert not logging.getLogger("softmax_cli").handlers


def test_a_closed_pipe_is_no_error_message(model_file: Path) -> None:
    line = f"{sys.executable} -m softmax_cli info -c '{model_file}' | true"
    result = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    assert result.stderr == ""


def test_a_full_disk_at_stdout_is_a_failure(model_file: Path) -> None:
    line = [sys.executable, "-m", "softmax_cli", "info", "-c", str(model_file)]
    with open("/dev/full", "w") as full:
        result = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 1
    assert "error: " in result.stderr
    assert "Traceback" not in result.stderr


def test_a_closed_stdout_is_a_failure_and_a_closed_stderr_is_none(model_file: Path) -> None:
    line = f"{sys.executable} -m softmax_cli info -c '{model_file}'"
    closed = subprocess.run(["bash", "-c", f"{line} >&-"], capture_output=True, text=True, check=False)
    assert (closed.returncode, closed.stderr.count("error: ")) == (1, 1)
    assert "Traceback" not in closed.stderr
    silent = subprocess.run(["bash", "-c", f"{line} 2>&-"], capture_output=True, text=True, check=False)
    assert silent.returncode == 0
    assert silent.stdout.count("checkpoint of softmax") == 1


def test_ascii_output_is_no_error(command: Command, model_file: Path) -> None:
    environment = {"PYTHONIOENCODING": "ascii", "PATH": "/usr/bin:/bin"}
    picture = Path(__file__).parent / "pictures" / "seven.png"
    result = command("predict", picture, "-c", model_file, "--show", env=environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout.isascii()


def test_escape_disarms_control_characters() -> None:
    assert escape("a\x1b[31m\n\tb\udcffé") == "a\\x1b[31m\\n\\tb\\udcffé"


def test_table_aligns_its_columns() -> None:
    assert table(["", "a"], [["x", "100"], ["long", "1"]]) == "        a\nx     100\nlong    1"


def test_bars_are_as_long_as_their_shares() -> None:
    lines = bars({"a": 0.5, "bb": 0.25, "c": 0.0}).splitlines()
    assert [line.count("█") for line in lines] == [20, 10, 0]
    assert lines[2] == " c    0.00 %"


def test_half_blocks_draw_two_rows_a_line() -> None:
    import numpy as np

    image = np.array([[255, 0, 255, 0], [255, 255, 0, 0], [0, 255, 255, 0]], np.uint8)
    assert half_blocks(image) == "█▄▀\n ▀▀"


def test_half_blocks_are_grey_where_there_is_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    monkeypatch.setattr("softmax_cli.commands.terminal._has_colour", lambda: True)
    text = half_blocks(np.array([[0, 255], [255, 128]], np.uint8))
    assert text == "\x1b[38;5;232;48;5;255m▀\x1b[38;5;255;48;5;244m▀\x1b[0m"


CHILD = """
from softmax_cli.commands.threads import use_threads
use_threads(None)
import os
print(os.environ["OPENBLAS_NUM_THREADS"])
"""


def test_a_matrix_product_uses_one_thread_unless_the_environment_says_otherwise() -> None:
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
def test_a_name_cannot_add_a_line_of_its_own(
    line: tuple[str, ...], invoke: Callable[..., Result], model_file: Path, work: Path
) -> None:
    """A name with a newline, a carriage return and an escape sequence in it shows them spelled out."""
    (work / "model.npz").write_bytes(model_file.read_bytes())
    result = invoke(*(part.format("x\nerror: y\r\x1b[31m") for part in line))
    assert result.exit_code in (1, 2)
    assert result.stdout == ""
    assert [text[:7] for text in result.stderr.splitlines()] == ["error: "]
    assert "x\\nerror: y\\r\\x1b[31m" in result.stderr


def test_a_long_work_shows_a_bar_on_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for terminal in (True, False):
        monkeypatch.setattr("softmax_cli.commands.progress.on_terminal", lambda: terminal)  # noqa: B023
        with work_bar(100, "judging") as bar:
            time.sleep(0.6)
            bar.update(50)
            bar.refresh()
        text = capsys.readouterr().err
        assert ("judging:  50%" in text) == terminal
        assert terminal or text == ""
