"""Features: pixels, deskewing, random Fourier features, pipelines of stages."""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from softmax_cli import config, features
from softmax_cli.backend import VARIABLE
from softmax_cli.config import StageFacts, TrainConfig
from softmax_cli.data.dataset import Dataset
from softmax_cli.errors import ConfigError, DivergenceError
from softmax_cli.features import (
    FeatureMap,
    evidence_blocks,
    evidence_of,
    fit_features,
    scaled,
)
from softmax_cli.features.deskew import deskew
from softmax_cli.features.fourier import COLUMNS, Fourier, smooth
from softmax_cli.features.stage import Stage
from softmax_cli.model import Model
from softmax_cli.solvers.objective import Objective
from softmax_cli.training import fit
from tests.helpers import differentiate

ALL_VALUES = np.arange(256, dtype=np.uint8).reshape(4, 8, 8)
PIXELS = FeatureMap((8, 8))


def fitted(text: str, shape: tuple[int, ...] = (28, 28), **options: float) -> FeatureMap:
    """Return the feature map that a config gives for blank images of this shape."""
    return fit_features(TrainConfig(features=text, **options), np.zeros((1, *shape), np.uint8), np.arange(1))


def fourier(dimension: int, shape: tuple[int, ...] = (28, 28), **options: float) -> FeatureMap:
    return fitted("pixels,fourier", shape, fourier_dimension=dimension, **options)


def random_fourier(inputs: int, dimension: int, seed: int) -> Fourier:
    rng = np.random.default_rng(seed)
    projection, phase = rng.normal(size=(inputs, dimension)), rng.uniform(0, 6, dimension)
    return Fourier((dimension,), projection.astype(np.float32), phase.astype(np.float32))


def test_pixels_are_intensities_over_255() -> None:
    """Multiplied by the scale, every value is v/255 in float32 precision; the shape is (n, D)."""
    x = PIXELS.transform(ALL_VALUES)
    assert (x.dtype, x.shape, PIXELS.dimension) == (np.float32, (4, 64), 64)
    np.testing.assert_allclose(PIXELS.scale * x.ravel(), [v / 255 for v in range(256)], rtol=1.5e-7)


def test_pixels_are_in_order_of_rows() -> None:
    image = np.zeros((1, 3, 5), np.uint8)
    image[0, 2, 1] = 255
    assert np.flatnonzero(FeatureMap((3, 5)).transform(image)).tolist() == [2 * 5 + 1]


def test_rows_of_floats_are_used_unchanged() -> None:
    x = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    found = fit_features(TrainConfig(), x, np.arange(5))
    assert (found.dimension, found.scale) == (7, 1)
    np.testing.assert_array_equal(found.transform(x), x)


@pytest.mark.parametrize("feature_map", [PIXELS, fourier(1300, (8, 8))], ids=["pixels", "fourier"])
def test_a_given_buffer_is_filled(feature_map: FeatureMap) -> None:
    """The first rows of `out` are filled and returned without a copy; the other rows are unchanged."""
    out = np.full((6, feature_map.dimension), 7, np.float32)
    x = feature_map.transform(ALL_VALUES, out)
    assert np.shares_memory(x, out)
    np.testing.assert_array_equal(out[:4], feature_map.transform(ALL_VALUES))
    assert (out[4:] == 7).all()


def test_the_scale_may_be_applied_to_the_weights() -> None:
    """(scale · raw)·W + b = raw·(scale · W) + b, compared with float64."""
    generator = np.random.default_rng(0)
    model = Model(*(generator.normal(size=shape).astype(np.float32) for shape in ((64, 3), 3)))
    expected = ALL_VALUES.reshape(4, 64) / 255 @ model.weights.astype(float) + model.bias
    np.testing.assert_allclose(evidence_of(model, PIXELS, ALL_VALUES), expected, rtol=1e-4, atol=1e-5)
    assert scaled(model, PIXELS).weights.dtype == np.float32


