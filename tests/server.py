"""Tools for tests of downloads: a scripted HTTP server, limited processes."""

import gzip
import itertools
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import pytest

from softmax_cli.data import loading
from softmax_cli.data.catalog import CATALOG, FILE_NAMES, SAMPLE, Entry

FOREVER = 20.0
"""Largest number of seconds that a client may wait for the rest of a response."""

Steps = Iterable[bytes | float]
"""Steps of a response: bytes to send, or seconds to wait.

The connection is closed after the last step.
"""

Answer = Steps | Callable[[str], Steps]
"""Steps, or a function that returns them for the name of the requested file."""

CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBbDCCARKgAwIBAgIBATAKBggqhkjOPQQDAjAUMRIwEAYDVQQDDAkxMjcuMC4w
LjEwIBcNMDAwMTAxMDAwMDAwWhgPMjEwMDAxMDEwMDAwMDBaMBQxEjAQBgNVBAMM
CTEyNy4wLjAuMTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABOM0279zZTacvQD4
3afQmwNrzg0/UfKxQ/aB9QxNytY6FNltNhwrY6ZkWmUdNjnKX+j4lDi0/y+IbN1V
EbWCgNOjUzBRMA8GA1UdEwEB/wQFMAMBAf8wDgYDVR0PAQH/BAQDAgKEMA8GA1Ud
EQQIMAaHBH8AAAEwHQYDVR0OBBYEFD2fzt/PKP+daYdNm888jDkQnOMPMAoGCCqG
SM49BAMCA0gAMEUCIGyAbapgcOSG9PpJc32ENRAEOqmdhiZyPRiiHOIUkGW5AiEA
1nng9u+t6DDK/vQZpGjsM6d/nI0WYbgrwa8qrOHAR/8=
-----END CERTIFICATE-----
"""
KEY = """\
-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIHJ3MXHAi7ni1O0GG8GXGszDmcz/DDYXl4+abvqjl8waoAoGCCqGSM49
AwEHoUQDQgAE4zTbv3NlNpy9APjdp9CbA2vODT9R8rFD9oH1DE3K1joU2W02HCtj
pmRaZR02Ocpf6PiUOLT/L4hs3VURtYKA0w==
-----END EC PRIVATE KEY-----
"""
"""A self-signed certificate for 127.0.0.1, and its key."""

FETCH_ALL = """
import sys
from pathlib import Path
from softmax_cli.data.catalog import FILE_NAMES
from softmax_cli.data.download import Source, fetch
from tests.server import small_mnist
fetch(small_mnist(sys.argv[1]), list(FILE_NAMES), Source(Path("cache")))
"""
"""Code for `run_child` that fetches all files of `small_mnist` from the mirror in its argument."""


class Server:
    """An HTTP server on 127.0.0.1, over a raw socket, that runs during a `with` block.

    Each request gets the next response of the script; the last response is repeated. `requests` holds the
    requested file names, in order; `finished` counts the responses that were sent completely.
    """

    def __init__(self, *script: Answer, tls: bool = False):
        self._answers = itertools.chain(script, itertools.repeat(script[-1]))
        self._context = _tls_context() if tls else None
        self._closing = Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [Thread(target=self._accept)]
        self.requests: list[str] = []
        self.finished = 0
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._listener.getsockname()[1]}/"

    def __enter__(self) -> "Server":
        self._threads[0].start()
        return self

    def __exit__(self, *error: object) -> None:
        self._closing.set()
        with socket.create_connection(self._listener.getsockname()):  # so that the accepting thread ends
            pass
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            if self._closing.is_set():
                connection.close()
                return
            self._threads.append(Thread(target=self._serve, args=(connection,)))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            connection.settimeout(10)
            if self._context:
                connection = self._context.wrap_socket(connection, server_side=True)
            with connection:
                self._answer(connection)
        except OSError:  # the client closed the connection
            connection.close()

    def _answer(self, connection: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            received = connection.recv(1 << 16)
            if not received:
                return
            head += received
        name = head.split()[1].decode().rpartition("/")[2]
        self.requests.append(name)
        answer = next(self._answers)
        for step in answer(name) if callable(answer) else answer:
            if isinstance(step, bytes):
                connection.sendall(step)
            elif self._closing.wait(step):
                return
        self.finished += 1


def head(status: str = "200 OK", length: int | None = None, **headers: str) -> bytes:
    """Return the head of a response.

    It has a Content-Length unless `length` is None.
    """
    lines = [f"HTTP/1.1 {status}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    lines += [] if length is None else [f"Content-Length: {length}"]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def reply(
    body: bytes = b"", status: str = "200 OK", length: int | None = None, **headers: str
) -> list[bytes]:
    """Return a response with the given Content-Length, by default the correct one."""
    return [head(status, len(body) if length is None else length, **headers), body]


def redirect(location: str) -> list[bytes]:
    """Return a redirect to `location`."""
    return reply(status="302 Found", Location=location)


def drip(name: str) -> Iterator[bytes | float]:
    """Yield the correct file, one byte every 0.02 s."""
    yield head()
    for byte in packed(name):
        yield bytes([byte])
        yield 0.02


def hang_halfway(name: str) -> Iterator[bytes | float]:
    """Yield half of the correct file, then pause."""
    body = packed(name)
    yield head(length=len(body))
    yield body[: len(body) // 2]
    yield FOREVER


def bomb(content: bytes = b"", megabytes: float = float("inf")) -> Iterator[bytes]:
    """Yield a gzip stream of `content`, followed by megabytes of zeros.

    The zeros are compressed 1000 to 1.
    """
    deflater = zlib.compressobj(9, wbits=31)
    yield deflater.compress(content) + deflater.flush(zlib.Z_FULL_FLUSH)
    block = deflater.compress(bytes(1 << 20)) + deflater.flush(zlib.Z_FULL_FLUSH)
    done = 0
    while done < megabytes:
        yield block
        done += 1


def packed(name: str) -> bytes:
    """Return the compressed bytes of a file of the sample.

    The name may end in ``.gz``.
    """
    assert SAMPLE.bundled
    return (SAMPLE.bundled / f"{name.removesuffix('.gz')}.gz").read_bytes()


FILES = {name: gzip.decompress(packed(name)) for name in FILE_NAMES}
"""The content of the sample's files, by name."""


