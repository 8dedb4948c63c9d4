"""A training run: start or resume, save the epochs, back up, write a log."""

import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from softmax_cli.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from softmax_cli.cluster import Cluster
from softmax_cli.config import AUTO, DEFAULT_CHECKPOINT, SOLVERS, TrainConfig, continued
from softmax_cli.data.dataset import Dataset
from softmax_cli.data.download import Source
from softmax_cli.data.loading import find_dataset, load_dataset
from softmax_cli.errors import CheckpointError, ConfigError, OutputError, reason
from softmax_cli.files import FileLock, atomic_write, check_replaces, check_writable, open_regular
from softmax_cli.novelty import fit_novelty
from softmax_cli.regularization import PathPoint, choose_l2
from softmax_cli.training import (
    Epoch,
    check_cluster_suits,
    fit,
    has_converged,
    is_complete,
    split_rows,
    start,
)

log = logging.getLogger(__name__)

SAVE_INTERVAL = 0.5
"""Seconds after a save before an epoch is saved again, except at the end: a save waits for the disk."""

LOG_START = b'{"epoch":'
"""First bytes of every log."""

LOG_LIMIT = 1 << 24
"""Bytes that a log may have; that of the largest number of epochs takes less than two million."""


@dataclass(frozen=True)
class Run:
    """A training run that is ready to continue.

    Attributes:
        checkpoint: The checkpoint from which the run continues.
        data: The training split; None if the run is complete.
        output: The checkpoint file.
        log_file: The file with a JSON line per epoch, or None.
        is_new: Whether the run is new; a file at `output` then belongs to another run.
        backup: Path of the backup of that file, if there is one.
        locks: Locks on output and log, held until the run ends; no other run can start with the same ones.
    """

    checkpoint: Checkpoint
    data: Dataset | None
    output: Path
    log_file: Path | None
    is_new: bool
    backup: Path | None = None
    locks: tuple[FileLock, ...] = ()

    def release(self) -> None:
        """Release the locks, so that another run can write the same files."""
        for lock in self.locks:
            lock.release()


def train(
    config: TrainConfig | None = None,
    output: str | Path = DEFAULT_CHECKPOINT,
    data: Dataset | None = None,
    source: Source | None = None,
) -> Checkpoint:
    """Train a model, save it as it advances, and return the final checkpoint.

    Args:
        config: The configuration; by default, all defaults.
        output: The checkpoint file. A model of another run that is there is kept as ``NAME.bak``.
        data: The training split; by default, that of ``config.dataset``.
        source: Cache and mirrors; by default, the user's cache.
    """
    run = start_run(config or TrainConfig(), output, source, data=data)
    checkpoint = run.checkpoint
    for reached in run_epochs(run):
        checkpoint = reached
    return checkpoint


def start_run(
    config: TrainConfig,
    output: str | Path,
    source: Source | None = None,
    log_file: str | Path | None = None,
    data: Dataset | None = None,
    cluster: Cluster | None = None,
) -> Run:
    """Return a new run; nothing is written yet.

    With a cluster, which is connected before the data are read, l2 is chosen there.

    Raises:
        OutputError: The checkpoint or the log could not be written, or another run is writing it.
        ConfigError: The configuration does not suit the data.
        DivergenceError: A value is not finite while l2 is chosen.
        DataError: The data cannot be had.
    """
    output, log_file = Path(output), _checked_log(log_file, Path(output))
    check_writable(output)
    with _locked(output, log_file) as locks:
        if cluster:
            check_cluster_suits(config)
            cluster.connect()
        data = data or load_dataset(config.dataset, "train", source)
        path: tuple[PathPoint, ...] = ()
        if config.chooses_l2:
            config, path = choose_l2(config, data, cluster=cluster)
        split = split_rows(config, data)
        novelty = fit_novelty(data, *split, config.seed)
        checkpoint = Checkpoint.begin(config, data, start(config, data, split), path, novelty)
        backup = _backup_of(output) if _holds_other_run(output) else None
        return Run(checkpoint, data, output, log_file, is_new=True, backup=backup, locks=locks)


@contextmanager
def _locked(*paths: Path | None) -> Iterator[tuple[FileLock, ...]]:
    """Yield locks on files; they are released if the block ends with an error."""
    locks: list[FileLock] = []
    try:
        locks.extend(FileLock(path) for path in paths if path)
        yield tuple(locks)
    except BaseException:
        for lock in locks:
            lock.release()
        raise


