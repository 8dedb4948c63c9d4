"""Checkpoints: one uncompressed .npz that holds a model, what it was trained on, and how to go on.

Format 1. Members `weights` float32 (D, K) and `bias` float32 (K,), the model to use, on features of
pixels in [0, 1]; `last_weights`, `last_bias`, `velocity_weights`, `velocity_bias` of the same shapes, from
which training goes on; for Fourier features `feature_projection` float32 (pixels, D) and `feature_phase`
float32 (D,); `meta`, UTF-8 JSON in a uint8 array. Nothing is ever unpickled, and nothing larger than the
shapes in `meta` allow is ever read.
"""

import json
import math
import os
import re
import sys
import zipfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from softmax_cli import __version__
from softmax_cli.calibration import COLDEST, HOTTEST
from softmax_cli.config import TrainConfig
from softmax_cli.data.dataset import Dataset
from softmax_cli.errors import CheckpointError, ConfigError
from softmax_cli.features import FeatureMap, fourier, pixels
from softmax_cli.files import atomic_write, open_regular
from softmax_cli.model import Model
from softmax_cli.parallel import cores
from softmax_cli.training import Epoch, State

FORMAT = 1
META_LIMIT = 1 << 21
"""Bytes that `meta` may take; five thousand epochs, the most there can be, take less."""

DIRECTORY_LIMIT = 1 << 16
"""Bytes that the archive's list of members may take; that of a checkpoint takes less than a thousand."""

_MODELS = {"model": ("weights", "bias"), "last": ("last_weights", "last_bias")}
_MODELS["velocity"] = ("velocity_weights", "velocity_bias")
_ARRAYS = tuple(name for pair in _MODELS.values() for name in pair)
_FEATURES = ("feature_projection", "feature_phase")


