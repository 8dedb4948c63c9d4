"""Checkpoints are restored exactly, can be read with numpy, and are validated."""

import gzip
import io
import json
import math
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
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from softmax_cli.checkpoint import Checkpoint, describe, load_checkpoint, save_checkpoint
from softmax_cli.classifier import Classifier
from softmax_cli.config import TrainConfig
from softmax_cli.data.catalog import CATALOG
from softmax_cli.data.dataset import Dataset
from softmax_cli.errors import CheckpointError
from softmax_cli.evaluation import evaluate
from softmax_cli.features import FeatureMap
from softmax_cli.features.deskew import Deskew, deskew
from softmax_cli.features.fourier import Fourier
from softmax_cli.training import Epoch, fit, start
from tests.helpers import SOAK, assert_equal_runs, assert_fails, mutated, parameters, small_checkpoint

DATA = Path(__file__).parent / "data"
ARRAYS = ("weights", "bias", "last_weights", "last_bias", "velocity_weights", "velocity_bias")
FOURIER_ARRAYS = ("fourier_projection", "fourier_phase")

Members = dict[str, NDArray[Any]]


def small_fourier() -> Checkpoint:
    """Return `small_checkpoint` with 12 Fourier features.

    The features are those of its 12 deskewed pixels; the model is calibrated.
    """
    generator = np.random.default_rng(8)
    projection, phase = (generator.normal(size=shape).astype(np.float32) for shape in ((12, 12), 12))
    features = FeatureMap((4, 3), (Deskew((4, 3)), Fourier((12,), projection, phase)))
    checkpoint = small_checkpoint()
    config = replace(checkpoint.config, features="fourier", fourier_dimension=12, l2=None, calibrate=True)
    return replace(
        checkpoint, config=config, state=replace(checkpoint.state, features=features, temperature=1.25)
    )


def members(path: Path) -> Members:
    """Return the arrays in a file, read with numpy alone."""
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def meta(path: Path) -> dict[str, Any]:
    """Return the JSON in a file, read with numpy alone."""
    return dict(json.loads(members(path)["meta"].tobytes().decode("utf-8")))


