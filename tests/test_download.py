"""The downloader, against mirrors that do what mirrors do."""

import gzip
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import Result

from softmax_cli.commands import progress
from softmax_cli.data import download
from softmax_cli.data.catalog import FILE_NAMES, SAMPLE, Entry
from softmax_cli.data.download import ATTEMPTS, LONGEST_PAUSE, Source, fetch
from softmax_cli.errors import ConfigError, DownloadError, OutputError
from tests.conftest import assert_fails
from tests.server import (
    CERTIFICATE,
    FETCH_ALL,
    FILES,
    FOREVER,
    Answer,
    Server,
    bomb,
    closed_port,
    drip,
    hang_halfway,
    head,
    mirror,
    packed,
    redirect,
    replace_mnist,
    reply,
    run_child,
    small_mnist,
)

NAME = "t10k-labels-idx1-ubyte"
BODY = packed(NAME)
CONTENT = FILES[NAME]
PAGE = reply(b"<!doctype html><title>Please log in</title>", Content_Type="text/html; charset=utf-8")
FLIPPED = BODY[:100] + bytes([BODY[100] ^ 1]) + BODY[101:]
FORGED = gzip.compress(CONTENT[:-1] + b"\0")

Invoke = Callable[..., Result]


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the pauses that were asked for, in seconds; none is made."""
    asked: list[float] = []
    monkeypatch.setattr(download, "time", SimpleNamespace(sleep=asked.append, monotonic=time.monotonic))
    return asked


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Entry]:
    """Return a function that makes the commands take these mirrors of the sample's files for MNIST."""
    return partial(replace_mnist, monkeypatch)


def fetch_one(folder: Path, *urls: str, wait: float = 10.0) -> None:
    """Fetch one small file from mirrors into ``folder / "mnist"``."""
    fetch(small_mnist(*urls), [NAME], Source(folder, wait=wait))


def files_in(cache: Path) -> dict[str, bytes]:
    """Return the content of every file that the cache holds of MNIST, temporaries, too."""
    return {path.name: path.read_bytes() for path in (cache / "mnist").iterdir()}


def warnings(result: Result) -> list[str]:
    return [line for line in result.stderr.splitlines() if line.startswith("warning: ")]


# The right file, in every way in which it may come


def chunked(body: bytes) -> list[bytes]:
    parts = [body[i : i + 100] for i in range(0, len(body), 100)] + [b""]
    return [head(Transfer_Encoding="chunked"), *(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)]


@pytest.mark.parametrize(
    "answer",
    [
        reply(BODY),
        [head(), BODY],
        [head(length=len(BODY)), *(bytes([byte]) for byte in BODY)],
        chunked(BODY),
        reply(BODY, Content_Encoding="gzip", Content_Type="application/octet-stream"),
        reply(BODY, Content_Type="text/html"),
        reply(gzip.compress(CONTENT, 1)),
    ],
    ids=["plain", "no length", "bytewise", "chunked", "labelled as encoded", "odd type", "other compression"],
)
def test_right_file_is_accepted(tmp_path: Path, answer: Answer) -> None:
    with Server(answer) as server:
        fetch_one(tmp_path, server.url)
    assert server.requests == [f"{NAME}.gz"]
    assert files_in(tmp_path) == {NAME: CONTENT}


def test_mirror_without_a_slash_at_its_end_is_as_good(tmp_path: Path) -> None:
    with Server(mirror) as server:
        fetch_one(tmp_path, f"{server.url}deep/er")
    assert files_in(tmp_path) == {NAME: CONTENT}


