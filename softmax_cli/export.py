"""Models in the ONNX format, which run without this package: ONNX Runtime, browsers, phones.

The graph maps uint8 images (n, rows, cols) to ``label``, the names of the most probable classes (n,), and
``probabilities`` (n, K). It contains the feature stages, so that its input are images as the data set has
them; making an image of a picture is left to the caller.

onnx, which the extra ``[onnx]`` installs, is imported here only.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softmax_cli import __version__
from softmax_cli.checkpoint import Checkpoint
from softmax_cli.errors import ConfigError
from softmax_cli.features.fourier import Fourier
from softmax_cli.files import atomic_write

try:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
except ImportError as error:
    raise ConfigError(
        "the export needs onnx, which the extra [onnx] installs: pip install 'softmax-regression[onnx]'"
    ) from error

OPSET, IR_VERSION = 17, 8
"""Versions of the operators and of the format; ONNX Runtime reads them since 1.12, of 2022."""

START = b"\x08"
"""How every ONNX file begins."""


class Graph:
    """A graph under construction. Values are named; methods return the name of what they add."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: "NDArray[Any] | np.generic", name: str = "") -> str:
        """Add a constant."""
        name = name or f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Add an operator of a kind, applied to inputs."""
        name = name or f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def flat(self, x: str, size: int) -> str:
        """Add the reshaping of a value to (n, size)."""
        return self.node("Reshape", x, self.constant(np.array([-1, size])))


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
    graph, (rows, cols) = Graph(), checkpoint.image_shape
    classes = len(checkpoint.class_names)
    z = _evidence(graph, checkpoint, graph.node("Cast", "images", to=TensorProto.FLOAT))
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
    x = graph.flat(x, int(np.prod(features.input_shape)))
    for name, stage in stages[len(image_stages) :]:
        x = graph.node("Mul", x, graph.constant(np.float32(unit)))
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


# Feature stages


def _fourier(graph: Graph, stage: Fourier, x: str) -> str:
    """Add cos(x·Ω + φ₀) for inputs (n, inputs)."""
    projection = graph.constant(stage.projection, "fourier_projection")
    phase = graph.constant(stage.phase, "fourier_phase")
    return graph.node("Cos", graph.node("Gemm", x, projection, phase))


def _deskew(graph: Graph, stage: Any, x: str) -> str:
    """Add the deskewing of images (n, rows, cols), step by step as `softmax_cli.features.deskew` does it.

    The same operations in the same precision give the same images, to the bit.
    """
    rows, cols = stage.shape
    r, c = (axis.ravel().astype(np.float64) for axis in np.mgrid[:rows, :cols])
    row, column, slope = _slant(graph, x, r - rows // 2, c - cols // 2)
    lines = graph.constant((np.arange(rows) - rows // 2).astype(np.float64)[None])
    offsets = graph.node("Add", column, graph.node("Mul", slope, lines))  # (n, rows)
    centred = _shift(
        graph, x, graph.node("Reshape", row, graph.constant(np.array([-1, 1, 1]))), 1, (rows, cols)
    )
    shape = graph.constant(np.array([-1, rows, 1]))
    sheared = _shift(graph, centred, graph.node("Reshape", offsets, shape), 2, (rows, cols))
    return graph.node("Floor", graph.node("Add", sheared, graph.constant(np.float32(0.5))))


def _shift(graph: Graph, x: str, offsets: str, axis: int, shape: tuple[int, int]) -> str:
    """Add out[..., j, ...] = x[..., j + offset, ...] along an axis of images, for offsets (n, 1 or rows, 1).

    Interpolation is linear, and values outside of an image are 0.
    """
    length = shape[axis - 1]
    limits = (graph.constant(np.float64(sign * length)) for sign in (-1, 1))
    offsets = graph.node("Clip", offsets, *limits)
    whole = graph.node("Floor", offsets)
    share = graph.node("Cast", graph.node("Sub", offsets, whole), to=TensorProto.FLOAT)
    rest = graph.node("Sub", graph.constant(np.float32(1)), share)
    pads = np.zeros((2, 3), np.int64)
    pads[:, axis] = length, length + 1
    padded = graph.node("Pad", x, graph.constant(pads.ravel()))
    places = np.zeros((1, *shape), np.int64) + np.indices(shape)[axis - 1] + length
    index = graph.node("Add", graph.node("Cast", whole, to=TensorProto.INT64), graph.constant(places))
    following = graph.node("Add", index, graph.constant(np.int64(1)))
    first, second = (graph.node("GatherElements", padded, one, axis=axis) for one in (index, following))
    return graph.node("Add", graph.node("Mul", first, rest), graph.node("Mul", second, share))


def _slant(graph: Graph, x: str, r: NDArray[np.float64], c: NDArray[np.float64]) -> tuple[str, str, str]:
    """Add the centre of mass and the slant of images, each (n, 1), in float64, as `deskew.slant` does."""
    flat = graph.node("Cast", graph.flat(x, r.size), to=TensorProto.DOUBLE)
    powers = (np.ones(r.size), r, c, r * r, r * c)
    mass, *sums = (graph.node("MatMul", flat, graph.constant(power[:, None])) for power in powers)
    one, zero = graph.constant(np.float64(1)), graph.constant(np.float64(0))
    mass = graph.node("Max", mass, one)
    row, column, squares, products = (graph.node("Div", total, mass) for total in sums)
    variance = graph.node("Sub", squares, graph.node("Mul", row, row))
    covariance = graph.node("Sub", products, graph.node("Mul", row, column))
    is_flat = graph.node("Less", variance, graph.constant(np.float64(1e-9)))
    divisor = graph.node("Where", is_flat, one, variance)
    slope = graph.node("Where", is_flat, zero, graph.node("Div", covariance, divisor))
    return row, column, slope


Converter = Callable[[Graph, Any, str], str]

CONVERTERS: dict[str, Converter] = {"deskew": _deskew, "fourier": _fourier}
"""For each feature stage, the function that adds its nodes to a graph.

It gets the fitted stage and its input, and returns its output. A stage that redraws images maps whole numbers
from 0 to 255, (n, rows, cols), to the same. Any other stage maps (n, D), with the `scale` of the stage before
it applied, to (n, D'), without its own.
"""