def resume_run(
    given: dict[str, Any],
    output: str | Path,
    source: Source | None = None,
    log_file: str | Path | None = None,
) -> Run:
    """Return the run saved at `output`, to be continued with the overrides `given`.

    Raises:
        CheckpointError: There is no valid checkpoint.
        ConfigError: A value that cannot change differs, or the data set is another one.
    """
    output, log_file = Path(output), _checked_log(log_file, Path(output))
    load_checkpoint(output)  # an error in it matters more than one of the folder
    check_writable(output)
    with _locked(output, log_file) as locks:
        checkpoint = load_checkpoint(output)
        dataset = given.get("dataset", "auto")
        given = {key: value for key, value in given.items() if key != "dataset"}
        if checkpoint.l2_path and given.get("l2") == AUTO:
            del given["l2"]  # it was chosen when the run started
        checkpoint = replace(checkpoint, config=continued(checkpoint.config, given))
        complete = is_complete(checkpoint.state, checkpoint.config)
        data = None
        if not complete or dataset != "auto":
            data = _data_to_resume(checkpoint, dataset, source or Source())
        run = Run(checkpoint, None if complete else data, output, log_file, is_new=False, locks=locks)
        if complete:
            _mend_log(run)
            run.release()
        return run


def _data_to_resume(checkpoint: Checkpoint, dataset: str, source: Source) -> Dataset:
    if dataset == "auto":
        return find_dataset(checkpoint.dataset, checkpoint.digest, "train", source)
    data = load_dataset(dataset, "train", source)
    if data.digest != checkpoint.digest:
        raise ConfigError(
            f"the run to resume was trained on {checkpoint.dataset} ({checkpoint.digest[:12]}), but "
            f"{data.name} ({data.digest[:12]}) was given; start a new run without --resume"
        )
    return data


def run_epochs(
    run: Run,
    on_progress: Callable[[int], bool] = lambda images: False,
    cluster: Cluster | None = None,
) -> Iterator[Checkpoint]:
    """Train to the end; yield the checkpoint after every epoch.

    A new run first backs up the file at its output and saves its untrained model. An epoch is saved and
    logged if the last save was at least `SAVE_INTERVAL` ago. Whatever ends the run, the last finished epoch
    is saved; only if the process is killed are the epochs since the last save lost. `on_progress` and
    `cluster` are those of `fit`. At the end, the locks of the run are released.
    """
    try:
        if run.data is not None:
            _prepare_files(run)
            yield from _train(run, run.data, on_progress, cluster)
    finally:
        run.release()


def _prepare_files(run: Run) -> None:
    """Back up what a new run replaces, and write its untrained model and an empty log; mend an old log."""
    if run.is_new:
        if run.backup:
            back_up(run.output)
        save_checkpoint(run.output, run.checkpoint)
        if run.log_file and run.log_file.exists() and run.log_file.stat().st_size:
            back_up(run.log_file)
        _write_log(run.log_file, "", "w")
    else:
        _mend_log(run)


def _mend_log(run: Run) -> None:
    """Make the log of a run that continues hold one line for each epoch of its checkpoint.

    Lines that are missing, torn or repeated are written again from the history, without seconds. A log that
    has other lines, which belong to another run, is kept as a backup.
    """
    if run.log_file is None:
        return
    found = _read_log(run.log_file) if run.log_file.exists() else b""
    lines = {_record_in(line): line for line in found.splitlines(keepends=True) if line.endswith(b"\n")}
    records = [_record(run.checkpoint, epoch) for epoch in run.checkpoint.state.history]
    mended = [lines.get(json.dumps(record), _log_line(record, None).encode()) for record in records]
    if b"".join(mended) == found:
        return
    if set(lines.values()) - set(mended):
        back_up(run.log_file)
    with atomic_write(run.log_file) as file:
        file.writelines(mended)


def _read_log(path: Path) -> bytes:
    with open_regular(path, OutputError) as file:
        content = file.read(LOG_LIMIT + 1)
    if len(content) > LOG_LIMIT:
        raise OutputError(
            f"{path} is too large for a log: more than {LOG_LIMIT:,} bytes; choose another --log"
        )
    return content


def _record_in(line: bytes) -> str | None:
    """Return the record in a line of a log, without its seconds, as JSON; None if it holds none."""
    try:
        record = json.loads(line)
        del record["seconds"]
    except (ValueError, RecursionError, TypeError, LookupError):
        return None
    return json.dumps(record)