def test_progress_is_told_up_to_the_whole_size(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    with Server(mirror) as server:
        source = Source(tmp_path, progress=lambda *args: told.append(args))
        fetch(small_mnist(server.url), [NAME], source)
    assert told[-1] == (NAME, len(CONTENT), len(CONTENT))


# Wrong content


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (reply(BODY[:300], length=len(BODY)), "the connection broke off"),
        (reply(BODY, length=300), f"what it serves as {NAME}.gz is cut short"),
        ([head(), BODY[:300]], f"what it serves as {NAME}.gz is cut short"),
        ([head(), BODY[:-1]], f"what it serves as {NAME}.gz is cut short"),
        (chunked(BODY)[:4], "the connection broke off"),
        ([head(Transfer_Encoding="chunked"), b"nonsense\r\n"], "the connection broke off"),
        (reply(b""), f"what it serves as {NAME}.gz is cut short"),
        (reply(FLIPPED), f"what it serves as {NAME}.gz is damaged"),
        (reply(FORGED), f"{NAME} arrived with 1,008 bytes and SHA-256 "),
        (reply(BODY + b"\0"), f"what it serves as {NAME}.gz has other bytes after its end"),
        (reply(gzip.compress(CONTENT + b"\0")), f"what it serves as {NAME}.gz holds more than 1,008 bytes"),
    ],
    ids=[
        *("cut", "wrong length", "no length and cut", "no length and one byte short", "chunked and cut"),
        *("not chunks", "empty", "one bit flipped", "right size, other content", "longer", "one byte long"),
    ],
)
def test_wrong_file_is_never_seen_and_is_retried_before_the_next_mirror_is_asked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, answer: Answer, reason: str
) -> None:
    seen: list[bool] = []
    target = tmp_path / "mnist" / NAME

    def look(name: str) -> Iterator[bytes | float]:
        for step in answer(name) if callable(answer) else answer:
            yield step
            seen.append(target.exists())

    with Server(look) as bad, Server(mirror) as good:
        source = Source(tmp_path, progress=lambda *_: seen.append(target.exists()))
        fetch(small_mnist(bad.url, good.url), [NAME], source)
    assert (len(bad.requests), len(good.requests), any(seen)) == (ATTEMPTS, 1, False)
    assert files_in(tmp_path) == {NAME: CONTENT}
    assert f"the mirror {bad.url} was passed over: {reason}" in caplog.text