def write(path: Path, arrays: Members) -> None:
    """Write arrays with numpy alone."""
    with open(path, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def with_text(arrays: Members, text: bytes) -> Members:
    """Return the arrays with ``meta`` replaced by a text."""
    return arrays | {"meta": np.frombuffer(text, np.uint8)}


def with_meta(arrays: Members, **changes: object) -> Members:
    """Return the arrays with some keys of ``meta`` replaced."""
    return with_text(arrays, json.dumps(json.loads(arrays["meta"].tobytes()) | changes).encode())


def with_config(arrays: Members, **changes: object) -> Members:
    """Return the arrays with some keys of the config in ``meta`` replaced."""
    return with_meta(arrays, config=json.loads(arrays["meta"].tobytes())["config"] | changes)


def without(arrays: Members, name: str) -> Members:
    """Return the arrays without one of them."""
    return {key: array for key, array in arrays.items() if key != name}


def refusal(path: Path) -> str:
    """Return the message of the error that a file raises."""
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    return str(caught.value)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Return the path of a small checkpoint."""
    path = tmp_path / "saved.npz"
    save_checkpoint(path, small_checkpoint())
    return path


@pytest.fixture
def saved_fourier(tmp_path: Path) -> Path:
    """Return the path of a small checkpoint with Fourier features."""
    path = tmp_path / "saved.npz"
    save_checkpoint(path, small_fourier())
    return path


# Stored content


@given(
    texts=st.lists(st.text(max_size=9), min_size=2, max_size=5, unique=True),
    seed=st.integers(0, 2**32 - 1),
)
@example(texts=["<script>alert(1)</script>", "größer", "日本語", "\x1b[31m\0", '"}', ""], seed=0)
@settings(max_examples=25, deadline=None, database=None)
def test_checkpoint_is_loaded_as_it_was_saved(
    texts: list[str], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "round-trip.npz"
    checkpoint = small_checkpoint(seed, tuple(texts))
    save_checkpoint(path, checkpoint)
    loaded = load_checkpoint(path)
    assert parameters(loaded) == parameters(checkpoint)
    assert describe(loaded) == describe(checkpoint)
    assert loaded.config == checkpoint.config
    assert loaded.state.history == checkpoint.state.history
    assert loaded.class_names == tuple(texts)
    assert loaded.run == checkpoint.run


def test_name_of_a_data_set_may_contain_undecodable_bytes(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    save_checkpoint(tmp_path / "model.npz", replace(small_checkpoint(), dataset=name))
    assert load_checkpoint(tmp_path / "model.npz").dataset == name


@pytest.mark.parametrize(
    ("features", "dimension", "extra"),
    [
        ("pixels", 784, {}),
        ("deskew", 784, {}),
        ("fourier", 50, {"fourier_projection": (784, 50), "fourier_phase": (50,)}),
    ],
)
def test_file_has_exactly_the_documented_members(
    sample: Dataset, tmp_path: Path, features: str, dimension: int, extra: dict[str, tuple[int, ...]]
) -> None:
    size = {"fourier_dimension": dimension} if extra else {}
    config = TrainConfig(dataset="sample", features=features, **size)
    save_checkpoint(tmp_path / "m.npz", Checkpoint.begin(config, sample, start(config, sample)))
    arrays = members(tmp_path / "m.npz")
    found = arrays.pop("meta")
    assert (found.dtype, found.ndim) == (np.uint8, 1)
    shapes = {name: ((10,) if name.endswith("bias") else (dimension, 10)) for name in ARRAYS} | extra
    assert {name: array.shape for name, array in arrays.items()} == shapes
    assert {array.dtype.str for array in arrays.values()} == {"<f4"}
    with zipfile.ZipFile(tmp_path / "m.npz") as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}


def test_meta_describes_the_model(model_file: Path, trained: Checkpoint) -> None:
    found = meta(model_file)
    epochs = [epoch._asdict() for epoch in trained.state.history]
    assert found["format"] == 2
    assert found["dataset"] == {"name": "sample", "digest": CATALOG["sample"].digest}
    assert found["image_shape"] == [28, 28]
    assert found["class_names"] == list("0123456789")
    assert found["preparation"] == "digit"
    assert found["features"] == {"kind": "pixels", "dimension": 784}
    assert found["temperature"] == 1.0
    assert (found["config"]["dataset"], found["config"]["epochs"]) == ("sample", 3)
    assert (found["epoch"], found["history"]) == (3, epochs)
    assert found["scores"] == epochs[found["best_epoch"] - 1]
    assert found["run"].keys() == {"seconds", "versions", "threads"}


def test_pixel_model_can_be_used_with_numpy_alone(
    model_file: Path, trained: Checkpoint, sample_test: Dataset
) -> None:
    file = members(model_file)
    x = sample_test.images.reshape(-1, 784) / np.float32(255)
    predicted = (x @ file["weights"] + file["bias"]).argmax(axis=1)
    accuracy = (predicted == sample_test.labels).mean()
    assert accuracy == evaluate(Classifier(trained), sample_test).scores.accuracy
    assert accuracy > 0.85


def test_fourier_model_can_be_used_with_numpy_alone(
    sample: Dataset, sample_test: Dataset, tmp_path: Path
) -> None:
    config = TrainConfig(dataset="sample", features="fourier", fourier_dimension=300, epochs=2)
    *_, state = fit(config, sample)
    checkpoint = Checkpoint.begin(config, sample, state)
    save_checkpoint(tmp_path / "m.npz", checkpoint)
    file = members(tmp_path / "m.npz")
    x = deskew(sample_test.images).reshape(-1, 784) / np.float32(255)
    phi = np.sqrt(2 / 300) * np.cos(x @ file["fourier_projection"] + file["fourier_phase"])
    predicted = (phi @ file["weights"] + file["bias"]).argmax(axis=1)
    accuracy = (predicted == sample_test.labels).mean()
    expected = evaluate(Classifier(checkpoint), sample_test).scores.accuracy
    assert accuracy == pytest.approx(expected, abs=0.0011)


@pytest.mark.parametrize("features", ["pixels", "deskew", "deskew,fourier", "pixels,fourier"])
def test_loaded_model_computes_the_same_evidence(
    sample: Dataset, sample_test: Dataset, tmp_path: Path, features: str
) -> None:
    size = {"fourier_dimension": 50} if "fourier" in features else {}
    config = TrainConfig(dataset="sample", features=features, epochs=1, calibrate=True, **size)
    *_, state = fit(config, sample)
    checkpoint = Checkpoint.begin(config, sample, state)
    save_checkpoint(tmp_path / "m.npz", checkpoint)
    loaded = load_checkpoint(tmp_path / "m.npz")
    assert parameters(loaded) == parameters(checkpoint)
    assert describe(loaded) == describe(checkpoint)
    blocks = (Classifier(one).evidence_blocks(sample_test.images) for one in (checkpoint, loaded))
    for (_, before), (_, after) in zip(*blocks, strict=True):
        assert before.tobytes() == after.tobytes()


def test_two_equal_runs_differ_only_in_run(
    sample: Dataset, model_file: Path, tmp_path: Path, trained: Checkpoint
) -> None:
    begun = start(trained.config, sample)
    again = Checkpoint.begin(trained.config, sample, begun)
    for state in fit(trained.config, sample, begun):
        again = again.advance(state, 123.0)
    save_checkpoint(tmp_path / "again.npz", again)
    assert_equal_runs(model_file, tmp_path / "again.npz")
    assert meta(model_file)["run"] != meta(tmp_path / "again.npz")["run"]


# Formats. The files in tests/data are never changed, and all later versions must load them.


@pytest.mark.parametrize("name", ["format1.npz", "format2.npz"])
def test_committed_checkpoint_is_loaded(name: str) -> None:
    loaded = load_checkpoint(DATA / name)
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


@pytest.mark.parametrize("name", ["format1-fourier.npz", "format2-fourier.npz"])
def test_committed_checkpoint_with_fourier_features_predicts_the_same(name: str) -> None:
    """The file holds the projection, so that it does not depend on the random numbers of numpy."""
    loaded = load_checkpoint(DATA / name)
    (stage,) = loaded.state.features.vector_stages
    projection = (np.arange(60, dtype=np.float32).reshape(12, 5) - 30) / 32
    np.testing.assert_array_equal(stage.projection, projection, strict=True)
    np.testing.assert_array_equal(stage.phase, np.arange(5, dtype=np.float32) / 4, strict=True)
    assert (loaded.config.features, loaded.state.features.dimension) == ("deskew,fourier", 5)
    assert loaded.state.temperature == 1.5
    np.testing.assert_array_equal(loaded.state.model.weights, np.arange(15).reshape(5, 3) / 8)
    image = (np.arange(12, dtype=np.uint8) * 20).reshape(1, 4, 3)
    ((_, z),) = Classifier(loaded).evidence_blocks(image)
    np.testing.assert_allclose(z, [[-2.18572807, -1.23936156, -0.29299505]], rtol=1e-5)


@pytest.mark.parametrize("name", CATALOG)
@pytest.mark.parametrize("number", [1, 2])
def test_digest_of_a_known_data_set_is_translated_from_format_1_only(
    saved: Path, name: str, number: int
) -> None:
    entry = CATALOG[name]
    dataset = {"name": name, "digest": entry.format1_digest}
    write(saved, with_meta(members(saved), format=number, dataset=dataset))
    assert load_checkpoint(saved).digest == (entry.digest if number == 1 else entry.format1_digest)


@pytest.mark.parametrize("number", [3, 100])
def test_c12_newer_format_is_refused_with_an_upgrade_hint(saved: Path, number: object) -> None:
    write(saved, with_meta(members(saved), format=number))
    message = refusal(saved)
    assert f"its format is {number!r}, and this version reads formats up to 2" in message
    assert "upgrade softmax-regression" in message


@pytest.mark.parametrize("number", [0, -1, "1", 1.5, None, True])
def test_format_that_is_not_a_positive_number_is_refused(saved: Path, number: object) -> None:
    write(saved, with_meta(members(saved), format=number))
    assert f"its format is {number!r}, expected a number from 1 to 2" in refusal(saved)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("history", [{"epoch": 1, "train_loss": 10**400, "learning_rate": 0.5}]),
        ("history", [{"epoch": 1, "train_loss": 1, "validation_loss": 1, "validation_accuracy": None}]),
        ("run", {"seconds": 10**400}),
        ("run", {"seconds": 1, "versions": []}),
    ],
)
def test_values_that_cannot_be_printed_are_refused(saved: Path, key: str, value: object) -> None:
    write(saved, with_meta(members(saved), **{key: value}))
    refusal(saved)


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ({"warmup": 3}, "config has the option 'warmup', which this version does not know: upgrade softmax-"),
        ({"features": "rotate"}, "config is not valid in this version: unknown feature stage 'rotate'"),
        ({"solver": "adam"}, "config is not valid in this version: solver must be sgd or newton, not 'adam'"),
    ],
    ids=str,
)
def test_config_of_a_newer_version_is_refused(saved: Path, option: dict[str, object], reason: str) -> None:
    write(saved, with_config(members(saved), **option))
    assert refusal(saved).startswith(f"{saved} is not a valid checkpoint: its {reason}")


# Refused files


def test_refused_checkpoint_is_one_error_line(saved: Path, invoke: Callable[..., Any]) -> None:
    write(saved, without(members(saved), "bias"))
    assert_fails(invoke("info", "--checkpoint", saved), str(saved), "member 'bias' is missing")


class Payload:
    """An object whose unpickling creates a folder called `ran`."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


def object_array() -> NDArray[Any]:
    """Return an array whose only value is a payload."""
    array = np.empty(1, object)
    array[0] = Payload()
    return array


@pytest.mark.parametrize("kind", ["pickle", "npy", "weights", "meta"])
def test_c6_nothing_is_unpickled(saved: Path, work: Path, kind: str) -> None:
    if kind == "pickle":
        saved.write_bytes(pickle.dumps(Payload()))
    elif kind == "npy":
        with open(saved, "wb") as file:
            np.save(file, object_array())
    else:
        write(saved, members(saved) | {kind: object_array()})
    refusal(saved)
    assert not (work / "ran").exists()
    found = np.load(saved, allow_pickle=True)
    if kind in ("weights", "meta"):
        with found:
            found[kind]
    assert (work / "ran").exists()  # the payload is effective


CHILD = """
import resource, sys
from pathlib import Path
from softmax_cli.checkpoint import load_checkpoint
from softmax_cli.errors import CheckpointError

resource.setrlimit(resource.RLIMIT_CPU, (10, 10))
if sys.platform == "linux":  # other systems do not enforce the limit
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 100_000_000,) * 2)
try:
    load_checkpoint(Path(sys.argv[1]))
except CheckpointError as error:
    print(error)
"""


def npy(descr: str, shape: str, header: int = 118) -> bytes:
    """Return the start of an .npy file with this dtype, shape and size of header."""
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    version, size = (b"\1\0", "<H") if header < 1 << 16 else (b"\2\0", "<I")
    return b"\x93NUMPY" + version + struct.pack(size, header) + text


def replace_member(path: Path, name: str, content: bytes, compression: int = zipfile.ZIP_STORED) -> None:
    """Replace the bytes of one member of a checkpoint."""
    with zipfile.ZipFile(path) as archive:
        kept = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for member, data in (kept | {f"{name}.npy": content}).items():
            archive.writestr(member, data)


def declare_size(path: Path, size: int) -> None:
    """Change the size of the first member in the directory of an archive."""
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\1\2")
    content[at + 20 : at + 28] = struct.pack("<II", size, size)
    path.write_bytes(content)


def declare_long_directory(path: Path) -> None:
    """Write a sparse file of 1 GiB whose end record declares it a list of members."""
    size = 1 << 30
    record = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 7, 7, size - 22, 0, 0)
    with open(path, "wb") as file:
        file.seek(size - 22)
        file.write(record)