@pytest.mark.parametrize("weighted", [False, True])
def test_batches_are_the_rows_in_order(weighted: bool) -> None:
    """Each row has its label and its sample weight, whether the rows are consecutive or not."""
    images = np.random.default_rng(0).integers(0, 256, (100, 4, 4), np.uint8)
    labels = np.arange(100, dtype=np.uint8)
    weights = np.linspace(0, 2, 100, dtype=np.float32) if weighted else None
    for rows in (np.arange(20, 61), np.array([5]), np.array([3, 9, 9, 1, 4]), np.array([7, 6, 5, 4])):
        objective = Objective(FeatureMap((4, 4)), images, labels, rows, 0.0, sample_weights=weights)
        found = [batch._replace(x=batch.x.copy()) for batch in objective.batches(rows, 7)]
        sizes = [len(batch.labels) for batch in found]
        assert sizes == [7] * (len(rows) // 7) + [len(rows) % 7] * (len(rows) % 7 > 0)
        np.testing.assert_array_equal(np.concatenate([b.x for b in found]), images[rows].reshape(-1, 16))
        np.testing.assert_array_equal(np.concatenate([b.labels for b in found]), rows)
        if weights is not None:
            np.testing.assert_array_equal(np.concatenate([b.weights for b in found]), weights[rows])


# Preparation


@pytest.mark.parametrize(
    ("text", "deskews", "dimension"),
    [("pixels", False, 784), ("deskew", True, 784), ("pixels,fourier", False, 10), ("fourier", True, 10)],
)
def test_images_are_prepared_by_the_stages_that_redraw_them(
    sample: Dataset, text: str, deskews: bool, dimension: int
) -> None:
    """Without such a stage, the same array is returned. `prepared` maps prepared images to features."""
    images, options = sample.images[:30], {"fourier_dimension": 10} if "fourier" in text else {}
    found = fitted(text, **options)
    prepared = found.prepare(images)
    assert found.dimension == dimension
    assert (prepared is images) is not deskews
    np.testing.assert_array_equal(prepared, deskew(images) if deskews else images)
    assert found.prepared.prepare(images) is images
    np.testing.assert_array_equal(found.transform(prepared), found.prepared.transform(prepared))


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("pixels", "raw pixels"),
        ("deskew", "deskewed pixels"),
        ("fourier", "4,000 random Fourier features of deskewed pixels"),
        ("pixels,fourier", "4,000 random Fourier features of pixels"),
    ],
)
def test_the_title_names_the_stages(text: str, title: str) -> None:
    assert fitted(text).title == title


def test_a_copy_that_is_too_large_is_refused() -> None:
    many, row = np.broadcast_to(np.uint8(0), (1_400_000, 28, 28)), np.arange(1)  # uses no memory
    deskewed = TrainConfig(features="deskew")
    fit_features(TrainConfig(), many, row)
    fit_features(deskewed, many[:1_300_000], row)
    with pytest.raises(ConfigError, match=r"copy of 1,400,000 images would take 1,047 MiB; .* 1,024"):
        fit_features(deskewed, many, row)


def test_a_batch_that_is_too_large_is_refused() -> None:
    images, row = np.broadcast_to(np.uint8(0), (400_000, 28, 28)), np.arange(1)
    fit_features(TrainConfig(batch_size=10**9), images[:300_000], row)
    with pytest.raises(ConfigError, match=r"batch of 400,000 images with 784 .* choose a smaller --batch"):
        fit_features(TrainConfig(batch_size=10**9), images, row)


def test_a_projection_that_is_too_large_is_refused_before_it_is_drawn() -> None:
    with pytest.raises(
        ConfigError, match=r"projection of 16,384 inputs to 100,000 features would take 6,250"
    ):
        fourier(100_000, (128, 128))


# Evaluation


def test_evidence_in_blocks_is_that_of_all_images_at_once(sample: Dataset) -> None:
    """The blocks are the rows in order; image stages are applied."""
    rng = np.random.default_rng(4)
    model = Model(rng.normal(size=(784, 10)).astype(np.float32), rng.normal(size=10).astype(np.float32))
    rows, feature_map = rng.permutation(5000)[:4500], fitted("deskew")
    blocks = list(evidence_blocks(model, feature_map, sample.images, rows))
    assert [len(z) for _, z in blocks] == [1024, 1024, 1024, 1024, 404]
    np.testing.assert_array_equal(np.concatenate([block for block, _ in blocks]), rows)
    expected = evidence_of(model, feature_map, deskew(sample.images[rows]))
    np.testing.assert_allclose(np.concatenate([z for _, z in blocks]), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("dimension", "most"), [(100_000, 83), (10, 1024)])
