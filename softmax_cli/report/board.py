"""The model in the page, with which the script classifies what is on the board, if its arrays fit.

Numbers are float32 if the page has room for them, else whole numbers of 16 bits times a unit: the largest
magnitude in the array divided by 32,767. Each is then off by at most half a unit.
"""

import base64
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softmax_cli.checkpoint import Checkpoint
from softmax_cli.explanation import POINTS

PAGE_LIMIT = 1_500_000
"""Bytes that a page may have."""

NAMES = 5_000
"""Bytes for the names of arrays and the points of the path."""

Array = NDArray[np.float32]


def describe_model(checkpoint: Checkpoint, room: int) -> dict[str, Any] | str:
    """Return the model as plain values that take at most `room` bytes as JSON, or why there is no room."""
    state = checkpoint.state
    stages: dict[str, dict[str, Array]] = {}
    numbers = state.model.weights.size
    for name, stage in zip(checkpoint.config.stages, state.features.stages, strict=True):
        arrays = stage.browser_arrays()
        if arrays is None:
            return f"The page does not compute the feature stage {name}."
        stages[name] = arrays
        numbers += sum(array.size for array in arrays.values())
    for encode, size in ((as_float32, 4), (as_int16, 2)):
        needed = NAMES + numbers * size * 4 // 3
        if needed <= room:
            return _described(checkpoint, stages, encode)
    return (
        f"The {state.features.title} of this model need arrays of {needed / 1e6:.2f} MB with 16 bits a "
        f"number; a page of at most {PAGE_LIMIT / 1e6:.1f} MB has room for {max(room, 0) / 1e6:.2f} MB."
    )


def _described(
    checkpoint: Checkpoint, stages: dict[str, dict[str, Array]], encode: Callable[[Array], dict[str, Any]]
) -> dict[str, Any]:
    nodes, weights = np.polynomial.legendre.leggauss(POINTS)
    return {
        "stages": [
            {"name": name, "arrays": {key: encode(array) for key, array in arrays.items()}}
            for name, arrays in stages.items()
        ],
        "weights": encode(checkpoint.state.model.weights),
        "gain": checkpoint.state.features.gain,
        "path": list(zip(((nodes + 1) / 2).tolist(), weights.tolist(), strict=True)),
    }


def as_float32(array: Array) -> dict[str, Any]:
    """Return an array as the text of its numbers in float32."""
    return {"text": base64_of(array.astype("<f4")), "unit": None}


def as_int16(array: Array) -> dict[str, Any]:
    """Return an array as the text of whole numbers of 16 bits, and the unit by which they are multiplied."""
    unit = float(np.abs(array).max()) / (2**15 - 1) or 1.0
    return {"text": base64_of(np.rint(array / unit).astype("<i2")), "unit": unit}


def base64_of(array: NDArray[Any]) -> str:
    """Return the bytes of an array as base64 text."""
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
