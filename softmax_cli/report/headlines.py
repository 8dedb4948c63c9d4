"""The headlines of the report: each section's result, in one sentence."""

from collections.abc import Sequence

from softmax_cli.metrics import Scores
from softmax_cli.report.findings import Findings
from softmax_cli.training import Epoch

NBSP = "\N{NO-BREAK SPACE}"


def percent(rate: float, digits: int = 1) -> str:
    """Return a rate in percent, on one line."""
    return f"{100 * rate:.{digits}f}{NBSP}%"


def headlines(findings: Findings, names: Sequence[str], history: Sequence[Epoch]) -> dict[str, str]:
    """Return the headline of each section that states a result."""
    scores = findings.scores
    return {
        "scores": f"{percent(scores.accuracy)} of {scores.images:,} test images are classified correctly",
        "training": _training(history),
        "confusion": _confusion(scores, names),
        "classes": _classes(scores, names),
        "confidence": _confidence(scores),
        "mistakes": _mistakes(findings, names),
    }


def _training(history: Sequence[Epoch]) -> str:
    if not history:
        return "This model has not been trained yet"
    first, last = history[0], history[-1]
    if len(history) == 1:
        return f"The training loss is {last.train_loss:.3f} after one epoch"
    change = "falls" if last.train_loss < first.train_loss else "rises"
    values = f"from {first.train_loss:.3f} to {last.train_loss:.3f}"
    return f"The training loss {change} {values} in {last.epoch} epochs"


def _confusion(scores: Scores, names: Sequence[str]) -> str:
    worst = scores.worst_confusions(1)
    if not worst:
        return "No class is confused with another"
    ((true, guess, count),) = worst
    images = "image" if count == 1 else "images"
    return f"{names[true]} classified as {names[guess]} is the most frequent confusion: {count:,} {images}"


def _classes(scores: Scores, names: Sequence[str]) -> str:
    with_images = [
        (one.recall, name) for one, name in zip(scores.per_class(), names, strict=True) if one.images
    ]
    recall, name = min(with_images, key=lambda pair: pair[0])
    if recall == 1:
        return "Every class has a recall of 100" + NBSP + "%"
    return f"{name} is the hardest class: {percent(recall)} recall"


def _confidence(scores: Scores) -> str:
    bins = scores.reliability()
    confidence = sum(one.confidence * one.images for one in bins) / scores.images
    difference = confidence - scores.accuracy
    if abs(difference) < 0.005:
        return f"Confidence matches accuracy: {percent(confidence)} and {percent(scores.accuracy)} on average"
    word = "overconfident" if difference > 0 else "underconfident"
    return f"The model is {word}: confidence {percent(confidence)}, accuracy {percent(scores.accuracy)}"


def _mistakes(findings: Findings, names: Sequence[str]) -> str:
    if not findings.mistakes:
        return "No image is misclassified"
    worst, count = findings.mistakes[0], len(findings.mistakes)
    images = "image is" if count == 1 else "images are"
    return (
        f"{count:,} {images} misclassified; the most confident mistake has "
        f"{percent(worst.probability)} for {names[worst.guess]}"
    )