def test_many_features_are_evaluated_in_smaller_blocks(sample: Dataset, dimension: int, most: int) -> None:
    zeros = np.zeros((784, dimension), np.float32), np.zeros(dimension, np.float32)
    feature_map = FeatureMap((28, 28), (Fourier((dimension,), *zeros),))
    blocks = evidence_blocks(Model.zeros(dimension, 10), feature_map, sample.images, np.arange(most + 1))
    assert [len(z) for _, z in blocks] == [most, 1]


def test_evidence_that_is_not_finite_is_an_error(sample: Dataset) -> None:
    huge = Model(np.full((784, 10), 3e38, np.float32), np.zeros(10, np.float32))
    with pytest.raises(DivergenceError, match="evidence is not finite"):
        list(evidence_blocks(huge, FeatureMap((28, 28)), sample.images, np.arange(5)))


# Fourier features


def kernel(x: np.ndarray, smoothing: float, bandwidth: float) -> np.ndarray:
    """Return exp(−‖S·x_i − S·x_j‖² / (2σ²)), with slow loops for S."""
    rows, columns = x.shape[1:]
    if smoothing:
        line = [math.exp(-(d**2) / (2 * smoothing**2)) for d in range(-40, 41)]
        share = [value / sum(line) for value in line]
        spread = np.zeros_like(x)
        for r in range(rows):
            for c in range(columns):
                for i in range(rows):
                    for j in range(columns):
                        spread[:, r, c] += share[40 + r - i] * share[40 + c - j] * x[:, i, j]
        x = spread
    distances = [[((a - b) ** 2).sum() for b in x] for a in x]
    return np.exp(-np.array(distances) / (2 * bandwidth**2))


@pytest.mark.parametrize(("smoothing", "bandwidth"), [(0.0, 1.5), (1.0, 0.5), (0.6, 0.8)])
def test_fourier_features_approximate_the_kernel(smoothing: float, bandwidth: float) -> None:
    """The standard deviation of φ(x)·φ(x') is at most 1/sqrt(D): four times the features halve it."""
    images = np.random.default_rng(5).integers(0, 256, (12, 7, 6), np.uint8)
    exact = kernel(images / 255, smoothing, bandwidth)
    assert 0.01 < exact.min() < exact[~np.eye(12, dtype=bool)].max() < 0.9
    errors = []
    for dimension in (100, 400, 1600, 6400):
        squares = []
        for seed in range(8):
            options = {"fourier_smoothing": smoothing, "fourier_bandwidth": bandwidth, "seed": seed}
            feature_map = fourier(dimension, (7, 6), **options)
            phi = feature_map.scale * feature_map.transform(images)
            squares.append(np.square(phi @ phi.T - exact).mean())
        errors.append(math.sqrt(np.mean(squares)))
        assert errors[-1] < 1.2 / math.sqrt(dimension)  # of eight draws
    for few, more in pairwise(errors):
        assert few / more == pytest.approx(2, rel=0.25)


def test_fourier_features_are_the_cosines_of_the_formula(sample: Dataset) -> None:
    """Reference: cos(x·Ω + φ₀) in float64. D is not a multiple of the number of columns per step."""
    feature_map, images = fourier(COLUMNS + 100), sample.images[:5]
    (stage,) = feature_map.stages
    expected = np.cos(images.reshape(5, -1) / 255 @ stage.projection.astype(float) + stage.phase)
    np.testing.assert_allclose(feature_map.transform(images), expected, atol=1e-4)
    assert feature_map.scale == math.sqrt(2 / feature_map.dimension)


@pytest.mark.parametrize(
    ("text", "tolerance"), [("pixels", 0), ("deskew", 0), ("fourier", 1e-5)], ids=["pixels", "deskew", "all"]
)
def test_features_do_not_depend_on_the_other_images_of_a_batch(
    sample: Dataset, text: str, tolerance: float
) -> None:
    """Pixels, deskewed or not, are equal; Fourier features agree within 1e-5."""
    feature_map = fitted(text)
    whole = feature_map.scale * feature_map.transform(feature_map.prepare(sample.images[:300]))
    for rows in ([0], [299], [7, 5], list(range(100, 231))):
        part = feature_map.scale * feature_map.transform(feature_map.prepare(sample.images[rows]))
        np.testing.assert_allclose(part, whole[rows], rtol=0, atol=tolerance)