def test_fault_that_passes_is_not_mentioned(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Server(reply(BODY[:300], length=len(BODY)), reply(FORGED), mirror) as server:
        fetch_one(tmp_path, server.url)
    assert (len(server.requests), caplog.text) == (3, "")
    assert files_in(tmp_path) == {NAME: CONTENT}


def test_web_page_is_passed_over_with_a_warning(
    invoke: Invoke, cache: Path, use: Callable[..., Entry]
) -> None:
    with Server(PAGE) as bad, Server(mirror) as good:
        use(bad.url, good.url)
        result = invoke("download")
    assert result.exit_code == 0
    assert warnings(result) == [
        f"warning: the mirror {bad.url} was passed over: what it serves as {FILE_NAMES[0]}.gz "
        "is not a gzip file but text/html"
    ]
    assert len(bad.requests) == 1
    assert good.requests == [f"{name}.gz" for name in FILE_NAMES]
    assert files_in(cache) == FILES


# Answers that are no file


@pytest.mark.parametrize(
    ("status", "after", "expected"),
    [
        ("503 Service Unavailable", "2", [2.0, 2.0]),
        ("429 Too Many Requests", "2", [2.0, 2.0]),
        ("503 Service Unavailable", "3600", [LONGEST_PAUSE, LONGEST_PAUSE]),
        ("503 Service Unavailable", "9" * 400, [LONGEST_PAUSE, LONGEST_PAUSE]),
        ("503 Service Unavailable", "0", [1.0, 2.0]),
        ("503 Service Unavailable", "-5", [1.0, 2.0]),
        ("503 Service Unavailable", "Fri, 31 Dec 1999 23:59:59 GMT", [1.0, 2.0]),
        ("500 Internal Server Error", "", [1.0, 2.0]),
    ],
)
def test_busy_mirror_is_asked_again_after_the_pause_that_it_wants_within_reason(
    tmp_path: Path, pauses: list[float], status: str, after: str, expected: list[float]
) -> None:
    with Server(reply(status=status, Retry_After=after)) as busy, Server(mirror) as good:
        fetch_one(tmp_path, busy.url, good.url)
    assert (pauses, len(busy.requests), len(good.requests)) == (expected, ATTEMPTS, 1)
    assert files_in(tmp_path) == {NAME: CONTENT}


def test_mirror_that_is_busy_once_serves_after_its_pause(tmp_path: Path, pauses: list[float]) -> None:
    with Server(reply(status="503 Service Unavailable", Retry_After="2"), mirror) as server:
        fetch_one(tmp_path, server.url)
    assert (pauses, len(server.requests)) == ([2.0], 2)


@pytest.mark.parametrize(
    "status", ["404 Not Found", "403 Forbidden", "204 No Content", "206 Partial Content"]
)
def test_mirror_that_declines_is_left_at_once(
    tmp_path: Path, pauses: list[float], caplog: pytest.LogCaptureFixture, status: str
) -> None:
    with Server(reply(status=status, Retry_After="2")) as bad, Server(mirror) as good:
        fetch_one(tmp_path, bad.url, good.url)
    assert (pauses, len(bad.requests), len(good.requests)) == ([], 1, 1)
    assert f"it answered {status}" in caplog.text


def test_every_mirror_that_failed_is_listed_with_its_reason(
    invoke: Invoke, cache: Path, use: Callable[..., Entry]
) -> None:
    with (
        Server(reply(status="404 Not Found")) as missing,
        Server(PAGE) as page,
        Server(reply(FLIPPED)) as bad,
    ):
        use(missing.url, page.url, bad.url, dead := closed_port())
        result = invoke("download")
    assert_fails(result, f"no mirror could supply {FILE_NAMES[0]} of MNIST:")
    assert result.stderr.splitlines()[-5:] == [
        f"  {missing.url}: it answered 404 Not Found",
        f"  {page.url}: what it serves as {FILE_NAMES[0]}.gz is not a gzip file but text/html",
        f"  {bad.url}: what it serves as {FILE_NAMES[0]}.gz is damaged",
        f"  {dead}: it could not be reached",
        f"Try again later, give another mirror with --mirror URL, or place {FILE_NAMES[0]} or "
        f"{FILE_NAMES[0]}.gz in {cache / 'mnist'} yourself.",
    ]
    assert files_in(cache) == {}


# Mirrors that are slow, gone, or lead elsewhere


def test_mirror_that_never_answers_is_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Server([FOREVER]) as bad, Server(mirror) as good:
        fetch_one(tmp_path, bad.url, good.url, wait=0.5)
    assert f"{bad.url} was passed over: no answer within 0.5 s" in caplog.text
    assert len(bad.requests) == 1
    assert bad.finished == 0
    assert files_in(tmp_path) == {NAME: CONTENT}


def test_head_that_drips_is_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each byte comes in time, and the answer as a whole does not."""
    slow = [step for byte in head() for step in (bytes([byte]), 0.05)]
    with Server(slow) as bad, Server(mirror) as good:
        fetch_one(tmp_path, bad.url, good.url, wait=0.5)
    assert f"{bad.url} was passed over: no answer within 0.5 s" in caplog.text
    assert bad.finished == 0
    assert files_in(tmp_path) == {NAME: CONTENT}


def test_body_that_stops_is_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Server(hang_halfway) as bad, Server(mirror) as good:
        fetch_one(tmp_path, bad.url, good.url, wait=0.5)
    assert f"{bad.url} was passed over: the connection broke off" in caplog.text
    assert len(bad.requests) == ATTEMPTS
    assert bad.finished == 0
    assert files_in(tmp_path) == {NAME: CONTENT}


def test_body_that_drips_is_left_at_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(download, "DEADLINE", 1.0)
    with Server(drip) as bad, Server(mirror) as good:
        fetch_one(tmp_path, bad.url, good.url)
    assert f"{bad.url} was passed over: not done within 1 s" in caplog.text
    assert len(bad.requests) == 1
    assert bad.finished == 0
    assert files_in(tmp_path) == {NAME: CONTENT}


@pytest.mark.parametrize("answer", [[], [FOREVER], [b"nonsense\r\n\r\n"], PAGE])
def test_mirror_that_is_no_use_is_not_asked_for_the_next_file(tmp_path: Path, answer: Answer) -> None:
    with Server(answer) as bad, Server(mirror) as good:
        fetch(small_mnist(bad.url, good.url), list(FILE_NAMES), Source(tmp_path, wait=0.5))
    assert (len(bad.requests), len(good.requests)) == (1, 4)


def test_mirror_that_lacks_one_file_is_asked_for_the_next(tmp_path: Path) -> None:
    with Server(reply(status="404 Not Found"), mirror) as first, Server(mirror) as second:
        fetch(small_mnist(first.url, second.url), list(FILE_NAMES), Source(tmp_path))
    assert first.requests == [f"{name}.gz" for name in FILE_NAMES]
    assert second.requests == [f"{FILE_NAMES[0]}.gz"]


def test_redirect_is_followed(tmp_path: Path) -> None:
    with Server(mirror) as good, Server(lambda name: redirect(good.url + name)) as first:
        fetch_one(tmp_path, first.url)
    assert files_in(tmp_path) == {NAME: CONTENT}


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("file:///etc/hostname", "the request failed (InvalidSchema)"),
        ("ftp://127.0.0.1/", "the request failed (InvalidSchema)"),
        (f"/{NAME}.gz", "the request failed (TooManyRedirects)"),
        (f"http://{'a' * 64}/", "the request failed (LocationParseError)"),
        ("http://a..b/", "the request failed (LocationParseError)"),
        ("/caf\xe9", "the request failed (UnicodeDecodeError)"),
    ],
    ids=["file", "ftp", "loop", "long name", "empty name", "not UTF-8"],
)
def test_redirect_that_leads_nowhere_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, location: str, reason: str
) -> None:
    with Server(redirect(location)) as bad, Server(mirror) as good:
        fetch_one(tmp_path, bad.url, good.url)
    assert f"{bad.url} was passed over: {reason}" in caplog.text
    assert files_in(tmp_path) == {NAME: CONTENT}


@pytest.fixture
def _trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the test kit's certificate one that is trusted."""
    path = tmp_path / "certificate.pem"
    path.write_text(CERTIFICATE)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(path))


