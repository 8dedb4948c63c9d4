"""`softmax train`."""

import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from softmax_cli.commands import options
from softmax_cli.commands.terminal import escape
from softmax_cli.commands.threads import use_threads
from softmax_cli.config import DEFAULT_CHECKPOINT, TrainConfig, continued, read_toml
from softmax_cli.errors import ConfigError, OutputError, reason

if TYPE_CHECKING:
    from softmax_cli.checkpoint import Checkpoint
    from softmax_cli.commands.signals import Stop
    from softmax_cli.data.dataset import Dataset
    from softmax_cli.data.download import Source
    from softmax_cli.training import State

log = logging.getLogger(__name__)

LOG_START = b'{"epoch":'
"""What every log begins with."""


@click.command()
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    metavar="FILE.toml",
    help="Read training options from a TOML file; flags beat it.",
)
@options.training
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    default=DEFAULT_CHECKPOINT,
    show_default=True,
    envvar="SOFTMAX_CHECKPOINT",
    help="Where the model goes, or SOFTMAX_CHECKPOINT.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Continue the run at --output. --epochs may grow with newton or a constant schedule.",
)
@click.option(
    "--log",
    "log_file",
    type=click.Path(path_type=Path),
    metavar="FILE.jsonl",
    help="Write a JSON line for each epoch; an earlier log is kept as FILE.jsonl.bak.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="Cores to use at most; the result is the same.  [default: SOFTMAX_THREADS, or all]",
)
@options.mirror
@options.data
@options.as_json
@click.option("--quiet", "-q", is_flag=True, help="Show no progress; warnings and the result remain.")
def command(
    config_file: Path | None,
    output: Path,
    resume: bool,
    log_file: Path | None,
    threads: int | None,
    mirrors: tuple[str, ...],
    data_dir: Path | None,
    offline: bool,
    as_json: bool,
    quiet: bool,
    **flags: Any,
) -> None:
    """Train a softmax regression and save it after every epoch.

    Stop it with Ctrl-C and go on with --resume. With the solver sgd the result is the same, bit for bit;
    newton comes to the same optimum.

    \b
    Example:
      softmax train --epochs 20 --output digits.npz
    """
    if quiet:
        logging.getLogger("softmax_cli").setLevel(logging.WARNING)
    use_threads(threads)
    _check_log(log_file, output)
    given = read_toml(config_file) if config_file else {}
    given |= {key: value for key, value in flags.items() if value is not None}
    source = options.make_source(data_dir, offline, mirrors, quiet)
    checkpoint, data = _resume(output, given, source) if resume else _begin(output, given, source)
    if data is not None:
        checkpoint = _train(checkpoint, data, output, log_file, resume, quiet)
    click.echo(json.dumps(_result(checkpoint, output)) if as_json else _sentence(checkpoint, output))


def _begin(output: Path, given: dict[str, Any], source: "Source") -> "tuple[Checkpoint, Dataset]":
    """Return the checkpoint of a new run, and its data."""
    from softmax_cli.checkpoint import Checkpoint
    from softmax_cli.data.dataset import load
    from softmax_cli.files import check_writable
    from softmax_cli.training import start

    config = TrainConfig(**given)
    check_writable(output)
    data = load(config.dataset, "train", source)
    return Checkpoint.begin(config, data, start(config, data)), data


def _resume(output: Path, given: dict[str, Any], source: "Source") -> "tuple[Checkpoint, Dataset | None]":
    """Return the checkpoint to go on from, and its data, or None where there is nothing left to do."""
    from dataclasses import replace

    from softmax_cli.files import check_writable
    from softmax_cli.training import is_complete

    checkpoint = options.load_checkpoint(output, must_know=False)
    told = given.pop("dataset", "auto")
    checkpoint = replace(checkpoint, config=continued(checkpoint.config, given))
    check_writable(output)
    complete = is_complete(checkpoint.state, checkpoint.config)
    if complete and told == "auto":
        data = None
    else:
        data = options.load_data(checkpoint, None if told == "auto" else told, "train", source)
        if data.digest != checkpoint.digest:
            raise ConfigError(
                f"the run to resume was trained on {checkpoint.dataset} ({checkpoint.digest[:12]}), but "
                f"{data.name} ({data.digest[:12]}) was given; start a new run without --resume"
            )
    if complete:
        log.info("%s is already complete: %d epochs", output, checkpoint.state.epoch)
        return checkpoint, None
    return checkpoint, data


