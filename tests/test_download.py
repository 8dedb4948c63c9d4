"""Downloads: each file is verified and comes from the first mirror that has it."""

import gzip
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import Result

from softmax_cli.cli import progress
from softmax_cli.data import download
from softmax_cli.data.catalog import FILE_NAMES, SAMPLE, Entry
from softmax_cli.data.download import ATTEMPTS, LONGEST_PAUSE, Source, fetch
from softmax_cli.errors import ConfigError, DownloadError
from tests.helpers import assert_fails
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
    """Return the list of pauses in seconds; no pause is made."""
    asked: list[float] = []
    monkeypatch.setattr(download, "time", SimpleNamespace(sleep=asked.append, monotonic=time.monotonic))
    return asked


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Entry]:
    """Return a function that replaces MNIST by `small_mnist` with given mirrors."""
    return partial(replace_mnist, monkeypatch)


def fetch_one(folder: Path, *urls: str, wait: float = 10.0) -> None:
    """Fetch one small file from mirrors into ``folder / "mnist"``."""
    fetch(small_mnist(*urls), [NAME], Source(folder, wait=wait))


def files_in(cache: Path) -> dict[str, bytes]:
    """Return the content of all files of MNIST in the cache, also temporary ones."""
    return {path.name: path.read_bytes() for path in (cache / "mnist").iterdir()}


def warnings(result: Result) -> list[str]:
    return [line for line in result.stderr.splitlines() if line.startswith("warning: ")]


# Correct files


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
        reply(gzip.compress(CONTENT[:99]) + bytes(7) + gzip.compress(CONTENT[99:]) + bytes(512)),
    ],
    ids=[
        "plain",
        "no length",
        "bytewise",
        "chunked",
        "labelled as encoded",
        "odd type",
        "other compression",
        "padded",
    ],
)
def test_correct_file_is_accepted_in_every_encoding_of_the_response(tmp_path: Path, answer: Answer) -> None:
    with Server(answer) as server:
        fetch_one(tmp_path, server.url)
    assert server.requests == [f"{NAME}.gz"]
    assert files_in(tmp_path) == {NAME: CONTENT}


def test_url_of_a_mirror_needs_no_slash_at_its_end(tmp_path: Path) -> None:
    with Server(mirror) as server:
        fetch_one(tmp_path, f"{server.url}deep/er")
    assert files_in(tmp_path) == {NAME: CONTENT}