@pytest.mark.usefixtures("_trust")
def test_https_is_used(tmp_path: Path) -> None:
    with Server(mirror, tls=True) as server:
        fetch_one(tmp_path, server.url)
    assert files_in(tmp_path) == {NAME: CONTENT}


@pytest.mark.usefixtures("_trust")
def test_redirect_away_from_https_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Server(mirror) as plain, Server(lambda name: redirect(plain.url + name), tls=True) as bad:
        with pytest.raises(DownloadError, match=f"{bad.url}: it redirects away from https"):
            fetch_one(tmp_path, bad.url)
        assert files_in(tmp_path) == {}


@pytest.mark.usefixtures("_trust")
def test_redirect_through_http_is_refused(tmp_path: Path) -> None:
    with (
        Server(mirror, tls=True) as good,
        Server(lambda name: redirect(good.url + name)) as plain,
        Server(lambda name: redirect(plain.url + name), tls=True) as bad,
        pytest.raises(DownloadError, match=f"{bad.url}: it redirects away from https"),
    ):
        fetch_one(tmp_path, bad.url)
    assert files_in(tmp_path) == {}


def test_bad_certificate_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Server(mirror, tls=True) as bad, Server(mirror) as good:
        fetch_one(tmp_path, bad.url, good.url)
    assert bad.requests == []
    assert f"{bad.url} was passed over: its certificate could not be verified" in caplog.text
    assert files_in(tmp_path) == {NAME: CONTENT}


def test_proxy_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(mirror) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        fetch_one(tmp_path, "http://mirror.invalid/")
    assert files_in(tmp_path) == {NAME: CONTENT}


