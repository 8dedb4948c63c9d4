"""`softmax predict`."""

import json
import logging
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from softmax_cli.commands import options
from softmax_cli.commands.terminal import bars, escape, half_blocks, signed_picture, signs_of, table
from softmax_cli.errors import CheckpointError

if TYPE_CHECKING:
    from softmax_cli.checkpoint import Checkpoint
    from softmax_cli.pictures import Prepared

log = logging.getLogger(__name__)


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", type=click.Path(path_type=Path))
@options.checkpoint
@click.option(
    "--top",
    type=click.IntRange(min=1),
    metavar="K",
    default=1,
    show_default=True,
    help="Name the K most probable classes.",
)
@click.option(
    "--invert/--no-invert",
    default=None,
    help="The picture is dark on light, or it is not; else its border tells.",
)
@click.option("--show", is_flag=True, help="Show the image that the model saw, and what was done to get it.")
@click.option(
    "--explain", is_flag=True, help="Take the evidence apart: what speaks for the answer, and against."
)
@options.as_json
def command(
    images: tuple[Path, ...],
    checkpoint: Path,
    top: int,
    invert: bool | None,
    show: bool,
    explain: bool,
    as_json: bool,
) -> None:
    """Say what a PNG or JPEG picture of any size shows.

    \b
    Example:
      softmax predict digit.png --show
    """
    from softmax_cli.errors import ImageError

    model = options.load_checkpoint(checkpoint)
    results, failed = [], False
    for path in images:
        try:
            prepared = _prepare(model, path, invert)
        except ImageError as error:
            log.error("%s", error, exc_info=True)
            failed = True
            continue
        for doubt in prepared.warnings:
            log.warning("%s: %s", path, doubt)
        result = _predict(model, path, prepared)
        if explain:
            result["explanation"] = _explain(model, prepared)
        results.append(result)
        if not as_json:
            click.echo(_text(result, prepared, top, show, alone=len(images) == 1))
    if as_json:
        click.echo(json.dumps(results))
    if failed:
        raise SystemExit(1)


def _prepare(model: "Checkpoint", path: Path, invert: bool | None) -> "Prepared":
    """Return the picture as the model sees it: drawn as its data set is, and deskewed where it wants that."""
    from softmax_cli import features
    from softmax_cli.pictures import prepare_picture

    drawn = prepare_picture(path, model.image_shape, model.preparation, invert)
    if not model.state.features.deskewed:
        return drawn
    upright = features.prepare(model.state.features, drawn.image[None])[0]
    return drawn._replace(image=upright, steps=(*drawn.steps, "deskewed"))


def _predict(model: "Checkpoint", path: Path, prepared: "Prepared") -> dict[str, Any]:
    from softmax_cli.features import evidence_of
    from softmax_cli.model import softmax

    z = evidence_of(model.state.model, model.state.features, prepared.image[None])
    if not math.isfinite(float(z.sum())):
        raise CheckpointError(
            "the weights are so large that their evidence is not finite; train the model anew"
        )
    shares = softmax(z.astype(float))[0].tolist()
    probabilities = dict(zip(model.class_names, shares, strict=True))
    best = max(probabilities, key=lambda name: probabilities[name])
    return {
        "image": str(path),
        "class": best,
        "probability": probabilities[best],
        "probabilities": probabilities,
        "steps": list(prepared.steps),
    }


def _text(result: dict[str, Any], prepared: "Prepared", top: int, show: bool, alone: bool) -> str:
    """Return the answer in a line, and around it what was asked to be shown."""
    ranked = sorted(result["probabilities"].items(), key=lambda item: -item[1])[:top]
    answer = ", ".join(f"{escape(name)} ({100 * share:.1f} %)" for name, share in ranked)
    lines = [f"{escape(result['image'])}: {answer}"]
    if show:
        lines = [half_blocks(prepared.image), "what was done: " + ", ".join(result["steps"]), *lines]
    if "explanation" in result:
        lines += ["", _explanation(result["explanation"], result["probabilities"], prepared)]
    elif alone and sys.stdout.isatty():
        lines.append(bars({escape(name): share for name, share in result["probabilities"].items()}))
    return "\n".join(lines)


def _explain(model: "Checkpoint", prepared: "Prepared") -> dict[str, Any]:
    """Return why the model takes the image for what it does, as plain values."""
    from softmax_cli.explanation import explain

    found = explain(model.state.model, model.state.features, prepared.image)
    names = model.class_names
    return {
        "class": names[found.winner],
        "rather_than": names[found.runner_up],
        "difference": found.difference,
        "bias_difference": found.bias_difference,
        "evidence": dict(zip(names, found.evidence.tolist(), strict=True)),
        "bias": dict(zip(names, found.bias.tolist(), strict=True)),
        "features": model.state.features.title,
        "contributions" if found.adds_up else "gradient": found.pixels.tolist(),
    }


def _explanation(found: dict[str, Any], probabilities: dict[str, float], prepared: "Prepared") -> str:
    """Return what `--explain` shows: the evidence for every class, and why the best beats the next."""
    import numpy as np

    winner, runner_up = escape(found["class"]), escape(found["rather_than"])
    values = np.array(found.get("contributions", found.get("gradient")))
    rows = [
        [escape(name), f"{found['bias'][name]:+.2f}", f"{z - found['bias'][name]:+.2f}", f"{z:+.2f}",
         f"{100 * probabilities[name]:.2f} %"]
        for name, z in found["evidence"].items()
    ]  # fmt: skip
    what = "pixels" if "contributions" in found else "features"
    signs = signs_of(winner, runner_up)
    if "contributions" in found:
        legend = (
            f"{signs}\n"
            f"pixels for {winner} rather than {runner_up}: {values[values > 0].sum():+.2f}\n"
            f"pixels against it: {values[values < 0].sum():+.2f}\n"
            f"difference of the biases: {found['bias_difference']:+.2f}"
        )
    else:
        legend = (
            f"The model weighs {found['features']}, so that pixels do not add up to evidence.\n"
            f"Shown is the gradient, what more ink would do: {signs}"
        )
    return "\n".join(
        [
            table(["class", "bias", what, "evidence", "probability"], rows),
            "",
            signed_picture(prepared.image, values),
            "",
            legend,
            f"{winner} rather than {runner_up}: {found['difference']:+.1f} of evidence, "
            f"odds {odds(found['difference'])} to 1",
        ]
    )


def odds(difference: float) -> str:
    """Return e to the difference of two evidences, with the two digits that can be believed."""
    value = math.exp(min(difference, 700))
    if value < 10:
        return f"{value:.1f}"
    return f"{float(f'{value:.1e}'):,.0f}" if value < 1e6 else f"{value:.0e}"
