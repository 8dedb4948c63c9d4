"""Downloads from hostile mirrors, through broken proxies, into missing folders."""

import gzip
import os
import pwd
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import Result

from softmax_cli.data import download
from softmax_cli.data.catalog import Entry
from softmax_cli.data.download import Source, fetch
from softmax_cli.data.loading import load_dataset
from softmax_cli.errors import ConfigError, DownloadError
from tests.helpers import assert_fails, unprivileged
from tests.server import (
    FILES,
    Answer,
    Server,
    bomb,
    closed_port,
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

Invoke = Callable[..., Result]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Entry]:
    """Return a function that makes the code use `small_mnist` with these mirrors instead of MNIST."""
    return partial(replace_mnist, monkeypatch)


@pytest.fixture
def _deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "DEADLINE", 0.6)


def failure(folder: Path, *urls: str, wait: float = 10.0) -> str:
    """Return the message with which no mirror serves a file."""
    with pytest.raises(DownloadError) as caught:
        fetch(small_mnist(*urls), [NAME], Source(folder, wait=wait))
    assert list(folder.glob("*/.*")) == []
    return str(caught.value)


# D18: redirects


def test_d18_an_endless_body_of_a_redirect_is_not_read(tmp_path: Path) -> None:
    """Neither the body of the redirect nor its inflated content takes memory."""
    sent: list[int] = []

    def serve(name: str) -> Iterator[bytes]:
        yield head("302 Found", Location=good.url + name, Content_Encoding="gzip")
        for block in bomb(megabytes=4096):
            sent.append(len(block))
            yield block

    code = f"""
import sys
from pathlib import Path
from softmax_cli.data.download import Source, fetch
from tests.server import small_mnist
fetch(small_mnist(sys.argv[1]), ["{NAME}"], Source(Path("cache")))
"""
    with Server(mirror) as good, Server(serve) as first:
        result = run_child(code, first.url, folder=tmp_path, RLIMIT_AS=1 << 30)
    assert (result.returncode, result.stderr) == (0, "")
    assert first.finished == 0
    assert sum(sent) < 4_000_000  # what the sockets hold


def test_d18_a_redirect_after_a_redirect_is_followed_up_to_a_limit(tmp_path: Path) -> None:
    with Server(lambda name: redirect(f"/{name}")) as loop, Server(mirror) as good:
        steps = [redirect(f"{good.url}{NAME}.gz") if i == 9 else redirect(f"/{i}") for i in range(10)]
        with Server(*steps) as chain:
            fetch(small_mnist(loop.url, chain.url), [NAME], Source(tmp_path))
    assert (len(loop.requests), len(chain.requests)) == (11, 10)
    assert (tmp_path / "mnist" / NAME).read_bytes() == FILES[NAME]


# D19: drips


def chunked(*parts: bytes | float) -> list[bytes | float]:
    return [head(Transfer_Encoding="chunked"), *parts]


def drip(text: bytes) -> list[bytes | float]:
    return [step for byte in text for step in (bytes([byte]), 0.05)]


DRIPS: dict[str, Answer] = {
    "chunk size": chunked(*drip(b"0" * 400)),
    "chunk extension": chunked(b"5;", *drip(b"x" * 400)),
    "chunk content": chunked(b"%x\r\n" % len(BODY), *drip(BODY)),
    "trailer": chunked(b"%x\r\n%b\r\n0\r\n" % (len(BODY), BODY), *drip(b"name: value\r\n" * 40)),
    "many trailers": chunked(b"%x\r\n%b\r\n0\r\n" % (len(BODY), BODY), *([b"n: v\r\n", 0.05] * 400)),
    "content": [head(length=len(BODY)), *drip(BODY)],
    "content without length": [head(), *drip(BODY)],
}


@pytest.mark.usefixtures("_deadline")
@pytest.mark.parametrize("kind", DRIPS)
def test_d19_a_drip_ends_at_the_deadline(kind: str, tmp_path: Path) -> None:
    with Server(DRIPS[kind]) as bad:
        message = failure(tmp_path, bad.url)
    assert f"{bad.url}: not done within 0.6 s" in message
    assert (len(bad.requests), bad.finished) == (1, 0)


