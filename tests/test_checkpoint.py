"""Checkpoints come back bit for bit, are legible to anyone, and nothing in a bad one is believed."""

import gzip
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from softmax_cli.checkpoint import Checkpoint, describe, load, save
from softmax_cli.config import TrainConfig
from softmax_cli.data.dataset import Dataset, hold_out
from softmax_cli.deskew import deskew
from softmax_cli.errors import CheckpointError, OutputError
from softmax_cli.features import evidence_of, fourier, pixels, prepare
from softmax_cli.files import check_writable
from softmax_cli.model import Model
from softmax_cli.training import Epoch, State, evaluate, fit, judge, start
from tests.conftest import assert_fails
from tests.damage import SOAK, mutated, unprivileged

FORMAT_1 = Path(__file__).parent / "data" / "format1.npz"
FOURIER_1 = Path(__file__).parent / "data" / "format1-fourier.npz"
ARRAYS = ("weights", "bias", "last_weights", "last_bias", "velocity_weights", "velocity_bias")

Members = dict[str, NDArray[Any]]


def random_model(generator: np.random.Generator, features: int, classes: int) -> Model:
    """Return weights of any bits at all that make a finite float32: tiny, huge, minus zero."""
    bits = generator.integers(0, 2**32, (features + 1, classes), np.uint32).view(np.float32)
    values = np.where(np.isfinite(bits), bits, np.float32(-0.0))
    return Model(values[:-1], values[-1])


def small(seed: int = 0, classes: tuple[str, ...] = ("a", "b", "c")) -> Checkpoint:
    """Return a checkpoint of images of 4 x 3 pixels, two epochs old, small enough for every byte to count."""
    generator = np.random.default_rng(seed)
    model, last, velocity = (random_model(generator, 12, len(classes)) for _ in range(3))
    losses = generator.random((2, 4)).tolist()
    state = State(
        features=pixels((4, 3)),
        temperature=1.0,
        epoch=2,
        model=model,
        last=last,
        velocity=velocity,
        best_epoch=1,
        stale=1,
        history=tuple(Epoch(number, *values) for number, values in enumerate(losses, 1)),
    )
    return Checkpoint(
        state=state,
        config=TrainConfig(dataset="folder", epochs=7, learning_rate=0.1 + 0.2, seed=3),
        dataset="folder",
        digest="0" * 64,
        image_shape=(4, 3),
        class_names=classes,
        preparation="plain",
        run={"seconds": 0.25},
    )


def bits(checkpoint: Checkpoint) -> bytes:
    """Return all weights of a checkpoint, as bytes."""
    state = checkpoint.state
    return b"".join(array.tobytes() for model in (state.model, state.last, state.velocity) for array in model)


def names(folder: Path) -> list[str]:
    """Return what is in a folder."""
    return sorted(path.name for path in folder.iterdir())


def members(path: Path) -> Members:
    """Return the arrays in a file, as someone without this package reads them."""
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def meta(path: Path) -> dict[str, Any]:
    """Return the JSON in a file, as someone without this package reads it."""
    return dict(json.loads(members(path)["meta"].tobytes().decode("utf-8")))