@pytest.mark.parametrize("width", [0.2, 0.5, 1.0, 4.0])
def test_smoothing_spreads_a_pixel_like_a_normal_distribution(width: float) -> None:
    """Far from the edges, the sum is kept and each neighbour has the weight of the definition."""
    line = [math.exp(-(d**2) / (2 * width**2)) for d in range(-50, 51)]
    image = np.zeros((101, 3), np.float32)
    image[50, 1] = 1
    smoothed = smooth(image.reshape(-1, 1), (101, 3), width).reshape(101, 3)
    across = [math.exp(-(d**2) / (2 * width**2)) / sum(line) for d in (-1, 0, 1)]
    np.testing.assert_allclose(smoothed, np.outer(line, across) / sum(line), rtol=1e-5, atol=1e-7)


def test_the_gain_grows_with_the_dimension_up_to_its_limit() -> None:
    found = [fourier(dimension, (2, 2)).gain for dimension in (1, 1000, 100_000)]
    assert found == pytest.approx([400 / 1001, 200, 400 / 1.01])
    assert FeatureMap((28, 28)).gain == 1


def test_fourier_features_have_their_own_random_stream() -> None:
    """The stream differs from those of the validation split and of the order of an epoch."""
    (stage,) = fourier(50, fourier_smoothing=0, fourier_bandwidth=1, seed=3).stages
    for others in ((3, 0), (3, 1), (3, 2), (3, 1, 0)):
        drawn = np.random.default_rng(others).standard_normal((784, 50), np.float32)
        assert (stage.projection == drawn).mean() < 0.01


def test_the_seed_determines_the_features() -> None:
    first, again, other = (fourier(50, seed=seed).stages[0] for seed in (0, 0, 1))
    assert first.projection.tobytes() == again.projection.tobytes()
    assert first.phase.tobytes() == again.phase.tobytes()
    assert not np.isclose(first.projection, other.projection).any()
    assert 0 <= first.phase.min() < 1
    assert 5 < first.phase.max() < 2 * math.pi


@pytest.mark.parametrize("dimension", [30, 300, 3000])
def test_one_learning_rate_suits_any_number_of_features(sample: Dataset, dimension: int) -> None:
    """With the default rate, a few epochs on the sample reach the accuracy expected for D features."""
    *_, state = fit(TrainConfig(features="fourier", fourier_dimension=dimension, epochs=8), sample)
    least = {30: 0.7, 300: 0.92, 3000: 0.95}
    assert state.history[-1].validation_accuracy > least[dimension]
    assert state.history[-1].validation_loss < 2 * state.history[-1].train_loss + 0.3


# The gradient by the intensities


def slow_features(stages: tuple[Fourier, ...], x: np.ndarray) -> np.ndarray:
    """Return the features of intensities x (n, D) in float64, scale included."""
    for stage in stages:
        x = stage.scale * np.cos(x @ stage.projection.astype(float) + stage.phase)
    return x


@pytest.mark.parametrize(
    "stages",
    [(), (random_fourier(12, 20, 1),), (random_fourier(12, 20, 1), random_fourier(20, 6, 2))],
    ids=["pixels", "fourier", "fourier of fourier"],
)
def test_the_gradient_agrees_with_finite_differences(stages: tuple[Fourier, ...]) -> None:
    """The scale of every stage is applied, in `transform` and in `gradient`."""
    feature_map, rng = FeatureMap((3, 4), stages), np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 3, 4), np.uint8)
    by_features = rng.normal(size=(5, feature_map.dimension))
    x = images.reshape(5, 12) / 255
    np.testing.assert_allclose(
        feature_map.scale * feature_map.transform(images), slow_features(stages, x), atol=1e-5
    )
    expected = differentiate(lambda x: float((slow_features(stages, x) * by_features).sum()), x)
    found = feature_map.gradient(images, by_features)
    np.testing.assert_allclose(found, expected.reshape(images.shape), rtol=1e-4, atol=1e-5)


