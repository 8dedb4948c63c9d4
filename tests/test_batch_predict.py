"""`softmax predict --output` and `softmax eval --errors`: a line for each image, as the classifier says."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from softmax_cli import batch
from softmax_cli.classifier import Classifier
from softmax_cli.data.dataset import Dataset
from softmax_cli.data.readers import ReadOptions
from tests.helpers import assert_fails, folder_of, names

Invoke = Callable[..., Result]
COUNT = 300


@pytest.fixture(scope="module")
def classifier(model_file: Path) -> Classifier:
    return Classifier.load(model_file)


@pytest.fixture
def predict(invoke: Invoke, work: Path, model_file: Path) -> Callable[..., list[dict[str, str]]]:
    """Return a function that predicts data to a file and returns its lines."""

    def run(data: str, *options: object) -> list[dict[str, str]]:
        result = invoke("predict", data, "-o", "answers.csv", "-c", model_file, *options)
        assert result.exit_code == 0, result.stderr
        with open("answers.csv", newline="") as file:
            return list(csv.DictReader(file))

    return run


Predict = Callable[..., list[dict[str, str]]]


def rows_of(data: Dataset, labelled: bool = True) -> np.ndarray:
    pixels = data.images[:COUNT].reshape(COUNT, -1)
    return np.column_stack([data.labels[:COUNT], pixels]) if labelled else pixels


def test_csv_without_labels_gives_a_submission(
    predict: Predict, classifier: Classifier, sample_test: Dataset
) -> None:
    """With or without a header, the identifiers count from 1."""
    expected = classifier.predict(sample_test.images[:COUNT])
    for header in ("", ",".join(f"pixel{number}" for number in range(784))):
        np.savetxt("test.csv", rows_of(sample_test, False), "%d", ",", header=header, comments="")
        lines = predict("test.csv")
        assert [line["ImageId"] for line in lines] == [str(number) for number in range(1, COUNT + 1)]
        assert [line["Label"] for line in lines] == [str(label) for label in expected]
        assert set(lines[0]) == {"ImageId", "Label"}


@pytest.mark.parametrize("kind", ["csv", "npz", "idx", "folder of idx"])
def test_labelled_data_give_classes_with_probabilities(
    predict: Predict, classifier: Classifier, sample_test: Dataset, work: Path, kind: str
) -> None:
    """Of data with a test split, the images of this split."""
    images = sample_test.images[:COUNT]
    path = {"csv": "test.csv", "npz": "data.npz", "idx": "idx/t10k-images-idx3-ubyte"}.get(kind, "idx")
    np.savetxt("test.csv", rows_of(sample_test), "%d", ",")
    np.savez(
        "data.npz", x_train=images[:9], y_train=range(9), x_test=images, y_test=sample_test.labels[:COUNT]
    )
    part = Dataset("", "", "", images, sample_test.labels[:COUNT], sample_test.class_names, "digit")
    folder_of(work / "idx", part)
    lines = predict(path)
    y = classifier.predict_proba(images)
    assert [line["index"] for line in lines] == [str(number) for number in range(COUNT)]
    assert [line["class"] for line in lines] == [str(label) for label in y.argmax(axis=1)]
    np.testing.assert_allclose([float(line["probability"]) for line in lines], y.max(axis=1), rtol=1e-4)


@pytest.mark.parametrize("is_sorted", [True, False], ids=["classes", "flat"])
def test_pictures_are_named(
    predict: Predict, classifier: Classifier, sample_test: Dataset, work: Path, is_sorted: bool
) -> None:
    """A folder of pictures, or with a sub-folder for each class."""
    paths = []
    for number, (image, label) in enumerate(zip(sample_test.images[:20], sample_test.labels, strict=False)):
        paths.append(f"{label}/{number}.png" if is_sorted else f"{number}.png")
        (work / "data" / paths[-1]).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(work / "data" / paths[-1])
    lines = predict("data", "--probabilities")
    expected = [classifier.predict_picture(work / "data" / path) for path in paths]
    assert [(line["image"], line["class"]) for line in lines] == [
        (path, one.class_name) for path, one in zip(paths, expected, strict=True)
    ]
    found = [[float(line[name]) for name in classifier.class_names] for line in lines]
    np.testing.assert_allclose(
        found, [list(one.probabilities.values()) for one in expected], rtol=1e-4, atol=1e-9
    )


def test_unreadable_pictures_stop_or_are_left_out(
    predict: Predict, invoke: Invoke, sample_test: Dataset, work: Path, model_file: Path
) -> None:
    (work / "data").mkdir()
    Image.fromarray(sample_test.images[0]).save("data/1.png")
    Path("data/2.png").write_bytes(b"\x89PNG")
    result = invoke("predict", "data", "-o", "answers.csv", "-c", model_file)
    assert_fails(result, "1 of 2 pictures cannot be read: data/2.png", "--skip-bad")
    assert names(work) == ["data"]
    assert [line["image"] for line in predict("data", "--skip-bad")] == ["1.png"]


def test_an_older_file_stays_if_the_data_are_wrong_at_the_end(
    invoke: Invoke, sample_test: Dataset, work: Path, model_file: Path
) -> None:
    np.savetxt("test.csv", rows_of(sample_test), "%d", ",")
    with open("test.csv", "a") as file:
        file.write("7,oops\n")
    Path("answers.csv").write_text("older")
    result = invoke("predict", "test.csv", "-o", "answers.csv", "-c", model_file)
    assert_fails(result, f"test.csv, line {COUNT + 1}: 2 columns, expected 785")
    assert (Path("answers.csv").read_text(), names(work)) == ("older", ["answers.csv", "test.csv"])


@pytest.mark.parametrize(
    ("line", "message", "code"),
    [
        (
            ("nothing.csv",),
            "there is nothing at nothing.csv; expected a data file or a folder of pictures",
            1,
        ),
        (("small.csv",), "expected uint8 images of shape (n, 28, 28), not uint8 of shape (1, 2, 2)", 1),
        (("text.csv",), "text.csv is not a data set; expected", 1),
        (("empty",), "empty is not a data set; expected", 1),
        (("small.csv", "other.csv"), "--output needs one data file or one folder", 2),
    ],
)
def test_wrong_input_writes_no_file(
    invoke: Invoke, work: Path, model_file: Path, line: tuple[str, ...], message: str, code: int
) -> None:
    Path("small.csv").write_text("1,2,3,4\n")
    Path("text.csv").write_text("no numbers")
    Path("empty").mkdir()
    result = invoke("predict", *line, "-o", "answers.csv", "-c", model_file)
    assert (result.exit_code, message in result.stderr) == (code, True), result.stderr
    assert not Path("answers.csv").exists()


def test_csv_is_predicted_in_little_memory(
    work: Path, classifier: Classifier, sample: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three times the images take the same memory, as tracemalloc counts it."""
    import tracemalloc

    monkeypatch.setattr(batch, "BLOCK", 500)
    peaks = []
    for repeats in (2, 6):
        pixels = np.tile(sample.images[:1000].reshape(1000, -1), (repeats, 1))
        np.savetxt("data.csv", pixels, "%d", ",")
        tracemalloc.start()
        assert batch.predict_file(classifier, "data.csv", "answers.csv") == 1000 * repeats
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_progress_and_json_count_the_images(
    invoke: Invoke, work: Path, classifier: Classifier, sample_test: Dataset, model_file: Path
) -> None:
    np.savez("data.npz", images=sample_test.images, labels=sample_test.labels)
    counts: list[int] = []
    batch.predict_file(classifier, "data.npz", "a.csv", options=ReadOptions(), on_progress=counts.append)
    assert (sum(counts), len(counts) > 0) == (1000, True)
    result = invoke("predict", "data.npz", "-o", "b.csv", "--json", "-c", model_file)
    assert json.loads(result.stdout) == {"output": "b.csv", "images": 1000}