def write(path: Path, arrays: Members) -> None:
    """Write arrays as someone else's program might."""
    with open(path, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def with_meta(arrays: Members, **changes: object) -> Members:
    """Return the arrays with some keys of their meta replaced."""
    content = json.loads(arrays["meta"].tobytes()) | changes
    return arrays | {"meta": np.frombuffer(json.dumps(content).encode(), np.uint8)}


def without(arrays: Members, name: str) -> Members:
    """Return the arrays without one of them."""
    return {key: array for key, array in arrays.items() if key != name}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Return the path of a small checkpoint."""
    path = tmp_path / "saved.npz"
    save(path, small())
    return path


# What is kept


@given(
    texts=st.lists(st.text(max_size=9), min_size=2, max_size=5, unique=True),
    seed=st.integers(0, 2**32 - 1),
)
@example(texts=["<script>alert(1)</script>", "größer", "日本語", "\x1b[31m\0", '"}', ""], seed=0)
@settings(max_examples=25, deadline=None, database=None)
def test_what_is_saved_is_loaded_bit_for_bit(
    texts: list[str], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "round-trip.npz"
    checkpoint = small(seed, tuple(texts))
    save(path, checkpoint)
    loaded = load(path)
    assert bits(loaded) == bits(checkpoint)
    assert describe(loaded) == describe(checkpoint)
    assert loaded.config == checkpoint.config
    assert loaded.state.history == checkpoint.state.history
    assert loaded.class_names == tuple(texts)
    assert loaded.run == checkpoint.run


def test_a_trained_model_is_loaded_bit_for_bit(model_file: Path, trained: Checkpoint) -> None:
    loaded = load(model_file)
    assert bits(loaded) == bits(trained)
    assert describe(loaded) == describe(trained)
    assert all(
        array.dtype == np.float32 for model in (loaded.state.model, loaded.state.last) for array in model
    )


def test_the_name_of_a_folder_may_be_undecodable(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    save(tmp_path / "model.npz", replace(small(), dataset=name))
    assert load(tmp_path / "model.npz").dataset == name


def test_an_outsider_can_read_every_member(model_file: Path) -> None:
    arrays = members(model_file)
    shapes = {name: ((10,) if name.endswith("bias") else (784, 10)) for name in ARRAYS}
    assert {name: array.shape for name, array in arrays.items() if name != "meta"} == shapes
    assert {arrays[name].dtype.str for name in ARRAYS} == {"<f4"}
    assert (arrays["meta"].dtype, arrays["meta"].ndim) == (np.uint8, 1)
    with zipfile.ZipFile(model_file) as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}


def test_meta_says_what_the_model_is(model_file: Path, trained: Checkpoint) -> None:
    found = meta(model_file)
    epochs = [epoch._asdict() for epoch in trained.state.history]
    assert found["format"] == 1
    assert found["dataset"] == {"name": "sample", "digest": trained.digest}
    assert found["image_shape"] == [28, 28]
    assert found["class_names"] == list("0123456789")
    assert (found["preparation"], found["features"], found["temperature"]) == (
        "digit",
        {"kind": "pixels"},
        1.0,
    )
    assert (found["config"]["dataset"], found["config"]["epochs"]) == ("sample", 3)
    assert (found["epoch"], found["history"]) == (3, epochs)
    assert found["scores"] == epochs[found["best_epoch"] - 1]
    assert found["run"].keys() == {"seconds", "versions", "threads"}


def test_four_lines_of_numpy_are_as_accurate(
    model_file: Path, trained: Checkpoint, sample_test: Dataset
) -> None:
    file = members(model_file)
    x = sample_test.images.reshape(-1, 784) / np.float32(255)
    predicted = (x @ file["weights"] + file["bias"]).argmax(axis=1)
    accuracy = (predicted == sample_test.labels).mean()
    assert accuracy == evaluate(trained.state, sample_test, np.arange(1000)).accuracy
    assert accuracy > 0.85


def test_two_equal_runs_save_the_same_but_for_run(
    sample: Dataset, model_file: Path, tmp_path: Path, trained: Checkpoint
) -> None:
    begin, split = start(trained.config, sample), hold_out(sample.labels, 0.1, 0)
    again = Checkpoint.begin(trained.config, sample, begin)
    for state in fit(trained.config, sample, split, begin):
        again = again.advance(state, 123.0)
    save(tmp_path / "again.npz", again)
    first, second = members(model_file), members(tmp_path / "again.npz")
    assert all(first[name].tobytes() == second[name].tobytes() for name in ARRAYS)
    one, other = meta(model_file), meta(tmp_path / "again.npz")
    assert one.pop("run") != other.pop("run")
    assert one == other


def test_a_checkpoint_of_format_1_loads_for_ever() -> None:
    """The file in tests/data was written when format 1 was made; it is never to be written again."""
    loaded = load(FORMAT_1)
    weights = (np.arange(36, dtype=np.float32).reshape(12, 3) - 18) / 16
    bias = np.float32([-1, 0.5, 0.25])
    expected = {"model": (weights, bias), "last": (2 * weights, 2 * bias), "velocity": (-weights, -bias)}
    for field, arrays in expected.items():
        for found, array in zip(getattr(loaded.state, field), arrays, strict=True):
            np.testing.assert_array_equal(found, array, strict=True)
    history = (Epoch(1, 1.5, 1.25, 0.5, 0.4), Epoch(2, 1.0, 1.375, 0.625, 0.2))
    assert loaded.state.history == history
    assert (loaded.state.epoch, loaded.state.best_epoch, loaded.state.stale) == (2, 1, 1)
    assert loaded.config == TrainConfig(
        dataset="shapes",
        epochs=7,
        batch_size=32,
        learning_rate=0.4,
        momentum=0.5,
        schedule="constant",
        l2=0.001,
        validation_size=0.25,
        patience=3,
        seed=42,
    )
    assert (loaded.dataset, loaded.digest) == ("shapes", "0123456789abcdef" * 4)
    assert (loaded.image_shape, loaded.preparation) == ((4, 3), "plain")
    assert loaded.class_names == ("één", "<script>", "three")
    assert loaded.run == {"seconds": 0.5, "versions": {"softmax_cli": "0.1.0"}}


# Features


def small_fourier() -> Checkpoint:
    """Return `small` with 12 Fourier features of its 12 pixels."""
    generator = np.random.default_rng(8)
    projection, phase = (generator.normal(size=shape).astype(np.float32) for shape in ((12, 12), 12))
    checkpoint = small()
    config = replace(checkpoint.config, features="fourier", fourier_dimension=12, l2=None, calibrate=True)
    state = replace(checkpoint.state, features=fourier(projection, phase), temperature=1.25)
    return replace(checkpoint, config=config, state=state)


@pytest.fixture
def saved_fourier(tmp_path: Path) -> Path:
    """Return the path of a small checkpoint with Fourier features."""
    path = tmp_path / "saved.npz"
    save(path, small_fourier())
    return path


def test_features_and_temperature_are_loaded_bit_for_bit(saved_fourier: Path) -> None:
    expected, loaded = small_fourier(), load(saved_fourier)
    assert bits(loaded) == bits(expected)
    assert loaded.state.features.projection.tobytes() == expected.state.features.projection.tobytes()
    assert loaded.state.features.phase.tobytes() == expected.state.features.phase.tobytes()
    assert loaded.state.features[:4] == expected.state.features[:4]
    assert loaded.state.temperature == 1.25
    assert (loaded.config, describe(loaded)) == (expected.config, describe(expected))
    assert meta(saved_fourier)["features"] == {"kind": "fourier", "dimension": 12}


@pytest.mark.parametrize("kind", ["pixels", "deskew", "fourier"])
def test_a_checkpoint_predicts_the_same_bit_for_bit_after_a_round_trip(
    sample: Dataset, sample_test: Dataset, tmp_path: Path, kind: str
) -> None:
    config = TrainConfig(dataset="sample", features=kind, epochs=1, calibrate=True)
    begin = start(config, sample)
    *_, state = fit(config, sample, hold_out(sample.labels, 0.1, 0), begin)
    save(tmp_path / "m.npz", Checkpoint.begin(config, sample, state))
    loaded = load(tmp_path / "m.npz").state
    pairs = (judge(one.model, one.features, sample_test, np.arange(1000)) for one in (state, loaded))
    for (before, _), (after, _) in zip(*pairs, strict=True):
        assert before.tobytes() == after.tobytes()


def test_an_outsider_can_use_fourier_features(sample: Dataset, sample_test: Dataset, tmp_path: Path) -> None:
    """Five lines of numpy on the members of the file, and deskewed images, are as accurate."""
    config = TrainConfig(dataset="sample", features="fourier", fourier_dimension=300, epochs=2)
    *_, state = fit(config, sample, hold_out(sample.labels, 0.1, 0), start(config, sample))
    save(tmp_path / "m.npz", Checkpoint.begin(config, sample, state))
    file = members(tmp_path / "m.npz")
    x = deskew(sample_test.images).reshape(-1, 784) / np.float32(255)
    phi = np.sqrt(2 / 300) * np.cos(x @ file["feature_projection"] + file["feature_phase"])
    predicted = (phi @ file["weights"] + file["bias"]).argmax(axis=1)
    accuracy = (predicted == sample_test.labels).mean()
    assert accuracy == pytest.approx(evaluate(state, sample_test, np.arange(1000)).accuracy, abs=0.0011)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda a: without(a, "feature_phase"), "missing: 'feature_phase.npy'"),
        (lambda a: without(a, "feature_projection"), "missing: 'feature_projection.npy'"),
        (
            lambda a: without(without(a, "feature_projection"), "feature_phase"),
            "its features are 'fourier' with 7 members",
        ),
        (lambda a: a | {"feature_more": a["bias"]}, "foreign: 'feature_more.npy'"),
        (
            lambda a: with_meta(a, features={"kind": "pixels"}),
            "its features are 'pixels' with 9 members",
        ),
        (lambda a: with_meta(a, features={"kind": "fourier"}), "meta lacks 'dimension'"),
        (
            lambda a: with_meta(a, features={"kind": "fourier", "dimension": 12.0}),
            "12.0 is not a whole number",
        ),
        (
            lambda a: with_meta(a, features={"kind": "fourier", "dimension": 10**12}),
            "feature_projection.npy is <f4 of shape (12, 12), expected <f4 of shape (12, 1000000000000)",
        ),
        (
            lambda a: a | {"feature_phase": a["feature_phase"][:5]},
            "feature_phase.npy is <f4 of shape (5,), expected <f4 of shape (12,)",
        ),
        (
            lambda a: a | {"feature_projection": a["feature_projection"] * np.float32("nan")},
            "feature_projection.npy holds a value that is not finite",
        ),
        (
            lambda a: with_meta(a, config=asdict(small().config)),
            "its features are not those of its config",
        ),
        (lambda a: with_meta(a, temperature=0), "its temperature is not a number from 0.01 to 100.0"),
        (lambda a: with_meta(a, temperature=1e300), "its temperature is not a number from 0.01"),
        (lambda a: with_meta(a, temperature=10**400), "its temperature is not a number from 0.01"),
        (lambda a: with_meta(a, features={"kind": "fourier", "dimension": 0}), "it has no features"),
        (
            lambda a: with_meta(a, config=asdict(small_fourier().config) | {"fourier_dimension": 13}),
            "its features are not those of its config",
        ),
        (
            lambda a: with_meta(a, config=asdict(small_fourier().config) | {"calibrate": False}),
            "its temperature is 1.25, but it was not calibrated",
        ),
        (lambda a: with_meta(a, temperature="1"), "its temperature is not a number from 0.01"),
        (lambda a: with_meta(a, temperature=True), "its temperature is not a number from 0.01"),
    ],
)
def test_features_that_are_not_as_they_should_be_are_named(
    saved_fourier: Path, change: Callable[[Members], Members], reason: str
) -> None:
    write(saved_fourier, change(members(saved_fourier)))
    with pytest.raises(CheckpointError) as caught:
        load(saved_fourier)
    assert reason in str(caught.value)


def test_a_checkpoint_with_fourier_features_loads_for_ever() -> None:
    """The file in tests/data holds the projection, so that no later numpy has to draw it again."""
    loaded = load(FOURIER_1)
    projection = (np.arange(60, dtype=np.float32).reshape(12, 5) - 30) / 32
    phase = np.arange(5, dtype=np.float32) / 4
    np.testing.assert_array_equal(loaded.state.features.projection, projection, strict=True)
    np.testing.assert_array_equal(loaded.state.features.phase, phase, strict=True)
    assert (loaded.state.features.kind, loaded.state.features.dimension) == ("fourier", 5)
    assert loaded.state.temperature == 1.5
    np.testing.assert_array_equal(loaded.state.model.weights, np.arange(15).reshape(5, 3) / 8)
    image = (np.arange(12, dtype=np.uint8) * 20).reshape(1, 4, 3)
    z = evidence_of(loaded.state.model, loaded.state.features, prepare(loaded.state.features, image))
    np.testing.assert_allclose(z, [[-2.18572807, -1.23936156, -0.29299505]], rtol=1e-5)


# How it is written


def test_a_save_syncs_the_file_replaces_and_syncs_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole file is on the disk before it takes its name, and the name before `save` returns."""
    path, events = tmp_path / "model.npz", []
    fsync, rename = os.fsync, os.replace

    def record_fsync(descriptor: int) -> None:
        fsync(descriptor)
        status = os.fstat(descriptor)
        events.append(("fsync", status.st_ino, status.st_size))

    def record_replace(source: Path, target: Path) -> None:
        rename(source, target)
        events.append(("replace", Path(source).parent, target))

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_replace)
    save(path, small())
    file, folder = path.stat(), tmp_path.stat()
    assert events == [
        ("fsync", file.st_ino, file.st_size),
        ("replace", tmp_path, path),
        ("fsync", folder.st_ino, folder.st_size),
    ]
    assert names(tmp_path) == ["model.npz"]