@dataclass(frozen=True)
class Checkpoint:
    """A model with what it knows of itself.

    `dataset` and `digest` say what it was trained on, `preparation` how a picture becomes one of its
    images. `run` holds what may differ between two equal runs: seconds, versions, threads.
    """

    state: State
    config: TrainConfig
    dataset: str
    digest: str
    image_shape: tuple[int, int]
    class_names: tuple[str, ...]
    preparation: str
    run: dict[str, Any]

    @classmethod
    def begin(cls, config: TrainConfig, data: Dataset, state: State) -> "Checkpoint":
        """Return the checkpoint of a run that starts: it names the data set, never a path."""
        versions = {"softmax_cli": __version__, "numpy": np.__version__, "python": sys.version.split()[0]}
        return cls(
            state=state,
            config=replace(config, dataset=data.name),
            dataset=data.name,
            digest=data.digest,
            image_shape=data.image_shape,
            class_names=data.class_names,
            preparation=data.preparation,
            run={"seconds": 0.0, "versions": versions, "threads": cores()},
        )

    def advance(self, state: State, seconds: float) -> "Checkpoint":
        """Return the checkpoint after one more epoch, which took so many seconds."""
        run = self.run | {"seconds": self.run.get("seconds", 0.0) + seconds}
        return replace(self, state=state, run=run)


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint so that `path` is, at every moment, the old file or the new one, whole.

    Raises `OutputError` where it cannot be written; the old file is then still there.
    """
    meta = json.dumps(describe(checkpoint), allow_nan=False).encode()
    arrays: dict[str, NDArray[Any]] = {}
    for field, names in _MODELS.items():
        arrays |= zip(names, getattr(checkpoint.state, field), strict=True)
    features = checkpoint.state.features
    if features.projection is not None and features.phase is not None:
        arrays |= zip(_FEATURES, (features.projection, features.phase), strict=True)
    arrays["meta"] = np.frombuffer(meta, np.uint8)
    with atomic_write(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # mypy takes them for allow_pickle


def load(path: Path) -> Checkpoint:
    """Read a checkpoint, believing nothing in it before it is checked.

    Members, dtypes, shapes and sizes are checked before they are read, and every weight must be finite.
    Raises `CheckpointError` naming the member, what was expected and what was found.
    """
    with open_regular(path, CheckpointError) as file:
        try:
            _check_directory(file)
            with zipfile.ZipFile(file) as archive:
                return _read(archive, os.fstat(file.fileno()).st_size)
        except CheckpointError as error:
            raise CheckpointError(f"{path} is not a checkpoint that can be used: {error}") from error
        except KeyError as error:
            raise CheckpointError(
                f"{path} is not a checkpoint that can be used: meta lacks {error}"
            ) from error
        except _BROKEN as error:
            raise CheckpointError(f"{path} is not a checkpoint, or is damaged: {error}") from error


_BROKEN = (
    *(zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError),
    *(ValueError, KeyError, TypeError, AttributeError, ConfigError),
)
"""What the standard library raises on damaged archives, and `_from_meta` on JSON of another shape."""


def _read(archive: zipfile.ZipFile, file_size: int) -> Checkpoint:
    members = _check_members(archive, file_size)
    meta = _read_meta(archive, members["meta"])
    features = _read_features(archive, members, meta)
    classes = len(meta["class_names"])
    models = {
        field: Model(
            _read_weights(archive, members[weights], (features.dimension, classes)),
            _read_weights(archive, members[bias], (classes,)),
        )
        for field, (weights, bias) in _MODELS.items()
    }
    return _from_meta(meta, features, models)


def _read_features(
    archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], meta: dict[str, Any]
) -> FeatureMap:
    """Return the features that `meta` names, with the arrays that belong to them."""
    kind, image_shape = meta["features"]["kind"], tuple(meta["image_shape"])
    has_arrays = _FEATURES[0] in members
    if kind not in ("pixels", "deskew", "fourier") or has_arrays != (kind == "fourier"):
        raise CheckpointError(
            f"its features are {kind!r} with {len(members)} members, expected 'pixels' or 'deskew' with "
            f"{len(_ARRAYS) + 1}, or 'fourier' with {len(_ARRAYS) + 3}"
        )
    if not has_arrays:
        return pixels(image_shape, kind == "deskew")
    dimension = _whole(meta["features"]["dimension"])
    if not dimension:
        raise CheckpointError("it has no features")
    projection, phase = _FEATURES
    return fourier(
        _read_weights(archive, members[projection], (math.prod(image_shape), dimension)),
        _read_weights(archive, members[phase], (dimension,)),
    )


def _check_directory(file: BinaryIO) -> None:
    """Raise `CheckpointError` for a list of members that is too long to be read: `zipfile` takes any."""
    file.seek(-min(22, file.seek(0, os.SEEK_END)), os.SEEK_END)
    end = file.read()  # the last 22 bytes, unless a comment follows, which numpy never writes
    if end[:4] != b"PK\x05\x06":
        raise zipfile.BadZipFile("it does not end as an .npz file does")
    if int.from_bytes(end[12:16], "little") > DIRECTORY_LIMIT:
        raise CheckpointError("its list of members is far too long")


def _check_members(archive: zipfile.ZipFile, file_size: int) -> dict[str, zipfile.ZipInfo]:
    """Return the members by name; they must be exactly those of the format, stored as they are."""
    infos = archive.infolist()
    found = sorted(info.filename for info in infos[:20])  # a few more than there may be
    features = _FEATURES if any(name.startswith("feature_") for name in found) else ()
    expected = sorted(f"{name}.npy" for name in (*_ARRAYS, *features, "meta"))
    if found != expected:
        differences = {
            "missing": sorted(set(expected) - set(found)),
            "foreign": sorted(set(found) - set(expected))[:3],
            "there twice": sorted({name for name in found if found.count(name) > 1}),
        }
        what = "; ".join(
            f"{word}: {', '.join(map(repr, names))}" for word, names in differences.items() if names
        )
        names = ", ".join(name.removesuffix(".npy") for name in expected)
        raise CheckpointError(f"its members are not {names} ({what})")
    for info in infos:
        if info.flag_bits & 1:
            raise CheckpointError(f"member {info.filename} is encrypted, expected stored as it is")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise CheckpointError(f"member {info.filename} is compressed, expected stored as it is")
        if info.file_size > file_size:
            raise CheckpointError(
                f"member {info.filename} claims {info.file_size:,} bytes, expected at most {file_size:,}"
            )
    return {info.filename.removesuffix(".npy"): info for info in infos}


def _read_meta(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> dict[str, Any]:
    """Return the JSON in `meta`, with the parts that decide about the arrays checked."""
    if info.file_size > META_LIMIT:
        raise CheckpointError(
            f"member {info.filename} takes {info.file_size:,} bytes, expected at most {META_LIMIT:,}"
        )
    with archive.open(info) as member:
        shape = (info.file_size - _HEADER_SIZE,)
        _check_header(member.read(_HEADER_SIZE), info.filename, "|u1", shape)
        meta = json.loads(member.read(), parse_constant=_finite, parse_float=_finite)
    found = meta["format"]
    if type(found) is not int or not 1 <= found <= FORMAT:
        raise CheckpointError(
            f"its format is {found!r}, and this version reads up to {FORMAT}; "
            "a newer version of softmax wrote it: upgrade this one"
        )
    rows, columns = meta["image_shape"]
    names = meta["class_names"]
    if not (type(rows) is type(columns) is int and min(rows, columns) > 0):
        raise CheckpointError(
            f"its image shape is {rows!r} x {columns!r}, expected two positive whole numbers"
        )
    if not (type(names) is list and len(names) > 1 and all(type(name) is str for name in names)):
        raise CheckpointError("its class names are not a list of two texts or more")
    if len(set(names)) < len(names):
        raise CheckpointError("two of its classes have the same name")
    return dict(meta)


def _read_weights(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Return one float32 array, read only after its size and its header were found right."""
    size = _HEADER_SIZE + 4 * math.prod(shape)
    with archive.open(info) as member:
        _check_header(member.read(_HEADER_SIZE), info.filename, "<f4", shape)
        if info.file_size != size:
            raise CheckpointError(f"member {info.filename} takes {info.file_size:,} bytes, expected {size:,}")
        array = np.frombuffer(member.read(), "<f4").reshape(shape)  # reading to the end checks the CRC
    if not np.isfinite(array).all():
        raise CheckpointError(f"member {info.filename} holds a value that is not finite")
    return array


