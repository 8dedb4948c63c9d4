"""Checkpoints: an uncompressed .npz with a model and the state of training.

Format 2. Members, all float32 in C order unless noted:

- ``weights`` (D, K) and ``bias`` (K,): the model to use. It applies to features of pixels in [0, 1] and gives
  calibrated evidence.
- ``last_weights``, ``last_bias``, ``velocity_weights``, ``velocity_bias``, of the same shapes: the state from
  which training continues.
- For each feature stage, its arrays, called STAGE_ARRAY: ``fourier_projection`` (inputs, D) and
  ``fourier_phase`` (D,).
- Optional, for data sets of digits: ``edges_means`` (K, 200), ``edges_directions`` (200, 40),
  ``edges_variances`` (40,) and ``edges_limits`` (2,), see `softmax_cli.novelty`. All four are there or none.
- ``meta``: UTF-8 JSON in a uint8 array, see `describe`. Values that may differ between two equal runs
  (seconds, versions, threads) are under its key ``run``.

Format 1 differs in two points. It calls the arrays of the stage fourier ``feature_projection`` and
``feature_phase``, and identifies data by a digest of the headers and labels, or of the files of a known data
set; the latter is translated.

Nothing is ever unpickled, and no array is read before its size agrees with the shapes in ``meta``.
"""

import errno
import json
import math
import os
import re
import struct
import sys
import zipfile
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from softmax_cli import __version__
from softmax_cli.backend import cores
from softmax_cli.calibration import COLDEST, HOTTEST
from softmax_cli.config import TrainConfig
from softmax_cli.data.catalog import CATALOG
from softmax_cli.data.dataset import Dataset
from softmax_cli.errors import CheckpointError, ConfigError, reason
from softmax_cli.features import FeatureMap, feature_arrays, restore_features
from softmax_cli.files import atomic_write, open_regular
from softmax_cli.model import Model
from softmax_cli.novelty import Novelty, novelty_arrays, novelty_shapes, restore_novelty
from softmax_cli.regularization import PathPoint
from softmax_cli.training import Epoch, State

FORMAT = 2
META_LIMIT = 1 << 21
"""Largest size of `meta` in bytes; the largest number of epochs takes less."""

DIRECTORY_LIMIT = 1 << 16
"""Largest size of the archive's directory in bytes; that of a checkpoint takes less than 2,000."""

LONGEST_RUN = 1e12
"""Seconds that a run may have taken."""

MEMBER_LIMIT = 64
"""Largest number of members."""

_MODELS = {
    "model": ("weights", "bias"),
    "last": ("last_weights", "last_bias"),
    "velocity": ("velocity_weights", "velocity_bias"),
}
_RETIRED = {"novelty_means", "novelty_directions", "novelty_variances", "novelty_limits"}
"""Members that earlier versions wrote, and that are ignored."""

_FORMAT1_NAMES = {"fourier_projection": "feature_projection", "fourier_phase": "feature_phase"}


