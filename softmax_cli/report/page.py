"""The page itself: everything in one HTML file that asks nobody for anything.

Its Content-Security-Policy allows images that are in the page and the one script and the one style that
are, by their digests; whatever a class name may try, nothing else runs and nothing is fetched.
"""

import base64
import hashlib
import json
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from softmax_cli.checkpoint import Checkpoint, describe
from softmax_cli.data.catalog import CATALOG, compare_accuracy, usual_accuracy
from softmax_cli.data.dataset import Dataset
from softmax_cli.features import evidence_of
from softmax_cli.report import pictures
from softmax_cli.report.charts import reliability_diagram, training_curves
from softmax_cli.report.findings import Findings

if TYPE_CHECKING:
    from jinja2 import Environment

SCRIPTS = ("mathematics.js", "picture.js", "board.js", "steps.js", "confusion.js")
"""The page's script, in the order in which its parts build on each other."""

MATRIX_LIMIT = 50
"""Classes that the confusion matrix is shown of; for more, the most frequent confusions are."""

FREQUENT = 60
"""Confusions that are shown where the matrix is not."""

SLIDERS = 10
"""Classes that softmax, step by step, has sliders for, at most."""

BOARD_LIMIT = 190_000
"""Bytes that the weights and a sample of each class may take for the board to be in the page."""


def render(checkpoint: Checkpoint, data: Dataset, findings: Findings) -> str:
    """Return the report on a model as one HTML document; class names are shown as they are, as text."""
    script, style = "\n".join(map(_static, SCRIPTS)), _static("report.css")
    page = _environment().get_template("report.html")
    why_no_board = _why_no_board(checkpoint, data)
    values = _page_data(checkpoint, data, findings, has_board=why_no_board is None)
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
        pictures=pictures.of_classes(checkpoint.state, findings),
        mistakes=pictures.of_mistakes(findings, data),
        board=why_no_board,
        sliders=min(SLIDERS, len(checkpoint.class_names)),
        adds_up=not checkpoint.state.features.vector_stages,
        redrawn=bool(checkpoint.state.features.image_stages),
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
    usual = usual_accuracy(data.digest, data.split_digest, checkpoint.config.features, features.dimension)
    is_other = data.digest != checkpoint.digest
    run = meta["run"]
    versions = run.get("versions", {})
    return {
        "dataset": known.title if known and known.digest == data.digest else data.name,
        "trained_on": checkpoint.dataset,
        "is_other_data": is_other,
        "features": features.title,
        "temperature": meta["temperature"],
        "epochs": f"{meta['epoch']} of {meta['config']['epochs']}, weights of epoch {meta['best_epoch']}",
        "seconds": run.get("seconds", 0.0),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "digest": data.digest[:12],
        "config": [
            (key, value) for key, value in meta["config"].items() if key != "dataset" and value is not None
        ],
        "reference": None if is_other else usual,
        "verdict": compare_accuracy(findings.scores.accuracy, usual) if usual else None,
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


def _why_no_board(checkpoint: Checkpoint, data: Dataset) -> str | None:
    """Return why the board is not in the page, or None where it is."""
    state = checkpoint.state
    if not all(stage.in_browser for stage in state.features.stages):
        return (
            f"The features of this model are {state.features.title}, which the page does not compute. "
            "Models of pixels, deskewed or not, have a board."
        )
    size = state.model.weights.nbytes + len(checkpoint.class_names) * data.images[0].nbytes
    if size > BOARD_LIMIT:
        return f"The weights and a sample of each class, {size / 1e6:.1f} MB, are too large for a page."
    return None


def _page_data(checkpoint: Checkpoint, data: Dataset, findings: Findings, has_board: bool) -> dict[str, Any]:
    """Return what the script works with."""
    state = checkpoint.state
    images = np.stack([np.asarray(data.images[index]) for index in findings.samples])
    atlas, cells = pictures.atlas(findings, data)
    first = evidence_of(state.model, state.features, state.features.redraw(images[:1]))[0]
    return {
        "classes": checkpoint.class_names,
        "shape": checkpoint.image_shape,
        "preparation": checkpoint.preparation,
        "imageStages": checkpoint.config.stages[: len(state.features.image_stages)],
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
        "atlasColumns": pictures.ATLAS_COLUMNS,
        "cells": cells,
    }


def _base64(array: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
