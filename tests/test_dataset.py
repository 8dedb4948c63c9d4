"""Data sets in the cache, the package and folders: verification and identity."""

import gzip
import hashlib
import os
import shutil
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from softmax_cli import files
from softmax_cli.data import cache as cache_module
from softmax_cli.data import loading
from softmax_cli.data.cache import remember_path
from softmax_cli.data.catalog import CATALOG, FILE_NAMES, SPLITS, Entry, usual_accuracy
from softmax_cli.data.dataset import Dataset, content_digest
from softmax_cli.data.download import Source
from softmax_cli.data.loading import find_dataset, load_dataset
from softmax_cli.data.place import cache_folder
from softmax_cli.data.readers.idx import write_idx
from softmax_cli.errors import ConfigError, DataError, DownloadError
from tests.helpers import assert_fails, names
from tests.server import FILES, FOREVER, Server, closed_port, mirror, packed, replace_mnist, reply, run_child

IMAGES, LABELS = SPLITS["train"]

Invoke = Callable[..., Result]
Use = Callable[..., Entry]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    """Return a function that replaces MNIST by `small_mnist` with given mirrors."""
    return partial(replace_mnist, monkeypatch)


@pytest.fixture
def full_cache(cache: Path, use: Use) -> Path:
    """Return a cache with all files of `small_mnist`, whose mirror is unreachable."""
    use(closed_port())
    (cache / "mnist").mkdir()
    for name, content in FILES.items():
        (cache / "mnist" / name).write_bytes(content)
    return cache


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return the list of attempts to open a socket or look up a name.

    Each attempt fails.
    """
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
    """Return the content and the modification time of each path in a folder."""
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
def test_d15_environment_determines_the_folder_of_the_cache(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    """A relative XDG_CACHE_HOME is ignored, as the XDG Base Directory Specification requires."""
    for name in ("SOFTMAX_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/me", **variables}.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)


def test_missing_home_is_wrong_usage_that_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("SOFTMAX_CACHE_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(ConfigError, match="no home folder for the cache; set SOFTMAX_CACHE_DIR"):
        cache_folder()


@pytest.mark.parametrize("split", SPLITS)
def test_d13_full_cache_is_used_without_a_socket(
    full_cache: Path, sample: Dataset, sample_test: Dataset, sockets: list[object], split: str
) -> None:
    for source in (offline(full_cache), Source(full_cache)):
        data = load_dataset("mnist", split, source)
        assert same(data, sample if split == "train" else sample_test)
        assert same(load_dataset("auto", split, source), data)
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
        load_dataset("mnist", "train", offline(full_cache))
    assert len(load_dataset("mnist", "test", offline(full_cache))) == 1_000


@pytest.fixture
def _read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make all attempts of the package to write a file fail."""

    def refuse(target: Path, mode: int) -> object:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(files, "_create_temporary", refuse)


@pytest.mark.usefixtures("_read_only")
def test_full_read_only_cache_works(full_cache: Path, sample: Dataset) -> None:
    before = state(full_cache)
    assert same(load_dataset("mnist", "train", Source(full_cache)), sample)
    assert state(full_cache) == before


@pytest.fixture
def packed_cache(cache: Path, use: Use) -> Path:
    """Return a cache with the four compressed files."""
    use(closed_port())
    (cache / "mnist").mkdir()
    for name in FILE_NAMES:
        (cache / "mnist" / f"{name}.gz").write_bytes(packed(name))
    return cache


def test_compressed_file_in_the_cache_is_unpacked(packed_cache: Path, sample: Dataset) -> None:
    assert same(load_dataset("mnist", "train", offline(packed_cache)), sample)
    for name in (IMAGES, LABELS):
        assert (packed_cache / "mnist" / name).read_bytes() == FILES[name]


