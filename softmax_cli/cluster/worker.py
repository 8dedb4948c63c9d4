"""The worker's side of a cluster: read the data set, check it, and work on parts of it."""

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from distributed import Worker, get_worker
from distributed.diagnostics.plugin import WorkerPlugin
from numpy.typing import NDArray

from softmax_cli import __version__
from softmax_cli.backend import BLAS_VARIABLES, map_ordered, partition
from softmax_cli.data.dataset import Dataset, Origin
from softmax_cli.data.loading import reread_dataset
from softmax_cli.errors import ClusterError, SoftmaxError
from softmax_cli.examples import Examples, Work
from softmax_cli.files import sha256

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
        content: The content of the split, by which a worker checks what it reads.
        build: Makes the examples.
    """

    key: str
    version: str
    origin: Origin
    digests: tuple[str, str]
    content: "Content"
    build: Build


@dataclass(frozen=True)
class Content:
    """SHA-256 of the labels, and of the images in each chunk, so that a worker checks only what it uses."""

    labels: str
    chunks: tuple[str, ...]

    @classmethod
    def of(cls, data: Dataset) -> "Content":
        """Return the content of a data set, computed on all cores."""
        digest = partial(_chunk_digest, data.images)
        return cls(sha256(data.labels.tobytes()), tuple(map_ordered(digest, partition(len(data)))))


def _chunk_digest(images: NDArray[np.uint8], chunk: slice) -> str:
    return sha256(np.ascontiguousarray(images[chunk]).data)


@dataclass(frozen=True)
class Question:
    """What is asked of the examples called `name` of a job: ``work(examples, argument, part)``."""

    key: str
    name: str
    work: Work[Any, Any]
    argument: Any


@dataclass(frozen=True)
class Made:
    """What a worker has made for a job: the examples, and which chunks of the images it has checked."""

    examples: dict[str, Examples]
    images: NDArray[np.uint8]
    checked: set[int]


_jobs: dict[str, Job] = {}
_made: dict[str, Made] = {}
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
        _made.pop(self.name, None)


def identity(question: Question) -> Question:
    """Return the question; as the result of a task it is sent to each worker once, and never lost."""
    return question


def run_parts(question: Question, parts: list[slice]) -> list[Any]:
    """Return the answers for some parts."""
    job, worker = _jobs[question.key], get_worker().address
    made = _make(job, worker)
    examples = made.examples[question.name]
    answers = []
    for part in parts:
        _check_images(job, made, examples.rows[part], worker)
        answers.append(question.work(examples, question.argument, part))
    return answers


def _make(job: Job, worker: str) -> Made:
    """Return what the first task of a job on this worker makes."""
    with _lock:
        if job.key not in _made:
            _check_worker(job, worker)
            data = _read(job, worker)
            made = Made(job.build(data), data.images, set())
            for examples in made.examples.values():
                _check_labels(job, examples, worker)
                if examples.images is not data.images:  # they were computed from all images
                    _check_images(job, made, np.arange(len(data)), worker)
            _made[job.key] = made
        return _made[job.key]


def _check_worker(job: Job, worker: str) -> None:
    """Raise `ClusterError` if the results of this worker would differ from those of the driver."""
    check_version(worker, __version__, job.version)
    if not any(os.environ.get(name) == "1" for name in BLAS_VARIABLES):
        raise ClusterError(
            f"worker {worker} may use several threads for a matrix product, which changes the last bits; "
            f"start it with {BLAS_VARIABLES[0]}=1 in its environment"
        )


def _read(job: Job, worker: str) -> Dataset:
    """Return the data set of a job; images in a plain IDX file are only mapped.

    Raises:
        ClusterError: It cannot be read here, or has another size than that of the driver.
    """
    logging.getLogger("softmax_cli").addHandler(logging.NullHandler())  # the driver logs the same messages
    try:
        data = reread_dataset(job.origin, job.digests)
    except (SoftmaxError, OSError) as error:
        raise ClusterError(
            f"worker {worker} cannot read {job.origin}: {error}; the data must be in storage that all "
            "machines share"
        ) from error
    if len(partition(len(data))) != len(job.content.chunks):
        raise _other_data(job, worker, f"it has {len(data):,} images")
    return data


def _check_labels(job: Job, examples: Examples, worker: str) -> None:
    if sha256(examples.labels.tobytes()) != job.content.labels:
        raise _other_data(job, worker, "the labels differ")


def _check_images(job: Job, made: Made, rows: NDArray[np.intp], worker: str) -> None:
    """Raise `ClusterError` if the images around these rows are not those of the driver; check each once."""
    chunks = partition(len(made.images))
    size = chunks[0].stop
    for index in range(int(rows.min()) // size, int(rows.max()) // size + 1):
        if index not in made.checked:
            chunk = chunks[index]
            if _chunk_digest(made.images, chunk) != job.content.chunks[index]:
                raise _other_data(job, worker, f"images {chunk.start:,} to {chunk.stop - 1:,} differ")
            made.checked.add(index)


def _other_data(job: Job, worker: str, difference: str) -> ClusterError:
    return ClusterError(
        f"worker {worker} has other data in {job.origin}: {difference}; all machines must see the same files"
    )


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