def test_a_link_is_kept_and_its_target_replaced(saved: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.npz"
    link.symlink_to(saved.name)
    check_writable(link)
    save(link, small(seed=1))
    assert link.readlink() == Path(saved.name)
    assert bits(load(saved)) == bits(small(seed=1))


def test_probing_an_output_changes_nothing(saved: Path) -> None:
    content, status = saved.read_bytes(), saved.stat()
    check_writable(saved)
    check_writable(saved.with_name("new.npz"))
    assert (saved.read_bytes(), saved.stat().st_mtime_ns) == (content, status.st_mtime_ns)
    assert names(saved.parent) == [saved.name]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing/model.npz", "does not exist; make it first"),
        ("file/model.npz", "does not exist; make it first"),
        ("folder", "it is a folder; give the name of a file"),
        ("link", "it is a folder; give the name of a file"),
        ("pipe", "it is not a regular file"),
        ("n" * 300, "file name too long"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused(work: Path, name: str, reason: str) -> None:
    (work / "file").touch()
    (work / "folder").mkdir()
    (work / "link").symlink_to("folder")
    os.mkfifo(work / "pipe")
    before = names(work)
    with pytest.raises(OutputError, match=reason) as caught:
        check_writable(Path(name))
    assert str(caught.value).startswith(f"cannot write {name}: ")
    assert (names(work), names(work / "folder")) == (before, [])


@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_a_folder_that_forbids_writing_is_refused(mode: int) -> None:
    with TemporaryDirectory() as outer:  # pytest's own folders are closed to anyone else
        Path(outer).chmod(0o755)
        path = Path(outer, "closed", "model.npz")
        path.parent.mkdir(mode)
        with unprivileged(), pytest.raises(OutputError) as caught:
            check_writable(path)
        assert str(caught.value) == f"cannot write {path}: permission denied"
        path.parent.chmod(0o755)
        assert names(path.parent) == []


# What is refused


def test_a_refused_checkpoint_is_one_error_line(saved: Path, invoke: Callable[..., Any]) -> None:
    write(saved, without(members(saved), "bias"))
    assert_fails(invoke("info", "--checkpoint", saved), str(saved), "missing: 'bias.npy'")


class Payload:
    """Makes a file called `ran` when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open, ("ran", "w")


def object_array() -> NDArray[Any]:
    """Return an array whose only value is a payload."""
    array = np.empty(1, object)
    array[0] = Payload()
    return array


@pytest.mark.parametrize("kind", ["pickle", "npy", *ARRAYS, "meta"])
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the payload leaves its file open
def test_nothing_is_unpickled(saved: Path, work: Path, kind: str) -> None:
    if kind == "pickle":
        saved.write_bytes(pickle.dumps(Payload()))
    elif kind == "npy":
        with open(saved, "wb") as file:
            np.save(file, object_array())
    else:
        write(saved, members(saved) | {kind: object_array()})
    with pytest.raises(CheckpointError):
        load(saved)
    assert not (work / "ran").exists()
    found = np.load(saved, allow_pickle=True)
    if kind not in ("pickle", "npy"):
        found[kind]
    assert (work / "ran").exists()  # the payload is live


CHILD = """
import resource, sys
from pathlib import Path
from softmax_cli.checkpoint import load
from softmax_cli.errors import CheckpointError

resource.setrlimit(resource.RLIMIT_CPU, (10, 10))
if sys.platform == "linux":  # elsewhere the limit does not bind
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 100_000_000,) * 2)
try:
    load(Path(sys.argv[1]))