@pytest.mark.usefixtures("_read_only")
def test_compressed_file_works_if_it_cannot_be_unpacked(packed_cache: Path, sample: Dataset) -> None:
    before = state(packed_cache)
    assert same(load_dataset("mnist", "train", offline(packed_cache)), sample)
    assert state(packed_cache) == before


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (packed(LABELS)[:-3], f"{LABELS}.gz is cut short"),
        (packed("t10k-labels-idx1-ubyte"), f"{LABELS} has SHA-256 .*, expected "),
        (gzip.compress(bytes(100_000)), f"{LABELS}.gz holds more than 5,008 bytes"),
    ],
    ids=["cut", "another", "long"],
)
def test_wrong_compressed_file_is_refused_offline_and_replaced_online(
    packed_cache: Path, sample: Dataset, use: Use, content: bytes, reason: str
) -> None:
    (packed_cache / "mnist" / f"{LABELS}.gz").write_bytes(content)
    with pytest.raises(DataError, match=reason):
        load_dataset("mnist", "train", offline(packed_cache))
    with Server(mirror) as server:
        use(server.url)
        assert same(load_dataset("mnist", "train", Source(packed_cache)), sample)
    assert server.requests == [f"{LABELS}.gz"]


def test_compressed_file_replaces_a_damaged_file_beside_it(packed_cache: Path, sample: Dataset) -> None:
    (packed_cache / "mnist" / LABELS).write_bytes(FILES[LABELS][:-1])
    assert same(load_dataset("mnist", "train", offline(packed_cache)), sample)
    assert (packed_cache / "mnist" / LABELS).read_bytes() == FILES[LABELS]


# Damaged files in the cache


