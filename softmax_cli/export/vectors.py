"""Nodes of the stages that compute features: intensities in [0, 1] or features (n, D) to features (n, D')."""

import math

import numpy as np

from softmax_cli.export.graph import Graph
from softmax_cli.features.fourier import Fourier
from softmax_cli.features.gradients import DELTA, EPSILON_SQUARED, ROOT, Gradients, pooling
from softmax_cli.features.pca import PCA


def add_fourier(graph: Graph, stage: Fourier, x: str) -> str:
    """Add cos(x·Ω + φ₀)."""
    return graph.node("Cos", graph.node("Gemm", x, stage.projection, stage.phase))


def add_pca(graph: Graph, stage: PCA, x: str) -> str:
    """Add (x − μ)·V, as x·V − μ·V."""
    offset = -(stage.mean.astype(np.float64) @ stage.components)
    return graph.node("Gemm", x, stage.components, offset.astype(np.float32))


def add_gradients(graph: Graph, stage: Gradients, x: str) -> str:
    """Add the gradient-direction features of images, in the steps of `softmax_cli.features.gradients`.

    The maps are averaged before they are subtracted from each other, which is the same for fewer maps.
    """
    rows, cols = stage.image_shape
    sobel = np.array([[[[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]]], np.float32)
    kernels = np.concatenate([sobel, sobel.swapaxes(2, 3), -sobel, -sobel.swapaxes(2, 3)])
    image = graph.reshape(x, 1, rows, cols)
    parts = graph.node("Relu", graph.node("Conv", image, kernels, pads=[1, 1, 1, 1]))  # (n, 4, rows, cols)
    between = graph.node("Min", parts, graph.node("Gather", parts, np.array([1, 2, 3, 0]), axis=1))
    weights = pooling(stage.image_shape, stage.grid, stage.sigma, 1.0)
    parts, between = (
        graph.node("MatMul", graph.reshape(one, 4, rows * cols), weights) for one in (parts, between)
    )  # (n, 4, grid²)
    before = graph.node("Gather", between, np.array([3, 0, 1, 2]), axis=1)
    axes = graph.node("Sub", graph.node("Sub", parts, between), before)
    diagonals = graph.node("Mul", between, np.float32(ROOT))
    both = graph.node("Concat", axes, diagonals, axis=1)
    maps = graph.node("Gather", both, np.array([0, 4, 1, 5, 2, 6, 3, 7]), axis=1)
    averages = graph.reshape(maps, *stage.shape)
    roots = graph.node("Sqrt", graph.node("Add", averages, np.float32(DELTA)))
    roots = graph.node("Sub", roots, np.float32(math.sqrt(DELTA)))
    squares = graph.node("ReduceSumSquare", roots, axes=[1])
    norms = graph.node("Sqrt", graph.node("Add", squares, np.float32(EPSILON_SQUARED)))
    return graph.node("Div", roots, norms)