BOMBS: dict[str, tuple[Callable[[Path], None], str]] = {
    "directory": (declare_long_directory, "list of members is far too long"),
    "deflated weights": (
        lambda path: replace_member(path, "weights", bytes(150_000_000), zipfile.ZIP_DEFLATED),
        "compressed",
    ),
    "false header": (
        lambda path: replace_member(path, "weights", npy("<f4", "(12, 3)", 300_000_000)),
        "weights.npy has no valid array header",
    ),
    "false weights": (
        lambda path: replace_member(path, "weights", npy("<f4", "(65536, 131072)")),
        "weights.npy is <f4 of shape (65536, 131072), expected <f4 of shape (12, 3)",
    ),
    "false shape": (
        lambda path: write(path, with_meta(members(path), image_shape=[65536, 131072])),
        "weights.npy is <f4 of shape (12, 3), expected <f4 of shape (8589934592, 3)",
    ),
    "bare array": (lambda path: (path.write_bytes(npy("<f4", "(8589934592,)")), None)[1], "not a checkpoint"),
    "false member": (lambda path: declare_size(path, 4_000_000_000), "claims 4,000,000,000 bytes"),
    "members": (
        lambda path: write(path, members(path) | {f"extra{i}": np.zeros(1) for i in range(10_000)}),
        "list of members is far too long",
    ),
    "meta of lists": (
        lambda path: write(path, with_text(members(path), b"[" + b"[]," * 5_000_000 + b"[]]")),
        "meta.npy takes",
    ),
    "meta of depth": (
        lambda path: write(path, with_text(members(path), b"[" * 1_000_000)),
        "damaged",
    ),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_c7_bomb_is_refused_within_ten_seconds_and_100_megabytes(saved: Path, bomb: str) -> None:
    build, reason = BOMBS[bomb]
    build(saved)
    line = [sys.executable, "-c", CHILD, str(saved)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert reason in done.stdout


def test_file_cut_at_any_length_is_refused(saved: Path) -> None:
    content = saved.read_bytes()
    for size in np.linspace(0, len(content) - 1, 50).astype(int):
        saved.write_bytes(content[:size])
        assert "is not a checkpoint, or is damaged" in refusal(saved)


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><title>404 Not Found</title>"])
def test_file_that_is_not_an_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.npz").write_bytes(content)
    reason = "is not a checkpoint, or is damaged: it does not end as an .npz file does"
    assert refusal(tmp_path / "model.npz") == f"{tmp_path / 'model.npz'} {reason}"


def test_folder_is_refused_as_a_checkpoint(tmp_path: Path) -> None:
    """The file is opened by `open_regular`, whose errors are tested in test_files.py."""
    assert refusal(tmp_path) == f"{tmp_path} is a folder, not a file"


def test_gzipped_or_nested_checkpoint_is_refused(saved: Path) -> None:
    content = saved.read_bytes()
    outer = io.BytesIO()
    with zipfile.ZipFile(outer, "w") as archive:
        archive.writestr("model.npz", content)
    for wrapped in (gzip.compress(content), outer.getvalue()):
        saved.write_bytes(wrapped)
        assert "is not a" in refusal(saved)


@pytest.mark.parametrize("make", [small_checkpoint, small_fourier])
def test_c9_mutated_checkpoint_is_refused_or_unchanged(saved: Path, make: Callable[[], Checkpoint]) -> None:
    save_checkpoint(saved, make())
    generator, content, original = np.random.default_rng(0), saved.read_bytes(), load_checkpoint(saved)
    accepted, rounds = 0, 10_000 if SOAK else 300
    for _ in range(rounds):
        saved.write_bytes(mutated(generator, content))
        try:
            loaded = load_checkpoint(saved)
        except CheckpointError:
            continue
        assert parameters(loaded) == parameters(original)
        assert describe(loaded) == describe(original)
        for found, stage in zip(loaded.state.features.stages, original.state.features.stages, strict=True):
            np.testing.assert_equal(found.arrays(), stage.arrays())
        accepted += 1
    assert 0 < accepted < rounds / 2  # the dates of the members, for example, are not checked


def changed(name: str, change: Callable[[NDArray[Any]], Any]) -> Callable[[Members], Members]:
    """Return a function that replaces one of the arrays by the result of `change`."""
    return lambda arrays: arrays | {name: np.asarray(change(arrays[name]))}


WRONG_MEMBERS: list[tuple[Callable[[Members], Members], str]] = [
    (changed("weights", lambda a: np.zeros((12, 3))), "weights.npy is <f8 of shape (12, 3), expected <f4"),
    (changed("weights", lambda a: a.astype(">f4")), "weights.npy is >f4 of shape (12, 3), expected <f4"),
    (changed("weights", lambda a: a.view(np.int32)), "weights.npy is <i4 of shape (12, 3), expected <f4"),
    (
        changed("weights", np.asfortranarray),
        "weights.npy is <f4 of shape (12, 3), in Fortran order, expected <f4 of shape (12, 3)",
    ),
    (
        changed("weights", lambda a: np.zeros(12, [("x", "<f4")])),
        "weights.npy has no valid array header (.npy format 1.0)",
    ),
    (changed("bias", lambda a: a[:2]), "bias.npy is <f4 of shape (2,), expected <f4 of shape (3,)"),
    (changed("bias", lambda a: a[0]), "bias.npy is <f4 of shape (), expected <f4 of shape (3,)"),
    (
        changed("fourier_phase", lambda a: a[:5]),
        "fourier_phase.npy is <f4 of shape (5,), expected <f4 of shape (12,)",
    ),
    (changed("meta", lambda a: a.astype(np.int8)), "meta.npy is |i1 of shape ("),
    *(
        (changed(name, lambda a: a[None]), f"{name}.npy is {dtype} of shape (1, ")
        for name, dtype in [*((name, "<f4") for name in (*ARRAYS, *FOURIER_ARRAYS)), ("meta", "|u1")]
    ),
    *(
        (lambda arrays, name=name: without(arrays, name), f"member {name!r} is missing")
        for name in (*ARRAYS, *FOURIER_ARRAYS, "meta")
    ),
    (
        lambda arrays: arrays | {"more": arrays["bias"], "../weights": arrays["weights"]},
        "members that are not expected: '../weights', 'more'",
    ),
    (
        lambda arrays: without(arrays, "weights") | {"../weights": arrays["weights"]},
        "member 'weights' is missing",
    ),
    (
        lambda arrays: arrays | {f"more{i}": arrays["bias"] for i in range(60)},
        "it has 69 members, expected at most 64",
    ),
    *(
        (
            changed(name, lambda a, value=value: np.full_like(a, value)),
            f"{name}.npy holds a value that is not",
        )
        for name in (*ARRAYS, *FOURIER_ARRAYS)
        for value in (np.nan, np.inf, -np.inf)
    ),
    (
        lambda arrays: arrays | {f"more{i}": arrays["bias"] for i in range(55)},
        "members that are not expected: 'more0'",
    ),
    (
        lambda arrays: with_config(arrays, fourier_dimension=13),
        "fourier_projection.npy is <f4 of shape (12, 12), expected <f4 of shape (12, 13)",
    ),
    (
        lambda arrays: with_meta(arrays, config=asdict(small_checkpoint().config)),
        "members that are not expected: 'fourier_phase', 'fourier_projection'",
    ),
]


@pytest.mark.parametrize(("change", "reason"), WRONG_MEMBERS, ids=[reason for _, reason in WRONG_MEMBERS])
def test_c10_c11_wrong_member_is_named(
    saved_fourier: Path, change: Callable[[Members], Members], reason: str
) -> None:
    write(saved_fourier, change(members(saved_fourier)))
    message = refusal(saved_fourier)
    assert message.startswith(f"{saved_fourier} is not a valid checkpoint: ")
    assert reason in message


@pytest.mark.parametrize("size", [-4, 4])
def test_member_of_another_size_than_its_header_declares_is_named(saved: Path, size: int) -> None:
    with zipfile.ZipFile(saved) as archive:
        content = archive.read("bias.npy")
    replace_member(saved, "bias", content[:size] if size < 0 else content + bytes(size))
    assert f"bias.npy takes {140 + size} bytes, expected 140" in refusal(saved)


def test_duplicate_member_is_named(saved: Path) -> None:
    with zipfile.ZipFile(saved, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("bias.npy", archive.read("bias.npy"))
    assert "member 'bias.npy' is not an array, or occurs twice" in refusal(saved)


def test_compressed_members_are_refused(saved: Path) -> None:
    arrays = members(saved)
    with open(saved, "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    assert "weights.npy is compressed, expected no compression" in refusal(saved)


@pytest.mark.parametrize(("mark", "offset"), [(b"PK\1\2", 10), (b"PK\1\2", 20)])
def test_members_that_only_claim_to_be_compressed_are_refused(saved: Path, mark: bytes, offset: int) -> None:
    """One of the method of compression and the compressed size is changed in the list of members."""
    content = bytearray(saved.read_bytes())
    content[content.index(mark) + offset] ^= 8
    saved.write_bytes(content)
    assert "weights.npy is compressed, expected no compression" in refusal(saved)


def test_a_number_that_json_does_not_have_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_checkpoint(tmp_path / "model.npz", replace(small_checkpoint(), run={"seconds": math.nan}))
    assert not list(tmp_path.iterdir())


def test_encrypted_members_are_refused(saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    for mark, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(mark) + flags] |= 1
    saved.write_bytes(content)
    assert "weights.npy is encrypted, expected no encryption" in refusal(saved)


def test_flipped_bit_in_any_array_is_detected(saved: Path) -> None:
    content = saved.read_bytes()
    for name in (*ARRAYS, "meta"):
        at = content.index(b"\x93NUMPY", content.index(f"{name}.npy".encode())) + 128
        saved.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        assert f"damaged: Bad CRC-32 for file '{name}.npy'" in refusal(saved)


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
        {"features": "deskew,fourier"},
        {"features": {"kind": "pixels"}},
        {"features": {"kind": 3}},
        {"features": {"kind": "deskew,fourier", "dimension": 10**12}},
        {"preparation": 1},
        {"preparation": "upside down"},
        {"dataset": "mnist"},
        {"dataset": {"name": 1, "digest": ""}},
        {"config": {"epochs": 0}},
        {"config": {"learning_rate": "fast"}},
        {"config": {"features": "rotate"}},
        {"config": []},
        {"temperature": 0},
        {"temperature": 1e300},
        {"temperature": 10**400},
        {"temperature": "1"},
        {"temperature": True},
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
def test_invalid_meta_is_refused(saved_fourier: Path, changes: dict[str, object]) -> None:
    write(saved_fourier, with_meta(members(saved_fourier), **changes))
    assert refusal(saved_fourier).startswith(f"{saved_fourier} is not a ")


def test_temperature_without_calibration_is_refused(saved_fourier: Path) -> None:
    write(saved_fourier, with_config(members(saved_fourier), calibrate=False))
    assert "its temperature is 1.25, but it was not calibrated" in refusal(saved_fourier)


@pytest.mark.parametrize("key", sorted(describe(small_checkpoint()).keys() - {"scores", "l2_path"}))
def test_missing_key_of_meta_is_named(saved: Path, key: str) -> None:
    content = meta(saved)
    del content[key]
    write(saved, with_text(members(saved), json.dumps(content).encode()))
    assert refusal(saved) == f"{saved} is not a valid checkpoint: meta lacks '{key}'"


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"3", b'"format"', b"[]", b"{}", b"{", b"\xff\xfe", b'{"format": NaN}', b'{"format": 1}'],
)
def test_meta_that_is_not_a_description_is_refused(saved: Path, content: bytes) -> None:
    write(saved, with_text(members(saved), content))
    assert refusal(saved).startswith(f"{saved} is not a ")