@pytest.mark.parametrize("split", ["test", "validation"])
def test_errors_are_the_misclassified_images(
    invoke: Invoke, work: Path, classifier: Classifier, sample: Dataset, sample_test: Dataset,
    model_file: Path, split: str,
) -> None:  # fmt: skip
    data = sample_test if split == "test" else sample
    result = invoke("eval", "-c", model_file, "--split", split, "--errors", "errors.csv", "--json")
    found = json.loads(result.stdout)
    with open("errors.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == found["images"] - round(found["accuracy"] * found["images"])
    index = np.array([int(line["index"]) for line in lines])
    y = classifier.predict_proba(data.images[index])
    assert [int(line["label"]) for line in lines] == data.labels[index].tolist()
    assert [int(line["class"]) for line in lines] == y.argmax(axis=1).tolist()
    assert (data.labels[index] != y.argmax(axis=1)).all()
    np.testing.assert_allclose([float(line["probability"]) for line in lines], y.max(axis=1), rtol=1e-4)


def test_errors_name_the_pictures(
    invoke: Invoke, work: Path, classifier: Classifier, sample_test: Dataset, model_file: Path
) -> None:
    """All are misclassified, as they are in the folder of the next class."""
    for number, (image, label) in enumerate(zip(sample_test.images[:60], sample_test.labels, strict=False)):
        path = work / "data" / str((label + 1) % 10) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    assert invoke("eval", "-c", model_file, "--dataset", "data", "--errors", "errors.csv").exit_code == 0
    with open("errors.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert 5 < len(lines) <= 10
    for line in lines:
        assert Path("data", line["image"]).exists()
        assert line["image"].startswith(f"{line['label']}/")
        assert classifier.predict_picture(Path("data", line["image"])).class_name == line["class"]


def test_errors_that_cannot_be_written_are_reported_first(
    invoke: Invoke, work: Path, model_file: Path
) -> None:
    result = invoke("eval", "-c", model_file, "--errors", "no/errors.csv")
    assert_fails(result, "cannot write no/errors.csv: the folder ")
