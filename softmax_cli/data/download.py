"""Download a data set into the cache from the first mirror that has it.

Each file is verified before it is used.
"""

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from softmax_cli import __version__
from softmax_cli.data.catalog import Entry, IdxFile
from softmax_cli.data.place import cache_folder
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

REDIRECTS = 10
"""Largest number of redirects that are followed."""

Progress = Callable[[str, int, int], None]
"""Called with the name of a file, the number of bytes received, and its size."""


@dataclass(frozen=True)
class Source:
    """The source of data sets.

    Attributes:
        folder: The cache; None for the user's cache, which is only looked for when it is needed.
        offline: Use local files only.
        mirrors: Base URLs that are tried before those of the catalog.
        progress: Called while a file arrives.
        wait: Seconds that a mirror has to begin its answer.
        reading: How pictures become images.

    Raises:
        ConfigError: A mirror is not a URL.
    """

    folder: str | Path | None = None
    offline: bool = False
    mirrors: tuple[str, ...] = ()
    progress: Progress | None = None
    wait: float = 10.0
    reading: ReadOptions = field(default_factory=ReadOptions)

    def __post_init__(self) -> None:
        for mirror in self.mirrors:
            if not _is_url(mirror):
                raise ConfigError(
                    f"mirror {_shown(mirror)!r} must be a URL that starts with https:// or http://"
                )

    @property
    def cache(self) -> Path:
        """The folder of the cache; it need not exist."""
        return Path(self.folder) if self.folder is not None else cache_folder()


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
    """Download the files `names` of a data set into ``source.cache / entry.name``.

    A file appears at its final path only after its SHA-256 was verified. A mirror that cannot be reached, or
    serves other content, is not used again.

    Raises:
        DownloadError: No mirror has a file; the message has a line per mirror.
        OutputError: A file cannot be written.
    """
    folder = source.cache / entry.name
    mirrors = [*source.mirrors, *entry.mirrors]
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
            return _fetch_once(_file_url(mirror, f"{file.name}.gz"), file, target, source)
        except _Fault as fault:
            if not fault.again or attempt == ATTEMPTS:
                raise
            time.sleep(min(max(fault.pause, 0.5 * 2**attempt), LONGEST_PAUSE))


def _fetch_once(url: str, file: IdxFile, target: Path, source: Source) -> None:
    import hashlib

    deadline = time.monotonic() + DEADLINE
    response = _answer(url, source.wait)
    try:
        _check_status(response)
        _bound_reads(response, deadline)
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
    answers: SimpleQueue[Any] = SimpleQueue()

    def ask() -> None:
        try:
            answers.put(_get(url, wait))
        except Exception as error:  # raised again below
            answers.put(error)

    try:
        threading.Thread(target=ask, daemon=True).start()
    except RuntimeError:  # no thread can be started
        ask()
    try:
        answer = answers.get(timeout=wait)
    except Empty:
        raise _Fault(f"no answer within {wait:g} s", gone=True) from None
    if isinstance(answer, Exception):
        raise _explained(answer, wait) from answer
    response: Response = answer
    return response


def _get(url: str, wait: float) -> "Response":
    """Request a URL and follow redirects; `requests` would read the body of each one into memory."""
    import requests

    class Session(requests.Session):
        def get_redirect_target(self, resp: "Response") -> None:
            return None

    session = Session()
    session.headers.update({"User-Agent": f"softmax_cli/{__version__}", "Accept-Encoding": "identity"})
    for _ in range(REDIRECTS + 1):
        response = session.get(url, stream=True, timeout=(wait, wait))
        target = requests.Session.get_redirect_target(session, response)
        if target is None:
            return response
        response.close()
        url = _redirected(url, target)
    raise _Fault(f"it redirects more than {REDIRECTS} times", gone=True)


def _redirected(url: str, target: str) -> str:
    """Return where a redirect leads; raise `_Fault` if that is not http, or no longer https."""
    from urllib.parse import urljoin, urlsplit

    target = urljoin(url, target)
    schemes = urlsplit(url).scheme, urlsplit(target).scheme
    if schemes[1] not in ("http", "https"):
        raise _Fault("it redirects to a URL that is neither https:// nor http://", gone=True)
    if schemes == ("https", "http"):
        raise _Fault("it redirects away from https", gone=True)
    return target


