"""Files and options of the user: each error is reported as what it is, and work is bounded."""

import itertools
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from softmax_cli import files
from softmax_cli.checkpoint import load_checkpoint, save_checkpoint
from softmax_cli.config import TOML_LIMIT, TrainConfig, continued, option_name, read_toml
from softmax_cli.data.dataset import Dataset
from softmax_cli.data.download import Source
from softmax_cli.data.loading import load_dataset
from softmax_cli.errors import CheckpointError, ConfigError, DataError, ImageError, reason
from softmax_cli.files import open_regular
from softmax_cli.pictures import read_luminance
from softmax_cli.runs import run_epochs, start_run
from tests.helpers import PICTURE, assert_fails, folder_of, names, small_checkpoint, unprivileged
from tests.server import run_child

Invoke = Callable[..., Result]


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the current folder, which other users may read."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        monkeypatch.chdir(folder)
        yield Path(folder)


def refuse_reads(monkeypatch: pytest.MonkeyPatch, after: int = 0) -> None:
    """Make the system fail with EIO to read any file, after a number of reads.

    The start of the memory of a process is such a file.
    """
    count = itertools.count()

    class Failing(files._UserFile):
        def readinto(self, buffer: Any) -> int:
            self.break_disk()
            return super().readinto(buffer)

        def readall(self) -> bytes:
            self.break_disk()
            return super().readall()

        def break_disk(self) -> None:
            if next(count) == after:
                memory = os.open("/proc/self/mem", os.O_RDONLY)
                os.dup2(memory, self.fileno())
                os.close(memory)

    monkeypatch.setattr(files, "_UserFile", Failing)


# C8, C22, L11: the actual error


@pytest.mark.parametrize(
    "line",
    [("info",), ("eval",), ("predict", PICTURE), ("report",), ("train", "--resume")],
    ids=lambda line: line[0],
)
@pytest.mark.parametrize("path", ["secret.npz", "closed/model.npz", "n" * 300])
def test_c8_c22_a_checkpoint_without_permission_is_said_to_be_unreadable(
    line: tuple[Any, ...], path: str, shared: Path, invoke: Invoke
) -> None:
    Path("secret.npz").touch(mode=0)
    Path("closed").mkdir(mode=0)
    why = "file name too long" if path.startswith("n") else "permission denied"
    option = "-o" if "train" in line else "-c"
    with unprivileged():
        result = invoke(*line, option, path)
    assert_fails(result, f"cannot read {path}: {why}")


@pytest.mark.parametrize("after", [0, 1, 2, 5])
def test_c22_a_read_error_is_not_damage(
    after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    save_checkpoint(tmp_path / "model.npz", small_checkpoint(classes=tuple(map(str, range(2000)))))
    refuse_reads(monkeypatch, after)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path / "model.npz")
    assert str(caught.value) == f"cannot read {tmp_path / 'model.npz'}: input/output error"
    refuse_reads(monkeypatch, after)
    assert_fails(invoke("eval", tmp_path / "model.npz"), "cannot read", "input/output error")


