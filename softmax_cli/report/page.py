"""The page: one HTML file that loads nothing else.

Its Content-Security-Policy allows data: images, and one script and one style by their digests. Whatever a
class name contains, nothing else runs and nothing is fetched.
"""

import base64
import hashlib
import json
import math
from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from softmax_cli.checkpoint import Checkpoint, describe
from softmax_cli.data.catalog import CATALOG, compare_accuracy, usual_accuracy
from softmax_cli.data.dataset import Dataset
from softmax_cli.features import evidence_of
from softmax_cli.report import pictures
from softmax_cli.report.findings import Findings
from softmax_cli.report.headlines import headlines, percent
from softmax_cli.report.lesson import Lesson, choose_lesson, describe_lesson

if TYPE_CHECKING:
    from jinja2 import Environment

SCRIPTS = (
    "page.js",
    "mathematics.js",
    "pixels.js",
    "picture.js",
    "chart.js",
    "story.js",
    "board.js",
    "answers.js",
    "evidence.js",
    "steps.js",
    "loss.js",
    "gradient.js",
    "trainer.js",
    "watch.js",
    "weights.js",
    "mistakes.js",
    "scores.js",
    "start.js",
)
"""The parts of the page's script, in the order in which they depend on each other."""

MATRIX_LIMIT = 50
"""Largest number of classes with a confusion matrix; for more, the most frequent confusions are listed."""

FREQUENT = 60
"""Number of confusions in that list."""

SLIDERS = 10
"""Largest number of classes that the section on softmax has sliders for."""

WEIGHTS_LIMIT, SAMPLES_LIMIT = 250_000, 120_000
"""Bytes that the weights and the examples of the classes may take."""

KNOWN_LIMIT = 5_000
"""Numbers that the evidence computed in advance may take."""

FIRST_MISTAKES = 12
"""Mistakes that are shown before "more"."""


def render(checkpoint: Checkpoint, data: Dataset, findings: Findings, train: Dataset | str) -> str:
    """Return the report on a model as one HTML document; class names are shown as text.

    Args:
        checkpoint: The model.
        data: The test images.
        findings: The findings on them.
        train: The training split, for training in the browser, or why it cannot be had.
    """
    script, style = "\n".join(map(_static, SCRIPTS)), _static("report.css")
    why_no_evidence = _why_no_evidence(checkpoint)
    lesson = train if isinstance(train, str) else choose_lesson(train, data)
    values = _page_data(checkpoint, data, findings, lesson, has_evidence=why_no_evidence is None)
    names, features = checkpoint.class_names, checkpoint.state.features
    mistakes = pictures.of_mistakes(findings, data)
    return (
        _environment()
        .get_template("report.html")
        .render(
            policy=_policy(script, style),
            script=script,
            style=style,
            data=_embed(values),
            about=_about(checkpoint, data, findings),
            classes=names,
            noun="digit" if checkpoint.preparation == "digit" else "image",
            scores=findings.scores,
            headlines=headlines(findings, names, checkpoint.state.history),
            history=checkpoint.state.history,
            bins=findings.scores.reliability(),
            confusion=_confusion(findings, values["cells"]),
            frequent=findings.scores.worst_confusions(FREQUENT),
            cells=values["cells"],
            per_class=list(zip(names, findings.scores.per_class(), strict=True)),
            pictures=pictures.of_classes(checkpoint.state, findings),
            mistakes=mistakes,
            first_mistakes=FIRST_MISTAKES,
            why_no_evidence=why_no_evidence,
            why_no_lesson=lesson if isinstance(lesson, str) else None,
            lesson=None if isinstance(lesson, str) else lesson,
            sliders=min(SLIDERS, len(names)),
            span=values["span"],
            pixels=math.prod(checkpoint.image_shape),
            ln_classes=math.log(min(SLIDERS, len(names))),
            adds_up=not features.vector_stages,
            redrawn=bool(features.image_stages),
        )
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
    environment.filters |= {"percent": percent, "data_uri": _data_uri}
    return environment


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _static(name: str) -> str:
    return (resources.files("softmax_cli.report") / "static" / name).read_text(encoding="utf-8")


def _policy(script: str, style: str) -> str:
    """Return the Content-Security-Policy that allows this script, this style, and data: images."""
    script_digest, style_digest = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (script, style)
    )
    return (
        f"default-src 'none'; img-src data:; script-src 'sha256-{script_digest}'; "
        f"style-src 'sha256-{style_digest}'; base-uri 'none'; form-action 'none'"
    )