def test_password_of_a_proxy_or_a_mirror_is_never_shown(
    invoke: Invoke, use: Callable[..., Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", closed_port().replace("//", "//user:secret@"))
    use("http://user:secret@mirror.invalid/mnist/")
    result = invoke("download")
    assert_fails(result, "no mirror could supply")
    assert "  http://mirror.invalid/mnist/: the proxy could not be reached" in result.stderr
    assert "secret" not in result.stderr


# Too much


@pytest.mark.parametrize(
    "first", [head(), head(Content_Encoding="gzip"), head(length=1 << 40)], ids=["endless", "encoded", "huge"]
)
def test_endless_file_takes_no_memory_and_is_left(tmp_path: Path, first: bytes) -> None:
    """Four gigabytes of zeros arrive in four megabytes, within one gigabyte of address space."""

    def serve(name: str) -> Iterator[bytes]:
        yield first
        yield from bomb(CONTENT, megabytes=4096)

    code = f"""
import sys, time
from pathlib import Path
from softmax_cli.data.download import Source, fetch
from tests.server import small_mnist
time.sleep = lambda seconds: None
fetch(small_mnist(*sys.argv[1:]), ["{NAME}"], Source(Path("cache")))
"""
    with Server(serve) as bad, Server(mirror) as good:
        result = run_child(code, bad.url, good.url, folder=tmp_path, RLIMIT_AS=1 << 30)
    assert (result.returncode, result.stderr) == (
        0,
        f"the mirror {bad.url} was passed over: what it serves as {NAME}.gz holds more than 1,008 bytes\n",
    )
    assert files_in(tmp_path / "cache") == {NAME: CONTENT}


def test_no_more_than_one_byte_too_many_is_inflated(tmp_path: Path) -> None:
    told: list[int] = []

    def serve(name: str) -> Iterator[bytes]:
        yield head()
        yield from bomb(CONTENT)

    source = Source(tmp_path, progress=lambda name, done, size: told.append(done))
    with Server(serve) as server, pytest.raises(DownloadError):
        fetch(small_mnist(server.url), [NAME], source)
    assert max(told) == len(CONTENT) + 1


def test_full_disk_is_an_error_that_says_what_is_needed_and_what_moves_the_cache(tmp_path: Path) -> None:
    """The limit on the size of a file stands in for the disk."""
    code = "from softmax_cli.cli import main\nmain()"
    with Server(lambda name: [head(), *bomb(megabytes=40)]) as server:
        line = ("download", "mnist", "--mirror", server.url, "--data-dir", "cache")
        result = run_child(code, *line, folder=tmp_path, RLIMIT_FSIZE=1 << 20)
    assert_fails(
        result,
        "cannot keep MNIST in cache/mnist: cannot write cache/mnist/train-images-idx3-ubyte: file too large",
        "it needs 54,950,048 bytes there",
        "--data-dir or SOFTMAX_CACHE_DIR names another place",
    )
    assert files_in(tmp_path / "cache") == {}
    assert len(server.requests) == 1


def test_file_where_the_folder_should_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "mnist").touch()
    with (
        Server(mirror) as server,
        pytest.raises(OutputError, match=r"cannot keep MNIST in .*mnist: file exists; it needs"),
    ):
        fetch_one(tmp_path, server.url)
    assert server.requests == []


# Several at once, and ends that come too soon


def test_four_processes_on_an_empty_cache_all_succeed(tmp_path: Path) -> None:
    with Server(mirror) as server, ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(run_child, FETCH_ALL, server.url, folder=tmp_path) for _ in range(4)]
        results = [(run.result().returncode, run.result().stderr) for run in runs]
    assert results == [(0, "")] * 4
    assert files_in(tmp_path / "cache") == FILES