_HEADER_SIZE = 128
"""Bytes before the values in an .npy member: numpy pads the header of a small array to 128."""

_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00v\x00"
    rb"\{'descr': '([^']{2,8})', 'fortran_order': (False|True), 'shape': \(([\d, ]*)\), \} *\n"
)


def _check_header(head: bytes, name: str, descr: str, shape: tuple[int, ...]) -> None:
    """Raise `CheckpointError` unless an .npy header declares this dtype and shape, in C order."""
    match = _HEADER.fullmatch(head)
    if not match:
        raise CheckpointError(f"member {name} does not start as an array of numbers does (format 1.0)")
    found = (
        f"{match[1].decode()} of shape ({match[3].decode()}){', in Fortran order' * (match[2] == b'True')}"
    )
    expected = f"{descr} of shape {shape}"
    if found != expected:
        raise CheckpointError(f"member {name} is {found}, expected {expected}")


def _finite(number: str) -> float:
    if not math.isfinite(float(number)):
        raise ValueError(f"meta holds {number}")
    return float(number)


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return all that a checkpoint says of itself, as plain values: the content of `meta`."""
    state = checkpoint.state
    features = state.features
    return {
        "format": FORMAT,
        "dataset": {"name": checkpoint.dataset, "digest": checkpoint.digest},
        "image_shape": checkpoint.image_shape,
        "class_names": checkpoint.class_names,
        "preparation": checkpoint.preparation,
        "features": {"kind": features.kind}
        | ({"dimension": features.dimension} if features.kind == "fourier" else {}),
        "temperature": state.temperature,
        "config": asdict(checkpoint.config),
        "epoch": state.epoch,
        "best_epoch": state.best_epoch,
        "stale": state.stale,
        "history": [epoch._asdict() for epoch in state.history],
        "scores": state.history[state.best_epoch - 1]._asdict() if state.best_epoch else None,
        "run": checkpoint.run,
    }


def _from_meta(meta: dict[str, Any], features: FeatureMap, models: dict[str, Model]) -> Checkpoint:
    config = TrainConfig(**meta["config"])
    if (config.features, config.fourier_dimension or features.dimension) != (
        features.kind,
        features.dimension,
    ):
        raise ValueError("its features are not those of its config")
    temperature = meta["temperature"]
    if type(temperature) not in (int, float) or not 0.99 * COLDEST < temperature < 1.01 * HOTTEST:
        raise ValueError(f"its temperature is not a number from {COLDEST} to {HOTTEST}")
    if temperature != 1 and not config.calibrate:
        raise ValueError(f"its temperature is {temperature}, but it was not calibrated")
    state = State(
        features=features,
        temperature=float(temperature),
        epoch=_whole(meta["epoch"]),
        best_epoch=_whole(meta["best_epoch"]),
        stale=_whole(meta["stale"]),
        history=tuple(map(_epoch, meta["history"])),
        **models,
    )
    if not state.best_epoch <= state.epoch == len(state.history):
        raise ValueError("its epochs do not agree with its history")
    preparation = _text(meta["preparation"])
    if preparation not in ("digit", "plain"):
        raise ValueError(f"its pictures are prepared as {preparation!r}, expected 'digit' or 'plain'")
    return Checkpoint(
        state=state,
        config=config,
        dataset=_text(meta["dataset"]["name"]),
        digest=_text(meta["dataset"]["digest"]),
        image_shape=(meta["image_shape"][0], meta["image_shape"][1]),
        class_names=tuple(meta["class_names"]),
        preparation=preparation,
        run=_run(meta["run"]),
    )


def _epoch(values: Any) -> Epoch:
    """Return one entry of the history; every value of it is a number, or None where that may be unknown."""
    epoch = Epoch(**values)
    known = (epoch.epoch, epoch.train_loss, epoch.learning_rate)
    if not all(type(value) in (int, float) for value in known):
        raise TypeError("its history holds an epoch without its loss or its learning rate")
    if not all(value is None or type(value) in (int, float) for value in epoch):
        raise TypeError("its history holds something that is not a number")
    return epoch


def _run(values: Any) -> dict[str, Any]:
    """Return what is known of the run itself; seconds are a number, versions texts."""
    run = dict(values)
    if type(run.get("seconds", 0)) not in (int, float):
        raise TypeError("the seconds of its run are not a number")
    for name, version in dict(run.get("versions", {})).items():
        _text(name), _text(version)
    return run


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError(f"{value!r} is not a whole number")
    return value


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError(f"{value!r} is not a text")
    return value
