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

from softmax_cli.checkpoint import Checkpoint, describe
from softmax_cli.data.catalog import CATALOG, compare_accuracy, usual_accuracy
from softmax_cli.data.dataset import Dataset
from softmax_cli.features import evidence_of
from softmax_cli.report import pictures
from softmax_cli.report.board import PAGE_LIMIT, base64_of, describe_model
from softmax_cli.report.findings import Findings
from softmax_cli.report.headlines import headlines, percent
from softmax_cli.report.lesson import Lesson, choose_lesson, describe_lesson

if TYPE_CHECKING:
    from jinja2 import Environment

SCRIPTS = (
    "page.js",
    "mathematics.js",
    "redraw.js",
    "features.js",
    "model.js",
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

SAMPLES_LIMIT = 120_000
"""Bytes that the examples of the classes may take."""

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
    lesson = train if isinstance(train, str) else choose_lesson(train, data)
    values = _page_data(checkpoint, data, findings, lesson)
    context = _context(checkpoint, data, findings, lesson, values)
    template = _environment().get_template("report.html")

    def page(model: dict[str, Any] | str) -> str:
        """Return the page with a model, or without one for a reason."""
        if isinstance(model, str):
            known = _known_evidence(checkpoint, data, findings)
            embedded = _embed(values | {"model": None, "known": known})
            return template.render(context, data=embedded, why_no_evidence=model)
        embedded = _embed(values | {"model": model, "known": {}})
        return template.render(context, data=embedded, why_no_evidence=None)

    return page(describe_model(checkpoint, PAGE_LIMIT - len(page({}).encode())))


def _context(
    checkpoint: Checkpoint, data: Dataset, findings: Findings, lesson: Lesson | str, values: dict[str, Any]
) -> dict[str, Any]:
    """Return what the template shows, but for the data of the script."""
    script, style = "\n".join(map(_static, SCRIPTS)), _static("report.css")
    names, features = checkpoint.class_names, checkpoint.state.features
    return {
        "policy": _policy(script, style),
        "script": script,
        "style": style,
        "about": _about(checkpoint, data, findings),
        "classes": names,
        "noun": "digit" if checkpoint.preparation == "digit" else "image",
        "scores": findings.scores,
        "headlines": headlines(findings, names, checkpoint.state.history),
        "history": checkpoint.state.history,
        "bins": findings.scores.reliability(),
        "confusion": _confusion(findings, values["cells"]),
        "frequent": findings.scores.worst_confusions(FREQUENT),
        "cells": values["cells"],
        "per_class": list(zip(names, findings.scores.per_class(), strict=True)),
        "pictures": pictures.of_classes(checkpoint.state, findings),
        "mistakes": pictures.of_mistakes(findings, data),
        "first_mistakes": FIRST_MISTAKES,
        "why_no_lesson": lesson if isinstance(lesson, str) else None,
        "lesson": None if isinstance(lesson, str) else lesson,
        "sliders": min(SLIDERS, len(names)),
        "span": values["span"],
        "pixels": math.prod(checkpoint.image_shape),
        "ln_classes": math.log(min(SLIDERS, len(names))),
        "adds_up": not features.vector_stages,
        "redrawn": bool(features.image_stages),
        "gain": features.gain,
    }


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


def _page_data(
    checkpoint: Checkpoint, data: Dataset, findings: Findings, lesson: Lesson | str
) -> dict[str, Any]:
    """Return what the script works with, but for the model."""
    state = checkpoint.state
    atlas, cells = pictures.atlas(findings, data)
    return {
        "classes": checkpoint.class_names,
        "shape": checkpoint.image_shape,
        "preparation": checkpoint.preparation,
        "bias": state.model.bias.tolist(),
        "span": _span(findings.largest_evidence),
        "samples": [
            {"image": index, "label": int(data.labels[index]), "pixels": base64_of(data.images[index])}
            for index in _samples(data, findings)
        ],
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


def _samples(data: Dataset, findings: Findings) -> Sequence[int]:
    """Return the row numbers of the examples that fit the page."""
    return findings.samples[: max(1, SAMPLES_LIMIT // data.images[0].nbytes)]


def _known_evidence(checkpoint: Checkpoint, data: Dataset, findings: Findings) -> dict[int, list[float]]:
    """Return the evidence for the examples and the most confident mistakes, by row number."""
    state = checkpoint.state
    mistakes = [one.image for one in findings.mistakes[: pictures.MOST_CONFIDENT]]
    rows = [*_samples(data, findings), *mistakes][: max(1, KNOWN_LIMIT // len(checkpoint.class_names))]
    z = evidence_of(state.model, state.features, state.features.redraw(data.images[rows]))
    return dict(zip(rows, np.round(z.astype(float), 4).tolist(), strict=True))