def test_killed_download_leaves_no_wrong_file_and_the_next_one_sweeps_up(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "mnist"

    def kill(name: str) -> Iterator[bytes | float]:
        yield head()
        yield packed(name)[:50_000]
        while not (temporaries := list(folder.glob(".*.tmp"))):
            yield 0.01
        os.kill(int(temporaries[0].name.split(".")[-2]), signal.SIGKILL)

    with Server(mirror, mirror, kill) as server:
        assert run_child(FETCH_ALL, server.url, folder=tmp_path).returncode == -signal.SIGKILL
    left = files_in(tmp_path / "cache")
    assert {name: left[name] for name in left if not name.endswith(".tmp")} == {
        name: FILES[name] for name in FILE_NAMES[:2]
    }
    with Server(mirror) as server:
        fetch(small_mnist(server.url), list(FILE_NAMES[2:]), Source(tmp_path / "cache"))
    assert files_in(tmp_path / "cache") == FILES


def test_interrupted_download_leaves_the_finished_files_and_no_temporary(
    invoke: Invoke, cache: Path, use: Callable[..., Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(name: str, done: int, size: int) -> None:
        if name == FILE_NAMES[2]:
            raise KeyboardInterrupt

    monkeypatch.setattr(progress, "download_bars", lambda: interrupt)
    with Server(mirror) as server:
        use(server.url)
        result = invoke("download")
    assert (result.exit_code, result.stdout) == (130, "")
    assert files_in(cache) == {name: FILES[name] for name in FILE_NAMES[:2]}


# The command


def test_all_four_files_are_downloaded_and_that_is_said(
    invoke: Invoke, cache: Path, use: Callable[..., Entry]
) -> None:
    with Server(mirror) as server:
        use(server.url)
        result = invoke("download")
    assert (result.exit_code, server.requests) == (0, [f"{name}.gz" for name in FILE_NAMES])
    assert result.stdout == (f"MNIST is in {cache / 'mnist'}: 4 files, SHA-256 verified ({SAMPLE.credit})\n")
    assert files_in(cache) == FILES


def test_download_can_be_read_by_a_program(invoke: Invoke, cache: Path, use: Callable[..., Entry]) -> None:
    with Server(mirror) as server:
        entry = use(server.url)
        result = invoke("download", "--json")
    assert json.loads(result.stdout) == {
        "dataset": "mnist",
        "folder": str(cache / "mnist"),
        "files": [file._asdict() for file in entry.files],
    }


def test_only_what_is_missing_is_downloaded(invoke: Invoke, cache: Path, use: Callable[..., Entry]) -> None:
    (cache / "mnist").mkdir()
    for name in FILE_NAMES[:2]:
        (cache / "mnist" / name).write_bytes(FILES[name])
    with Server(mirror) as server:
        use(server.url)
        assert invoke("download").exit_code == 0
        assert invoke("download").exit_code == 0
    assert server.requests == [f"{name}.gz" for name in FILE_NAMES[2:]]


def test_damaged_file_in_the_cache_is_replaced(
    invoke: Invoke, cache: Path, use: Callable[..., Entry]
) -> None:
    with Server(mirror) as server:
        use(server.url)
        invoke("download")
        (cache / "mnist" / NAME).write_bytes(CONTENT[:-1] + b"\0")
        result = invoke("download")
    assert (result.exit_code, server.requests[4:]) == (0, [f"{NAME}.gz"])
    assert "downloading it again" in warnings(result)[0]
    assert (cache / "mnist" / NAME).read_bytes() == CONTENT


def test_given_mirror_is_asked_first(invoke: Invoke, use: Callable[..., Entry]) -> None:
    with Server(mirror) as own, Server(mirror) as other, Server(reply(status="404 Not Found")) as empty:
        use(other.url)
        result = invoke("download", "--mirror", empty.url, "--mirror", own.url)
    assert result.exit_code == 0
    assert (len(empty.requests), len(own.requests), len(other.requests)) == (4, 4, 0)


@pytest.mark.parametrize(
    "url", ["mirror.example/mnist", "ftp://mirror.example/", "file:///mnist", "https://", "http://[::1", ""]
)
def test_mirror_that_is_no_url_is_wrong_usage(invoke: Invoke, cache: Path, url: str) -> None:
    assert_fails(invoke("download", "--mirror", url), f"mirror {url!r} must be a URL", code=2)
    with pytest.raises(ConfigError):
        Source(cache, mirrors=(url,))


@pytest.mark.parametrize("name", ["sample", "imagenet"])
def test_what_cannot_be_downloaded_is_wrong_usage(invoke: Invoke, name: str) -> None:
    assert_fails(invoke("download", name), f"{name!r} to download; there are mnist, fashion-mnist", code=2)