def _train(
    checkpoint: "Checkpoint", data: "Dataset", output: Path, log_file: Path | None, resume: bool, quiet: bool
) -> "Checkpoint":
    """Train to the end, saving and logging each epoch; leave with 130 or 143 when a signal stops it."""
    from softmax_cli.checkpoint import save
    from softmax_cli.commands.signals import graceful_stop
    from softmax_cli.data.dataset import hold_out
    from softmax_cli.training import is_complete

    config = checkpoint.config
    split = hold_out(data.labels, config.validation_size, config.seed)
    with graceful_stop() as stop:
        if not resume:
            _keep_other_run(output)
            save(output, checkpoint)
            if log_file and log_file.exists() and log_file.stat().st_size:
                _back_up(log_file)
        _write_log(log_file, "", "a" if resume else "w")
        _announce(checkpoint, data, split)
        for state, seconds in _epochs(checkpoint, data, split, stop, quiet):
            checkpoint = checkpoint.advance(state, seconds)
            save(output, checkpoint)
            _write_log(log_file, _log_line(state, seconds), "a")
    if not stop:
        _explain_end(checkpoint)
        _explain_calibration(checkpoint, len(split[1]))
    elif not is_complete(checkpoint.state, config):
        _explain_stop(checkpoint, output)
        raise SystemExit(128 + stop.number)
    return checkpoint


def _announce(checkpoint: "Checkpoint", data: "Dataset", split: Any) -> None:
    """Say what is about to be learned, and from what."""
    from softmax_cli.solvers.sgd import SHUFFLE_BLOCK, fits_in_memory

    if not fits_in_memory(data.images):
        log.info(
            "the images do not fit in memory: they are shuffled in blocks of %d MiB", SHUFFLE_BLOCK >> 20
        )
    log.info(
        "training on %s: %s images, %s held out, %s",
        *(data.name, *(f"{len(part):,}" for part in split), checkpoint.state.features.title),
    )


def _epochs(
    checkpoint: "Checkpoint", data: "Dataset", split: Any, stop: "Stop", quiet: bool
) -> "Iterator[tuple[State, float]]":
    """Yield each state with the seconds that it took, and show how far training is."""
    from softmax_cli.commands.progress import on_terminal, training_bar
    from softmax_cli.training import fit, work_per_epoch

    config, begun = checkpoint.config, checkpoint.state
    steps = work_per_epoch(len(split[0]), config)
    with training_bar(steps * config.epochs, steps * begun.epoch, quiet) as bar:

        def on_batch() -> bool:
            bar.update()
            return bool(stop)

        started = time.perf_counter()
        for state in fit(config, data, split, begun, on_batch):
            yield state, time.perf_counter() - started
            started = time.perf_counter()
            text = _progress_text(state, short=on_terminal())
            if on_terminal():
                bar.set_description_str(f"epoch {state.epoch}/{config.epochs}", refresh=False)
                bar.set_postfix_str(text, refresh=False)
            else:
                log.info("epoch %d/%d: %s", state.epoch, config.epochs, text)


def _explain_stop(checkpoint: "Checkpoint", output: Path) -> None:
    """Say how far a run came that a signal stopped, and how it goes on."""
    from softmax_cli.data.catalog import CATALOG

    folder = "" if checkpoint.dataset in CATALOG else " --dataset FOLDER"
    log.warning(
        "stopped: %s holds epoch %d of %d; go on with: softmax train --resume%s",
        *(output, checkpoint.state.epoch, checkpoint.config.epochs, folder + options.output_option(output)),
    )


def _explain_end(checkpoint: "Checkpoint") -> None:
    """Say why training ended, where that is not only that all epochs are done."""
    from softmax_cli.training import has_converged

    state, config = checkpoint.state, checkpoint.config
    last = state.history[-1]
    if config.solver == "newton":
        verdict = "converged" if has_converged(state) else "did not converge"
        more = (
            "raise --epochs, with --resume, or --l2"
            if state.epoch >= config.epochs
            else "float32 has no more to give; raise --l2"
        )
        hint = "" if has_converged(state) else f"; {more} (separable classes have no optimum at l2 0)"
        log.log(
            logging.INFO if has_converged(state) else logging.WARNING,
            "%s after %s: gradient norm %.1e, about %.0e of the loss above the optimum%s",
            *(verdict, _counted(state.epoch, "iteration"), last.gradient_norm, last.distance, hint),
        )
    elif state.epoch < config.epochs:
        log.info("stopped early: no new best since epoch %d", state.best_epoch)


