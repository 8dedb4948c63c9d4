"""The page itself: everything in one HTML file that asks nobody for anything.

Its Content-Security-Policy allows images that are in the page and the one script and the one style that
are, by their digests; whatever a class name may try, nothing else runs and nothing is fetched.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from softmax_cli.checkpoint import Checkpoint, describe
from softmax_cli.data.catalog import CATALOG, usual_accuracy
from softmax_cli.data.dataset import Dataset
from softmax_cli.features import evidence_of, prepare
from softmax_cli.image import encode_png
from softmax_cli.report.charts import reliability_diagram, training_curves
from softmax_cli.report.findings import Findings, Mistake

if TYPE_CHECKING:
    from jinja2 import Environment

SCRIPTS = ("mathematics.js", "picture.js", "board.js", "steps.js", "confusion.js")
"""The page's script, in the order in which its parts build on each other."""

MOST_CONFIDENT = 40
PER_CELL = 12
"""Mistakes that are shown of all, and of each cell of the confusion matrix."""

ATLAS_COLUMNS = 16
"""Pictures side by side in the one that holds those of all cells."""

ATLAS_LIMIT, MISTAKES_LIMIT, CLASSES_LIMIT, BOARD_LIMIT = 130_000, 60_000, 120_000, 190_000
"""Bytes for the pictures of the cells, of the most confident mistakes, of the classes, and for the board.

All in all, and half as much again for writing them as text, this keeps the page under a megabyte.
"""

MATRIX_LIMIT = 50
"""Classes that the confusion matrix is shown of; for more, the most frequent confusions are."""

FREQUENT = 60
"""Confusions that are shown where the matrix is not."""

SLIDERS = 10
"""Classes that softmax, step by step, has sliders for, at most."""

FOR, AGAINST = (29, 95, 209), (200, 40, 40)
"""Blue and red, for weights above and below zero."""


def render(checkpoint: Checkpoint, data: Dataset, findings: Findings) -> str:
    """Return the report on a model as one HTML document; class names are shown as they are, as text."""
    script, style = "\n".join(map(_static, SCRIPTS)), _static("report.css")
    page = _environment().get_template("report.html")
    values = _page_data(checkpoint, data, findings)
    return page.render(
        policy=_policy(script, style),
        script=script,
        style=style,
        data=_embed(values),
        about=_about(checkpoint, data, findings),
        classes=checkpoint.class_names,
        scores=findings.scores,
        charts=_charts(checkpoint, findings),
        confusion=_confusion(findings, values["cells"]),
        frequent=findings.scores.worst_confusions(FREQUENT),
        cells=values["cells"],
        per_class=list(zip(checkpoint.class_names, findings.scores.per_class(), strict=True)),
        pictures=_class_pictures(checkpoint, findings),
        mistakes=_mistakes(findings, data),
        board=_why_no_board(checkpoint, data),
        sliders=min(SLIDERS, len(checkpoint.class_names)),
        adds_up=checkpoint.state.features.projection is None,
    )


def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("softmax_cli.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "data_uri": _data_uri}
    return environment


def _percent(rate: float, digits: int = 2) -> str:
    return f"{100 * rate:.{digits}f}\N{NO-BREAK SPACE}%"


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _static(name: str) -> str:
    return (resources.files("softmax_cli.report") / "static" / name).read_text(encoding="utf-8")


def _policy(script: str, style: str) -> str:
    """Return the Content-Security-Policy that lets these two run, and images in the page be seen."""
    script_digest, style_digest = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (script, style)
    )
    return (
        f"default-src 'none'; img-src data:; script-src 'sha256-{script_digest}'; "
        f"style-src 'sha256-{style_digest}'; base-uri 'none'; form-action 'none'"
    )


def _embed(values: Any) -> str:
    """Return values as JSON that no HTML parser can take for anything else."""
    return json.dumps(values, allow_nan=False).replace("<", "\\u003c")


def _about(checkpoint: Checkpoint, data: Dataset, findings: Findings) -> dict[str, Any]:
    """Return what was trained on what, how, and whether the result is as usual."""
    meta, features = describe(checkpoint), checkpoint.state.features
    known = CATALOG.get(data.name)
    run = meta["run"]
    versions = run.get("versions", {})
    return {
        "dataset": known.title if known and known.digest == data.digest else data.name,
        "trained_on": checkpoint.dataset,
        "is_other_data": data.digest != checkpoint.digest,
        "features": features.title,
        "temperature": meta["temperature"],
        "epochs": f"{meta['epoch']} of {meta['config']['epochs']}, weights of epoch {meta['best_epoch']}",
        "seconds": run.get("seconds", 0.0),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "digest": data.digest[:12],
        "config": [
            (key, value) for key, value in meta["config"].items() if key != "dataset" and value is not None
        ],
        "reference": None
        if data.digest != checkpoint.digest
        else usual_accuracy(data.name, data.digest, features.kind, features.dimension),
        "images": findings.scores.images,
    }


def _charts(checkpoint: Checkpoint, findings: Findings) -> dict[str, Any]:
    history = checkpoint.state.history
    return {
        "training": training_curves(history, checkpoint.state.best_epoch) if history else None,
        "reliability": reliability_diagram(findings.scores.reliability(), findings.scores.ece),
    }


def _confusion(findings: Findings, cells: dict[str, list[Any]]) -> list[list[dict[str, Any]]] | None:
    """Return the cells of the confusion matrix, each with its shade from 0 to 9, or None if too many."""
    confusion = findings.scores.confusion
    if len(confusion) > MATRIX_LIMIT:
        return None
    errors = confusion - np.diag(np.diag(confusion))
    most = max(int(errors.max()), 1)
    return [
        [
            {
                "count": int(confusion[i, j]),
                "shade": 0 if i == j else int(np.ceil(9 * np.sqrt(errors[i, j] / most))),
                "right": i == j,
                "opens": f"{i},{j}" in cells,
            }
            for j in range(len(confusion))
        ]
        for i in range(len(confusion))
    ]


