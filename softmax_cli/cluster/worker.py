"""The worker's side of a cluster: read the data set, check it, and work on parts of it."""

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from distributed import Worker, get_worker
from distributed.diagnostics.plugin import WorkerPlugin

from softmax_cli import __version__
from softmax_cli.backend import BLAS_VARIABLES
from softmax_cli.data.dataset import Dataset, Origin
from softmax_cli.data.download import Source
from softmax_cli.data.loading import load_dataset
from softmax_cli.errors import ClusterError, SoftmaxError
from softmax_cli.examples import Examples, Work

Build = Callable[[Dataset], dict[str, Examples]]
"""Makes examples, by name, from a data set. It must be picklable, and deterministic."""


@dataclass(frozen=True)
class Job:
    """What a worker needs to make the same examples as the driver.

    Attributes:
        key: Name of the job.
        version: Version of the package that the driver has.
        origin: Where to read the data set.
        digests: Digests of its training split, and of the split to read.
        build: Makes the examples.
    """

    key: str
    version: str
    origin: Origin
    digests: tuple[str, str]
    build: Build


@dataclass(frozen=True)
class Question:
    """What is asked of the examples called `name` of a job: ``work(examples, argument, part)``."""

    key: str
    name: str
    work: Work[Any, Any]
    argument: Any


_jobs: dict[str, Job] = {}
_examples: dict[str, dict[str, Examples]] = {}
_lock = threading.Lock()


class JobPlugin(WorkerPlugin):  # type: ignore[misc]
    """Brings a job to each worker, also to those that join later, and removes it in the end."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.name = job.key

    def setup(self, worker: Worker) -> None:
        """Keep the job."""
        _jobs[self.name] = self.job

    def teardown(self, worker: Worker) -> None:
        """Release the job and its examples."""
        _jobs.pop(self.name, None)
        _examples.pop(self.name, None)


def identity(question: Question) -> Question:
    """Return the question; as the result of a task it is sent to each worker once, and never lost."""
    return question


def run_parts(question: Question, parts: list[slice]) -> list[Any]:
    """Return the answers for some parts."""
    examples = _examples_of(question.key)[question.name]
    return [question.work(examples, question.argument, part) for part in parts]


def _examples_of(key: str) -> dict[str, Examples]:
    """Return the examples of a job, which the first task on this worker makes."""
    with _lock:
        if key not in _examples:
            job = _jobs[key]
            _examples[key] = job.build(_load(job, get_worker().address))
        return _examples[key]


def _load(job: Job, worker: str) -> Dataset:
    """Return the data set of a job.

    Raises:
        ClusterError: It cannot be read here, or is not that of the driver, or the results would differ.
    """
    check_version(worker, __version__, job.version)
    if not any(os.environ.get(name) == "1" for name in BLAS_VARIABLES):
        raise ClusterError(
            f"worker {worker} may use several threads for a matrix product, which changes the last bits; "
            f"start it with {BLAS_VARIABLES[0]}=1 in its environment"
        )
    logging.getLogger("softmax_cli").addHandler(logging.NullHandler())  # the driver logs the same messages
    origin = job.origin
    try:
        data = load_dataset(origin.name, origin.split, Source(origin.folder, True, reading=origin.reading))
    except (SoftmaxError, OSError) as error:
        raise ClusterError(
            f"worker {worker} cannot read {origin}: {error}; it must be in storage that all machines share"
        ) from error
    if (data.digest, data.split_digest) != job.digests:
        raise ClusterError(
            f"worker {worker} has other data in {origin}: digest {data.split_digest[:12]}, expected "
            f"{job.digests[1][:12]}; all machines must see the same files"
        )
    return data


def check_version(worker: str, found: object, expected: str) -> None:
    """Raise `ClusterError` if a worker has another version of the package than the driver.

    `found` is None if it does not have the package.
    """
    if found != expected:
        has = f"version {found}" if found else "no version"
        raise ClusterError(
            f"worker {worker} has {has} of softmax-regression, and this machine has {expected}; install the "
            "same version on all machines"
        )