except CheckpointError as error:
    print(error)
"""


def npy(descr: str, shape: str, header: int = 118) -> bytes:
    """Return the start of an .npy file that claims a dtype, a shape and a length of its own header."""
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    version, size = (b"\1\0", "<H") if header < 1 << 16 else (b"\2\0", "<I")
    return b"\x93NUMPY" + version + struct.pack(size, header) + text


def stored(path: Path, name: str, content: bytes, compression: int = zipfile.ZIP_STORED) -> None:
    """Replace one member of a checkpoint by any bytes."""
    with zipfile.ZipFile(path) as archive:
        kept = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for member, data in (kept | {f"{name}.npy": content}).items():
            archive.writestr(member, data)


def claimed(path: Path, size: int) -> None:
    """Make the directory of an archive claim a size for its first member, packed and unpacked."""
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\1\2")
    content[at + 20 : at + 28] = struct.pack("<II", size, size)
    path.write_bytes(content)


def claim_a_long_directory(path: Path) -> None:
    """Write a sparse file of 1 GiB whose end record says that all of it is the list of members."""
    size = 1 << 30
    record = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 7, 7, size - 22, 0, 0)
    with open(path, "wb") as file:
        file.seek(size - 22)
        file.write(record)


BOMBS: dict[str, tuple[Callable[[Path], None], str]] = {
    "directory": (claim_a_long_directory, "list of members is far too long"),
    "deflated weights": (
        lambda path: stored(path, "weights", bytes(150_000_000), zipfile.ZIP_DEFLATED),
        "compressed",
    ),
    "deflated header": (
        lambda path: stored(
            path, "weights", npy("<f4", "(12, 3)", 300_000_000) + b" " * 150_000_000, zipfile.ZIP_DEFLATED
        ),
        "compressed",
    ),
    "claimed header": (
        lambda path: stored(path, "weights", npy("<f4", "(12, 3)", 300_000_000)),
        "weights.npy does not start as an array",
    ),
    "claimed weights": (
        lambda path: stored(path, "weights", npy("<f4", "(65536, 131072)")),
        "weights.npy is <f4 of shape (65536, 131072), expected <f4 of shape (12, 3)",
    ),
    "claimed shape": (
        lambda path: write(path, with_meta(members(path), image_shape=[65536, 131072])),
        "weights.npy is <f4 of shape (12, 3), expected <f4 of shape (8589934592, 3)",
    ),
    "bare array": (lambda path: (path.write_bytes(npy("<f4", "(8589934592,)")), None)[1], "not a checkpoint"),
    "claimed member": (lambda path: claimed(path, 4_000_000_000), "claims 4,000,000,000 bytes"),
    "members": (
        lambda path: write(path, members(path) | {f"extra{i}": np.zeros(1) for i in range(10_000)}),
        "list of members is far too long",
    ),
    "meta of lists": (
        lambda path: write(
            path, members(path) | {"meta": np.frombuffer(b"[" + b"[]," * 5_000_000 + b"[]]", np.uint8)}
        ),
        "meta.npy takes",
    ),
    "meta of depth": (
        lambda path: write(path, members(path) | {"meta": np.frombuffer(b"[" * 1_000_000, np.uint8)}),
        "damaged",
    ),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_at_once_and_in_little_memory(saved: Path, bomb: str) -> None:
    build, reason = BOMBS[bomb]
    build(saved)
    line = [sys.executable, "-c", CHILD, str(saved)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert reason in done.stdout


def test_every_cut_is_refused(saved: Path) -> None:
    content = saved.read_bytes()
    for size in np.linspace(0, len(content) - 1, 50).astype(int):
        saved.write_bytes(content[:size])
        with pytest.raises(CheckpointError, match="not a checkpoint, or is damaged"):
            load(saved)


@pytest.mark.usefixtures("alarm")
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("empty", "empty is not a checkpoint, or is damaged: it does not end as an .npz file does"),
        ("page", "page is not a checkpoint, or is damaged: it does not end as an .npz file does"),
        ("folder", "folder is a folder, not a file"),
        ("pipe", "pipe is not a regular file"),
        ("/dev/zero", "/dev/zero is not a regular file"),
        ("missing", "cannot read missing: no such file or directory"),
        ("empty/model.npz", "cannot read empty/model.npz: not a directory"),
        ("secret", "cannot read secret: permission denied"),
        ("closed/model.npz", "cannot read closed/model.npz: permission denied"),
        ("n" * 300, f"cannot read {'n' * 300}: file name too long"),
    ],
)
def test_what_is_no_checkpoint_is_refused(work: Path, name: str, reason: str) -> None:
    (work / "empty").touch()
    (work / "page").write_text("<!DOCTYPE html><title>404 Not Found</title>")
    (work / "folder").mkdir()
    os.mkfifo(work / "pipe")
    (work / "secret").touch(mode=0)
    (work / "closed").mkdir(mode=0)
    work.chmod(0o755)
    with unprivileged(), pytest.raises(CheckpointError) as caught:
        load(Path(name))
    (work / "closed").chmod(0o755)  # or it could not be removed
    assert str(caught.value) == reason


@pytest.mark.parametrize("make", [small, small_fourier])
def test_a_mutated_checkpoint_is_refused_or_unchanged(saved: Path, make: Callable[[], Checkpoint]) -> None:
    save(saved, make())
    generator, content, original = np.random.default_rng(0), saved.read_bytes(), load(saved)
    accepted, rounds = 0, 3000 if SOAK else 300
    for _ in range(rounds):
        saved.write_bytes(mutated(generator, content))
        try:
            loaded = load(saved)
        except CheckpointError:
            continue
        assert bits(loaded) == bits(original)
        assert describe(loaded) == describe(original)
        for found, expected in zip(loaded.state.features, original.state.features, strict=True):
            np.testing.assert_array_equal(found, expected)
        accepted += 1
    assert 0 < accepted < rounds / 2  # the dates of the members, say, may be anything


def changed(name: str, change: Callable[[NDArray[Any]], Any]) -> Callable[[Members], Members]:
    """Return what replaces one of the arrays by what `change` makes of it."""
    return lambda arrays: arrays | {name: np.asarray(change(arrays[name]))}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            changed("weights", lambda a: np.zeros((12, 3))),
            "weights.npy is <f8 of shape (12, 3), ",
        ),
        (changed("weights", lambda a: a.astype(">f4")), "weights.npy is >f4 of shape (12, 3), expected <f4"),
        (changed("weights", lambda a: a.view(np.int32)), "weights.npy is <i4 of shape (12, 3), expected <f4"),
        (
            changed("weights", np.asfortranarray),
            "weights.npy is <f4 of shape (12, 3), in Fortran order, expected <f4 of shape (12, 3)",
        ),
        (
            changed("weights", lambda a: np.zeros(12, [("x", "<f4")])),
            "weights.npy does not start as an array of numbers",
        ),
        (changed("bias", lambda a: a[:2]), "bias.npy is <f4 of shape (2,), expected <f4 of shape (3,)"),
        (changed("bias", lambda a: a[0]), "bias.npy is <f4 of shape (), expected <f4 of shape (3,)"),
        *(
            (changed(name, lambda a: a[None]), f"{name}.npy is <f4 of shape (1, ")
            for name in (*ARRAYS, "meta")
            if name != "meta"
        ),
        (changed("meta", lambda a: a.astype(np.int8)), "meta.npy is |i1 of shape ("),
        (changed("meta", lambda a: a[None]), "meta.npy is |u1 of shape (1, "),
        *((lambda arrays, name=name: without(arrays, name), f"missing: '{name}.npy'") for name in ARRAYS),
        (lambda arrays: without(arrays, "meta"), "missing: 'meta.npy'"),
        (lambda arrays: arrays | {"more": arrays["bias"]}, "foreign: 'more.npy'"),
        (lambda arrays: arrays | {"../weights": arrays["weights"]}, "foreign: '../weights.npy'"),
        (
            lambda arrays: without(arrays, "weights") | {"../weights": arrays["weights"]},
            "missing: 'weights.npy'; foreign: '../weights.npy'",
        ),
    ],
)
def test_a_member_that_is_not_as_it_should_be_is_named(
    saved: Path, change: Callable[[Members], Members], reason: str
) -> None:
    write(saved, change(members(saved)))
    with pytest.raises(CheckpointError) as caught:
        load(saved)
    assert reason in str(caught.value)
    assert str(caught.value).startswith(f"{saved} is not a checkpoint that can be used: ")


@pytest.mark.parametrize("size", [-4, 4])
def test_a_member_of_another_size_than_its_header_says_is_named(saved: Path, size: int) -> None:
    with zipfile.ZipFile(saved) as archive:
        content = archive.read("bias.npy")
    stored(saved, "bias", content[:size] if size < 0 else content + bytes(size))
    with pytest.raises(CheckpointError, match=rf"bias.npy takes {140 + size} bytes, expected 140"):
        load(saved)


def test_a_member_that_is_there_twice_is_named(saved: Path) -> None:
    with zipfile.ZipFile(saved, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("bias.npy", archive.read("bias.npy"))
    with pytest.raises(CheckpointError, match=r"there twice: 'bias.npy'"):
        load(saved)


def test_compressed_members_are_refused(saved: Path) -> None:
    arrays = members(saved)
    with open(saved, "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match=r"weights.npy is compressed, expected stored as it is"):
        load(saved)


def test_encrypted_members_are_refused(saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    for mark, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(mark) + flags] |= 1
    saved.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"weights.npy is encrypted, expected stored as it is"):
        load(saved)


def test_a_flipped_bit_in_any_array_is_noticed(saved: Path) -> None:
    content = saved.read_bytes()
    for name in (*ARRAYS, "meta"):
        at = content.index(b"\x93NUMPY", content.index(f"{name}.npy".encode())) + 128
        saved.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(CheckpointError, match=rf"damaged: Bad CRC-32 for file '{name}.npy'"):
            load(saved)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ARRAYS)
def test_a_weight_that_is_not_finite_is_refused(saved: Path, name: str, value: float) -> None:
    arrays = members(saved)
    arrays[name].flat[-1] = value
    write(saved, arrays)
    with pytest.raises(CheckpointError, match=rf"\b{name}.npy holds a value that is not finite"):
        load(saved)


@pytest.mark.parametrize("number", [2, 100, "1", 1.5, None, True])
def test_a_newer_format_gives_an_upgrade_hint(saved: Path, number: object) -> None:
    write(saved, with_meta(members(saved), format=number))
    with pytest.raises(CheckpointError) as caught:
        load(saved)
    assert f"its format is {number!r}, and this version reads up to 1" in str(caught.value)
    assert "upgrade this one" in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 0},
        {"image_shape": [4, 3, 1]},
        {"image_shape": [-4, -3]},
        {"image_shape": [4.0, 3]},
        {"image_shape": 12},
        {"class_names": "abc"},
        {"class_names": ["a", "b", 3]},
        {"class_names": [["a"], ["b"], ["c"]]},
        {"class_names": None},
        {"class_names": ["a", "b", "a"]},
        {"features": {"kind": "fourier"}},
        {"preparation": 1},
        {"preparation": "upside down"},
        {"dataset": "mnist"},
        {"dataset": {"name": 1, "digest": ""}},
        {"config": {"epoch": 3}},
        {"config": {"epochs": 0}},
        {"config": {"learning_rate": "fast"}},
        {"config": []},
        {"epoch": 3},
        {"epoch": -2},
        {"epoch": 2.0},
        {"best_epoch": 3},
        {"stale": "0"},
        {"history": [{}, {}]},
        {"history": [1, 2]},
        {"history": None},
        {"history": [{"epoch": 1, "train_loss": "x"}] * 2},
        {"run": 3},
        {"run": {"seconds": float("nan")}},
        {"run": {"seconds": float("-inf")}},
    ],
    ids=str,
)
def test_meta_that_makes_no_sense_is_refused(saved: Path, changes: dict[str, object]) -> None:
    write(saved, with_meta(members(saved), **changes))
    with pytest.raises(CheckpointError, match=r"^.*saved\.npz is not a checkpoint"):
        load(saved)


@pytest.mark.parametrize("key", sorted(describe(small()).keys() - {"scores"}))
def test_meta_that_lacks_something_is_refused(saved: Path, key: str) -> None:
    arrays = members(saved)
    content = json.loads(arrays["meta"].tobytes())
    del content[key]
    write(saved, arrays | {"meta": np.frombuffer(json.dumps(content).encode(), np.uint8)})
    with pytest.raises(CheckpointError, match=key):
        load(saved)


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"3", b'"format"', b"[]", b"{}", b"{", b"\xff\xfe", b'{"format": NaN}', b'{"format": 1}'],
)
def test_meta_that_is_no_description_is_refused(saved: Path, content: bytes) -> None:
    write(saved, members(saved) | {"meta": np.frombuffer(content, np.uint8)})
    with pytest.raises(CheckpointError, match=r"is not a checkpoint"):
        load(saved)


def test_a_gzipped_or_nested_checkpoint_is_no_checkpoint(saved: Path) -> None:
    content = saved.read_bytes()
    outer = io.BytesIO()
    with zipfile.ZipFile(outer, "w") as archive:
        archive.writestr("model.npz", content)
    for wrapped in (gzip.compress(content), outer.getvalue()):
        saved.write_bytes(wrapped)
        with pytest.raises(CheckpointError):
            load(saved)