def _train(
    run: Run, data: Dataset, on_progress: Callable[[int], bool], cluster: Cluster | None
) -> Iterator[Checkpoint]:
    checkpoint, lines = run.checkpoint, list[str]()
    started = saved = time.perf_counter()
    try:
        for state in fit(checkpoint.config, data, checkpoint.state, on_progress, cluster=cluster):
            now = time.perf_counter()
            checkpoint = checkpoint.advance(state, now - started)
            lines.append(_log_line(_record(checkpoint, state.history[-1]), now - started))
            if now - saved >= SAVE_INTERVAL:
                _save(run, checkpoint, lines)
                saved = now
            yield checkpoint
            started = time.perf_counter()
    finally:
        if lines:
            _save(run, checkpoint, lines)


def _save(run: Run, checkpoint: Checkpoint, lines: list[str]) -> None:
    """Save the checkpoint, then move the lines to the log; on an error, they are dropped."""
    text = "".join(lines)
    lines.clear()
    save_checkpoint(run.output, checkpoint)
    _write_log(run.log_file, text, "a")


def describe_run(checkpoint: Checkpoint, run: Run) -> dict[str, Any]:
    """Return the result of a run as plain values, as in ``softmax train --json``.

    `checkpoint` is the last one of the run. The scores are those of the model that was kept, before
    calibration.
    """
    state, config = checkpoint.state, checkpoint.config
    best = state.history[state.best_epoch - 1]
    validation = {"accuracy": best.validation_accuracy, "loss": best.validation_loss}
    stops_by_itself = SOLVERS[config.solver].tolerance is not None
    return {
        "checkpoint": str(run.output),
        "backup": str(run.backup) if run.backup else None,
        "dataset": checkpoint.dataset,
        "epochs": state.epoch,
        "best_epoch": state.best_epoch,
        "train_loss": best.train_loss,
        "validation": validation if best.validation_loss is not None else None,
        "temperature": state.temperature,
        "l2": config.l2,
        "l2_path": [point._asdict() for point in checkpoint.l2_path] or None,
        "converged": has_converged(state, config) if stops_by_itself else None,
        "seconds": round(checkpoint.run["seconds"], 3),
    }


def back_up(path: Path) -> None:
    """Copy a file to the same name with ``.bak``, and log that."""
    backup = _backup_of(path)
    with open_regular(path, OutputError) as old, atomic_write(backup, like=path) as kept:
        shutil.copyfileobj(old, kept)
    log.info("kept the earlier %s as %s", path, backup)


def _backup_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.bak")


def _holds_other_run(output: Path) -> bool:
    """Return whether the file at `output` belongs to another run.

    A checkpoint without a finished epoch does not count.
    """
    if not os.path.exists(output):
        return False
    try:
        return load_checkpoint(output).state.epoch > 0
    except CheckpointError:
        return True  # a file that is not a checkpoint is backed up, too


def _checked_log(log_file: str | Path | None, output: Path) -> Path | None:
    """Return the path of the log.

    An error is raised if the log would replace the model or cannot be written.
    """
    if log_file is None:
        return None
    log_file = Path(log_file)
    if os.path.realpath(log_file) in (os.path.realpath(output), os.path.realpath(f"{output}.bak")):
        raise ConfigError(f"--log and --output are the same file, {log_file}; choose another --log")
    check_writable(log_file)
    check_replaces(log_file, LOG_START, "log", "--log")
    return log_file


def _record(checkpoint: Checkpoint, epoch: Epoch) -> dict[str, Any]:
    """Return the record of an epoch for the log, without the values that this solver does not know.

    If l2 was chosen, the record of the first epoch has the choice and the path.
    """
    optional = ("gradient_norm", "distance")
    record = {
        key: value for key, value in epoch._asdict().items() if value is not None or key not in optional
    }
    if checkpoint.l2_path and epoch.epoch == 1:
        record |= {"l2": checkpoint.config.l2, "l2_path": [point._asdict() for point in checkpoint.l2_path]}
    return record


def _log_line(record: dict[str, Any], seconds: float | None) -> str:
    """Return a record and the time that its epoch took, if that is known, as a line of JSON."""
    return json.dumps(record | {"seconds": seconds if seconds is None else round(seconds, 3)}) + "\n"


def _write_log(log_file: Path | None, text: str, mode: str) -> None:
    """Append text to the log (`mode` ``a``) or replace it (``w``), if there is one."""
    if log_file is None:
        return
    try:
        with open(log_file, mode, encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise OutputError(f"cannot write {log_file}: {reason(error)}") from error
