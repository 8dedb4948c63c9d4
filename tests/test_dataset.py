"""A data set is what it says it is, wherever it comes from, or it is not used."""

import gzip
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st

from softmax_cli import files
from softmax_cli.data import dataset
from softmax_cli.data.catalog import CATALOG, FILE_NAMES, SPLITS, Entry
from softmax_cli.data.dataset import Dataset, cache_folder, hold_out, load
from softmax_cli.data.download import Source
from softmax_cli.data.idx import write_idx
from softmax_cli.errors import ConfigError, DataError, DownloadError
from tests.conftest import assert_fails
from tests.server import FILES, FOREVER, Server, closed_port, mirror, packed, replace_mnist, reply

IMAGES, LABELS = SPLITS["train"]

Invoke = Callable[..., Result]
Use = Callable[..., Entry]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    """Return a function that makes `load` take these mirrors of the sample's files for MNIST."""
    return partial(replace_mnist, monkeypatch)


@pytest.fixture
def full_cache(cache: Path, use: Use) -> Path:
    """Return a cache that holds the whole of a small MNIST, which no mirror has."""
    use(closed_port())
    (cache / "mnist").mkdir()
    for name, content in FILES.items():
        (cache / "mnist" / name).write_bytes(content)
    return cache


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return the sockets that were opened and the names that were looked up; each attempt fails."""
    opened: list[object] = []

    def refuse(*args: object, **options: object) -> None:
        opened.append(args)
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "__init__", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return opened


def offline(folder: Path) -> Source:
    return Source(folder, offline=True)


def same(data: Dataset, other: Dataset) -> bool:
    return np.array_equal(data.images, other.images) and np.array_equal(data.labels, other.labels)


def state(folder: Path) -> dict[Path, tuple[bytes, int]]:
    """Return what is in a folder: each path with its content and the time of its last change."""
    return {
        path: (path.read_bytes() if path.is_file() else b"", path.stat().st_mtime_ns)
        for path in [folder, *folder.rglob("*")]
    }


# The cache


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"SOFTMAX_CACHE_DIR": "/own", "XDG_CACHE_HOME": "/xdg"}, "/own"),
        ({"SOFTMAX_CACHE_DIR": "rel/own"}, "rel/own"),
        ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/softmax"),
        ({"XDG_CACHE_HOME": "rel/xdg"}, "/home/me/.cache/softmax"),
        ({"XDG_CACHE_HOME": ""}, "/home/me/.cache/softmax"),
        ({}, "/home/me/.cache/softmax"),
        ({"SOFTMAX_CACHE_DIR": ""}, "/home/me/.cache/softmax"),
    ],
)
def test_cache_is_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    """A relative XDG_CACHE_HOME is ignored, as the XDG Base Directory Specification asks."""
    for name in ("SOFTMAX_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/me", **variables}.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)


def test_no_home_is_wrong_usage_that_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("SOFTMAX_CACHE_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(ConfigError, match="no home folder to keep data in; set SOFTMAX_CACHE_DIR"):
        cache_folder()


@pytest.mark.parametrize("split", SPLITS)
def test_full_cache_is_used_without_a_socket(
    full_cache: Path, sample: Dataset, sample_test: Dataset, sockets: list[object], split: str
) -> None:
    """Offline or not: there is nothing to ask for."""
    for source in (offline(full_cache), Source(full_cache)):
        data = load("mnist", split, source)
        assert same(data, sample if split == "train" else sample_test)
        assert same(load("auto", split, source), data)
    assert (data.name, data.digest, sockets) == ("mnist", CATALOG["mnist"].digest, [])


def test_offline_command_succeeds_with_a_full_cache(
    invoke: Invoke, full_cache: Path, sockets: list[object]
) -> None:
    result = invoke("download", "--offline")
    assert (result.exit_code, result.stderr, sockets) == (0, "", [])


@pytest.mark.parametrize("line", [("download",), ("train", "--dataset", "mnist")])
def test_offline_with_an_empty_cache_names_the_files_and_opens_no_socket(
    invoke: Invoke, work: Path, cache: Path, sockets: list[object], line: tuple[str, ...]
) -> None:
    result = invoke(*line, "--offline")
    assert_fails(result, f"MNIST is not complete in {cache / 'mnist'}, and --offline forbids", *FILE_NAMES)
    assert (sockets, list(cache.iterdir()), list(work.iterdir())) == ([], [], [])


def test_offline_names_only_the_files_that_are_missing(full_cache: Path) -> None:
    (full_cache / "mnist" / LABELS).unlink()
    with pytest.raises(DownloadError, match=rf"a download: {LABELS} missing; place"):
        load("mnist", "train", offline(full_cache))
    assert len(load("mnist", "test", offline(full_cache))) == 1_000


def test_read_only_cache_works_and_nothing_is_written(full_cache: Path, sample: Dataset) -> None:
    folder = full_cache / "mnist"
    for path in (*folder.iterdir(), folder):
        path.chmod(path.stat().st_mode & 0o555)
    before = state(full_cache)
    assert same(load("mnist", "train", Source(full_cache)), sample)
    assert state(full_cache) == before
    folder.chmod(0o755)


@pytest.fixture
def packed_cache(cache: Path, use: Use) -> Path:
    """Return a cache with the four compressed files, as they are placed by hand."""
    use(closed_port())
    (cache / "mnist").mkdir()
    for name in FILE_NAMES:
        (cache / "mnist" / f"{name}.gz").write_bytes(packed(name))
    return cache


def test_compressed_file_that_was_placed_by_hand_is_unpacked(packed_cache: Path, sample: Dataset) -> None:
    assert same(load("mnist", "train", offline(packed_cache)), sample)
    for name in (IMAGES, LABELS):
        assert (packed_cache / "mnist" / name).read_bytes() == FILES[name]


def test_compressed_file_works_where_it_cannot_be_unpacked(
    packed_cache: Path, sample: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(path: Path, mode: str) -> object:
        if "w" in mode:
            raise OSError(30, "Read-only file system")
        return open(path, mode)

    monkeypatch.setattr(files, "open", read_only, raising=False)
    before = state(packed_cache)
    assert same(load("mnist", "train", offline(packed_cache)), sample)
    assert state(packed_cache) == before


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (packed(LABELS)[:-3], f"{LABELS}.gz is cut short"),
        (b"<!doctype html>", f"{LABELS}.gz is not a gzip file"),
        (b"", f"{LABELS}.gz is cut short"),
        (packed("t10k-labels-idx1-ubyte"), f"{LABELS} has SHA-256 .*, expected "),
        (gzip.compress(bytes(100_000)), f"{LABELS}.gz holds more than 5,008 bytes"),
    ],
    ids=["cut", "page", "empty", "another", "long"],
)
def test_wrong_compressed_file_is_refused_offline_and_replaced_online(
    packed_cache: Path, sample: Dataset, use: Use, content: bytes, reason: str
) -> None:
    (packed_cache / "mnist" / f"{LABELS}.gz").write_bytes(content)
    with pytest.raises(DataError, match=reason):
        load("mnist", "train", offline(packed_cache))
    with Server(mirror) as server:
        use(server.url)
        assert same(load("mnist", "train", Source(packed_cache)), sample)
    assert server.requests == [f"{LABELS}.gz"]


def test_compressed_file_that_was_placed_beside_a_damaged_one_takes_its_place(
    packed_cache: Path, sample: Dataset
) -> None:
    (packed_cache / "mnist" / LABELS).write_bytes(FILES[LABELS][:-1])
    assert same(load("mnist", "train", offline(packed_cache)), sample)
    assert (packed_cache / "mnist" / LABELS).read_bytes() == FILES[LABELS]


# Files that were right once


ROTTEN = {
    "one bit": lambda content: content[:2000] + bytes([content[2000] ^ 1]) + content[2001:],
    "header": lambda content: b"\0\1" + content[2:],
    "cut": lambda content: content[:-1],
    "longer": lambda content: content + b"\0",
    "empty": lambda content: b"",
    "page": lambda content: b"<!doctype html>" * 20,
}


@pytest.fixture(params=[(name, kind) for name in (IMAGES, LABELS) for kind in ROTTEN], ids=" ".join)
def rotten(request: pytest.FixtureRequest, full_cache: Path) -> Path:
    """Return a file of a cache that is otherwise full and right; it is damaged."""
    name, kind = request.param
    path = full_cache / "mnist" / name
    path.write_bytes(ROTTEN[kind](FILES[name]))
    return path


def test_rotten_file_is_downloaded_again_with_a_warning(
    rotten: Path, full_cache: Path, sample: Dataset, use: Use, caplog: pytest.LogCaptureFixture
) -> None:
    with Server(mirror) as server:
        use(server.url)
        assert same(load("mnist", "train", Source(full_cache)), sample)
    assert server.requests == [f"{rotten.name}.gz"]
    assert rotten.read_bytes() == FILES[rotten.name]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"{rotten} " in caplog.text
    assert "downloading it again" in caplog.text


@pytest.mark.parametrize("options", [("--offline",), ()], ids=["offline", "no mirror"])
@pytest.mark.parametrize("content", [b"", FILES[IMAGES][:-1] + b"\1"], ids=["empty", "one byte"])
def test_rotten_file_is_never_trained_on(
    invoke: Invoke, work: Path, full_cache: Path, options: tuple[str, ...], content: bytes
) -> None:
    (full_cache / "mnist" / IMAGES).write_bytes(content)
    result = invoke("train", "--dataset", "mnist", "--epochs", 1, *options)
    assert_fails(result, "it is damaged" if options else "no mirror could supply")
    assert str(full_cache / "mnist" / IMAGES) in result.stderr
    assert list(work.iterdir()) == []


def test_other_content_of_the_right_form_is_refused(full_cache: Path) -> None:
    """The test images are images, too, but not these."""
    (full_cache / "mnist" / LABELS).write_bytes(FILES["t10k-labels-idx1-ubyte"])
    with pytest.raises(DataError, match=f"{LABELS} has SHA-256 [0-9a-f]{{64}}, expected [0-9a-f]{{64}}"):
        load("mnist", "train", offline(full_cache))


# Downloading on demand


@pytest.mark.parametrize("name", ["auto", "mnist"])
def test_one_split_brings_all_four_files(cache: Path, use: Use, sample_test: Dataset, name: str) -> None:
    with Server(mirror) as server:
        use(server.url)
        data = load(name, "test", Source(cache))
    assert (same(data, sample_test), data.name) == (True, "mnist")
    assert server.requests == [f"{name}.gz" for name in FILE_NAMES]


@pytest.mark.parametrize("folder", ["sp ace", "dänisch/数字", "-dash", "%20", "a'b\"c"])
def test_odd_folder_names_work(
    invoke: Invoke, work: Path, monkeypatch: pytest.MonkeyPatch, use: Use, folder: str
) -> None:
    monkeypatch.setenv("SOFTMAX_CACHE_DIR", folder)
    with Server(mirror) as server:
        use(server.url)
        result = invoke("download")
    assert (result.exit_code, f"MNIST is in {folder}/mnist: " in result.stdout) == (0, True)
    assert {path.name: path.read_bytes() for path in (work / folder / "mnist").iterdir()} == FILES


@pytest.mark.parametrize("place", ["", "mnist"], ids=["cache", "data set"])
@pytest.mark.parametrize("name", ["mnist", "auto"])
def test_file_where_the_folder_should_be_is_an_error(
    invoke: Invoke, work: Path, use: Use, place: str, name: str
) -> None:
    blocked = Path("cache", place)
    blocked.parent.mkdir(exist_ok=True)
    blocked.write_bytes(b"something else")
    use(closed_port())
    result = invoke("train", "--dataset", name, "--data-dir", "cache")
    assert_fails(result, "cannot keep MNIST in cache/mnist: ", "SOFTMAX_CACHE_DIR names another place")
    assert blocked.read_bytes() == b"something else"


@pytest.fixture
def _umask_027() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


@pytest.mark.usefixtures("_umask_027")
def test_modes_in_the_cache_follow_the_umask(invoke: Invoke, work: Path, use: Use) -> None:
    with Server(mirror) as server:
        use(server.url)
        invoke("download", "--data-dir", "cache")
    assert {path.stat().st_mode & 0o777 for path in Path("cache/mnist").iterdir()} == {0o640}
    assert Path("cache/mnist").stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize("options", [(), ("--offline",)], ids=["no mirror", "offline"])
def test_auto_trains_on_the_sample_with_one_warning(
    invoke: Invoke, work: Path, use: Use, options: tuple[str, ...]
) -> None:
    use(closed_port(), closed_port())
    result = invoke("train", "--epochs", 1, *options)
    warnings = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
    assert (result.exit_code, len(warnings)) == (0, 1)
    assert "the bundled sample of 6,000 of its digits is used; expect 88 to 91 %" in warnings[0]
    assert Path("model.npz").exists()


def test_auto_is_content_with_the_sample_when_no_mirror_answers(
    cache: Path, use: Use, sample: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each silent mirror is asked once."""
    monkeypatch.setattr(dataset, "IMPATIENT", 0.4)
    with Server([FOREVER]) as first, Server([FOREVER]) as second:
        use(first.url, second.url)
        data = load("auto", "train", Source(cache))
    assert (same(data, sample), data.name, data.digest) == (True, "sample", sample.digest)
    assert (len(first.requests), len(second.requests), first.finished, second.finished) == (1, 1, 0, 0)