def test_progress_is_reported_up_to_the_size_of_the_file(tmp_path: Path) -> None:
    reported: list[tuple[str, int, int]] = []
    with Server(mirror) as server:
        source = Source(tmp_path, progress=lambda *args: reported.append(args))
        fetch(small_mnist(server.url), [NAME], source)
    assert reported[-1] == (NAME, len(CONTENT), len(CONTENT))


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
        (reply(BODY + b"\1"), f"what it serves as {NAME}.gz has other bytes after its end"),
        (reply(gzip.compress(CONTENT + b"\0")), f"what it serves as {NAME}.gz holds more than 1,008 bytes"),
    ],
    ids=[
        *("cut", "wrong length", "no length and cut", "no length and one byte short", "chunked and cut"),
        *("not chunks", "empty", "one bit flipped", "right size, other content", "longer", "one byte long"),
    ],
)
def test_d2_wrong_file_is_never_stored_and_is_retried_before_the_next_mirror(
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
    assert f"the mirror {bad.url} was skipped: {reason}" in caplog.text


def test_temporary_fault_is_not_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Server(reply(BODY[:300], length=len(BODY)), reply(FORGED), mirror) as server:
        fetch_one(tmp_path, server.url)
    assert (len(server.requests), caplog.text) == (3, "")
    assert files_in(tmp_path) == {NAME: CONTENT}


def test_d1_mirror_that_sends_a_web_page_is_skipped_with_a_warning(
    invoke: Invoke, cache: Path, use: Callable[..., Entry]
) -> None:
    with Server(PAGE) as bad, Server(mirror) as good:
        use(bad.url, good.url)
        result = invoke("download")
    assert result.exit_code == 0
    assert warnings(result) == [
        f"warning: the mirror {bad.url} was skipped: what it serves as {FILE_NAMES[0]}.gz "
        "is not a gzip file but text/html"
    ]
    assert len(bad.requests) == 1
    assert good.requests == [f"{name}.gz" for name in FILE_NAMES]
    assert files_in(cache) == FILES


# Responses without a file


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
def test_d4_busy_mirror_is_retried_after_a_bounded_pause(
    tmp_path: Path, pauses: list[float], status: str, after: str, expected: list[float]
) -> None:
    with Server(reply(status=status, Retry_After=after)) as busy, Server(mirror) as good:
        fetch_one(tmp_path, busy.url, good.url)
    assert (pauses, len(busy.requests), len(good.requests)) == (expected, ATTEMPTS, 1)
    assert files_in(tmp_path) == {NAME: CONTENT}


@pytest.mark.parametrize(
    "status", ["404 Not Found", "403 Forbidden", "204 No Content", "206 Partial Content"]
)
def test_mirror_that_refuses_the_request_is_not_retried(
    tmp_path: Path, pauses: list[float], caplog: pytest.LogCaptureFixture, status: str
) -> None:
    with Server(reply(status=status, Retry_After="2")) as bad, Server(mirror) as good:
        fetch_one(tmp_path, bad.url, good.url)
    assert (pauses, len(bad.requests), len(good.requests)) == ([], 1, 1)
    assert f"it answered {status}" in caplog.text


def test_d3_every_failed_mirror_is_listed_with_its_reason(
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


# Slow and unreachable mirrors, redirects, certificates, proxies


def test_d5_mirror_that_never_responds_is_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Server([FOREVER]) as bad, Server(mirror) as good:
        fetch_one(tmp_path, bad.url, good.url, wait=0.5)
    assert f"{bad.url} was skipped: no answer within 0.5 s" in caplog.text
    assert len(bad.requests) == 1
    assert bad.finished == 0
    assert files_in(tmp_path) == {NAME: CONTENT}


def test_response_whose_head_is_too_slow_is_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each byte arrives in time, but the complete head does not."""
    slow = [step for byte in head() for step in (bytes([byte]), 0.05)]
    with Server(slow) as bad, Server(mirror) as good:
        fetch_one(tmp_path, bad.url, good.url, wait=0.5)
    assert f"{bad.url} was skipped: no answer within 0.5 s" in caplog.text
    assert bad.finished == 0
    assert files_in(tmp_path) == {NAME: CONTENT}


def test_response_whose_body_stops_is_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Server(hang_halfway) as bad, Server(mirror) as good:
        fetch_one(tmp_path, bad.url, good.url, wait=0.5)
    assert f"{bad.url} was skipped: the connection broke off" in caplog.text
    assert len(bad.requests) == ATTEMPTS
    assert bad.finished == 0
    assert files_in(tmp_path) == {NAME: CONTENT}


def test_response_whose_body_is_too_slow_is_skipped_at_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(download, "DEADLINE", 1.0)
    with Server(drip) as bad, Server(mirror) as good:
        fetch_one(tmp_path, bad.url, good.url)
    assert f"{bad.url} was skipped: not done within 1 s" in caplog.text
    assert len(bad.requests) == 1
    assert bad.finished == 0
    assert files_in(tmp_path) == {NAME: CONTENT}


@pytest.mark.parametrize("answer", [[], [FOREVER], [b"nonsense\r\n\r\n"], PAGE])
def test_unreachable_or_wrong_mirror_is_not_used_for_the_next_file(tmp_path: Path, answer: Answer) -> None:
    with Server(answer) as bad, Server(mirror) as good:
        fetch(small_mnist(bad.url, good.url), list(FILE_NAMES), Source(tmp_path, wait=0.5))
    assert (len(bad.requests), len(good.requests)) == (1, 4)


def test_mirror_that_lacks_one_file_is_used_for_the_next(tmp_path: Path) -> None:
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
        ("file:///etc/hostname", "it redirects to a URL that is neither https:// nor http://"),
        ("ftp://127.0.0.1/", "it redirects to a URL that is neither https:// nor http://"),
        (f"/{NAME}.gz", "it redirects more than 10 times"),
        (f"http://{'a' * 64}/", "the request failed (LocationParseError)"),
        ("http://a..b/", "the request failed (LocationParseError)"),
        ("/caf\xe9", "the request failed (UnicodeDecodeError)"),
    ],
    ids=["file", "ftp", "loop", "long name", "empty name", "not UTF-8"],
)
def test_d7_invalid_redirect_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, location: str, reason: str
) -> None:
    with Server(redirect(location)) as bad, Server(mirror) as good:
        fetch_one(tmp_path, bad.url, good.url)
    assert f"{bad.url} was skipped: {reason}" in caplog.text
    assert files_in(tmp_path) == {NAME: CONTENT}


@pytest.fixture
def _trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the certificate of `Server` trusted."""
    path = tmp_path / "certificate.pem"
    path.write_text(CERTIFICATE)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(path))


@pytest.mark.usefixtures("_trust")
def test_https_is_used(tmp_path: Path) -> None:
    with Server(mirror, tls=True) as server:
        fetch_one(tmp_path, server.url)
    assert files_in(tmp_path) == {NAME: CONTENT}


@pytest.mark.usefixtures("_trust")
@pytest.mark.parametrize("back", [False, True], ids=["to http", "through http"])
def test_redirect_away_from_https_is_refused(tmp_path: Path, back: bool) -> None:
    with (
        Server(mirror, tls=True) as good,
        Server(lambda name: redirect(good.url + name) if back else mirror(name)) as plain,
        Server(lambda name: redirect(plain.url + name), tls=True) as bad,
        pytest.raises(DownloadError, match=f"{bad.url}: it redirects away from https"),
    ):
        fetch_one(tmp_path, bad.url)
    assert files_in(tmp_path) == {}


def test_d14_bad_certificate_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Server(mirror, tls=True) as bad, Server(mirror) as good:
        fetch_one(tmp_path, bad.url, good.url)
    assert bad.requests == []
    assert f"{bad.url} was skipped: its certificate could not be verified" in caplog.text
    assert files_in(tmp_path) == {NAME: CONTENT}


def test_d16_proxy_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


# Too many bytes


@pytest.mark.parametrize(
    "first", [head(Content_Encoding="gzip"), head(length=1 << 40)], ids=["encoded", "huge"]
)
def test_d6_endless_file_is_refused_within_a_gigabyte(tmp_path: Path, first: bytes) -> None:
    """The response of four megabytes inflates to four gigabytes of zeros."""

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
        f"the mirror {bad.url} was skipped: what it serves as {NAME}.gz holds more than 1,008 bytes\n",
    )
    assert files_in(tmp_path / "cache") == {NAME: CONTENT}