@pytest.mark.parametrize("start", [b"1;", b"x", b"1"])
def test_d19_an_endless_line_is_refused(
    start: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "time", SimpleNamespace(sleep=lambda _: None, monotonic=time.monotonic))
    sent: list[int] = []

    def endless(name: str) -> Iterator[bytes]:
        yield head(Transfer_Encoding="chunked") + start
        while True:
            sent.append(1)
            yield b"1" * 65_536

    with Server(endless) as bad:
        message = failure(tmp_path, bad.url)
    assert "the connection broke off" in message or "is not a gzip file" in message
    assert len(sent) < 1000


# D21: proxies and certificates


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("403 Forbidden", "the proxy answered 403 Forbidden"),
        ("407 Proxy Authentication Required", "the proxy answered 407 Proxy Authentication Required"),
    ],
)
def test_d21_the_answer_of_a_proxy_is_reported(
    status: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Server(reply(status=status)) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url.replace("//", "//user:secret@"))
        message = failure(tmp_path, "https://mirror.invalid/")
    assert f"https://mirror.invalid/: {reason}" in message
    assert "secret" not in message


def test_d21_a_plain_proxy_that_wants_a_password_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Server(reply(status="407 Proxy Authentication Required")) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        message = failure(tmp_path, "http://mirror.invalid/")
    assert "http://mirror.invalid/: the proxy answered 407 Proxy Authentication Required" in message


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("REQUESTS_CA_BUNDLE", "/no/Such/CA.pem", "CA certificate bundle, invalid path: /no/Such/CA.pem"),
        ("https_proxy", "http://", "the request failed (InvalidProxyURL)|the URL of the proxy is not valid"),
        ("https_proxy", "socks5://127.0.0.1:9", "a SOCKS proxy needs another package|could not be reached"),
    ],
)
def test_d21_a_broken_environment_is_a_fault_of_the_mirror(
    variable: str, value: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths are spelled as given, and `auto` uses the sample."""
    monkeypatch.setenv(variable, value)
    message = failure(tmp_path, "https://127.0.0.1:9/")
    assert any(part in message for part in reason.split("|")), message
    entry = replace_mnist(monkeypatch, "https://127.0.0.1:9/")
    assert load_dataset("auto", "train", Source(tmp_path)).name == "sample"
    assert entry.name == "mnist"


def test_d21_socks_without_its_package_is_explained() -> None:
    from requests.exceptions import InvalidSchema

    fault = download._explained(InvalidSchema("Missing dependencies for SOCKS support."), 1)
    assert str(fault) == "a SOCKS proxy needs another package: pip install 'requests[socks]'"


def test_d21_an_unexpected_error_of_a_request_is_a_bug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_get", lambda url, wait: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fetch(small_mnist("http://mirror.invalid/"), [NAME], Source(tmp_path))


# D22: no home, no cache


@pytest.fixture
def _homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the home folder, as in a container that runs under a number without a name."""

    def unknown(number: int) -> None:
        raise KeyError(number)

    for name in ("HOME", "SOFTMAX_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.mark.usefixtures("_homeless")
def test_d22_without_a_home_what_needs_no_cache_works(
    invoke: Invoke, work: Path, model_file: Path, use: Callable[..., Entry]
) -> None:
    use(closed_port())
    assert invoke("eval", "-c", model_file, "--dataset", "sample").exit_code == 0
    assert invoke("info", "sample").exit_code == 0
    assert invoke("train", "--epochs", 1).exit_code == 0  # auto uses the sample
    assert invoke("train", "--resume").exit_code == 0
    message = "there is no home folder for the cache; set SOFTMAX_CACHE_DIR"
    assert_fails(invoke("download"), message, code=2)
    assert_fails(invoke("train", "--dataset", "mnist"), message, code=2)


@pytest.mark.usefixtures("_homeless")
def test_d22_a_folder_is_trained_on_and_found_without_a_home(work: Path, invoke: Invoke) -> None:
    from softmax_cli.data.readers.idx import write_idx
    from tests.helpers import folder_of

    data = load_dataset("sample", "test", Source("unused"))
    folder_of(work / "own", data)
    write_idx(work / "own" / "t10k-labels-idx1-ubyte", data.labels)
    assert invoke("train", "--dataset", "own", "--epochs", 1).exit_code == 0
    assert_fails(invoke("eval"), "give its path with --dataset", code=2)
    assert invoke("eval", "--dataset", "own").exit_code == 0


def test_d22_auto_uses_the_sample_if_the_users_cache_cannot_be_written(
    use: Callable[..., Entry], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A folder that the user chose is an error instead."""
    monkeypatch.delenv("SOFTMAX_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/no")
    with Server(mirror) as server:
        use(server.url)
        assert load_dataset("auto", "train").name == "sample"
        assert "Using the bundled sample" in caplog.text
        with pytest.raises(Exception, match="cannot keep MNIST in /proc/no"):
            load_dataset("auto", "train", Source("/proc/no"))


# D23: gzip as gzip -t reads it


@pytest.mark.parametrize(
    "body",
    [
        BODY + bytes(1000),
        b"".join(gzip.compress(FILES[NAME][i : i + 300]) for i in range(0, 1200, 300)),
        gzip.compress(FILES[NAME]) + gzip.compress(b""),
    ],
    ids=["zeros", "members", "empty member"],
)
def test_d23_members_and_zeros_are_read(body: bytes, tmp_path: Path) -> None:
    with Server(reply(body)) as server:
        fetch(small_mnist(server.url), [NAME], Source(tmp_path))
    assert (tmp_path / "mnist" / NAME).read_bytes() == FILES[NAME]


# D24: secrets


@pytest.mark.parametrize(
    "url",
    [
        "http://user:secret@127.0.0.1:9/",
        "http://127.0.0.1:9/mnist?token=secret",
        "http://127.0.0.1:9/#secret",
        "http://user:sec/secret@127.0.0.1:9/",
        "http://us@er:secret@127.0.0.1:9/",
    ],
)
def test_d24_the_secret_in_the_url_of_a_mirror_is_never_shown(
    url: str, invoke: Invoke, use: Callable[..., Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOFTMAX_DEBUG", "1")
    use(closed_port())
    result = invoke("download", "--mirror", url)
    assert result.exit_code == 1
    assert "no mirror could supply" in result.stderr
    assert "127.0.0.1:9" in result.stderr
    assert "secret" not in result.output


@pytest.mark.parametrize(
    "url", ["user:secret@host/", "ftp://user:secret@host/?secret", "http://[secret@host", "http:///?secret"]
)
def test_d24_the_secret_in_a_malformed_url_is_never_shown(url: str, invoke: Invoke, cache: Path) -> None:
    result = invoke("download", "--mirror", url)
    assert_fails(result, "must be a URL", code=2)
    assert "secret" not in result.output
    with pytest.raises(ConfigError):
        Source(cache, mirrors=(url,))


def test_d24_the_query_of_a_mirror_is_sent(tmp_path: Path) -> None:
    with Server(reply(BODY)) as server:
        fetch(small_mnist(f"{server.url}deep?token=1"), [NAME], Source(tmp_path))
        assert server.requests == [f"{NAME}.gz?token=1"]


def test_l13_a_download_works_if_no_thread_can_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise RuntimeError("can't start new thread")

    thread = SimpleNamespace(start=refuse)
    monkeypatch.setattr(download, "threading", SimpleNamespace(Thread=lambda **_: thread))
    with Server(mirror) as server:
        fetch(small_mnist(server.url), [NAME], Source(tmp_path))
    assert (tmp_path / "mnist" / NAME).read_bytes() == FILES[NAME]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_d11_a_complete_cache_of_another_user_works(tmp_path: Path, use: Callable[..., Entry]) -> None:
    from tempfile import TemporaryDirectory

    use(closed_port())
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        (Path(folder) / "mnist").mkdir()
        for name, content in FILES.items():
            (Path(folder) / "mnist" / name).write_bytes(content)
        with unprivileged():
            assert load_dataset("mnist", "train", Source(folder)).name == "mnist"