@pytest.mark.parametrize("count", [0, 1, 2, 20])
def test_auto_waits_for_all_mirrors_together_less_than_ten_seconds(
    cache: Path, sample: Dataset, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    waits: list[float] = []

    def fail(entry: Entry, names: list[str], source: Source) -> None:
        waits.extend([source.wait] * (len(entry.mirrors) + len(source.mirrors)))
        raise DownloadError("no mirror")

    monkeypatch.setattr(dataset, "fetch", fail)
    source = Source(cache, mirrors=tuple(f"http://{i}.invalid/" for i in range(count)))
    assert same(load("auto", "train", source), sample)
    assert len(waits) == 3 + count
    assert sum(waits) < 10


def test_auto_never_hides_a_rotten_cache(full_cache: Path) -> None:
    (full_cache / "mnist" / IMAGES).write_bytes(b"")
    with pytest.raises(DataError, match="it is damaged"):
        load("auto", "train", offline(full_cache))


def test_mnist_insists(invoke: Invoke, work: Path, use: Use) -> None:
    with Server(reply(status="404 Not Found")) as server:
        use(server.url)
        assert_fails(invoke("train", "--dataset", "mnist"), "no mirror could supply")
    assert list(work.iterdir()) == []


def test_sample_is_there_without_a_cache_or_a_socket(work: Path, sockets: list[object]) -> None:
    data = load("sample", "train", Source(Path("none")))
    assert (data.images.shape, data.image_shape, len(data)) == ((5_000, 28, 28), (28, 28), 5_000)
    assert (sockets, list(work.iterdir())) == ([], [])


def test_unknown_name_is_wrong_usage_that_lists_the_names(invoke: Invoke, work: Path) -> None:
    result = invoke("train", "--dataset", "minst")
    assert_fails(result, "dataset 'minst' is neither a folder nor one of auto, mnist, fashion", code=2)


def test_label_out_of_range_is_named_with_its_place(
    full_cache: Path, sample: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = replace(CATALOG["mnist"], class_names=tuple("012345678"))
    monkeypatch.setitem(CATALOG, "mnist", entry)
    index = list(sample.labels).index(9)
    with pytest.raises(DataError, match=f"label {index} of mnist is 9, expected at most 8"):
        load("mnist", "train", offline(full_cache))


# A folder as data set


def make_folder(
    folder: Path, suffix: str = "", labels: tuple[int, ...] = (0, 2, 1), test: tuple[int, ...] = (1, 0)
) -> Path:
    """Write a data set of 2 x 3 pixels in plain or compressed files and return its folder."""
    folder.mkdir()
    for split, values in (("train", labels), ("test", test)):
        images = np.arange(6 * len(values), dtype=np.uint8).reshape(-1, 2, 3)
        for name, array in zip(SPLITS[split], (images, np.array(values, np.uint8)), strict=True):
            write_idx(folder / f"{name}{suffix}", array)
    return folder


def load_folder(folder: Path, split: str = "train") -> Dataset:
    return load(str(folder), split, offline(Path("none")))


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_folder_with_the_four_files_is_a_data_set(work: Path, sockets: list[object], suffix: str) -> None:
    data = load_folder(make_folder(work / "own", suffix))
    assert data.images.tolist() == np.arange(18).reshape(3, 2, 3).tolist()
    assert data.labels.tolist() == [0, 2, 1]
    assert (data.name, data.image_shape, data.preparation) == ("own", (2, 3), "plain")
    assert load_folder(work / "own", "test").labels.tolist() == [1, 0]
    assert sockets == []


def test_folder_is_called_by_its_base_name(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(make_folder(work / "own"))
    assert load_folder(Path()).name == "own"


@pytest.mark.parametrize(("labels", "test", "count"), [((0, 2, 1), (1, 0), 3), ((0, 1, 1), (4, 0), 5)])
def test_classes_of_a_folder_come_from_the_labels_of_both_splits(
    work: Path, labels: tuple[int, ...], test: tuple[int, ...], count: int
) -> None:
    folder = make_folder(work / "own", labels=labels, test=test)
    for split in SPLITS:
        assert load_folder(folder, split).class_names == tuple(map(str, range(count)))


def test_identity_of_a_folder_is_that_of_its_content(work: Path) -> None:
    plain, compressed, other = (
        load_folder(make_folder(work / name, suffix, labels))
        for name, suffix, labels in [("a", "", (0, 2, 1)), ("b", ".gz", (0, 2, 1)), ("c", "", (0, 1, 2))]
    )
    assert plain.digest == compressed.digest == load_folder(work / "a", "test").digest
    assert plain.digest != other.digest


def test_identity_of_a_folder_has_its_shapes(work: Path) -> None:
    before = load_folder(make_folder(work / "own")).digest
    write_idx(work / "own" / IMAGES, np.zeros((3, 3, 2), np.uint8))
    assert load_folder(work / "own").digest != before


@pytest.mark.parametrize("name", FILE_NAMES)
def test_file_that_is_missing_from_a_folder_is_named(work: Path, name: str) -> None:
    (make_folder(work / "own") / name).unlink()
    for split in SPLITS:
        with pytest.raises(DataError, match=rf"own holds neither {name} nor {name}\.gz; a data set needs"):
            load_folder(work / "own", split)


@pytest.mark.parametrize(("images", "labels"), [(4, 3), (2, 3)])
def test_folder_with_another_number_of_images_than_labels_is_refused_with_both(
    work: Path, images: int, labels: int
) -> None:
    write_idx(make_folder(work / "own") / IMAGES, np.zeros((images, 2, 3), np.uint8))
    with pytest.raises(DataError, match=f"own holds {images} images but {labels} labels"):
        load_folder(work / "own")


def test_folder_with_one_class_is_refused(work: Path) -> None:
    with pytest.raises(DataError, match="own holds images of one class only"):
        load_folder(make_folder(work / "own", labels=(0, 0), test=(0,)))


def test_damaged_file_in_a_folder_is_refused(invoke: Invoke, work: Path) -> None:
    (make_folder(work / "own") / f"{LABELS}").write_bytes(b"\0\0\x08\1\0\0\0\5\0\1\2")
    assert_fails(
        invoke("train", "--dataset", "own"), f"own/{LABELS} holds 11 bytes, expected 13; get it again"
    )
    assert list(work.iterdir()) == [work / "own"]


# Holding out


@given(st.lists(st.integers(0, 5), min_size=2, max_size=300), st.floats(0, 1), st.integers(0, 9))
def test_held_out_images_are_a_stratified_share(labels: list[int], fraction: float, seed: int) -> None:
    values = np.array(labels, np.uint8)
    try:
        trained, held = hold_out(values, fraction, seed)
    except ConfigError:
        assert round(fraction * len(values)) in (0, len(values))
        return
    assert np.array_equal(np.sort(np.concatenate([trained, held])), np.arange(len(values)))
    assert (np.diff(trained) > 0).all()
    assert (np.diff(held) > 0).all()
    assert len(held) == round(fraction * len(values))
    count = np.bincount(values)
    assert (np.abs(np.bincount(values[held], minlength=len(count)) - fraction * count) < 1).all()


def test_held_out_images_depend_on_the_seed_alone(sample: Dataset) -> None:
    drawn = [hold_out(sample.labels, 0.1, seed)[1].tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_nothing_is_held_out_on_demand(sample: Dataset) -> None:
    trained, held = hold_out(sample.labels, 0.0, 0)
    assert (len(trained), len(held)) == (5_000, 0)


@pytest.mark.parametrize(("fraction", "part"), [(0.99, "training"), (0.01, "validation")])
def test_share_that_leaves_a_part_empty_is_wrong_usage(fraction: float, part: str) -> None:
    message = f"validation-size {fraction} of 10 images leaves none for {part}"
    with pytest.raises(ConfigError, match=message):
        hold_out(np.arange(10, dtype=np.uint8) % 2, fraction, 0)