def _explain_calibration(checkpoint: "Checkpoint", held: int) -> None:
    """Warn where the temperature has little to stand on."""
    if checkpoint.config.calibrate and held < 200:
        log.warning("the temperature is fitted to %d images only; hold out more with --validation-size", held)
    if checkpoint.config.calibrate and checkpoint.state.temperature == 1:
        log.warning("no temperature is better than any other for the images held out: it was left at 1")


def _progress_text(state: "State", short: bool = False) -> str:
    last = state.history[-1]
    if short:  # there is little room beside a bar
        held = "" if last.validation_loss is None else f", held out {last.validation_loss:.3f}"
        accuracy = last.validation_accuracy
        return f"loss {last.train_loss:.3f}{held}" + (f", {100 * accuracy:.2f} %" if accuracy else "")
    text = f"train loss {last.train_loss:.4f}"
    if last.validation_loss is not None and last.validation_accuracy is not None:
        text += f", validation {last.validation_loss:.4f}, accuracy {100 * last.validation_accuracy:.2f} %"
    return text


def _log_line(state: "State", seconds: float) -> str:
    """Return the JSON of the last epoch; what only newton knows is left out where it is not known."""
    record = state.history[-1]._asdict()
    if record["distance"] is None:
        del record["gradient_norm"], record["distance"]
    return json.dumps(record | {"seconds": round(seconds, 3)}) + "\n"


def _check_log(log_file: Path | None, output: Path) -> None:
    """Raise `ConfigError` where the log would overwrite the model, `OutputError` where it has no place."""
    from softmax_cli.files import check_replaces, check_writable

    if log_file is None:
        return
    if os.path.realpath(log_file) in (os.path.realpath(output), os.path.realpath(f"{output}.bak")):
        raise ConfigError(f"--log and --output are the same file, {log_file}; give the log a name of its own")
    check_writable(log_file)
    check_replaces(log_file, LOG_START, "log", "--log")


def _write_log(log_file: Path | None, text: str, mode: str) -> None:
    """Add text to the log, or begin it anew, by `mode` ``a`` or ``w``; None stands for no log."""
    if log_file is None:
        return
    try:
        with open(log_file, mode, encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise OutputError(f"cannot write {log_file}: {reason(error)}") from error


def _keep_other_run(output: Path) -> None:
    """Copy what stands at `output` to the same name with .bak, and say so, unless it has learned nothing."""
    from softmax_cli.checkpoint import load
    from softmax_cli.errors import CheckpointError

    if not os.path.exists(output):
        return
    try:
        if load(output).state.epoch == 0:
            return
    except CheckpointError:
        pass  # whatever it is, it is somebody's
    _back_up(output)


def _back_up(path: Path) -> None:
    """Copy a file to the same name with .bak, and say so."""
    import shutil

    from softmax_cli.files import atomic_write, open_regular

    backup = path.with_name(f"{path.name}.bak")
    with open_regular(path, OutputError) as old, atomic_write(backup) as kept:
        shutil.copyfileobj(old, kept)
    log.warning("kept the earlier %s as %s", path, backup)


def _result(checkpoint: "Checkpoint", output: Path) -> dict[str, Any]:
    """Return what training came to; the figures are of the weights that were kept, before calibration."""
    from softmax_cli.training import has_converged

    state = checkpoint.state
    best = state.history[state.best_epoch - 1]
    validation = {"accuracy": best.validation_accuracy, "loss": best.validation_loss}
    return {
        "checkpoint": str(output),
        "dataset": checkpoint.dataset,
        "epochs": state.epoch,
        "best_epoch": state.best_epoch,
        "train_loss": best.train_loss,
        "validation": validation if best.validation_loss is not None else None,
        "temperature": state.temperature,
        "converged": has_converged(state) if checkpoint.config.solver == "newton" else None,
        "seconds": round(checkpoint.run["seconds"], 3),
    }


def _counted(number: int, thing: str) -> str:
    """Return a number of things: ``1 epoch``, ``2 epochs``."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _sentence(checkpoint: "Checkpoint", output: Path) -> str:
    result = _result(checkpoint, output)
    is_newton = checkpoint.config.solver == "newton"
    what = _counted(result["epochs"], "iteration" if is_newton else "epoch")
    text = f"{escape(f'{output}: {checkpoint.dataset}')}, {what} in {result['seconds']:.1f} s"
    if validation := result["validation"]:
        text += "" if is_newton else f", best epoch {result['best_epoch']}"
        text += f": validation accuracy {100 * validation['accuracy']:.2f} %"
        text += f", loss {validation['loss']:.4f}"
        if result["temperature"] != 1:
            text += f" before calibration, temperature {result['temperature']:.3f}"
        return text
    return f"{text}, train loss {result['train_loss']:.4f}, no validation"
