"""Parts of a data set on many machines, with Dask (extra ``[dask]``).

The driver, which is the process that trains or evaluates, sends a `Job` to each worker once: where to read
the data set, and how to make examples of it. Each worker reads the images itself, from storage that all
machines share, and checks that they are those of the driver. In each pass, the driver sends the parameters,
and the workers return sums. Parts and their order are those of a run on one machine, so that the result is
the same to the bit.

A task is a few consecutive parts. A worker gets the same parts in each pass, so that it has their images in
memory. If a worker is lost, Dask gives its tasks to the others, or to the one that replaces it.
"""

import itertools
import logging
import pydoc
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from softmax_cli import __version__
from softmax_cli.cluster import connection
from softmax_cli.cluster.place import Place, find_place
from softmax_cli.data.dataset import Dataset
from softmax_cli.errors import ClusterError
from softmax_cli.examples import Argument, Examples, Result, Work

if TYPE_CHECKING:
    from distributed import Client, Future

    from softmax_cli.cluster.worker import Build

log = logging.getLogger(__name__)

TIMEOUT = 30.0
"""Seconds to wait for an answer of the scheduler, and for a worker if there is none."""

POLL = 1.0
"""Seconds of waiting after which the driver looks for lost workers."""

TASKS = 4
"""Tasks in a pass for each thread of a worker: more of them balance the load better, but cost more."""


@contextmanager
def open_cluster(where: str | None) -> Iterator["Cluster | None"]:
    """Yield the cluster at `where`, which is closed at the end; None for None.

    Args:
        where: ``local`` or ``local:N`` for N processes on this machine, or the address or the scheduler file
            of a Dask scheduler.

    Raises:
        ConfigError: It is none of these.
    """
    if where is None:
        yield None
        return
    cluster = Cluster(find_place(where))
    try:
        yield cluster
    finally:
        cluster.close()


@dataclass(frozen=True)
class RemoteExamples:
    """The examples called `name` that the workers of a cluster have made for the job `key`."""

    cluster: "Cluster"
    key: str
    name: str

    def map(self, work: Work[Argument, Result], argument: Argument, parts: list[slice]) -> Iterator[Result]:
        """Yield ``work(examples, argument, part)`` for each part, in order."""
        return self.cluster.map(self.key, self.name, work, argument, parts)