@dataclass(frozen=True)
class Checkpoint:
    """A model and its origin.

    Attributes:
        state: The state of training, which includes the model.
        config: The configuration of the run.
        dataset: Name of the data set.
        digest: Digest of its training split, which identifies it.
        image_shape: Rows and columns of its images.
        class_names: One name per class.
        preparation: How a picture becomes an image of the data set: ``digit`` or ``plain``.
        run: What may differ between two equal runs: seconds, versions, threads.
        l2_path: The values of l2 that were tried, each with its validation loss and accuracy, if l2 was
            chosen.
        novelty: How to tell images that are unlike the training images; None if that is not known.
    """

    state: State
    config: TrainConfig
    dataset: str
    digest: str
    image_shape: tuple[int, int]
    class_names: tuple[str, ...]
    preparation: str
    run: dict[str, Any]
    l2_path: tuple[PathPoint, ...] = ()
    novelty: Novelty | None = None

    @classmethod
    def begin(
        cls,
        config: TrainConfig,
        data: Dataset,
        state: State,
        l2_path: tuple[PathPoint, ...] = (),
        novelty: Novelty | None = None,
    ) -> "Checkpoint":
        """Return the checkpoint of a run that starts; it holds the name of the data set, never a path."""
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
            l2_path=l2_path,
            novelty=novelty,
        )

    def advance(self, state: State, seconds: float) -> "Checkpoint":
        """Return the checkpoint after one more epoch, which took `seconds`."""
        run = self.run | {"seconds": self.run.get("seconds", 0.0) + seconds}
        return replace(self, state=state, run=run)


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically.

    At every moment, `path` is either the complete old file or the complete new one.

    Raises:
        OutputError: The file cannot be written; an older file is unchanged.
    """
    meta = json.dumps(describe(checkpoint), allow_nan=False).encode()
    arrays: dict[str, NDArray[Any]] = {}
    for field, names in _MODELS.items():
        arrays |= zip(names, getattr(checkpoint.state, field), strict=True)
    arrays |= feature_arrays(checkpoint.config, checkpoint.state.features)
    if checkpoint.novelty is not None:
        arrays |= novelty_arrays(checkpoint.novelty)
    arrays["meta"] = np.frombuffer(meta, np.uint8)
    with atomic_write(Path(path)) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # mypy takes them for allow_pickle


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read and validate a checkpoint of any format.

    Members, dtypes, shapes and sizes are checked before they are read, and every parameter must be finite.

    Raises:
        CheckpointError: The file is not a checkpoint. The message names the member, what was expected and
            what was found.
    """
    with open_regular(Path(path), CheckpointError) as file:
        try:
            _check_directory(file)
            with zipfile.ZipFile(file) as archive:
                return _Reader(archive, os.fstat(file.fileno()).st_size).checkpoint()
        except CheckpointError as error:
            if isinstance(error.__cause__, OSError):  # the file could not be read
                raise
            raise CheckpointError(f"{path} is not a valid checkpoint: {error}") from error
        except KeyError as error:
            raise CheckpointError(f"{path} is not a valid checkpoint: meta lacks {error}") from error
        except OSError as error:
            if error.errno != errno.EINVAL:  # else a position outside the file: it is damaged
                raise CheckpointError(f"cannot read {path}: {reason(error)}") from error
            raise CheckpointError(f"{path} is not a checkpoint, or is damaged: {error}") from error
        except _BROKEN as error:
            raise CheckpointError(f"{path} is not a checkpoint, or is damaged: {error}") from error


_BROKEN = (
    *(zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, struct.error),
    *(ValueError, KeyError, TypeError, AttributeError, ConfigError),
)
"""Errors of the standard library for damaged archives, and of `_from_meta` for invalid JSON."""


