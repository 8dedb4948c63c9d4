"""`softmax train`."""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from softmax_cli.cli import options
from softmax_cli.cli.terminal import escape
from softmax_cli.cli.threads import use_threads
from softmax_cli.config import DEFAULT_CHECKPOINT, SOLVERS, TrainConfig, find_config, read_toml
from softmax_cli.errors import ClusterError

if TYPE_CHECKING:
    from softmax_cli.checkpoint import Checkpoint
    from softmax_cli.cli.signals import Stop
    from softmax_cli.cluster import Cluster
    from softmax_cli.data.download import Source
    from softmax_cli.data.readers import ReadOptions
    from softmax_cli.runs import Run
    from softmax_cli.training import State

log = logging.getLogger(__name__)


@click.command()
@click.option(
    "--config",
    "config_name",
    metavar="NAME",
    help="Read training options from a TOML file, or from a packaged one by its name; flags override it.",
)
@options.training
@click.option(
    "--output",
    "-o",
    type=options.FILE,
    default=DEFAULT_CHECKPOINT,
    show_default=True,
    envvar="SOFTMAX_CHECKPOINT",
    help="Checkpoint to write; also set by SOFTMAX_CHECKPOINT.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Continue the run at --output. --epochs may change with a constant schedule, or newton.",
)
@click.option(
    "--log",
    "log_file",
    type=options.FILE,
    metavar="FILE.jsonl",
    help="Write a JSON line per epoch; an earlier log is kept as FILE.jsonl.bak.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="Largest number of cores to use; the result does not depend on it.  [default: SOFTMAX_THREADS, or "
    "all]",
)
@options.cluster
@options.reading
@options.mirror
@options.data
@options.as_json
@click.option("--quiet", "-q", is_flag=True, help="Show no progress; warnings and the result remain.")
def command(
    config_name: str | None,
    output: Path,
    resume: bool,
    log_file: Path | None,
    threads: int | None,
    cluster: str | None,
    mirrors: tuple[str, ...],
    data_dir: Path | None,
    offline: bool,
    as_json: bool,
    quiet: bool,
    reading: "ReadOptions",
    **flags: Any,
) -> None:
    """Train softmax regression and save a checkpoint.

    Stop with Ctrl-C and continue with --resume. The result is identical to that of a run without
    interruption; with newton, it is the same optimum.

    \b
    Example:
      softmax train --epochs 20 --output digits.npz
    """
    if quiet:
        logging.getLogger("softmax_cli").setLevel(logging.WARNING)
    use_threads(threads)
    given = read_toml(find_config(config_name)) if config_name else {}
    given |= {key: value for key, value in flags.items() if value is not None}
    source = options.make_source(data_dir, offline, mirrors, quiet, reading)
    checkpoint, run = _run(given, output, source, log_file, resume, cluster, quiet)
    click.echo(_result(checkpoint, run, as_json))
    if not config_name and run.is_new and checkpoint.preparation == "digit" and not checkpoint.config.stages:
        log.info("for pictures of digits: --config fast; for the highest accuracy: --config best")


def _run(
    given: dict[str, Any],
    output: Path,
    source: "Source",
    log_file: Path | None,
    resume: bool,
    where: str | None,
    quiet: bool,
) -> tuple["Checkpoint", "Run"]:
    """Return the last checkpoint of a run, and the run."""
    from softmax_cli.cluster import open_cluster

    with open_cluster(where) as cluster:
        run = _prepare_run(given, output, source, log_file, resume, cluster)
        try:
            return _train(run, cluster, quiet) if run.data else run.checkpoint, run
        finally:
            run.release()


def _prepare_run(
    given: dict[str, Any],
    output: Path,
    source: "Source",
    log_file: Path | None,
    resume: bool,
    cluster: "Cluster | None",
) -> "Run":
    from softmax_cli.runs import resume_run, start_run

    if not resume:
        return start_run(TrainConfig(**given), output, source, log_file, cluster=cluster)
    options.check_exists(output)
    run = resume_run(given, output, source, log_file)
    if not run.data:
        log.info("%s is already complete: %d epochs", output, run.checkpoint.state.epoch)
    return run


def _train(run: "Run", cluster: "Cluster | None", quiet: bool) -> "Checkpoint":
    """Train to the end; exit with 130 or 143 if a signal stops it."""
    from softmax_cli.cli.signals import graceful_stop
    from softmax_cli.training import is_complete, split_rows

    assert run.data is not None
    split = split_rows(run.checkpoint.config, run.data)
    with graceful_stop() as stop:
        _announce(run, *map(len, split))
        checkpoint = _run_epochs(run, len(split[0]), stop, cluster, quiet)
    if stop and not is_complete(checkpoint.state, checkpoint.config):
        _report_stop(checkpoint, run.output)
        raise SystemExit(128 + stop.number)
    _report_end(checkpoint)
    _report_calibration(checkpoint, len(split[1]))
    return checkpoint


def _announce(run: "Run", training: int, validation: int) -> None:
    """Log the data set, the numbers of images and the features."""
    from softmax_cli.solvers.sgd import SHUFFLE_BLOCK, fits_in_memory

    assert run.data is not None
    if not fits_in_memory(run.data.images):
        log.info(
            "the images do not fit in memory: they are shuffled in blocks of %d MiB", SHUFFLE_BLOCK >> 20
        )
    log.info(
        "training on %s: %s images, %s for validation, %s",
        *(run.data.name, f"{training:,}", f"{validation:,}", run.checkpoint.state.features.title),
    )


def _run_epochs(
    run: "Run", images: int, stop: "Stop", cluster: "Cluster | None", quiet: bool
) -> "Checkpoint":
    """Train, show the progress, and return the last checkpoint.

    `images` is the number of images per epoch.
    """
    from softmax_cli.cli.progress import training_bar
    from softmax_cli.runs import run_epochs

    checkpoint, config = run.checkpoint, run.checkpoint.config
    unit = SOLVERS[config.solver].unit
    with training_bar(images * config.epochs, images * checkpoint.state.epoch, quiet) as bar:

        def on_progress(images: int) -> bool:
            bar.update(images)
            return bool(stop)

        try:
            for checkpoint in run_epochs(run, on_progress, cluster):
                state = checkpoint.state
                log.info("%s %d/%d: %s", unit, state.epoch, config.epochs, _progress_text(state))
        except ClusterError as error:
            raise ClusterError(
                f"{error}; {run.output} holds {unit} {checkpoint.state.epoch}: continue with: softmax train "
                f"--resume{options.output_option(run.output)}, also without --cluster"
            ) from error
    return checkpoint


def _report_stop(checkpoint: "Checkpoint", output: Path) -> None:
    """Log the last epoch of an interrupted run and the command that continues it."""
    log.warning(
        "stopped: %s holds epoch %d of %d; continue with: softmax train --resume%s",
        *(output, checkpoint.state.epoch, checkpoint.config.epochs, options.output_option(output)),
    )


def _report_end(checkpoint: "Checkpoint") -> None:
    """Log why training ended.

    Nothing is logged if all epochs of a solver without a stopping rule are done.
    """
    from softmax_cli.training import has_converged

    state, config = checkpoint.state, checkpoint.config
    facts, last = SOLVERS[config.solver], state.history[-1]
    if facts.tolerance is None:
        if state.epoch < config.epochs:
            log.info("stopped early: no lower validation loss since %s %d", facts.unit, state.best_epoch)
        return
    converged = has_converged(state, config)
    hint = "raise --epochs with --resume" if state.epoch >= config.epochs else "limited by float32 precision"
    log.log(
        logging.INFO if converged else logging.WARNING,
        "%s after %s: gradient norm %.1e, loss about %.0e above the optimum (relative)%s",
        *("converged" if converged else "did not converge", _counted(state.epoch, facts.unit)),
        *(last.gradient_norm, last.distance),
        "" if converged else f"; {hint}, or raise --l2 (separable classes have no optimum at l2 0)",
    )


def _report_calibration(checkpoint: "Checkpoint", validation: int) -> None:
    """Log a warning if the temperature is not reliable."""
    if checkpoint.config.calibrate and validation < 200:
        log.warning(
            "the temperature is fitted to %d images only; use more with --validation-size", validation
        )
    if checkpoint.config.calibrate and checkpoint.state.temperature == 1:
        log.warning("no temperature improves the validation loss: it was left at 1")


def _progress_text(state: "State") -> str:
    last = state.history[-1]
    text = f"train loss {last.train_loss:.4f}"
    if last.validation_loss is not None and last.validation_accuracy is not None:
        text += f", validation {last.validation_loss:.4f}, accuracy {100 * last.validation_accuracy:.2f} %"
    return text


def _counted(number: int, thing: str) -> str:
    """Return a number of things: ``1 epoch``, ``2 epochs``."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _result(checkpoint: "Checkpoint", run: "Run", as_json: bool) -> str:
    from softmax_cli.runs import describe_run

    result, facts = describe_run(checkpoint, run), SOLVERS[checkpoint.config.solver]
    if as_json:
        return json.dumps(result)
    what = _counted(result["epochs"], facts.unit)
    text = f"{escape(f'{run.output}: {checkpoint.dataset}')}, {what} in {result['seconds']:.1f} s"
    if validation := result["validation"]:
        text += f", best {facts.unit} {result['best_epoch']}" if facts.keeps_best else ""
        text += f": validation accuracy {100 * validation['accuracy']:.2f} %"
        text += f", loss {validation['loss']:.4f}"
        if result["temperature"] != 1:
            text += f" before calibration, temperature {result['temperature']:.3f}"
        return text
    return f"{text}, train loss {result['train_loss']:.4f}, no validation"