class Cluster:
    """A Dask cluster. It is connected, or started, when it is first used."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._connection: Client | None = None
        self._resources = ExitStack()
        self._order: list[str] = []  # of the workers
        self._known: set[str] = set()
        self._last_seen = 0.0
        self._keys = itertools.count()

    def connect(self) -> None:
        """Connect to the scheduler, or start the local processes; check the workers.

        Raises:
            ClusterError: Dask is not installed, the scheduler does not answer, there is no worker, or one has
                another version of the package.
        """
        if self._connection is not None:
            return
        connection.import_distributed()
        self._resources.enter_context(connection.silenced())
        if self._place.processes:
            try:
                self._connection = connection.start_local(self._place.processes, self._resources)
            except (OSError, RuntimeError) as error:
                raise ClusterError(f"cannot start {self._place}: {error}; start fewer") from error
        else:
            log.info("connecting to %s", self._place)
            with self._reporting():
                self._connection = connection.connect(self._place.address, TIMEOUT)
        self._resources.callback(connection.close, self._connection)
        try:
            self._connection.wait_for_workers(1, TIMEOUT)
        except TimeoutError as error:
            raise self._no_workers() from error
        self._check_versions()
        log.info("%s is ready: %d threads", self._place, sum(self._count_threads().values()))

    def close(self) -> None:
        """Close the connection, and end the processes that were started."""
        self._resources.close()
        self._connection = None

    def share(self, data: Dataset, build: "Build") -> dict[str, Examples]:
        """Return ``build(data)``, which each worker makes, too, of the data that it reads.

        Raises:
            ClusterError: The data were not read from a file.
        """
        from softmax_cli.cluster.worker import Content, Job, JobPlugin

        self.connect()
        if data.origin is None:
            raise ClusterError(f"{data.name} was not read from a file, which the workers could read, too")
        key = f"softmax-{time.time_ns()}-{next(self._keys)}"
        digests = (data.digest, data.split_digest)
        job = Job(key, __version__, data.origin, digests, Content.of(data), build)
        with self._reporting():
            self._client.register_plugin(JobPlugin(job))
        self._resources.callback(connection.forget, self._client, key)
        return {
            name: replace(examples, remote=RemoteExamples(self, key, name))
            for name, examples in build(data).items()
        }

    def map(
        self, key: str, name: str, work: Work[Argument, Result], argument: Argument, parts: list[slice]
    ) -> Iterator[Result]:
        """Yield ``work(examples, argument, part)`` for each part, in order; see `RemoteExamples`."""
        from softmax_cli.cluster.worker import Question, identity, run_parts

        slots = self._slots()
        count = min(len(parts), TASKS * len(slots))
        edges = [index * len(parts) // count for index in range(count + 1)]
        question = self._submit(identity, Question(key, name, work, argument))
        tasks = {
            self._submit(
                run_parts, question, parts[begin:end], near=slots[index * len(slots) // count]
            ): index
            for index, (begin, end) in enumerate(itertools.pairwise(edges))
        }
        pending, arrived, following = set(tasks), dict[int, list[Result]](), 0
        try:
            while following < count:
                done = self._wait(pending)
                pending -= done
                arrived |= {tasks[future]: result for future, result in self._results(done)}
                while following in arrived:
                    yield from arrived.pop(following)
                    following += 1
            self._count_threads()
        finally:
            if pending:
                with suppress(*connection.lost_errors()):
                    self._client.cancel(list(pending))

    @property
    def _client(self) -> "Client":
        assert self._connection is not None
        return self._connection

    def _submit(self, function: Any, *arguments: Any, near: str | None = None) -> "Future":
        """Return the future of a call, on the worker `near` unless it is lost or busy."""
        place = {"workers": [near], "allow_other_workers": True} if near else {}
        with self._reporting():
            return self._client.submit(function, *arguments, pure=False, **place)

    def _wait(self, pending: set["Future"]) -> set["Future"]:
        """Return the futures that are done, at least one; look for lost workers in the meantime."""
        distributed = connection.import_distributed()
        while True:
            with self._reporting():
                try:
                    done: set[Future] = distributed.wait(pending, POLL, "FIRST_COMPLETED").done
                    return done
                except TimeoutError:
                    self._count_threads()

    def _results(self, futures: set["Future"]) -> list[tuple["Future", Any]]:
        """Return the futures with their results.

        Raises:
            SoftmaxError: A task has failed.
        """
        ordered = list(futures)
        for future in ordered:
            if future.status == "error":
                raise self._failure(future.exception(TIMEOUT))
        with self._reporting():
            return list(zip(ordered, self._client.gather(ordered), strict=True))

    def _failure(self, error: BaseException) -> BaseException:
        if isinstance(error, connection.import_distributed().KilledWorker):
            return ClusterError(
                f"several workers of {self._place} ended while they worked on the same images, perhaps out "
                "of memory; see their logs"
            )
        return error

    def _slots(self) -> list[str]:
        """Return the address of a worker for each of its threads.

        The order remains. A new worker takes the place of one that was lost.
        """
        threads = self._count_threads()
        new = sorted(threads.keys() - set(self._order))
        order = [worker if worker in threads or not new else new.pop(0) for worker in self._order]
        self._order = [worker for worker in order + new if worker in threads]
        return [worker for worker in self._order for _ in range(threads[worker])] or [""]

    def _count_threads(self) -> dict[str, int]:
        """Return the number of threads of each worker; log which workers were lost.

        Raises:
            ClusterError: The scheduler does not answer, or there has been no worker for `TIMEOUT` seconds.
        """
        with self._reporting():
            threads: dict[str, int] = self._client.sync(
                self._client.scheduler.ncores, callback_timeout=TIMEOUT
            )
        for worker in sorted(self._known - threads.keys()):
            log.warning("lost the worker at %s: another one repeats its part of the work", worker)
        self._known = set(threads)
        now = time.monotonic()
        if threads or not self._last_seen:
            self._last_seen = now
        elif now - self._last_seen > TIMEOUT:
            raise self._no_workers()
        return threads

    def _check_versions(self) -> None:
        """Raise `ClusterError` if a worker has another version of the package, or does not have it."""
        from softmax_cli.cluster.worker import check_version

        with self._reporting():
            found = self._client.run(pydoc.locate, f"{__package__.partition('.')[0]}.__version__")
        for worker, version in sorted(found.items()):
            check_version(worker, version, __version__)

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        """Raise `ClusterError` if the connection to the scheduler is lost during the block."""
        try:
            yield
        except connection.lost_errors() as error:  # a TimeoutError is an OSError
            raise self._no_answer() from error

    def _no_answer(self) -> ClusterError:
        return ClusterError(f"{self._place} does not answer; check that its scheduler runs")

    def _no_workers(self) -> ClusterError:
        remedy = f"start some with: dask worker {self._place.address}"
        if self._place.processes:
            remedy = "its processes end too soon, perhaps out of memory; start fewer"
        return ClusterError(f"{self._place} has had no workers for {TIMEOUT:.0f} seconds; {remedy}")