def mirror(name: str) -> list[bytes]:
    """Return the response of a mirror that has the sample's files."""
    return reply(packed(name), Content_Type="application/gzip")


def small_mnist(*urls: str) -> Entry:
    """Return a catalog entry for MNIST with the files of the sample.

    `urls` are its mirrors.
    """
    return replace(SAMPLE, name="mnist", title="MNIST", bundled=None, mirrors=urls)


def replace_mnist(monkeypatch: pytest.MonkeyPatch, *urls: str) -> Entry:
    """Make all code use `small_mnist` instead of MNIST, and return it."""
    entry = small_mnist(*urls)
    monkeypatch.setitem(CATALOG, "mnist", entry)
    monkeypatch.setattr(loading, "MNIST", entry)
    return entry


def closed_port() -> str:
    """Return the URL of a local port on which no server listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}/"


def run_child(code: str, *args: object, folder: Path, **limits: int) -> subprocess.CompletedProcess[str]:
    """Run Python code in a child process without network.

    `limits` are resource limits, such as RLIMIT_AS.
    """
    lines = [f"resource.setrlimit(resource.{name}, ({amount}, {amount}))" for name, amount in limits.items()]
    return subprocess.run(
        [sys.executable, "-B", "-c", "\n".join(["import resource", *lines, code]), *map(str, args)],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "OPENBLAS_NUM_THREADS": "1",  # threads use address space
            "https_proxy": closed_port(),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def _tls_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(KEY + CERTIFICATE)
        file.flush()
        context.load_cert_chain(file.name)
    return context
