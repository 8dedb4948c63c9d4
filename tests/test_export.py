"""`softmax export`: ONNX Runtime gives the answers of the classifier."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain, permutations
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from click.testing import Result

from softmax_cli import export
from softmax_cli.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from softmax_cli.classifier import Classifier
from softmax_cli.config import STAGES, TrainConfig, find_config, read_toml
from softmax_cli.data.dataset import Dataset
from softmax_cli.data.download import Source
from softmax_cli.data.loading import load_dataset
from softmax_cli.errors import ConfigError
from softmax_cli.model import Model
from softmax_cli.training import fit, start
from tests.helpers import assert_fails

Invoke = Callable[..., Result]
CONFIGS = Path(__file__).parents[1] / "configs"
IMAGE_STAGES = [name for name in export.CONVERTERS if STAGES[name].redraws]
VECTOR_STAGES = [name for name in export.CONVERTERS if not STAGES[name].redraws]
ORDERS = [
    (*first, *then)
    for first in chain.from_iterable(permutations(IMAGE_STAGES, count) for count in range(3))
    for then in chain.from_iterable(permutations(VECTOR_STAGES, count) for count in range(4))
    if "gradients" not in then[1:]  # it needs images
]
"""All orders in which stages can follow each other; the first is that of pixels."""

SMALL = {"gradients_grid": 4, "pca_dimension": 20, "fourier_dimension": 100}
"""Options of stages that make small features."""


def checkpoint_of(stages: Sequence[str], data: Dataset, seed: int = 0, **options: Any) -> Checkpoint:
    """Return a checkpoint with the stages fitted on the data, and random weights."""
    options |= {name: value for name, value in SMALL.items() if name.partition("_")[0] in stages}
    config = TrainConfig(features=",".join(["pixels", *stages]), **options)
    state, generator = start(config, data), np.random.default_rng(seed)
    weights = generator.normal(size=state.model.weights.shape)
    bias = generator.normal(size=state.model.bias.shape)
    model = Model(weights.astype(np.float32), bias.astype(np.float32))
    return Checkpoint.begin(config, data, replace(state, model=model))


def run(path: str | Path, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and probabilities, as ONNX Runtime computes them."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    label, probabilities = session.run(["label", "probabilities"], {"images": images})
    return label, probabilities


def assert_agrees(path: str | Path, checkpoint: Checkpoint, images: np.ndarray) -> None:
    label, probabilities = run(path, images)
    expected = Classifier(checkpoint).predict_proba(images)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    assert label.tolist() == [checkpoint.class_names[index] for index in expected.argmax(axis=1)]


@pytest.mark.parametrize("stages", ORDERS, ids=",".join)
def test_answers_agree_for_every_order_of_stages(work: Path, sample: Dataset, stages: Sequence[str]) -> None:
    """On images that are not square, without ink, with little of it, of noise, and full ones."""
    data = replace(sample, images=sample.images[:100, 3:24, 5:20], labels=sample.labels[:100])
    checkpoint = checkpoint_of(stages, data)
    export.export_onnx(checkpoint, "model.onnx")
    odd = np.zeros((6, 21, 15), np.uint8)
    odd[1, 3] = 200
    odd[2, 3], odd[2, 4, 0] = 200, 1
    odd[3, 5, 9] = 255
    odd[4] = np.random.default_rng(0).integers(0, 256, (21, 15))
    odd[5] = 255
    assert_agrees("model.onnx", checkpoint, np.concatenate([odd, data.images]))


@pytest.mark.parametrize("name", [path.stem for path in sorted(CONFIGS.glob("*.toml"))])
def test_trained_models_of_every_config_agree(work: Path, sample: Dataset, name: str) -> None:
    """With the temperature of a calibration; for many images, for one, and for none."""
    given = read_toml(find_config(name)) | {"epochs": 1, "validation_size": 0.1, "calibrate": True}
    data = replace(sample, images=sample.images[:500], labels=sample.labels[:500])
    config = TrainConfig(**given)
    *_, state = fit(config, data)
    assert state.temperature != 1
    checkpoint = Checkpoint.begin(config, data, state)
    export.export_onnx(checkpoint, "model.onnx")
    assert_agrees("model.onnx", checkpoint, sample.images[:200])
    assert_agrees("model.onnx", checkpoint, sample.images[:1])
    assert [len(output) for output in run("model.onnx", sample.images[:0])] == [0, 0]


def test_every_stage_is_exported_or_refused_by_name(
    sample: Dataset, monkeypatch: pytest.MonkeyPatch, trained: Checkpoint
) -> None:
    assert set(export.CONVERTERS) <= set(STAGES)
    monkeypatch.delitem(export.CONVERTERS, "deskew")
    with pytest.raises(ConfigError, match="feature stage deskew has no ONNX form yet; models of fourier, "):
        export.onnx_model(checkpoint_of(["deskew"], sample))
    assert export.onnx_model(trained)


def test_command_writes_the_model_with_its_metadata(
    invoke: Invoke, work: Path, trained: Checkpoint, sample_test: Dataset
) -> None:
    names = ("naïve", *trained.class_names[1:])
    save_checkpoint("model.npz", replace(trained, class_names=names))
    result = invoke("export", "-o", "m.onnx", "--json")
    assert json.loads(result.stdout) == {"model": "m.onnx", "bytes": Path("m.onnx").stat().st_size}
    session = onnxruntime.InferenceSession("m.onnx", providers=["CPUExecutionProvider"])
    found = session.get_modelmeta().custom_metadata_map
    assert (json.loads(found["class_names"]), found["preparation"]) == (list(names), "digit")
    assert (found["dataset"], found["digest"], found["features"]) == ("sample", trained.digest, "pixels")
    assert_agrees("m.onnx", load_checkpoint("model.npz"), sample_test.images)
    assert (
        invoke("export", "-o", "m.onnx").stdout == f"m.onnx: {Path('m.onnx').stat().st_size / 1000:.0f} kB\n"
    )


def test_a_file_of_another_kind_is_not_replaced(invoke: Invoke, work: Path, model_file: Path) -> None:
    Path("notes.txt").write_text("notes")
    result = invoke("export", "-c", model_file, "-o", "notes.txt")
    assert_fails(result, "notes.txt exists and is not a model in the ONNX format; choose another", code=2)
    assert Path("notes.txt").read_text() == "notes"


def test_without_onnx_the_extra_is_named(work: Path, model_file: Path) -> None:
    code = "import sys; sys.modules['onnx'] = None; from softmax_cli.cli.main import main; main()"
    line = [sys.executable, "-c", code, "export", "-c", str(model_file)]
    result = subprocess.run(line, capture_output=True, text=True, check=False, env=os.environ)
    assert_fails(result, "which the extra [onnx] installs: pip install", code=2)


@pytest.mark.full
@pytest.mark.parametrize("stages", [(), ("deskew", "fourier"), ("normalize", "gradients", "pca", "fourier")])
def test_all_test_images_of_mnist_agree(work: Path, full_mnist: Path, stages: Sequence[str]) -> None:
    source = Source(full_mnist, offline=True)
    checkpoint = checkpoint_of(stages, load_dataset("mnist", "train", source))
    export.export_onnx(checkpoint, "model.onnx")
    assert_agrees("model.onnx", checkpoint, load_dataset("mnist", "test", source).images)
