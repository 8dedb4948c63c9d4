"""Download a data set into the cache from the first mirror that has it.

Each file is verified before it is used.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from softmax_cli import __version__
from softmax_cli.data.catalog import Entry, IdxFile
from softmax_cli.data.readers import ReadOptions
from softmax_cli.errors import ConfigError, DownloadError, OutputError, reason
from softmax_cli.files import CHUNK, atomic_write, inflate

if TYPE_CHECKING:
    from requests import Response

log = logging.getLogger(__name__)

ATTEMPTS = 3
"""Attempts at one file on one mirror if the fault may be temporary."""

DEADLINE = 120.0
"""Seconds that one attempt may take."""

LONGEST_PAUSE = 10.0
"""Largest pause between two attempts in seconds, even if the server requests more."""

Progress = Callable[[str, int, int], None]
"""Called with the name of a file, the number of bytes received, and its size."""


@dataclass(frozen=True)
class Source:
    """The source of data sets.

    Attributes:
        folder: The cache.
        offline: Use local files only.
        mirrors: Base URLs that are tried before those of the catalog.
        progress: Called while a file arrives.
        wait: Seconds that a mirror has to begin its answer.
        reading: How pictures become images.

    Raises:
        ConfigError: A mirror is not a URL.
    """

    folder: str | Path
    offline: bool = False
    mirrors: tuple[str, ...] = ()
    progress: Progress | None = None
    wait: float = 10.0
    reading: ReadOptions = field(default_factory=ReadOptions)

    def __post_init__(self) -> None:
        for mirror in self.mirrors:
            if not _is_url(mirror):
                raise ConfigError(f"mirror {mirror!r} must be a URL that starts with https:// or http://")


class _Fault(Exception):
    """Failure of one attempt.

    `again` permits another attempt; `gone` excludes the mirror.
    """

    def __init__(self, reason: str, *, again: bool = False, gone: bool = False, pause: float = 0.0):
        super().__init__(reason)
        self.again, self.gone, self.pause = again, gone, pause


class _Exhausted(Exception):
    """No mirror is left."""


def fetch(entry: Entry, names: list[str], source: Source) -> None:
    """Download the files `names` of a data set into ``source.folder / entry.name``.

    A file appears at its final path only after its SHA-256 was verified. A mirror that cannot be reached, or
    serves other content, is not used again.

    Raises:
        DownloadError: No mirror has a file; the message has a line per mirror.
        OutputError: A file cannot be written.
    """
    folder = Path(source.folder) / entry.name
    mirrors = [url.rstrip("/") + "/" for url in (*source.mirrors, *entry.mirrors)]
    failures: dict[str, str] = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            _fetch_file(entry.file(name), folder / name, mirrors, failures, source)
    except _Exhausted:
        raise DownloadError(_no_mirror(entry, name, folder, failures)) from None
    except (OSError, OutputError) as error:
        size = sum(entry.file(name).size for name in names)
        cause = error if isinstance(error, OutputError) else reason(error)
        raise OutputError(
            f"cannot keep {entry.title} in {folder}: {cause}; it needs {size:,} bytes there, "
            "and --data-dir or SOFTMAX_CACHE_DIR names another place"
        ) from error
    for mirror, fault in failures.items():
        log.warning("the mirror %s was skipped: %s", _shown(mirror), fault)


def _fetch_file(
    file: IdxFile, target: Path, mirrors: list[str], failures: dict[str, str], source: Source
) -> None:
    """Download one file from the first mirror that has it.

    The reason of each failure is stored in `failures`; mirrors that are gone are removed from `mirrors`.
    """
    for mirror in list(mirrors):
        try:
            return _fetch_patiently(mirror, file, target, source)
        except _Fault as fault:
            failures[mirror] = str(fault)
            if fault.gone:
                mirrors.remove(mirror)
    raise _Exhausted


def _fetch_patiently(mirror: str, file: IdxFile, target: Path, source: Source) -> None:
    """Try a mirror up to `ATTEMPTS` times, pausing in between."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _fetch_once(f"{mirror}{file.name}.gz", file, target, source)
        except _Fault as fault:
            if not fault.again or attempt == ATTEMPTS:
                raise
            time.sleep(min(max(fault.pause, 0.5 * 2**attempt), LONGEST_PAUSE))