def _class_pictures(checkpoint: Checkpoint, findings: Findings) -> list[dict[str, Any]]:
    """Return, for each class, its mean image and, where it has one, the picture of its weights."""
    state, shape = checkpoint.state, checkpoint.image_shape
    scale = max(float(np.abs(state.model.weights).max()), 1e-30)
    images = findings.scores.confusion.sum(axis=1)
    pictures, room = [], CLASSES_LIMIT
    for index, mean in enumerate(findings.means):
        one: dict[str, Any] = {"class": index, "mean": None, "weights": None}
        if images[index]:
            one["mean"] = encode_png(np.rint(mean).astype(np.uint8))
        if state.features.projection is None:
            one["weights"] = encode_png(signed_pixels(state.model.weights[:, index].reshape(shape) / scale))
        room -= sum(len(one[kind] or b"") for kind in ("mean", "weights"))
        if room < 0:
            break
        pictures.append(one | {"bias": float(state.model.bias[index])})
    return pictures


def signed_pixels(strength: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Return values in [-1, 1] as pixels (rows, cols, 4): blue above zero, red below, clear at zero."""
    pixels = np.empty((*strength.shape, 4), np.uint8)
    pixels[..., :3] = np.where(strength[..., None] > 0, FOR, AGAINST)
    pixels[..., 3] = np.rint(255 * np.abs(strength))
    return pixels


def _mistakes(findings: Findings, data: Dataset) -> list[dict[str, Any]]:
    shown, room = [], MISTAKES_LIMIT
    for mistake in findings.most_confident(MOST_CONFIDENT):
        picture = encode_png(np.asarray(data.images[mistake.image]))
        room -= len(picture)
        if room < 0:
            break
        shown.append({"picture": picture, **mistake._asdict()})
    return shown


def _why_no_board(checkpoint: Checkpoint, data: Dataset) -> str | None:
    """Return why the board is not in the page, or None where it is."""
    state = checkpoint.state
    if state.features.projection is not None:
        return (
            f"This model weighs {state.features.title}, and their projection, "
            f"{state.features.projection.nbytes / 1e6:,.0f} MB, is too large for a page. "
            "Models of pixels, deskewed or not, have a board."
        )
    size = state.model.weights.nbytes + len(checkpoint.class_names) * data.images[0].nbytes
    if size > BOARD_LIMIT:
        return f"The weights and a sample of each class, {size / 1e6:.1f} MB, are too large for a page."
    return None


def _page_data(checkpoint: Checkpoint, data: Dataset, findings: Findings) -> dict[str, Any]:
    """Return what the script works with."""
    state = checkpoint.state
    images = np.stack([np.asarray(data.images[index]) for index in findings.samples])
    atlas, cells = _atlas(findings, data)
    first = evidence_of(state.model, state.features, prepare(state.features, images[:1]))[0]
    has_board = _why_no_board(checkpoint, data) is None
    return {
        "classes": checkpoint.class_names,
        "shape": checkpoint.image_shape,
        "preparation": checkpoint.preparation,
        "deskewed": state.features.deskewed,
        "weights": _base64(state.model.weights.astype("<f4")) if has_board else None,
        "bias": state.model.bias.tolist(),
        "samples": [
            {"label": int(data.labels[index]), "pixels": _base64(image)}
            for index, image in zip(findings.samples, images, strict=True)
        ]
        if has_board
        else [],
        "evidence": np.round(first.astype(float), 1).tolist(),
        "target": int(data.labels[findings.samples[0]]),
        "atlas": _data_uri(atlas, "png") if atlas else None,
        "atlasColumns": ATLAS_COLUMNS,
        "cells": cells,
    }


def _base64(array: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def _atlas(findings: Findings, data: Dataset) -> tuple[bytes | None, dict[str, list[Any]]]:
    """Return one picture with the images of the cells, `ATLAS_COLUMNS` side by side, and what is where.

    As many of each cell as `PER_CELL`, or fewer, so that the picture stays within `ATLAS_LIMIT`; where one
    of each is too much, of the cells with the most confident mistakes.
    """
    for count in (PER_CELL, 8, 5, 3, 2, 1):
        cells = findings.by_cell(count)
        shown = [mistake for cell in cells.values() for mistake in cell]
        picture = _tiled(shown, data)
        if len(picture) <= ATLAS_LIMIT:
            break
    while len(picture) > ATLAS_LIMIT:
        shown = shown[: len(shown) * ATLAS_LIMIT // (len(picture) + 1)]
        picture = _tiled(shown, data)
    places: dict[str, list[Any]] = {}
    for at, one in enumerate(shown):
        entry = [at, one.image, one.probability, one.true_probability]
        places.setdefault(f"{one.true},{one.guess}", []).append(entry)
    return picture or None, places


def _tiled(mistakes: Sequence[Mistake], data: Dataset) -> bytes:
    if not mistakes:
        return b""
    rows, columns = data.image_shape
    lines = -(-len(mistakes) // ATLAS_COLUMNS)
    tiles = np.zeros((lines * ATLAS_COLUMNS, rows, columns), np.uint8)
    tiles[: len(mistakes)] = data.images[[mistake.image for mistake in mistakes]]
    grid = tiles.reshape(lines, ATLAS_COLUMNS, rows, columns).swapaxes(1, 2)
    return encode_png(grid.reshape(lines * rows, ATLAS_COLUMNS * columns))
