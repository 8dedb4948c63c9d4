"""Dask itself: its import, its connection, the processes of a local cluster, and its silence."""

import logging
import multiprocessing.resource_tracker
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from softmax_cli.backend import BLAS_VARIABLES, VARIABLE
from softmax_cli.errors import ClusterError

if TYPE_CHECKING:
    from distributed import Client

CLOSING = 5.0
"""Seconds that the end of a connection may take."""


def import_distributed() -> Any:
    """Return the package.

    Raises:
        ClusterError: It is not installed.
    """
    try:
        import distributed
    except ImportError as error:
        raise ClusterError(
            "--cluster needs the extra [dask]: pip install 'softmax-regression[dask]'"
        ) from error
    return distributed


def lost_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions by which Dask says that the connection to the scheduler is lost."""
    from distributed.client import CancelledError, ClosedClientError

    return OSError, CancelledError, ClosedClientError


@contextmanager
def silenced() -> Iterator[None]:
    """Silence the messages of Dask during the block: this package logs its own."""
    import dask

    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] in _LOGGERS]
    before = {name: logging.getLogger(name).level for name in [*_LOGGERS, *names]}
    for name in before:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "4GB"}):
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


_LOGGERS = ("distributed", "tornado")


def connect(address: str, timeout: float) -> "Client":
    """Return a client of the scheduler at an address.

    Raises:
        OSError: It does not answer. Dask itself waits without end if a server accepts the connection but
            sends nothing, therefore on a thread of its own here.
    """
    from distributed import Client

    outcome: SimpleQueue[Client | Exception] = SimpleQueue()

    def run() -> None:
        try:
            outcome.put(Client(address, timeout=timeout))
        except Exception as error:
            outcome.put(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        found = outcome.get(timeout=timeout)
    except Empty:
        raise TimeoutError(f"{address} does not answer") from None
    if isinstance(found, Exception):
        raise found
    return found


def start_local(processes: int, resources: ExitStack) -> "Client":
    """Return the client of a new cluster of processes on this machine, which ends with `resources`.

    Only this process can use it: it listens on the loopback interface, with certificates that exist in its
    memory alone. Its processes ignore SIGINT, and end with this one.
    """
    import dask
    from distributed import Client, LocalCluster
    from distributed.security import Security

    variables = dict.fromkeys(BLAS_VARIABLES, "1")
    with (
        dask.config.set(
            {
                # Dask would have freed memory returned to the system at once, which is slow for large arrays.
                "distributed.nanny.pre-spawn-environ": variables | {"MALLOC_TRIM_THRESHOLD_": None},
                "distributed.scheduler.http.routes": [],
                "distributed.worker.http.routes": [],
            }
        ),
        _sigint_blocked(),
    ):
        cluster = resources.enter_context(
            LocalCluster(
                n_workers=processes,
                threads_per_worker=1,
                memory_limit=0,  # mapped files would count
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                security=Security.temporary(),
                silence_logs=logging.CRITICAL + 1,
                env={VARIABLE: "1"},
                death_timeout=30,
            )
        )
        return Client(cluster)


@contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Block SIGINT in the threads and processes that the block starts: Ctrl-C is for the driver alone."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    multiprocessing.resource_tracker.ensure_running()  # or it would be started below, and unblock SIGINT
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def close(client: "Client") -> None:
    """Close a connection, which may be lost already."""
    with suppress(TimeoutError, *lost_errors()):
        client.close(CLOSING)


def forget(client: "Client", key: str) -> None:
    """Remove a job from the workers, as far as they can be reached."""
    with suppress(Exception):
        client.sync(client.scheduler.unregister_worker_plugin, name=key, callback_timeout=CLOSING)