DAMAGED = {
    "one bit": lambda content: content[:2000] + bytes([content[2000] ^ 1]) + content[2001:],
    "header": lambda content: b"\0\1" + content[2:],
    "cut": lambda content: content[:-1],
    "longer": lambda content: content + b"\0",
    "empty": lambda content: b"",
    "page": lambda content: b"<!doctype html>" * 20,
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_d12_damaged_file_is_downloaded_again_with_a_warning(
    full_cache: Path, sample: Dataset, use: Use, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    damaged = full_cache / "mnist" / LABELS
    damaged.write_bytes(DAMAGED[kind](FILES[LABELS]))
    with Server(mirror) as server:
        use(server.url)
        assert same(load_dataset("mnist", "train", Source(full_cache)), sample)
    assert server.requests == [f"{damaged.name}.gz"]
    assert damaged.read_bytes() == FILES[damaged.name]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"{damaged} " in caplog.text
    assert "downloading it again" in caplog.text


@pytest.mark.parametrize("options", [("--offline",), ()], ids=["offline", "no mirror"])
@pytest.mark.parametrize("content", [b"", FILES[IMAGES][:-1] + b"\1"], ids=["empty", "one byte"])
def test_damaged_file_is_never_used_for_training(
    invoke: Invoke, work: Path, full_cache: Path, options: tuple[str, ...], content: bytes
) -> None:
    (full_cache / "mnist" / IMAGES).write_bytes(content)
    result = invoke("train", "--dataset", "mnist", "--epochs", 1, *options)
    assert_fails(result, "it is damaged" if options else "no mirror could supply")
    assert str(full_cache / "mnist" / IMAGES) in result.stderr
    assert list(work.iterdir()) == []


# Downloading on demand


@pytest.mark.parametrize("name", ["auto", "mnist"])
def test_all_four_files_are_downloaded_for_one_split(
    cache: Path, use: Use, sample_test: Dataset, name: str
) -> None:
    with Server(mirror) as server:
        use(server.url)
        data = load_dataset(name, "test", Source(cache))
    assert (same(data, sample_test), data.name) == (True, "mnist")
    assert server.requests == [f"{name}.gz" for name in FILE_NAMES]


@pytest.mark.parametrize("folder", ["sp ace", "dänisch/数字", "-dash", "%20", "a'b\"c"])
def test_unusual_folder_names_work(
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


@pytest.mark.parametrize("options", [(), ("--offline",)], ids=["no mirror", "offline"])
def test_auto_trains_on_the_sample_with_one_warning(
    invoke: Invoke, work: Path, use: Use, options: tuple[str, ...]
) -> None:
    use(closed_port(), closed_port())
    result = invoke("train", "--epochs", 1, *options)
    warnings = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
    assert (result.exit_code, len(warnings)) == (0, 1)
    assert "Using the bundled sample of 6,000 of its digits: expect 88 to 91 %" in warnings[0]
    assert Path("model.npz").exists()


def test_auto_uses_the_sample_if_no_mirror_responds(
    cache: Path, use: Use, sample: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each mirror gets one request."""
    monkeypatch.setattr(loading, "IMPATIENT", 0.4)
    with Server([FOREVER]) as first, Server([FOREVER]) as second:
        use(first.url, second.url)
        data = load_dataset("auto", "train", Source(cache))
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

    monkeypatch.setattr(cache_module, "fetch", fail)
    source = Source(cache, mirrors=tuple(f"http://{i}.invalid/" for i in range(count)))
    assert same(load_dataset("auto", "train", source), sample)
    assert len(waits) == 3 + count
    assert sum(waits) < 10


def test_auto_does_not_hide_a_damaged_file(full_cache: Path) -> None:
    (full_cache / "mnist" / IMAGES).write_bytes(b"")
    with pytest.raises(DataError, match="it is damaged"):
        load_dataset("auto", "train", offline(full_cache))


def test_mnist_is_never_replaced_by_the_sample(invoke: Invoke, work: Path, use: Use) -> None:
    with Server(reply(status="404 Not Found")) as server:
        use(server.url)
        assert_fails(invoke("train", "--dataset", "mnist"), "no mirror could supply")
    assert list(work.iterdir()) == []


def test_sample_needs_neither_a_cache_nor_a_socket(work: Path, sockets: list[object]) -> None:
    data = load_dataset("sample", "train", Source(Path("none")))
    assert (data.images.shape, data.image_shape, len(data)) == ((5_000, 28, 28), (28, 28), 5_000)
    assert (sockets, list(work.iterdir())) == ([], [])


def test_unknown_name_is_wrong_usage_that_lists_the_names(invoke: Invoke, work: Path) -> None:
    result = invoke("train", "--dataset", "minst")
    assert_fails(
        result, "dataset 'minst' is neither a path that exists nor one of auto, mnist, fashion", code=2
    )


def test_x5_label_out_of_range_is_named_with_its_index(
    full_cache: Path, sample: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = replace(CATALOG["mnist"], class_names=tuple("012345678"))
    monkeypatch.setitem(CATALOG, "mnist", entry)
    index = list(sample.labels).index(9)
    with pytest.raises(DataError, match=f"label {index} of mnist is 9, expected at most 8"):
        load_dataset("mnist", "train", offline(full_cache))


# A folder as data set


def write_labels(path: Path, labels: Sequence[int]) -> None:
    """Write labels as an IDX file of the first type that holds them.

    The types are uint8, int16 and int32.
    """
    low, high = min(labels), max(labels)
    code, dtype = (8, "u1") if low >= 0 and high < 256 else (11, ">i2") if high < 1 << 15 else (12, ">i4")
    path.write_bytes(struct.pack(">4BI", 0, 0, code, 1, len(labels)) + np.array(labels, dtype).tobytes())


def make_folder(
    folder: Path, suffix: str = "", labels: Sequence[int] = (0, 2, 1), test: Sequence[int] = (1, 0)
) -> Path:
    """Write a data set of 2 x 3 pixels to a new folder, and return the folder.

    `suffix` is the suffix of the files.
    """
    folder.mkdir()
    for split, values in (("train", labels), ("test", test)):
        images, name = SPLITS[split]
        write_idx(folder / images, np.arange(6 * len(values), dtype=np.uint8).reshape(-1, 2, 3))
        write_labels(folder / name, values)
    if suffix:
        for path in list(folder.iterdir()):
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    return folder


def load_folder(folder: Path, split: str = "train") -> Dataset:
    return load_dataset(folder, split, offline(Path("none")))


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_folder_with_the_four_files_is_a_data_set(work: Path, sockets: list[object], suffix: str) -> None:
    data = load_folder(make_folder(work / "own", suffix))
    assert data.images.tolist() == np.arange(18).reshape(3, 2, 3).tolist()
    assert data.labels.tolist() == [0, 2, 1]
    assert (data.name, data.image_shape, data.preparation) == ("own", (2, 3), "plain")
    assert load_folder(work / "own", "test").labels.tolist() == [1, 0]
    assert sockets == []


def test_folder_is_named_by_its_base_name(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(make_folder(work / "own"))
    assert load_folder(Path()).name == "own"


@pytest.mark.parametrize(("brightest", "warned"), [(16, True), (255, False)])
def test_images_with_values_of_another_scale_give_a_warning(
    work: Path, caplog: pytest.LogCaptureFixture, brightest: int, warned: bool
) -> None:
    """As in scikit-learn's digits, whose values are 0 to 16."""
    images = np.random.default_rng(0).integers(0, brightest + 1, (30, 8, 8)).astype(np.uint8)
    np.savez("own.npz", images=images, labels=np.arange(30) % 3)
    load_dataset("own.npz")
    assert ("the brightest pixel in own.npz is 16 of 255" in caplog.text) == warned


@pytest.mark.parametrize(
    ("labels", "test", "classes"),
    [((0, 2, 1), (1, 0), "0 1 2"), ((0, 1, 1), (4, 0), "0 1 4"), ((0, 999, 1), (1, 300), "0 1 300 999")],
)
def test_classes_are_the_distinct_labels_of_both_splits(
    work: Path, labels: Sequence[int], test: Sequence[int], classes: str
) -> None:
    folder, names = make_folder(work / "own", labels=labels, test=test), classes.split()
    for split in SPLITS:
        assert load_folder(folder, split).class_names == tuple(names)
    assert [names[label] for label in load_folder(folder).labels] == [str(label) for label in labels]


@pytest.mark.parametrize("name", FILE_NAMES)
def test_missing_file_of_a_folder_is_named(work: Path, name: str) -> None:
    (make_folder(work / "own") / name).unlink()
    for split in SPLITS:
        with pytest.raises(DataError, match=rf"own has neither {name} nor {name}\.gz; a data set needs"):
            load_folder(work / "own", split)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ((0, 1), "own, train has 3 images but 2 labels"),
        ((0, 1, 2, 1), "own, train has 3 images but 4 labels"),
        ((0, 0, 0), "own has images of one class only; a classifier needs at least two"),
        ((0, -2, 1), f"{LABELS}: label 1 is -2, expected 0 or more"),
    ],
)
def test_invalid_labels_are_refused(work: Path, labels: Sequence[int], reason: str) -> None:
    folder = make_folder(work / "own", labels=(0, 0, 0), test=(0,))
    write_labels(folder / LABELS, labels)
    with pytest.raises(DataError, match=reason):
        load_folder(folder)


def test_huge_label_takes_less_than_a_gigabyte(work: Path) -> None:
    write_labels(make_folder(work / "own") / LABELS, (0, 1, 2**31 - 1))
    code = "from softmax_cli.data.loading import load_dataset\nload_dataset('own')"
    result = run_child(code, folder=work, RLIMIT_AS=1 << 30)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", ["empty", "file"])
def test_path_without_a_data_set_is_refused(work: Path, name: str) -> None:
    Path("empty").mkdir()
    Path("file").write_bytes(b"something else")
    with pytest.raises(
        DataError, match=f"^{name} is not a data set; expected one of: a folder with four IDX files;"
    ):
        load_folder(Path(name))


def test_damaged_file_in_a_folder_is_refused(invoke: Invoke, work: Path) -> None:
    (make_folder(work / "own") / LABELS).write_bytes(b"\0\0\x08\1\0\0\0\5\0\1\2")
    result = invoke("train", "--dataset", "own")
    assert_fails(result, f"own/{LABELS} has 11 bytes, expected 13; get it again")
    assert names(work) == ["own"]


# Identity


@pytest.mark.parametrize(
    ("labels", "code", "dtype"),
    [
        ((0, 2, 1), "B", np.uint8),
        ((0, 2, 1), "B", np.int64),
        ((0, 255, 1), "B", np.uint16),
        ((0, 256, 1), "I", np.uint16),
        ((999, 0, 1), "I", np.uint32),
    ],
)
def test_digest_is_that_of_the_idx_files(labels: Sequence[int], code: str, dtype: type) -> None:
    """Reference: SHA-256 of the two digests in hexadecimal. Labels above 255 have four bytes each."""
    images = np.arange(18, dtype=np.uint8).reshape(3, 2, 3)
    image_file = bytes.fromhex("00000803 00000003 00000002 00000003") + bytes(range(18))
    label_file = bytes.fromhex("00000801 00000003") + struct.pack(f">3{code}", *labels)
    parts = (hashlib.sha256(file).hexdigest() for file in (image_file, label_file))
    expected = hashlib.sha256("".join(parts).encode()).hexdigest()
    assert content_digest(images, np.array(labels, dtype)) == expected


def test_digest_covers_shape_pixels_and_labels() -> None:
    images, labels = np.arange(18, dtype=np.uint8).reshape(3, 2, 3), np.array([0, 2, 1], np.uint8)
    other = images.copy()
    other[2, 1, 2] ^= 1
    variants = [
        (images, labels),
        (images.reshape(3, 3, 2), labels),
        (other, labels),
        (images[::-1], labels),
        (images, labels[::-1]),
        (images[:2], labels[:2]),
    ]
    assert len({content_digest(*variant) for variant in variants}) == len(variants)


def test_c23_training_split_identifies_a_folder(work: Path) -> None:
    def digests(name: str, **changes: Any) -> list[str]:
        folder = make_folder(work / name, **changes)
        train, test = (load_folder(folder, split) for split in SPLITS)
        assert train.digest == train.split_digest == test.digest
        return [test.digest, test.split_digest]

    one = digests("a")
    assert digests("b", suffix=".gz") == one
    other_train, same_test = digests("c", labels=(0, 1, 2))
    same_train, other_test = digests("d", test=(0, 1))
    assert (same_train, same_test) == tuple(one)
    assert len({*one, other_train, other_test}) == 4


@pytest.fixture
def sample_copy(work: Path) -> Path:
    """Return a folder with the files of the sample, partly compressed."""
    (work / "copy").mkdir()
    for name in SPLITS["train"]:
        (work / "copy" / name).write_bytes(FILES[name])
    for name in SPLITS["test"]:
        (work / "copy" / f"{name}.gz").write_bytes(packed(name))
    return work / "copy"


def reference(data: Dataset) -> object:
    return usual_accuracy(data.digest, data.split_digest, "pixels", 784)


def test_copy_of_a_known_data_set_is_that_data_set(
    sample_copy: Path, cache: Path, sample: Dataset, sample_test: Dataset
) -> None:
    for expected, split in ((sample, "train"), (sample_test, "test")):
        data = load_dataset(sample_copy, split, Source(cache))
        assert same(data, expected)
        assert replace(data, images=expected.images, labels=expected.labels) == expected
    assert reference(data) == CATALOG["sample"].reference["pixels"]
    assert names(cache) == []  # its path is not stored


def test_known_data_set_with_other_test_images_has_no_reference(sample_copy: Path) -> None:
    images = np.frombuffer(FILES[SPLITS["test"][0]], np.uint8)[16:].reshape(-1, 28, 28)
    write_idx(sample_copy / SPLITS["test"][0], images[::-1])
    data = load_folder(sample_copy, "test")
    assert (data.name, data.digest, reference(data)) == ("sample", CATALOG["sample"].digest, None)


def test_known_data_set_with_unknown_test_labels_is_refused(sample_copy: Path) -> None:
    write_labels(sample_copy / SPLITS["test"][1], [*range(9), 10] * 100)
    with pytest.raises(
        DataError, match="training images of MNIST sample, but 11 classes, expected at most 10"
    ):
        load_folder(sample_copy, "test")


# Stored paths


@pytest.mark.parametrize("loaded", SPLITS)
def test_data_set_is_found_where_it_was_last_read(
    work: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, loaded: str
) -> None:
    make_folder(work / "own")
    load_dataset("own", loaded, offline(cache))
    Path("own").rename("moved")
    digest = load_dataset("moved", loaded, offline(cache)).digest
    monkeypatch.chdir("/")
    for split in SPLITS:
        data = find_dataset("own", digest, split, offline(cache))
        assert (data.name, same(data, load_folder(work / "moved", split))) == ("moved", True)


def test_known_data_set_is_found_without_a_stored_path(cache: Path, sample_test: Dataset) -> None:
    data = find_dataset("any name", CATALOG["sample"].digest, "test", offline(cache))
    assert (data.name, same(data, sample_test)) == ("sample", True)


FORGET: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "moved": (lambda folder, note: folder.rename("moved"), "{} does not hold it any more"),
    "deleted": (lambda folder, note: shutil.rmtree(folder), "{} does not hold it any more"),
    "changed": (
        lambda folder, note: write_labels(folder / LABELS, (0, 1, 2)),
        "{} does not hold it any more",
    ),
    "damaged": (lambda folder, note: (folder / LABELS).write_bytes(b""), f"{{}}/{LABELS} is too short"),
    "incomplete": (lambda folder, note: (folder / LABELS).unlink(), f"{{}} has neither {LABELS} nor"),
    "replaced": (lambda folder, note: (shutil.rmtree(folder), folder.touch()), "{} is not a data set"),
    "never stored": (lambda folder, note: note.unlink(), "its path is not known here"),
    "empty note": (lambda folder, note: note.write_bytes(b""), "give"),
    "note of zeros": (lambda folder, note: note.write_bytes(bytes(100)), "its path is not known here"),
    "note of noise": (
        lambda folder, note: note.write_bytes(b"\xff/\n" * 10_000),
        "does not hold it any more",
    ),
    "note is a folder": (lambda folder, note: (note.unlink(), note.mkdir()), "its path is not known here"),
}


@pytest.mark.parametrize("kind", FORGET)
def test_data_set_that_is_not_found_is_named_with_what_to_do(work: Path, cache: Path, kind: str) -> None:
    change, reason = FORGET[kind]
    digest = load_dataset(make_folder(work / "own"), "train", offline(cache)).digest
    change(work / "own", cache / "paths" / digest)
    with pytest.raises(ConfigError) as caught:
        find_dataset("own", digest, "train", offline(cache))
    assert reason.format(work / "own") in str(caught.value)
    assert "'own'" in str(caught.value)
    assert str(caught.value).endswith("with --dataset")


@pytest.mark.parametrize("kind", ["missing", "file", "read-only"])
def test_path_is_not_stored_if_the_cache_cannot_be_written(
    work: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    make_folder(work / "own")
    Path("file").touch()
    if kind == "read-only":
        request.getfixturevalue("_read_only")
    source = offline(Path("file/cache" if kind == "file" else "cache"))
    digest = load_dataset("own", "train", source).digest
    if kind == "missing":
        assert len(find_dataset("own", digest, "train", source)) == 3  # it was created
    else:
        with pytest.raises(ConfigError, match="its path is not known here"):
            find_dataset("own", digest, "train", source)


@pytest.mark.parametrize("digest", ["../../x", "../x", "", ".", "x", f"{'a' * 62}/x", "\0" * 64, "a" * 64])
def test_digest_of_a_hostile_checkpoint_never_becomes_a_path(work: Path, digest: str) -> None:
    """The last digest is valid, as a control."""
    folder = make_folder(work / "own")
    for place in ("x", "cache/x", "cache/paths/x"):
        (work / place).parent.mkdir(exist_ok=True)
        (work / place).write_bytes(os.fsencode(folder))
    before, valid = state(work), digest == "a" * 64
    remember_path(digest, folder, offline(work / "cache"))
    assert (state(work) != before) == valid
    match = "does not hold it any more" if valid else "its path is not known here"
    with pytest.raises(ConfigError, match=match):
        find_dataset("own", digest, "train", offline(work / "cache"))
