"""The catalog agrees with the files of each data set."""

import gzip
import importlib.util
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

import numpy as np
import pytest

from softmax_cli.data.catalog import CATALOG, FASHION_MNIST, FILE_NAMES, MNIST, SAMPLE, Entry
from softmax_cli.data.dataset import Dataset, content_digest
from softmax_cli.data.download import Source
from softmax_cli.data.loading import load_dataset
from softmax_cli.files import sha256

SCRIPT = Path(__file__).parents[1] / "scripts" / "make_sample.py"

MNIST_COUNTS = {
    "train": (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
    "test": (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
}
"""Number of images of each digit in MNIST."""


def content(name: str) -> bytes:
    assert SAMPLE.bundled
    return gzip.decompress((SAMPLE.bundled / f"{name}.gz").read_bytes())


def deviation(labels: np.ndarray, split: str) -> float:
    """Return the largest deviation of the count of a digit from its share of MNIST."""
    whole = np.array(MNIST_COUNTS[split])
    return float(np.abs(np.bincount(labels) - whole / whole.sum() * len(labels)).max())


@pytest.mark.parametrize("entry", CATALOG.values(), ids=CATALOG)
def test_entry_is_complete(entry: Entry) -> None:
    assert CATALOG[entry.name] is entry
    assert tuple(file.name for file in entry.files) == FILE_NAMES
    assert len({file.sha256 for file in entry.files}) == 4
    assert all(len(bytes.fromhex(file.sha256)) == 32 for file in entry.files)
    assert len(set(entry.class_names)) == 10
    assert entry.preparation in ("digit", "plain")
    assert all(0 < usual.low < usual.high < 1 for usual in entry.reference.values())
    assert bool(entry.mirrors) != bool(entry.bundled)


@pytest.mark.parametrize("url", [*MNIST.mirrors, *FASHION_MNIST.mirrors])
def test_mirror_is_a_folder_over_https(url: str) -> None:
    parts = urlsplit(url)
    assert (parts.scheme, parts.path[-1], parts.query) == ("https", "/", "")
    assert parts.hostname != "yann.lecun.com"  # it no longer serves the files


@pytest.mark.parametrize("entry", [MNIST, FASHION_MNIST], ids=["mnist", "fashion-mnist"])
def test_sizes_are_those_that_were_published(entry: Entry) -> None:
    assert [file.size for file in entry.files] == [47_040_016, 60_008, 7_840_016, 10_008]


def test_digests_of_known_data_sets_never_change() -> None:
    """Checkpoints hold them: those of format 1, and those of the training splits."""
    found = {name: (entry.format1_digest[:12], entry.digest[:12]) for name, entry in CATALOG.items()}
    assert found == {
        "mnist": ("c65580678af9", "02def62d3869"),
        "fashion-mnist": ("d1fd84a877f3", "38831b7b377c"),
        "sample": ("de895c9d8177", "6243d1ecaf23"),
    }


@pytest.mark.parametrize("split", ["train", "test"])
def test_digest_of_the_content_of_the_sample_is_that_of_its_files(
    sample: Dataset, sample_test: Dataset, split: str
) -> None:
    data = sample if split == "train" else sample_test
    assert content_digest(data.images, data.labels) == SAMPLE.split_digest(split) == data.split_digest


@pytest.mark.parametrize("file", SAMPLE.files, ids=FILE_NAMES)
def test_bundled_file_has_the_size_and_digest_of_the_catalog(file: tuple[str, int, str]) -> None:
    name, size, digest = file
    assert (len(content(name)), sha256(content(name))) == (size, digest)


@pytest.mark.parametrize(("split", "count"), [("train", 5_000), ("test", 1_000)])
def test_sample_is_stratified(sample: Dataset, sample_test: Dataset, split: str, count: int) -> None:
    labels = (sample if split == "train" else sample_test).labels
    assert len(labels) == count
    assert deviation(labels, split) < 1


@pytest.mark.full
@pytest.mark.parametrize(("split", "count"), [("train", 60_000), ("test", 10_000)])
def test_mnist_has_the_digests_of_the_catalog(full_mnist: Path, split: str, count: int) -> None:
    """The numbers of images per digit are published."""
    data = load_dataset("mnist", split, Source(full_mnist, offline=True))
    assert data.images.shape == (count, 28, 28)
    assert content_digest(data.images, data.labels) == MNIST.split_digest(split)
    assert tuple(np.bincount(data.labels)) == MNIST_COUNTS[split]


@pytest.mark.full
@pytest.mark.parametrize("split", ["train", "test"])
def test_sample_is_a_part_of_mnist(full_mnist: Path, split: str) -> None:
    source = Source(full_mnist, offline=True)
    whole, part = (
        Counter(zip(map(bytes, data.images), data.labels.tolist(), strict=True))
        for data in (load_dataset("mnist", split, source), load_dataset("sample", split, source))
    )
    assert part <= whole


@pytest.mark.full
def test_script_makes_the_sample_byte_for_byte(
    full_mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = load_script()
    monkeypatch.setattr(script, "SAMPLE", replace(SAMPLE, bundled=tmp_path))
    script.main(full_mnist / "mnist")
    printed = capsys.readouterr().out
    for file in SAMPLE.files:
        assert gzip.decompress((tmp_path / f"{file.name}.gz").read_bytes()) == content(file.name)
        assert file.sha256 in printed


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_sample", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