def _explained(error: Exception, wait: float) -> Exception:
    """Return the fault that an error of a request means; the error itself if it is a bug.

    Texts of the error may contain a password and are not shown, except for known parts.
    """
    from requests import exceptions

    if isinstance(error, _Fault) or not isinstance(error, (OSError, ValueError)):
        return error
    if not isinstance(error, (exceptions.RequestException, ValueError)):
        return _Fault(reason(error), gone=True)  # such as a missing file of CA certificates
    if isinstance(error, exceptions.InvalidSchema) and "SOCKS" in str(error):
        return _Fault("a SOCKS proxy needs another package: pip install 'requests[socks]'", gone=True)
    if isinstance(error, exceptions.ProxyError):
        refusal = re.search(r"Tunnel connection failed: (\d{3} [^'\"\\]{0,60})", str(error))
        return _Fault(
            f"the proxy answered {refusal[1]}" if refusal else "the proxy could not be reached", gone=True
        )
    known = {
        exceptions.SSLError: "its certificate could not be verified",
        exceptions.Timeout: f"no answer within {wait:g} s",
        exceptions.ConnectionError: "it could not be reached",
        exceptions.InvalidProxyURL: "the URL of the proxy is not valid",
    }
    texts = [text for kind, text in known.items() if isinstance(error, kind)]
    return _Fault(texts[0] if texts else f"the request failed ({type(error).__name__})", gone=True)


def _check_status(response: "Response") -> None:
    """Raise `_Fault` for a status other than 200."""
    status = response.status_code
    if status == 200:
        return
    fault = f"{'the proxy' if status == 407 else 'it'} answered {status} {response.reason[:60]}"
    if status == 429 or status >= 500:
        after = response.headers.get("Retry-After", "")
        raise _Fault(fault, again=True, pause=float(after) if after.isdecimal() else 0.0)
    raise _Fault(fault)


class _Bounded:
    """The file below a response: every read ends at the deadline, and lines have at most `CHUNK` bytes.

    A timeout of a socket starts again with each byte, also inside the headers and trailers of chunks.
    """

    def __init__(self, file: Any, deadline: float):
        self._file, self._deadline = file, deadline

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def _check(self) -> None:
        if time.monotonic() > self._deadline:
            raise _Fault(f"not done within {DEADLINE:g} s", gone=True)

    def read1(self, size: int = -1) -> bytes:
        self._check()
        piece: bytes = self._file.read1(size)
        return piece

    def read(self, size: int = -1) -> bytes:
        pieces = []
        while size and (piece := self.read1(min(size, CHUNK) if size > 0 else CHUNK)):
            pieces.append(piece)
            size -= len(piece) if size > 0 else 0
        return b"".join(pieces)

    def readline(self, size: int = -1) -> bytes:
        line, room = b"", min(size, CHUNK) if size > 0 else CHUNK
        while len(line) < room and not line.endswith(b"\n"):
            self._check()
            ahead = self._file.peek(1)[: room - len(line)]
            if not ahead:
                break
            line += self._file.read(ahead.find(b"\n") + 1 or len(ahead))
        return line


def _bound_reads(response: "Response", deadline: float) -> None:
    """Bound what reading the body of a response may take."""
    original = getattr(response.raw, "_original_response", None)
    if original is not None and original.fp is not None:
        original.fp = _Bounded(original.fp, deadline)


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


def _file_url(mirror: str, name: str) -> str:
    """Return the URL of a file on a mirror; a query of the mirror, such as a token, is kept."""
    from urllib.parse import urlsplit

    parts = urlsplit(mirror)
    return parts._replace(path=f"{parts.path.rstrip('/')}/{name}", fragment="").geturl()


def _is_url(text: str) -> bool:
    from urllib.parse import urlsplit

    try:
        return text.startswith(("http://", "https://")) and bool(urlsplit(text).hostname)
    except ValueError:  # brackets without an address
        return False


def _shown(url: str) -> str:
    """Return a URL, which need not be valid, without what may be secret: user, password and query."""
    scheme, _, rest = re.split("[?#]", url, maxsplit=1)[0].rpartition("://")
    return f"{scheme}://"[: 3 * bool(scheme) + len(scheme)] + rest.rpartition("@")[2]