def _fetch_once(url: str, file: IdxFile, target: Path, source: Source) -> None:
    import hashlib

    deadline = time.monotonic() + DEADLINE
    response = _answer(url, source.wait)
    try:
        _check_answer(url, response)
        with atomic_write(target) as out:
            digest, done = hashlib.sha256(), 0
            for piece in inflate(_body(response, deadline), file.size):
                out.write(piece)
                digest.update(piece)
                done += len(piece)
                if source.progress:
                    source.progress(file.name, done, file.size)
            if digest.hexdigest() != file.sha256:
                raise _Fault(
                    f"{file.name} arrived with {done:,} bytes and SHA-256 {digest.hexdigest()}, "
                    f"expected {file.size:,} and {file.sha256}",
                    again=True,
                )
    except ValueError as error:
        kind = response.headers.get("Content-Type", "").split(";")[0]
        foreign = "not a gzip" in str(error)
        served = f"what it serves as {file.name}.gz {error}"
        hint = f" but {kind}" if foreign and kind == "text/html" else ""
        raise _Fault(served + hint, again=not foreign, gone=foreign) from error
    finally:
        response.close()


def _answer(url: str, wait: float) -> "Response":
    """Return the response to a GET, with its body unread.

    The request runs on its own thread. Otherwise, name resolution and a host with many unreachable
    addresses would have no timeout.
    """
    import requests

    answers: SimpleQueue[Any] = SimpleQueue()

    def ask() -> None:
        try:
            agent = {"User-Agent": f"softmax_cli/{__version__}", "Accept-Encoding": "identity"}
            answers.put(requests.get(url, stream=True, timeout=(wait, wait), headers=agent))
        except Exception as error:  # raised again below
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=wait)
    except Empty:
        raise _Fault(f"no answer within {wait:g} s", gone=True) from None
    if isinstance(answer, requests.exceptions.SSLError):
        raise _Fault("its certificate could not be verified", gone=True) from answer
    if isinstance(answer, requests.exceptions.ProxyError):
        raise _Fault("the proxy could not be reached", gone=True) from answer
    if isinstance(answer, requests.exceptions.Timeout):
        raise _Fault(f"no answer within {wait:g} s", gone=True) from answer
    if isinstance(answer, requests.exceptions.ConnectionError):
        raise _Fault("it could not be reached", gone=True) from answer
    if isinstance(answer, (requests.exceptions.RequestException, ValueError)):  # ValueError: no valid URL
        raise _Fault(f"the request failed ({type(answer).__name__})", gone=True) from answer
    if isinstance(answer, Exception):
        raise answer
    response: Response = answer
    return response


def _check_answer(url: str, response: "Response") -> None:
    """Raise `_Fault` for a status other than 200 or a redirect away from https."""
    steps = (*response.history, response)
    if url.startswith("https://") and not all(step.url.startswith("https://") for step in steps):
        raise _Fault("it redirects away from https", gone=True)
    status = response.status_code
    if status == 200:
        return
    reason = f"it answered {status} {response.reason}"
    if status == 429 or status >= 500:
        after = response.headers.get("Retry-After", "")
        raise _Fault(reason, again=True, pause=float(after) if after.isdecimal() else 0.0)
    raise _Fault(reason)


def _body(response: "Response", deadline: float) -> Iterator[bytes]:
    """Yield the body as it arrives, until it ends or the deadline has passed."""
    from urllib3.exceptions import HTTPError

    while True:
        try:
            chunk = response.raw.read1(CHUNK, decode_content=False)
        except (HTTPError, OSError) as error:
            raise _Fault("the connection broke off", again=True) from error
        if not chunk:
            return
        if time.monotonic() > deadline:
            raise _Fault(f"not done within {DEADLINE:g} s", gone=True)
        yield chunk


def _no_mirror(entry: Entry, name: str, folder: Path, failures: dict[str, str]) -> str:
    lines = [f"  {_shown(mirror)}: {reason}" for mirror, reason in failures.items()]
    return "\n".join(
        [
            f"no mirror could supply {name} of {entry.title}:",
            *lines,
            f"Try again later, give another mirror with --mirror URL, or place {name} or "
            f"{name}.gz in {folder} yourself.",
        ]
    )


def _is_url(text: str) -> bool:
    from urllib.parse import urlsplit

    try:
        return text.startswith(("http://", "https://")) and bool(urlsplit(text).hostname)
    except ValueError:  # brackets without an address
        return False


def _shown(url: str) -> str:
    """Return a URL without the user name and password that it may contain."""
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