def test_full_disk_is_an_error_that_names_the_size_and_the_option_for_another_place(tmp_path: Path) -> None:
    """The limit on the size of a file simulates a full disk."""
    code = "from softmax_cli.cli.main import main\nmain()"
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


# Several processes, and interruptions


def test_d8_four_processes_on_an_empty_cache_all_succeed(tmp_path: Path) -> None:
    with Server(mirror) as server, ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(run_child, FETCH_ALL, server.url, folder=tmp_path) for _ in range(4)]
        results = [(run.result().returncode, run.result().stderr) for run in runs]
    assert results == [(0, "")] * 4
    assert files_in(tmp_path / "cache") == FILES


def test_d17_interrupted_download_leaves_the_finished_files_and_no_temporary(
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


def test_four_files_are_downloaded_and_reported(
    invoke: Invoke, cache: Path, use: Callable[..., Entry]
) -> None:
    with Server(mirror) as server:
        use(server.url)
        result = invoke("download")
    assert (result.exit_code, server.requests) == (0, [f"{name}.gz" for name in FILE_NAMES])
    assert result.stdout == (f"MNIST is in {cache / 'mnist'}: 4 files, SHA-256 verified ({SAMPLE.credit})\n")
    assert files_in(cache) == FILES


def test_download_prints_json_on_request(invoke: Invoke, cache: Path, use: Callable[..., Entry]) -> None:
    with Server(mirror) as server:
        entry = use(server.url)
        result = invoke("download", "--json")
    assert json.loads(result.stdout) == {
        "dataset": "mnist",
        "folder": str(cache / "mnist"),
        "files": [file._asdict() for file in entry.files],
    }


def test_only_missing_files_are_downloaded(invoke: Invoke, cache: Path, use: Callable[..., Entry]) -> None:
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


def test_given_mirror_is_used_first(invoke: Invoke, use: Callable[..., Entry]) -> None:
    with Server(mirror) as own, Server(mirror) as other, Server(reply(status="404 Not Found")) as empty:
        use(other.url)
        result = invoke("download", "--mirror", empty.url, "--mirror", own.url)
    assert result.exit_code == 0
    assert (len(empty.requests), len(own.requests), len(other.requests)) == (4, 4, 0)


@pytest.mark.parametrize(
    "url", ["mirror.example/mnist", "ftp://mirror.example/", "file:///mnist", "https://", "http://[::1", ""]
)
def test_mirror_that_is_not_a_url_is_wrong_usage(invoke: Invoke, cache: Path, url: str) -> None:
    assert_fails(invoke("download", "--mirror", url), f"mirror {url!r} must be a URL", code=2)
    with pytest.raises(ConfigError):
        Source(cache, mirrors=(url,))


@pytest.mark.parametrize("name", ["sample", "imagenet"])
def test_data_set_without_mirrors_is_wrong_usage(invoke: Invoke, name: str) -> None:
    message = f"unknown data set {name!r}; available for download: mnist, fashion-mnist"
    assert_fails(invoke("download", name), message, code=2)
