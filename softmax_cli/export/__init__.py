"""Models in the ONNX format, which run without this package: ONNX Runtime, browsers, phones.

The graph maps uint8 images (n, rows, cols) to ``label``, the names of the most probable classes (n,), and
``probabilities`` (n, K). It contains the feature stages, so that its input are images as the data set has
them; making an image of a picture is left to the caller.

The memory that a runtime needs is proportional to n; for 28 x 28 pixels it is up to 100 kB an image.

onnx, which the extra ``[onnx]`` installs, is imported in this package only.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from softmax_cli import __version__
from softmax_cli.checkpoint import Checkpoint
from softmax_cli.errors import ConfigError
from softmax_cli.export.graph import Graph
from softmax_cli.export.images import add_deskew, add_normalize
from softmax_cli.export.vectors import add_fourier, add_gradients, add_pca
from softmax_cli.files import atomic_write

OPSET, IR_VERSION = 17, 8
"""Versions of the operators and of the format; ONNX Runtime reads them since 1.12, of 2022."""

START = b"\x08"
"""How every ONNX file begins."""


def export_onnx(checkpoint: Checkpoint, path: str | Path) -> None:
    """Write the model of a checkpoint as an ONNX file.

    Raises:
        ConfigError: A feature stage has no ONNX form.
        OutputError: The file cannot be written; an older file is unchanged.
    """
    content = onnx_model(checkpoint).SerializeToString()
    with atomic_write(Path(path)) as file:
        file.write(content)


def onnx_model(checkpoint: Checkpoint) -> Any:
    """Return the model of a checkpoint as an `onnx.ModelProto`, checked by onnx.

    Its metadata are ``class_names`` (a JSON list), ``preparation``, ``dataset``, ``digest`` and ``features``.

    Raises:
        ConfigError: A feature stage has no ONNX form.
    """
    import onnx
    from onnx import TensorProto, helper

    graph, (rows, cols) = Graph(), checkpoint.image_shape
    classes = len(checkpoint.class_names)
    z = _evidence(graph, checkpoint, graph.cast("images", np.float32))
    graph.node("Softmax", z, axis=1, name="probabilities")
    names = graph.constant(np.array(checkpoint.class_names, object), "class_names")
    graph.node("Gather", names, graph.node("ArgMax", z, axis=1, keepdims=0), name="label")
    proto = helper.make_graph(
        graph.nodes,
        "softmax",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", rows, cols])],
        [
            helper.make_tensor_value_info("label", TensorProto.STRING, ["n"]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", classes]),
        ],
        graph.constants,
    )
    model = helper.make_model(
        proto,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="softmax-regression",
        producer_version=__version__,
    )
    helper.set_model_props(model, _metadata(checkpoint))
    onnx.checker.check_model(model, full_check=True)
    return model


def _metadata(checkpoint: Checkpoint) -> dict[str, str]:
    return {
        "class_names": json.dumps(checkpoint.class_names, ensure_ascii=False),
        "preparation": checkpoint.preparation,
        "dataset": checkpoint.dataset,
        "digest": checkpoint.digest,
        "features": checkpoint.config.features,
    }


def _evidence(graph: Graph, checkpoint: Checkpoint, x: str) -> str:
    """Add the feature stages and the evidence (n, K), from float images (n, rows, cols) of 0 to 255."""
    features, model = checkpoint.state.features, checkpoint.state.model
    stages = list(zip(checkpoint.config.stages, features.stages, strict=True))
    image_stages = stages[: len(features.image_stages)]
    for name, stage in image_stages:
        x = _converter(name)(graph, stage, x)
    unit = features.pixel_scale
    x = graph.reshape(x, math.prod(features.input_shape))
    for name, stage in stages[len(image_stages) :]:
        if unit != 1:
            x = graph.node("Mul", x, np.float32(unit))
        x, unit = _converter(name)(graph, stage, x), stage.scale
    weights = model.weights.astype(np.float32) * np.float32(unit)
    bias = graph.constant(model.bias.astype(np.float32), "bias")
    return graph.node("Gemm", x, graph.constant(weights, "weights"), bias, name="evidence")


def _converter(name: str) -> "Converter":
    if name not in CONVERTERS:
        raise ConfigError(
            f"the feature stage {name} has no ONNX form yet; models of {', '.join(CONVERTERS)} can be "
            "exported"
        )
    return CONVERTERS[name]


Converter = Callable[[Graph, Any, str], str]

CONVERTERS: dict[str, Converter] = {
    "deskew": add_deskew,
    "fourier": add_fourier,
    "gradients": add_gradients,
    "normalize": add_normalize,
    "pca": add_pca,
}
"""For each feature stage, the function that adds its nodes to a graph.

It gets the fitted stage and its input, and returns its output. A stage that redraws images maps whole numbers
from 0 to 255, (n, rows, cols), to the same. Any other stage maps (n, D), with the `scale` of the stage before
it applied, to (n, D'), without its own.
"""
