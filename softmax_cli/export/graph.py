"""An ONNX graph under construction."""

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from softmax_cli.errors import ConfigError

try:
    from onnx import helper, numpy_helper
except ImportError as error:
    raise ConfigError(
        "the export needs onnx, which the extra [onnx] installs: pip install 'softmax-regression[onnx]'"
    ) from error


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

    def node(self, kind: str, *inputs: "str | NDArray[Any] | np.generic", name: str = "", **more: Any) -> str:
        """Add an operator of a kind, applied to values or constants, with more attributes."""
        name = name or f"{kind.lower()}{len(self.nodes)}"
        names = [one if isinstance(one, str) else self.constant(one) for one in inputs]
        self.nodes.append(helper.make_node(kind, names, [name], name=name, **more))
        return name

    def reshape(self, x: str, *shape: int) -> str:
        """Add the reshaping of a value to (n, *shape), n being as large as needed."""
        return self.node("Reshape", x, np.array([-1, *shape]))

    def cast(self, x: str, dtype: DTypeLike) -> str:
        """Add the conversion of a value to a type of numpy."""
        return self.node("Cast", x, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