# External stages

Register = Callable[[str, type[Stage], StageFacts], None]


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Register:
    """Return a function that registers a feature stage as a module of its own would."""

    def add(name: str, stage: type[Stage], facts: StageFacts) -> None:
        module = ModuleType(name)
        module.STAGE = stage  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, f"softmax_cli.features.{name}", module)
        monkeypatch.setitem(config.STAGES, name, facts)

    return add


@dataclass(frozen=True)
class Noise(Stage):
    """Stage that combines pixels and random bytes by exclusive or, in training."""

    @classmethod
    def fit(cls, images: np.ndarray, config: TrainConfig, seed: int) -> "Noise":
        return cls(images.shape[1:])

    def transform(self, x: np.ndarray, out: Any = None, generator: Any = None) -> np.ndarray:
        return x if generator is None else x ^ generator.integers(0, 256, x.shape, np.uint8)


@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_random_stage_draws_new_numbers_for_each_epoch_and_batch(
    register: Register, monkeypatch: pytest.MonkeyPatch, threads: str
) -> None:
    """Batch i of epoch e draws from ``default_rng((seed, e, 2, i))`` for any number of threads."""
    monkeypatch.setenv(VARIABLE, threads)
    register("noise", Noise, StageFacts("noise", redraws=True))
    images = np.random.default_rng(0).integers(0, 256, (50, 4, 4), np.uint8)
    feature_map = replace(fitted("noise", (4, 4)), is_random=True)
    rows = np.random.default_rng(1).permutation(50)
    objective = Objective(feature_map, images, np.zeros(50, np.uint8), rows, 0.0, seed=5)
    for epoch in (1, 3):
        batches = list(objective.batches(rows, 8, epoch))
        assert len(batches) == 7
        for i, batch in enumerate(batches):
            chosen = images[rows[8 * i : 8 * i + 8]]
            generator = np.random.default_rng((5, epoch, 2, i))
            noise = generator.integers(0, 256, chosen.shape, np.uint8)
            np.testing.assert_array_equal(batch.x, (chosen ^ noise).reshape(len(chosen), 16))


def test_a_random_stage_is_random_in_training_only(
    register: Register, monkeypatch: pytest.MonkeyPatch, sample: Dataset
) -> None:
    """The number of threads does not change the run, and evaluation uses images without noise."""
    register("noise", Noise, StageFacts("noise", redraws=True))
    runs = []
    for threads in ("1", "2"):
        monkeypatch.setenv(VARIABLE, threads)
        *_, state = fit(TrainConfig(features="noise", augment=True, epochs=2), sample)
        runs.append(state.last.weights.tobytes())
    assert runs[0] == runs[1]
    assert state.history[-1].train_loss > 1.5  # the noise prevents learning
    rows, pixels = np.arange(20), FeatureMap((28, 28))
    ((_, found),) = evidence_blocks(state.model, state.features, sample.images, rows)
    np.testing.assert_array_equal(found, evidence_of(state.model, pixels, sample.images[rows]))


def test_a_stage_is_fitted_on_its_inputs(register: Register) -> None:
    """The inputs are the outputs of the stages before it, for at most 5,000 training images."""
    inputs = []

    class Last(Stage):
        @classmethod
        def fit(cls, images: np.ndarray, config: TrainConfig, seed: int) -> "Last":
            inputs.append(images)
            return cls(images.shape[1:])

        def transform(self, x: np.ndarray, out: Any = None, generator: Any = None) -> np.ndarray:
            inputs.append(x)
            return x

    register("last", Last, StageFacts("its inputs"))
    images = np.random.default_rng(0).integers(0, 256, (6000, 2, 3), np.uint8)
    asked = TrainConfig(features="deskew,fourier,last", fourier_dimension=4)
    rows = np.arange(5, 5500)
    feature_map = fit_features(asked, images, rows)
    chosen = rows[np.sort(np.random.default_rng((0, 0, 2)).choice(len(rows), 5000, replace=False))]
    feature_map.transform(feature_map.prepare(images[chosen]))
    fitted_on, given = inputs
    assert len(fitted_on) == features.FIT_SAMPLE
    np.testing.assert_allclose(fitted_on, given, atol=1e-6)
