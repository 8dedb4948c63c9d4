"""`softmax export`: ONNX Runtime gives the answers of the classifier."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from click.testing import Result

from softmax_cli import export
from softmax_cli.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from softmax_cli.classifier import Classifier
from softmax_cli.config import STAGES, TrainConfig
from softmax_cli.data.dataset import Dataset
from softmax_cli.data.download import Source
from softmax_cli.data.loading import load_dataset
from softmax_cli.errors import ConfigError
from softmax_cli.training import fit, start
from tests.helpers import assert_fails

Invoke = Callable[..., Result]
PIPELINES = ["pixels", "deskew", "deskew,fourier", "pixels,fourier"]


def train(features: str, data: Dataset) -> Checkpoint:
    options = {"fourier_dimension": 500} if "fourier" in features else {}
    config = TrainConfig(features=features, epochs=2, calibrate=True, **options)  # type: ignore[arg-type]
    state = start(config, data)
    for reached in fit(config, data, state):
        state = reached
    return Checkpoint.begin(config, data, state)


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


@pytest.mark.parametrize("features", PIPELINES)
def test_answers_agree(work: Path, sample: Dataset, sample_test: Dataset, features: str) -> None:
    """On test images, and on images without ink, of one row of ink, of noise, and full ones."""
    checkpoint = train(features, sample)
    export.export_onnx(checkpoint, "model.onnx")
    odd = np.zeros((4, 28, 28), np.uint8)
    odd[1, 3] = 200
    odd[2] = np.random.default_rng(0).integers(0, 256, (28, 28))
    odd[3] = 255
    assert_agrees("model.onnx", checkpoint, np.concatenate([odd, sample_test.images]))


def test_images_that_are_not_square_agree(work: Path, sample: Dataset) -> None:
    data = replace(sample, images=sample.images[:500, 3:24, 5:20], labels=sample.labels[:500])
    checkpoint = train("deskew,fourier", data)
    export.export_onnx(checkpoint, "model.onnx")
    assert_agrees("model.onnx", checkpoint, data.images)


def test_every_stage_is_exported_or_refused_by_name(
    sample: Dataset, monkeypatch: pytest.MonkeyPatch, trained: Checkpoint
) -> None:
    assert set(export.CONVERTERS) <= set(STAGES)
    monkeypatch.delitem(export.CONVERTERS, "deskew")
    with pytest.raises(
        ConfigError, match="feature stage deskew has no ONNX form yet; models of fourier can be"
    ):
        export.onnx_model(train("deskew", sample))
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
@pytest.mark.parametrize("features", PIPELINES)
def test_all_test_images_of_mnist_agree(work: Path, full_mnist: Path, features: str) -> None:
    source = Source(full_mnist, offline=True)
    checkpoint = train(features, load_dataset("mnist", "train", source))
    export.export_onnx(checkpoint, "model.onnx")
    assert_agrees("model.onnx", checkpoint, load_dataset("mnist", "test", source).images)