class _Reader:
    """Reads the members of one archive, each checked before it is read."""

    def __init__(self, archive: zipfile.ZipFile, file_size: int):
        self._archive = archive
        self._members = _check_members(archive, file_size)
        self._used: set[str] = set()
        self._format = FORMAT

    def checkpoint(self) -> Checkpoint:
        """Return the checkpoint in the archive, which holds its members and no others."""
        meta = _read_meta(self._archive, self._member("meta"))
        self._format = meta["format"]
        config = _read_config(meta["config"])
        features = restore_features(config, tuple(meta["image_shape"]), self.array)
        if not features.dimension:
            raise CheckpointError("it has no features")
        shapes = (features.dimension, len(meta["class_names"])), (len(meta["class_names"]),)
        models = {
            field: Model(*(self.array(name, shape) for name, shape in zip(names, shapes, strict=True)))
            for field, names in _MODELS.items()
        }
        novelty = self._novelty(meta)
        if foreign := sorted(set(self._members) - self._used - _RETIRED):
            raise CheckpointError(f"it has members that are not expected: {', '.join(map(repr, foreign))}")
        return replace(_from_meta(meta, config, features, models), novelty=novelty)

    def _novelty(self, meta: dict[str, Any]) -> Novelty | None:
        shapes = novelty_shapes(len(meta["class_names"]))
        if not shapes.keys() & self._members.keys():
            return None
        return restore_novelty({name: self.array(name, shape) for name, shape in shapes.items()})

    def array(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return a float32 array after checking its size and header."""
        info = self._member(_FORMAT1_NAMES.get(name, name) if self._format == 1 else name)
        size = _HEADER_SIZE + 4 * math.prod(shape)
        with self._archive.open(info) as member:
            _check_header(member.read(_HEADER_SIZE), info.filename, "<f4", shape)
            if info.file_size != size:
                raise CheckpointError(
                    f"member {info.filename} takes {info.file_size:,} bytes, expected {size:,}"
                )
            array = np.frombuffer(member.read(), "<f4").reshape(shape)  # reading to the end checks the CRC
        if not np.isfinite(array).all():
            raise CheckpointError(f"member {info.filename} holds a value that is not finite")
        return array

    def _member(self, name: str) -> zipfile.ZipInfo:
        if name not in self._members:
            raise CheckpointError(f"member {name!r} is missing")
        self._used.add(name)
        return self._members[name]


def _check_directory(file: BinaryIO) -> None:
    """Raise `CheckpointError` if the list of members is too long to be read.

    `zipfile` itself sets no limit.
    """
    file.seek(-min(22, file.seek(0, os.SEEK_END)), os.SEEK_END)
    end = file.read()  # the last 22 bytes, unless a comment follows, which numpy never writes
    if end[:4] != b"PK\x05\x06":
        raise zipfile.BadZipFile("it does not end as an .npz file does")
    if int.from_bytes(end[12:16], "little") > DIRECTORY_LIMIT:
        raise CheckpointError("its list of members is far too long")


def _check_members(archive: zipfile.ZipFile, file_size: int) -> dict[str, zipfile.ZipInfo]:
    """Return the members by name, without ``.npy``.

    Each member must occur once and must not be compressed.
    """
    infos = archive.infolist()
    if len(infos) > MEMBER_LIMIT:
        raise CheckpointError(f"it has {len(infos):,} members, expected at most {MEMBER_LIMIT}")
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.filename.removesuffix(".npy")
        if name == info.filename or name in members:
            raise CheckpointError(f"member {info.filename!r} is not an array, or occurs twice")
        if info.flag_bits & 1:
            raise CheckpointError(f"member {info.filename} is encrypted, expected no encryption")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise CheckpointError(f"member {info.filename} is compressed, expected no compression")
        if info.file_size > file_size:
            raise CheckpointError(
                f"member {info.filename} claims {info.file_size:,} bytes, expected at most {file_size:,}"
            )
        members[name] = info
    return members


def _read_meta(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> dict[str, Any]:
    """Return the JSON in `meta`; check the parts that determine the arrays."""
    if info.file_size > META_LIMIT:
        raise CheckpointError(
            f"member {info.filename} takes {info.file_size:,} bytes, expected at most {META_LIMIT:,}"
        )
    with archive.open(info) as member:
        shape = (info.file_size - _HEADER_SIZE,)
        _check_header(member.read(_HEADER_SIZE), info.filename, "|u1", shape)
        meta = json.loads(member.read(), parse_constant=_finite, parse_float=_finite)
    found = meta["format"]
    if type(found) is not int or found < 1:
        raise CheckpointError(f"its format is {found!r}, expected a number from 1 to {FORMAT}")
    if found > FORMAT:
        raise CheckpointError(
            f"its format is {found!r}, and this version reads formats up to {FORMAT}; "
            "it was written by a newer version: upgrade softmax-regression"
        )
    rows, columns = meta["image_shape"]
    names = meta["class_names"]
    if not (type(rows) is type(columns) is int and min(rows, columns) > 0):
        raise CheckpointError(f"its image shape is {rows!r} x {columns!r}, expected two positive integers")
    if not (type(names) is list and len(names) > 1 and all(type(name) is str for name in names)):
        raise CheckpointError("its class names are not a list of at least two strings")
    if len(set(names)) < len(names):
        raise CheckpointError("two of its classes have the same name")
    return dict(meta)


_HEADER_SIZE = 128
"""Bytes before the values in an .npy member: numpy pads the header of a small array to 128."""

_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00v\x00"
    rb"\{'descr': '([^']{2,8})', 'fortran_order': (False|True), 'shape': \(([\d, ]*)\), \} *\n"
)


def _check_header(head: bytes, name: str, descr: str, shape: tuple[int, ...]) -> None:
    """Raise `CheckpointError` unless an .npy header declares this dtype and shape.

    The array must be in C order.
    """
    match = _HEADER.fullmatch(head)
    if not match:
        raise CheckpointError(f"member {name} has no valid array header (.npy format 1.0)")
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
    """Return the content of `meta`: the description of a checkpoint as plain values."""
    state, features = checkpoint.state, checkpoint.state.features
    return {
        "format": FORMAT,
        "dataset": {"name": checkpoint.dataset, "digest": checkpoint.digest},
        "image_shape": checkpoint.image_shape,
        "class_names": checkpoint.class_names,
        "preparation": checkpoint.preparation,
        "features": {"kind": checkpoint.config.features, "dimension": features.dimension},
        "temperature": state.temperature,
        "config": asdict(checkpoint.config),
        "l2_path": [point._asdict() for point in checkpoint.l2_path],
        "epoch": state.epoch,
        "best_epoch": state.best_epoch,
        "stale": state.stale,
        "history": [epoch._asdict() for epoch in state.history],
        "scores": state.history[state.best_epoch - 1]._asdict() if state.best_epoch else None,
        "run": checkpoint.run,
    }


def _read_config(values: dict[str, Any]) -> TrainConfig:
    known = {field.name for field in fields(TrainConfig)}
    if unknown := sorted(set(values) - known):
        raise CheckpointError(
            f"its config has the option {unknown[0]!r}, which this version does not know: "
            "upgrade softmax-regression"
        )
    try:
        config = TrainConfig(**values)
    except ConfigError as error:
        raise CheckpointError(f"its config is not valid in this version: {error}") from error
    if config.chooses_l2:
        raise CheckpointError("its l2 is not a number")
    return config


def _from_meta(
    meta: dict[str, Any], config: TrainConfig, features: FeatureMap, models: dict[str, Model]
) -> Checkpoint:
    if TrainConfig(features=_text(meta["features"]["kind"])).features != config.features:
        raise ValueError("its features are not those of its config")
    if meta["features"].get("dimension", features.dimension) != features.dimension:
        raise ValueError("its number of features is not that of its arrays")
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
    _check_epochs(state)
    preparation = _text(meta["preparation"])
    if preparation not in ("digit", "plain"):
        raise ValueError(f"its pictures are prepared as {preparation!r}, expected 'digit' or 'plain'")
    return Checkpoint(
        state=state,
        config=config,
        dataset=_text(meta["dataset"]["name"]),
        digest=_digest(meta),
        image_shape=(meta["image_shape"][0], meta["image_shape"][1]),
        class_names=tuple(meta["class_names"]),
        preparation=preparation,
        run=_run(meta["run"]),
        l2_path=tuple(map(_path_point, meta.get("l2_path", ()))),
    )


def _digest(meta: dict[str, Any]) -> str:
    """Return the digest of the data set; translate known digests of format 1."""
    digest = _text(meta["dataset"]["digest"])
    if not re.fullmatch("[0-9a-f]{64}", digest):
        raise ValueError("the digest of its data set is not a SHA-256")
    if meta["format"] == 1:
        translated = {entry.format1_digest: entry.digest for entry in CATALOG.values()}
        return translated.get(digest, digest)
    return digest


def _epoch(values: Any) -> Epoch:
    """Return one record of the history.

    Its values are finite numbers, or None if they may be unknown.
    """
    epoch = Epoch(**values)
    if not all(_is_number(value) for value in (epoch.epoch, epoch.train_loss, epoch.learning_rate)):
        raise TypeError("its history has an epoch without its loss or its learning rate")
    if not all(value is None or _is_number(value) for value in epoch):
        raise TypeError("its history has a value that is not a finite number")
    if (epoch.validation_loss is None) != (epoch.validation_accuracy is None):
        raise TypeError("its history has a validation loss or a validation accuracy, but not both")
    if min(epoch.train_loss, epoch.learning_rate, epoch.validation_loss or 0) < 0:
        raise ValueError("its history has a loss or a learning rate below 0")
    if not 0 <= (epoch.validation_accuracy or 0) <= 1:
        raise ValueError("its history has an accuracy that is not from 0 to 1")
    return epoch


def _path_point(values: Any) -> PathPoint:
    point = PathPoint(**values)
    if not all(_is_number(value) for value in point):
        raise TypeError("its path of l2 holds something that is not a number")
    return point


def _check_epochs(state: State) -> None:
    """Raise `ValueError` unless the epochs of a state agree with each other and with its history."""
    numbers = [(type(epoch.epoch), epoch.epoch) for epoch in state.history]
    if len(numbers) != state.epoch or numbers != [(int, i + 1) for i in range(len(numbers))]:
        raise ValueError("its epochs do not agree with its history")
    if state.best_epoch + state.stale != state.epoch or (state.epoch and not state.best_epoch):
        raise ValueError("its best epoch does not agree with its number of epochs")
    if len({epoch.validation_loss is None for epoch in state.history}) > 1:
        raise ValueError("its history has validation losses for some epochs only")


def _run(values: Any) -> dict[str, Any]:
    """Return the information about the run: finite seconds, versions as strings."""
    run: dict[str, Any] = {"seconds": 0.0} | dict(values)
    if not (_is_number(run["seconds"]) and 0 <= run["seconds"] <= LONGEST_RUN):
        raise TypeError(f"the seconds of its run are not a number from 0 to {LONGEST_RUN:g}")
    versions = run.get("versions", {})
    if type(versions) is not dict:
        raise TypeError("the versions of its run are not an object")
    for name, version in versions.items():
        _text(name), _text(version)
    return run


def _is_number(value: Any) -> bool:
    """Return whether a value from JSON is a number that float64 can hold."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError(f"{value!r} is not a whole number")
    return value


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError(f"{value!r} is not a text")
    return value