def _embed(values: Any) -> str:
    """Return values as JSON without the character that begins HTML elements."""
    return json.dumps(values, allow_nan=False).replace("<", "\\u003c")


def _about(checkpoint: Checkpoint, data: Dataset, findings: Findings) -> dict[str, Any]:
    """Return what was trained, on what and how, and whether the accuracy is usual."""
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
        "best_epoch": meta["best_epoch"],
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
                "correct": i == j,
                "opens": f"{i},{j}" in cells,
            }
            for j in range(len(confusion))
        ]
        for i in range(len(confusion))
    ]


def _why_no_evidence(checkpoint: Checkpoint) -> str | None:
    """Return why the page cannot compute the evidence of a drawing, or None if it can."""
    state = checkpoint.state
    if not all(stage.in_browser for stage in state.features.stages):
        return (
            f"The features of this model are {state.features.title}, which the page does not compute. "
            "It shows the evidence of the examples and mistakes, computed in advance, but not of a drawing. "
            "For models of pixels, deskewed or not, it shows that of drawings, too."
        )
    if state.model.weights.nbytes > WEIGHTS_LIMIT:
        return (
            f"The weights, {state.model.weights.nbytes / 1e6:.1f} MB, are too large for the page. It shows "
            "the evidence of the examples and mistakes, computed in advance, but not of a drawing."
        )
    return None


def _page_data(
    checkpoint: Checkpoint, data: Dataset, findings: Findings, lesson: Lesson | str, has_evidence: bool
) -> dict[str, Any]:
    """Return what the script works with."""
    state = checkpoint.state
    samples = findings.samples[: max(1, SAMPLES_LIMIT // data.images[0].nbytes)]
    atlas, cells = pictures.atlas(findings, data)
    return {
        "classes": checkpoint.class_names,
        "shape": checkpoint.image_shape,
        "preparation": checkpoint.preparation,
        "imageStages": checkpoint.config.stages[: len(state.features.image_stages)] if has_evidence else [],
        "weights": _base64(state.model.weights.astype("<f4")) if has_evidence else None,
        "bias": state.model.bias.tolist(),
        "span": _span(findings.largest_evidence),
        "samples": [
            {"image": index, "label": int(data.labels[index]), "pixels": _base64(data.images[index])}
            for index in samples
        ],
        "known": {} if has_evidence else _known_evidence(checkpoint, data, findings, samples),
        "atlas": _data_uri(atlas, "png") if atlas else None,
        "atlasColumns": pictures.ATLAS_COLUMNS,
        "cells": cells,
        "history": [[one.epoch, one.train_loss, one.validation_loss] for one in state.history],
        "validationAccuracy": [[one.epoch, one.validation_accuracy] for one in state.history],
        "bestEpoch": state.best_epoch,
        "bins": [list(one) for one in findings.scores.reliability()],
        "lesson": None if isinstance(lesson, str) else describe_lesson(lesson),
    }


def _span(largest: float) -> int:
    """Return the largest evidence on the fixed scale of bars and sliders: twice that of a typical image."""
    return min(max(10, 5 * math.ceil(2 * largest / 5)), 100)


def _known_evidence(
    checkpoint: Checkpoint, data: Dataset, findings: Findings, samples: Sequence[int]
) -> dict[int, list[float]]:
    """Return the evidence for the examples and the most confident mistakes, by row number."""
    state = checkpoint.state
    mistakes = [one.image for one in findings.mistakes[: pictures.MOST_CONFIDENT]]
    rows = [*samples, *mistakes][: max(1, KNOWN_LIMIT // len(checkpoint.class_names))]
    z = evidence_of(state.model, state.features, state.features.redraw(data.images[rows]))
    return dict(zip(rows, np.round(z.astype(float), 4).tolist(), strict=True))


def _base64(array: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