def test_c22_a_read_error_of_data_is_not_one_of_writing(
    sample_test: Dataset, work: Path, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    folder_of(work / "own", sample_test)
    with monkeypatch.context() as patch:
        refuse_reads(patch)
        result = invoke("train", "--dataset", "own")
    assert_fails(result, "cannot read own/", "input/output error")
    with open("config.toml", "w") as file:
        file.write("epochs = 1")
    refuse_reads(monkeypatch)
    assert_fails(invoke("train", "--config", "config.toml"), "cannot read config.toml", code=2)


@pytest.mark.parametrize("mode", [0o000, 0o444, 0o111])
def test_l11_a_folder_that_may_not_be_listed_or_entered_is_named(
    mode: int, sample_test: Dataset, shared: Path, invoke: Invoke
) -> None:
    folder_of(shared / "own", sample_test).chmod(mode)
    with unprivileged():
        for line in (("train", "--dataset", "own"), ("train", "--dataset", "own/inside")):
            if line[2] == "own" or mode != 0o111:
                assert_fails(
                    invoke(*line, "-o", "/tmp/never.npz"), f"cannot read {line[2]}: permission denied"
                )
        with pytest.raises(DataError, match=r"^cannot read own: permission denied$"):
            load_dataset("own")
    (shared / "own").chmod(0o755)


@pytest.mark.parametrize("name", ["", "n" * 300, "a/" * 3000, "nowhere"])
@pytest.mark.parametrize("command", ["train", "eval", "report", "info"])
def test_l11_a_name_without_data_has_no_traceback(
    name: str, command: str, model_file: Path, work: Path, invoke: Invoke
) -> None:
    line = (name,) if command == "info" else ("--dataset", name)
    model = ("-c", model_file) if command in ("eval", "report") else ()
    result = invoke(command, *line, *model)
    assert result.exit_code in (1, 2)
    assert_fails(result, code=result.exit_code)
    assert names(work) == []


def test_l11_a_cache_that_may_not_be_entered_is_not_called_empty(shared: Path) -> None:
    Path("cache").mkdir(mode=0)
    with unprivileged(), pytest.raises(DataError, match=r"^cannot read cache/mnist/.*: permission denied$"):
        load_dataset("mnist", "train", Source("cache", offline=True))


def test_l11_a_null_character_in_a_name_is_no_path() -> None:
    with pytest.raises(ConfigError, match="is neither a path that exists nor"):
        load_dataset("a\0b")


def test_reasons_keep_the_spelling_of_paths() -> None:
    assert reason(OSError(2, "No such file or directory")) == "no such file or directory"
    assert reason(OSError("Bad bundle: /Some/CA.pem")) == "bad bundle: /Some/CA.pem"
    assert reason(OSError("SOCKS failed")) == "SOCKS failed"


@pytest.mark.usefixtures("alarm")
def test_a_file_that_becomes_a_pipe_does_not_block(work: Path) -> None:
    """The kind of a file is that of the open file, not of what was at its path before."""
    os.mkfifo("pipe")
    for path in ("pipe", "/dev/zero", "/dev/tty"):
        with pytest.raises(DataError):
            open_regular(Path(path), DataError)


def test_l2_libraries_print_nothing_beside_the_error(work: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """libtiff reports damage on standard error, whatever Python does."""
    picture = Image.fromarray(np.tile(np.arange(64) % 7 < 3, (64, 1)))
    picture.save("own.tif", compression="group4")
    content = bytearray(Path("own.tif").read_bytes())
    for place in range(8, len(content), 5):
        damaged = content.copy()
        damaged[place] ^= 0xFF
        with suppress(ImageError):
            read_luminance(bytes(damaged))
    os.write(2, b"end")
    assert capfd.readouterr() == ("", "end")


# L10, N8: bounded work


@pytest.mark.usefixtures("alarm")
def test_l10_a_config_that_is_no_small_file_is_refused_at_once(work: Path, invoke: Invoke) -> None:
    os.mkfifo("pipe.toml")
    Path("zero.toml").symlink_to("/dev/zero")
    with open("huge.toml", "wb") as file:
        file.truncate(3 << 30)
    expected = {
        "pipe": "is not a regular file",
        "zero": "is not a regular file",
        "huge": "has more than 16,384",
    }
    for name, message in expected.items():
        assert_fails(invoke("train", "--config", f"{name}.toml"), f"{name}.toml {message}", code=2)
    Path("large.toml").write_text("#" * TOML_LIMIT)
    assert read_toml("large.toml") == {}
    assert "pipe.toml" in names(work)


def test_l10_a_byte_order_mark_is_skipped(work: Path) -> None:
    Path("run.toml").write_bytes("epochs = 3\r\nfeatures = 'deskew'\r\n".encode("utf-8-sig"))
    assert read_toml("run.toml") == {"epochs": 3, "features": "deskew"}


def test_l10_a_key_of_thousands_of_parts_is_refused_at_once(work: Path) -> None:
    """The time to read it grows with the square of its length."""
    Path("run.toml").write_text("a" + ".a" * 8000 + " = 1")
    code = "import sys; from softmax_cli.config import read_toml; read_toml(sys.argv[1])"
    result = run_child(code, "run.toml", folder=work, RLIMIT_CPU=5)
    assert "ConfigError: run.toml is not valid TOML" in result.stderr
    Path("run.toml").write_text("a" + ".a" * 30_000 + " = 1")
    assert (
        "ConfigError: run.toml has more than" in run_child(code, "run.toml", folder=work, RLIMIT_CPU=5).stderr
    )


HUGE = 10**400
OPTIONS = [item for item in fields(TrainConfig) if item.type is not bool]


@pytest.mark.parametrize("option", OPTIONS, ids=lambda item: item.name)
@pytest.mark.parametrize("value", [str(HUGE), f"-{HUGE}", "9" * 5000, "1e400", "1e100"])
def test_n8_a_huge_number_for_any_option_is_wrong_usage(
    option: Any, value: str, invoke: Invoke, work: Path
) -> None:
    if option.type is str and option.name == "dataset":
        value = "nowhere"
    result = invoke("train", "--features", "fourier", f"--{option_name(option.name)}", value)
    assert (result.exit_code, result.stdout) == (2, "")
    assert names(work) == []


@pytest.mark.parametrize("option", OPTIONS, ids=lambda item: item.name)
@pytest.mark.parametrize("value", [str(HUGE), f"-{HUGE}", "9" * 5000, f"0x{'f' * 5000}", "1e100", "[]", "{}"])
def test_n8_a_huge_number_for_any_key_is_wrong_usage(
    option: Any, value: str, invoke: Invoke, work: Path
) -> None:
    fourier = "features = 'fourier'\n" if option.name != "features" else ""
    Path("run.toml").write_text(f"{fourier}{option.name} = {value}\n")
    if (option.name, value) == ("features", "[]"):  # no stages: pixels
        return
    assert_fails(invoke("train", "--config", "run.toml"), code=2)
    with pytest.raises(ConfigError):
        continued(TrainConfig(features="fourier"), read_toml("run.toml"))


@pytest.mark.parametrize(
    "line",
    [("--threads", HUGE), ("--threads", 0), ("--threads", "9" * 5000), ("--l2", "1e100")],
    ids=lambda x: x[0],
)
def test_n8_a_huge_number_of_threads_is_wrong_usage(
    line: tuple[Any, ...], invoke: Invoke, work: Path
) -> None:
    assert invoke("train", *line).exit_code == 2
    assert names(work) == []


# L15: data that change while they are mapped


TRUNCATE = """
import os
from pathlib import Path
from softmax_cli.config import TrainConfig
from softmax_cli.data.download import Source
from softmax_cli.data.loading import load_dataset
from softmax_cli.data.download import Source
from softmax_cli import runs
from softmax_cli.runs import run_epochs, start_run

runs.SAVE_INTERVAL = 0
data = load_dataset("own", "train", Source("cache"))
run = start_run(TrainConfig(dataset="own", epochs=50, batch_size=8), "model.npz", Source("cache"), data=data)
for checkpoint in run_epochs(run):
    os.truncate("own/train-images-idx3-ubyte", 5000)
"""


def test_l15_a_file_truncated_while_it_is_mapped_ends_the_run_with_a_whole_checkpoint(
    sample: Dataset, work: Path
) -> None:
    """The kernel ends the process with SIGBUS; a second run can continue at once."""
    folder_of(work / "own", sample)
    result = run_child(TRUNCATE, folder=work)
    assert result.returncode in (1, -signal.SIGBUS), result.stderr
    assert load_checkpoint("model.npz").state.epoch == 1
    (digest,) = {load_checkpoint("model.npz").digest}
    assert digest == sample.digest
    assert not list(work.glob(".*.tmp"))
    with pytest.raises(DataError, match="has 5,000 bytes, expected"):
        load_dataset("own")


def test_l15_the_lock_of_a_process_that_was_ended_by_the_kernel_is_free(sample: Dataset, work: Path) -> None:
    folder_of(work / "own", sample)
    run_child(TRUNCATE, folder=work)
    run = start_run(TrainConfig(dataset="sample", epochs=1), "model.npz")
    assert run.backup == Path("model.npz.bak")
    assert [reached.state.epoch for reached in run_epochs(run)] == [1]
