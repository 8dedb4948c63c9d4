"""Data sets of all formats: the same data give the same data set, and damaged ones one clear line."""

import csv
import gzip
import io
import json
import logging
import os
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from click.testing import Result
from PIL import Image

from softmax_cli.data import decoding
from softmax_cli.data.dataset import Dataset
from softmax_cli.data.download import Source
from softmax_cli.data.labels import index_labels, natural_key
from softmax_cli.data.loading import load_dataset
from softmax_cli.data.readers import READERS, ReadOptions, find_reader
from softmax_cli.data.readers import csv as csv_reader
from softmax_cli.data.readers.idx import write_idx
from softmax_cli.errors import ConfigError, DataError, SoftmaxError
from softmax_cli.files import inflate
from tests.helpers import assert_fails, folder_of

Invoke = Callable[..., Result]

GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(0, 100, (90, 6, 6), np.uint8)  # dark borders
IMAGES[:, 2:4, 2:4] += 100
LABELS = (np.arange(90) % 3).astype(np.uint8)
TRAIN, TEST = slice(0, 60), slice(60, 90)
SPLITS = {"train": TRAIN, "test": TEST}


def write_folder(path: Path, images: np.ndarray, names: list[str], kind: str = "PNG") -> None:
    for index, (image, name) in enumerate(zip(images, names, strict=True)):
        (path / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path / name / f"{index}.{kind.lower()}", kind)


def write_csv(path: Path, images: np.ndarray, labels: Any, header: bool = True) -> None:
    rows = [[label, *image.ravel()] for label, image in zip(labels, images, strict=True)]
    names = ["label", *(f"pixel{number}" for number in range(images[0].size))]
    text = io.StringIO()
    csv.writer(text).writerows([names, *rows] if header else rows)
    content = text.getvalue().encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def write_parquet(path: Path, images: np.ndarray, labels: Any, names: list[str] | None = None) -> None:
    pictures = [{"bytes": png(image), "path": None} for image in images]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(pictures, kind), "label": pa.array(labels)})
    if names:
        features = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    pyarrow.parquet.write_table(table, path, row_group_size=25)


def write_all(folder: Path) -> dict[str, Path]:
    """Write the same data set in each format, both splits, and return the paths."""
    for name in ("idx", "csv", "parquet"):
        (folder / name).mkdir()
    for split, rows in SPLITS.items():
        write_folder(folder / "folder" / split, IMAGES[rows], list(map(str, LABELS[rows])))
        write_csv(folder / "csv" / f"{split}.csv", IMAGES[rows], LABELS[rows])
        write_parquet(
            folder / "parquet" / f"{split}-00000-of-00001.parquet", IMAGES[rows], LABELS[rows].astype(int)
        )
        prefix = "train" if split == "train" else "t10k"
        write_idx(folder / "idx" / f"{prefix}-images-idx3-ubyte", IMAGES[rows])
        write_idx(folder / "idx" / f"{prefix}-labels-idx1-ubyte", LABELS[rows])
    arrays = {"x_train": IMAGES[TRAIN], "y_train": LABELS[TRAIN], "x_test": IMAGES[TEST]}
    np.savez_compressed(folder / "data.npz", **arrays, y_test=LABELS[TEST])  # type: ignore[arg-type]
    paths = {name: folder / name for name in ("idx", "folder", "csv", "parquet")}
    return paths | {"npz": folder / "data.npz"}


@pytest.fixture(scope="module")
def formats(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_all(tmp_path_factory.mktemp("formats"))


def load(path: Path | str, split: str = "train", **options: Any) -> Dataset:
    return load_dataset(path, split, Source(Path("cache"), reading=ReadOptions(**options)))


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("split", SPLITS)
def test_same_data_in_each_format_are_the_same_data_set(
    work: Path, formats: dict[str, Path], name: str, split: str
) -> None:
    data = load(formats[name], split)
    np.testing.assert_array_equal(data.images, IMAGES[SPLITS[split]])
    np.testing.assert_array_equal(data.labels, LABELS[SPLITS[split]])
    assert (data.class_names, data.preparation) == (("0", "1", "2"), "plain")
    assert data.digest == load(formats["idx"]).digest
    assert data.split_digest == load(formats["idx"], split).split_digest


@pytest.mark.parametrize("name", READERS)
def test_each_reader_detects_its_format_only(formats: dict[str, Path], name: str) -> None:
    for other, path in formats.items():
        module = f"softmax_cli.data.readers.{other}"
        assert find_reader(path).__name__ == module  # type: ignore[attr-defined]


def test_train_eval_and_resume_find_the_data_again_with_their_options(work: Path, invoke: Invoke) -> None:
    """The cache remembers the path and how pictures were read, so that the digest is the same."""
    write_folder(work / "toys", IMAGES, list(map(str, LABELS)))
    (work / "toys" / "0" / "bad.png").write_bytes(b"no picture")
    options = ("--image-size", "5x4", "--skip-bad", "--offline")
    result = invoke("train", "--dataset", "toys", *options, "--epochs", 1, "--schedule", "constant")
    assert result.exit_code == 0, result.stderr
    assert "1 of 91 pictures cannot be read: toys/0/bad.png " in result.stderr
    assert (
        "toys has no test split: 15 of its 90 images, a sixth of each class, are set aside" in result.stderr
    )
    assert "15 images" in invoke("eval").stdout
    assert "2 epochs" in invoke("train", "--resume", "--epochs", 2).stdout
    assert "images     4 x 5" in invoke("info", "model.npz").stdout


# Splits and classes


def test_a_sixth_of_each_class_is_set_aside_if_there_is_no_test_split(
    work: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The same one each time; each image is in one of the splits, in its order."""
    caplog.set_level(logging.INFO, "softmax_cli")
    images, labels = np.arange(90 * 36).astype(np.uint32), np.repeat([0, 1, 2], [60, 24, 6])
    pixels = (images % 251).astype(np.uint8).reshape(90, 6, 6)
    np.savez("data.npz", images=pixels, labels=labels)
    train, test = load("data.npz"), load("data.npz", "test")
    assert np.bincount(train.labels).tolist() == [50, 20, 5]
    assert np.bincount(test.labels).tolist() == [10, 4, 1]
    assert "data.npz has no test split: 15 of its 90 images" in caplog.text
    both = [image.tobytes() for image in (*train.images, *test.images)]
    assert sorted(both) == sorted(image.tobytes() for image in pixels)
    order = [image.tobytes() for image in pixels]
    for part in (train, test):
        assert [order.index(image.tobytes()) for image in part.images] == sorted(
            order.index(image.tobytes()) for image in part.images
        )
    assert load("data.npz", "test").split_digest == test.split_digest


@pytest.mark.parametrize(
    ("values", "others", "labels", "names"),
    [
        ([5, 1, 9], [], [1, 0, 2], "1 5 9"),
        ([1, 2, 1], [3], [0, 1, 0], "1 2 3"),
        ([0, -1, 1], [], [1, 0, 2], "-1 0 1"),
        (["10", "9", "1"], ["2"], [3, 2, 0], "1 2 9 10"),
        (["dog", "cat"], ["ant"], [2, 1], "ant cat dog"),
    ],
    ids=["gaps", "from 1", "negative", "numbers", "words"],
)
def test_classes_are_the_labels_that_occur(
    values: list[Any], others: list[Any], labels: list[int], names: str
) -> None:
    index, found = index_labels(np.array(values), np.array(others, np.array(values).dtype))
    assert (index.tolist(), " ".join(found)) == (labels, names)


def test_numbers_in_names_sort_as_numbers() -> None:
    names = ["a2.png", "a10.png", "a1.png", "7", "10", "b"]
    assert sorted(names, key=natural_key) == ["7", "10", "a1.png", "a2.png", "a10.png", "b"]


@pytest.mark.parametrize("name", ["data.npz", "train.csv"])
def test_a_thousand_classes_one_of_them_only_in_the_test_split(work: Path, name: str) -> None:
    images = GENERATOR.integers(0, 256, (1000, 2, 2), np.uint8)
    labels = np.arange(1000)
    if name == "train.csv":
        write_csv(work / "train.csv", images[:999], labels[:999])
        write_csv(work / "test.csv", images[990:], labels[990:])
    else:
        train = {"x_train": images[:999], "y_train": labels[:999]}
        np.savez("data.npz", **train, x_test=images[990:], y_test=labels[990:])  # type: ignore[arg-type]
    train, test = load(name), load(name, "test")
    assert len(train.class_names) == len(test.class_names) == 1000
    assert (train.labels.dtype, test.labels.tolist()) == (np.uint16, list(range(990, 1000)))
    assert train.class_names[:3] == ("0", "1", "2")


def test_too_many_classes_are_refused(work: Path) -> None:
    np.savez("data.npz", images=np.zeros((1002, 2, 2), np.uint8), labels=np.arange(1002) // 1 % 1002)
    with pytest.raises(DataError, match=r"data\.npz has 1,002 classes; the limit is 1,000"):
        load("data.npz")


def test_evaluation_matches_classes_by_name(work: Path, invoke: Invoke) -> None:
    """A model of the classes 0 to 2 is evaluated on data in which only 1 and 2 occur."""
    np.savez("all.npz", images=IMAGES, labels=LABELS)
    invoke("train", "--dataset", "all.npz", "--epochs", 60, "--validation-size", 0, "--learning-rate", 0.1)
    rows = LABELS > 0
    np.savez("some.npz", x_train=IMAGES, y_train=LABELS, x_test=IMAGES[rows], y_test=LABELS[rows])
    np.savez("two.npz", x_train=IMAGES[rows], y_train=LABELS[rows], x_test=IMAGES[rows], y_test=LABELS[rows])
    np.savez("other.npz", images=IMAGES[::-1], labels=LABELS + 5)
    some, two = (
        json.loads(invoke("eval", "--dataset", f"{name}.npz", "--json").stdout) for name in ("some", "two")
    )
    assert (two["accuracy"], two["confusion"]) == (some["accuracy"], some["confusion"])
    assert_fails(invoke("eval", "--dataset", "other.npz"), "has the class '5', which model.npz does not know")


# IDX


def nest(folder: Path, layout: str) -> Path:
    """Move the four files in a folder to the names and places of a layout, and return the path to give."""
    for path in list(folder.iterdir()):
        split, kind, idx, _ = path.name.split("-")
        dotted = f"{split}-{kind}.{idx}-ubyte"
        if layout == "raw":
            target = folder / "MNIST" / "raw" / path.name
        elif layout == "nested":
            target = folder / dotted / dotted
        elif layout == "emnist":
            target = folder / f"emnist-letters-{path.name.replace('t10k', 'test')}.gz"
        else:
            target = folder / {"dots": dotted, "upper": path.name.upper(), "gz": f"{path.name}.gz"}[layout]
        content = path.read_bytes()
        path.unlink()
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(gzip.compress(content) if layout == "emnist" else content)
    return folder


@pytest.mark.parametrize("layout", ["dots", "upper", "raw", "nested", "emnist", "gz"])
def test_idx_files_are_found_under_the_names_in_use(work: Path, sample_test: Dataset, layout: str) -> None:
    """With gz, plain files are called .gz, which their content shows."""
    folder = folder_of(work / "data", sample_test)
    digest = load(folder).digest
    assert load(nest(folder, layout)).digest == digest


def test_two_idx_data_sets_in_a_folder_are_named(work: Path, sample_test: Dataset) -> None:
    folder = folder_of(work / "data", sample_test)
    for path in list(folder.iterdir()):
        path.with_name(f"kmnist-{path.name}").write_bytes(path.read_bytes())
    with pytest.raises(DataError, match="holds several data sets, with names that start with '', 'kmnist-'"):
        load(folder)


def test_gzip_file_is_read_as_gzip_reads_it() -> None:
    """Several members, with zeros between and after them, however the bytes arrive."""
    content = gzip.compress(b"one ") + gzip.compress(b"two ") + bytes(7) + gzip.compress(b"three") + bytes(9)
    pieces = ([content], [content[begin : begin + 1] for begin in range(len(content))])
    for chunks in pieces:
        assert b"".join(inflate(chunks, 100)) == gzip.decompress(content) == b"one two three"
    with pytest.raises(ValueError, match="has other bytes after its end"):
        list(inflate([content + b"x"], 100))
    with pytest.raises(ValueError, match="holds more than 8 bytes"):
        list(inflate([content], 8))


def test_idx_labels_with_gaps_are_numbered_without(work: Path) -> None:
    write_idx(work / "train-images-idx3-ubyte", IMAGES)
    write_idx(work / "train-labels-idx1-ubyte", LABELS * 2 + 1)
    write_idx(work / "t10k-images-idx3-ubyte", IMAGES)
    write_idx(work / "t10k-labels-idx1-ubyte", LABELS * 0 + 4)
    train, test = load(work), load(work, "test")
    assert train.class_names == test.class_names == ("1", "3", "4", "5")
    assert (train.labels.tolist(), set(test.labels)) == (np.array([0, 1, 3])[LABELS].tolist(), {2})


# npz


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (IMAGES[..., None], LABELS[:, None]),
        (IMAGES.reshape(90, 36), LABELS.astype(np.int64)),
        (IMAGES.astype(np.int32), np.array(["0", "1", "2"])[LABELS]),
        (np.repeat(IMAGES[..., None], 3, axis=3), LABELS),
        (np.asfortranarray(IMAGES), LABELS),
    ],
    ids=["channel", "flat", "text", "colour", "Fortran"],
)
def test_npz_arrays_of_equal_meaning_are_equal(work: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """The luminance of a grey colour is the grey."""
    np.savez("data.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    np.testing.assert_array_equal(load("data.npz").images, IMAGES)
    np.testing.assert_array_equal(load("data.npz").labels, LABELS)


def test_npz_bomb_is_refused_before_it_is_inflated(work: Path) -> None:
    """A header that declares 100 GB, before 64 MB of zeros in 64 kB."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "|u1", "fortran_order": False, "shape": (100_000_000, 32, 32)}
    )
    with zipfile.ZipFile("data.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", head.getvalue() + bytes(64_000_000))
        archive.writestr("labels.npy", head.getvalue())
    with pytest.raises(DataError, match=r"data.npz: images declares 102,400,000,000 bytes .*, but holds 6"):
        load("data.npz")


# CSV


def each_line(change: Callable[[int, str, str], str]) -> Callable[[str], str]:
    """Return a function that changes each line of a text, given its number, label and pixels."""

    def change_all(text: str) -> str:
        parts = [line.partition(",") for line in text.splitlines()]
        return "".join(
            change(number, label, pixels) + "\n" for number, (label, _, pixels) in enumerate(parts)
        )

    return change_all


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("data.csv", lambda text: text),
        ("data.csv.gz", lambda text: text),
        ("data.csv", lambda text: "\ufeff" + text.replace("\n", "\r\n")),
        ("data.csv", lambda text: text.rstrip("\n")),
        ("data.csv", lambda text: text.partition("\n")[2]),
        ("data.csv", lambda text: text.replace(",", ", ")),
        ("data.csv", each_line(lambda number, y, x: f"{y},{x.replace(',', '.0,' if number else ',')}")),
        ("data.csv", each_line(lambda number, y, x: f'"{y}",{x}')),
        ("data.csv", each_line(lambda number, y, x: f"{number - 1 if number else ''},{y},{x}")),
        ("data.csv", each_line(lambda number, y, x: f"{x},{y}")),
    ],
    ids=["plain", "gz", "windows", "no newline", "headless", "spaces", "decimals", "quotes", "index", "last"],
)  # fmt: skip
def test_csv_files_of_equal_meaning_are_equal(work: Path, name: str, change: Callable[[str], str]) -> None:
    write_csv(Path("plain.csv"), IMAGES, LABELS)
    text = change(Path("plain.csv").read_bytes().decode().replace("\r\n", "\n"))
    Path(name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    images, labels = csv_reader.read_table(Path(name))
    np.testing.assert_array_equal(images, IMAGES)
    assert [int(float(label)) for label in labels] == LABELS.tolist()


@pytest.mark.parametrize("is_sorted", [False, True], ids=["mixed", "sorted"])
def test_label_without_a_header_is_the_first_column_or_the_last_one(work: Path, is_sorted: bool) -> None:
    """It is the last one if the first has the same value in all lines, as the corner of digits has."""
    images = np.tile(IMAGES, (20, 1, 1))
    images[:, 0, 0] = 0
    labels = np.tile(LABELS, 20)
    labels = np.sort(labels) if is_sorted else labels
    np.savetxt("first.csv", np.column_stack([labels, images.reshape(1800, 36)]), "%d", delimiter=",")
    np.savetxt("last.csv", np.column_stack([images.reshape(1800, 36), labels]), "%d", delimiter=",")
    for name in ("first.csv", "last.csv"):
        found, texts = csv_reader.read_table(Path(name))
        np.testing.assert_array_equal(found, images)
        assert list(map(int, texts)) == labels.tolist()


def test_every_number_of_a_csv_file_is_read_or_refused(work: Path) -> None:
    """Values have leading zeros; the first that is above 255 is named with its place."""
    lines = [f"{value},{value},{value:02},{value:02},{value:03}\n" for value in range(256)]
    Path("data.csv").write_text("".join(lines))
    pixels, labels = csv_reader.read_table(Path("data.csv"))
    np.testing.assert_array_equal(pixels.reshape(256, 4), np.arange(256)[:, None].repeat(4, axis=1))
    assert labels == [str(value) for value in range(256)]
    for value in ["256", "260", "299", "300", "900", "1000", "1255", "00256", "99999"]:
        Path("data.csv").write_text("".join([*lines, f"1,2,{value},3,4\n"]))
        with pytest.raises(DataError, match=f"line 257, column 3: '{value}' is not a whole number"):
            csv_reader.read_table(Path("data.csv"))


def test_csv_is_read_in_little_more_memory_than_its_pixels(work: Path) -> None:
    """At most 1.5 times, as tracemalloc counts what numpy allocates."""
    import tracemalloc

    images = GENERATOR.integers(0, 256, (10_000, 28, 28), np.uint8)
    np.savetxt("data.csv", np.column_stack([np.arange(10_000) % 10, images.reshape(10_000, -1)]), "%d", ",")
    tracemalloc.start()
    found, _ = csv_reader.read_table(Path("data.csv"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(found, images)
    assert peak < 1.5 * images.nbytes


def test_fast_and_slow_conversion_agree(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_csv(Path("data.csv"), IMAGES, LABELS)
    fast = csv_reader.read_table(Path("data.csv"))
    monkeypatch.setattr(csv_reader, "_convert_fast", lambda block, layout: None)
    slow = csv_reader.read_table(Path("data.csv"))
    np.testing.assert_array_equal(fast[0], slow[0])
    assert fast[1] == slow[1]


# Pictures


def test_pictures_are_ordered_by_file_name_over_all_classes(work: Path) -> None:
    write_folder(work / "data", IMAGES, [f"class {label}" for label in LABELS * 5])
    for name in (".DS_Store", "Thumbs.db"):
        (work / "data" / "class 5" / name).write_bytes(b"no picture")
    images, *rest = find_reader(work / "data").read(work / "data", "train", ReadOptions())
    np.testing.assert_array_equal(images, IMAGES)
    assert (rest[0].tolist(), rest[1]) == (LABELS.tolist(), ("class 0", "class 5", "class 10"))


def test_flat_folder_for_testing_is_not_a_split(work: Path) -> None:
    """As in competitions; a class may be called train."""
    write_folder(work / "data" / "train", IMAGES, list(map(str, LABELS)))
    write_folder(work / "data", IMAGES[:5], ["test"] * 5)
    assert (len(load("data")), len(load("data", "test"))) == (75, 15)
    assert load("data", "test").image_names[0].startswith(f"train{os.sep}")
    write_folder(work / "vehicles", IMAGES, ["train", "plane", "car"] * 30)
    assert load("vehicles").class_names == ("car", "plane", "train")


def test_sizes_are_brought_to_the_most_frequent_one_or_the_given_one(work: Path) -> None:
    write_folder(work / "data", IMAGES, ["a", "b", "c"] * 30)
    write_folder(work / "data" / "d", np.full((3, 12, 12), 80, np.uint8), ["d"] * 3)
    (work / "data" / "d" / "d").rename(work / "data" / "e")
    assert load("data").image_shape == (6, 6)
    images, labels, *_ = find_reader(work / "data").read(work / "data", "train", ReadOptions())
    assert (images[labels == 3] == 80).all()
    assert load("data", image_size=(10, 7)).image_shape == (10, 7)
    write_folder(work / "large", np.zeros((3, 64, 256), np.uint8), ["a", "b", "c"])
    assert find_reader(work / "large").read(work / "large", "train", ReadOptions())[0].shape == (3, 16, 64)
    with pytest.raises(ConfigError, match="the image size 65 x 28 must be from 1 x 1 to 64 x 64"):
        ReadOptions(image_size=(65, 28))


def test_pictures_that_are_dark_on_light_are_inverted_together(work: Path) -> None:
    """All or none: a picture with a light border among dark ones stays as it is."""
    images = IMAGES.copy()
    images[0] = 255 - images[0]
    write_folder(work / "dark", images, ["a", "b", "c"] * 30)
    write_folder(work / "light", 255 - images, ["a", "b", "c"] * 30)
    for name in ("dark", "light"):
        found = find_reader(work / name).read(work / name, "train", ReadOptions()).images
        np.testing.assert_array_equal(found, images)


def test_digits_are_drawn_as_predict_draws_them(work: Path) -> None:
    from softmax_cli.pictures import prepare_picture
    from tests.helpers import PICTURE

    for name in ("7", "8"):
        (work / "data" / name).mkdir(parents=True)
        (work / "data" / name / "1.png").write_bytes(PICTURE.read_bytes())
    options = ReadOptions(image_size=(28, 28), preparation="digit")
    found = find_reader(work / "data").read(work / "data", "train", options)
    np.testing.assert_array_equal(found.images[0], prepare_picture(PICTURE, (28, 28), "digit").image)
    assert found.preparation == "digit"


def test_unreadable_pictures_are_named_and_counted(work: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_folder(work / "data", IMAGES, list(map(str, LABELS)))
    for number in range(5):
        (work / "data" / "1" / f"bad{number}.png").write_bytes(b"\x89PNG")
    message = r"5 of 95 pictures cannot be read: data/1/bad0.png .*; data/1/bad2.png .*; and 2 more"
    with pytest.raises(DataError, match=message + "; repair or remove them, or .* --skip-bad"):
        load("data")
    np.testing.assert_array_equal(np.bincount(load("data", skip_bad=True).labels), [25, 25, 25])
    assert "and 2 more; they are left out" in caplog.text


def test_folder_is_decoded_again_only_if_a_file_changes(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(work / "data", IMAGES, list(map(str, LABELS)))
    digest = load("data").digest
    with monkeypatch.context() as patch:
        patch.setattr("softmax_cli.data.readers.folder.decode_pictures", lambda *args: pytest.fail("decoded"))
        assert load("data").digest == digest
    path = work / "data" / "0" / "0.png"
    path.write_bytes(png(IMAGES[3]))
    os.utime(path, ns=(1, 1))
    assert load("data").digest != digest


@pytest.mark.parametrize("kind", range(5))
def test_simple_png_files_are_decoded_as_pillow_does(work: Path, kind: int) -> None:
    """Each filter by itself; the filtered lines are computed here as the standard defines them."""
    import zlib

    from softmax_cli.data.png import END, START, scanlines, unfilter

    image = GENERATOR.integers(0, 256, (7, 5)).astype(int)
    above = np.pad(image, ((1, 0), (1, 0)))
    left, up, corner = above[1:, :-1], above[:-1, 1:], above[:-1, :-1]
    p = left + up - corner
    near = np.argmin([abs(p - left), abs(p - up), abs(p - corner)], axis=0)
    predictions = [0 * image, left, up, (left + up) // 2, np.choose(near, [left, up, corner])]
    lines = np.column_stack([np.full(7, kind), (image - predictions[kind]) % 256]).astype(np.uint8)

    def chunk(name: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")

    content = START[:8] + chunk(b"IHDR", bytes([0, 0, 0, 5, 0, 0, 0, 7, 8, 0, 0, 0, 0]))
    content += chunk(b"IDAT", zlib.compress(lines.tobytes())) + END
    with Image.open(io.BytesIO(content)) as picture:
        np.testing.assert_array_equal(np.asarray(picture), image)
    found = scanlines(content, 64)
    assert found is not None
    np.testing.assert_array_equal(unfilter(found[None])[0], image)
    for index in range(len(content)):
        damaged = content[:index] + bytes([content[index] ^ 1]) + content[index + 1 :]
        assert scanlines(damaged, 64) is None


def test_child_processes_give_the_same_images(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PNG files that numpy decodes, JPEG files that Pillow decodes, and one that is damaged."""
    write_folder(work / "data", IMAGES, ["a"] * 90)
    write_folder(work / "more", IMAGES, ["b"] * 90, "JPEG")
    sources: list[Path | bytes] = [*sorted(work.glob("*/*/*")), b"damaged"]
    alone = decoding.decode_pictures(sources, ReadOptions(skip_bad=True))
    monkeypatch.setattr(decoding, "FEW", 100)
    together = decoding.decode_pictures(sources, ReadOptions(skip_bad=True))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)
    assert together[1].sum() == 180


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ("28xx28", "'28xx28' is not of the form 28x28 or 28."),
        ("-5", "'-5' is not of the form 28x28 or 28."),
        ("100", "the image size 100 x 100 must be from 1 x 1 to 64 x 64"),
        ("0x9", "the image size 0 x 9 must be from 1 x 1 to 64 x 64"),
    ],
)
def test_wrong_image_size_is_wrong_usage(work: Path, invoke: Invoke, size: str, message: str) -> None:
    result = invoke("train", "--dataset", "sample", "--image-size", size)
    assert (result.exit_code, message in result.stderr) == (2, True), result.stderr


# parquet


def test_parquet_classes_have_the_names_in_the_metadata(work: Path) -> None:
    write_parquet(Path("train.parquet"), IMAGES, LABELS.astype(int), ["cat", "dog", "elk"])
    assert load("train.parquet").class_names == ("cat", "dog", "elk")


def test_parquet_pictures_may_be_paths(work: Path) -> None:
    write_folder(work, IMAGES, ["pictures"] * 90)
    table = pa.table({"image": [f"pictures/{i}.png" for i in range(90)], "label": list(map(str, LABELS))})
    pyarrow.parquet.write_table(table, "data.parquet")
    found = find_reader(Path("data.parquet")).read(Path("data.parquet"), "train", ReadOptions())
    np.testing.assert_array_equal(found.images, IMAGES)


def test_parquet_without_pyarrow_names_the_extra(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parquet(Path("data.parquet"), IMAGES, LABELS.astype(int))
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"needs pyarrow, which the extra \[parquet\] installs"):
        load("data.parquet")


# Bad input


def npz(**arrays: Any) -> Callable[[], str]:
    def write() -> str:
        np.savez("data.npz", **arrays)
        return "data.npz"

    return write


def text(name: str, content: str | bytes) -> Callable[[], str]:
    def write() -> str:
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return name

    return write


def cut(name: str) -> Callable[[], str]:
    """Write a valid file, and cut it in the middle."""

    def write() -> str:
        if name.endswith(".npz"):
            np.savez(name, images=IMAGES, labels=LABELS)
        elif name.endswith(".parquet"):
            write_parquet(Path(name), IMAGES, LABELS.astype(int))
        else:
            write_csv(Path(name), IMAGES, LABELS)
        content = Path(name).read_bytes()
        Path(name).write_bytes(content[: len(content) // 2])
        return name

    return write


def parquet(**columns: Any) -> Callable[[], str]:
    def write() -> str:
        pyarrow.parquet.write_table(pa.table(columns), "data.parquet")
        return "data.parquet"

    return write


def one_class() -> str:
    write_folder(Path("data"), IMAGES, ["only"] * 90)
    return "data"


def empty_split() -> str:
    write_folder(Path("data/train"), IMAGES, ["a", "b", "c"] * 30)
    Path("data/test/a").mkdir(parents=True)
    return "data"


ROW = ",".join(["0"] * 5)
CSV = "label,a,b,c,d\n" + "".join(f"{i % 2},1,2,3,4\n" for i in range(20))

BAD = {
    "npz, cut": (cut("data.npz"), "data.npz is not a data set; expected"),
    "npz, objects": (npz(images=IMAGES, labels=np.array([{}] * 90)), "labels is an array of objects"),
    "npz, counts": (npz(images=IMAGES, labels=LABELS[1:]), "90 images in images, but 89 labels in labels"),
    "npz, floats": (npz(images=IMAGES / 255, labels=LABELS), "images is float64, expected uint8"),
    "npz, large": (npz(images=IMAGES.astype(int) * 9, labels=LABELS), "images is int64, expected uint8"),
    "npz, shape": (npz(images=IMAGES[:, 0, :5], labels=LABELS), "the shape (90, 5), expected (n, rows"),
    "npz, one-hot": (npz(images=IMAGES, labels=np.eye(3)[LABELS]), "labels is float64 of shape (90, 3)"),
    "npz, missing": (npz(images=IMAGES), "data.npz lacks the array labels; it has images"),
    "npz, few": (npz(images=IMAGES[:2], labels=LABELS[:2]), "2 images, too few to set a sixth of them aside"),
    "csv, cut": (cut("data.csv.gz"), "data.csv.gz is cut short"),
    "csv, word": (text("data.csv", CSV + "1,2,3,oops,5\n"), "data.csv, line 22, c: 'oops' is not a whole"),
    "csv, negative": (text("data.csv", "1,2,3,-4,5\n"), "line 1, column 4: '-4' is not a whole number"),
    "csv, 256": (text("data.csv", f"{ROW}\n1,2,3,4,256\n"), "line 2, column 5: '256' is not a whole number"),
    "csv, fraction": (text("data.csv", CSV + "1,2,0.5,4,5\n"), "line 22, b: '0.5' is not a whole number"),
    "csv, empty": (text("data.csv", CSV + "1,2,,4,5\n"), "line 22, b: '' is not a whole number"),
    "csv, label": (text("data.csv", CSV + ",2,3,4,5\n"), "line 22, label: the label is missing"),
    "csv, columns": (text("data.csv", f"{ROW}\n0,1,2,3\n"), "line 2: 4 columns, expected 5"),
    "csv, pixels": (text("data.csv", "label,a,b,c\n1,2,3,4\n"), "3 columns of pixels beside the label"),
    "csv, no label": (text("data.csv", "a,b,c,d\n1,2,3,4\n"), "data.csv has no column with labels"),
    "csv, header only": (text("data.csv", "label,a,b,c,d\n"), "data.csv has no images"),
    "csv, bytes": (text("data.csv", CSV.encode() + b"\xff,1,2,3,x\n"), "data.csv is not text in UTF-8"),
    "csv, long": (text("data.csv", "1,2,3,4," + "5" * (1 << 21)), "a line of more than 1,048,576 bytes"),
    "csv, field": (text("data.csv", "1,2,3,4," + "5" * 200_000 + "\n"), "data.csv is not a CSV file"),
    "csv, one class": (text("data.csv", "7,2,3,4,5\n" * 20), "data.csv has images of one class only"),
    "parquet, cut": (cut("data.parquet"), "data.parquet is not a parquet file, or is damaged"),
    "parquet, no image": (parquet(text=["a"], label=[1]), "no column image; its columns are text, label"),
    "parquet, no label": (parquet(image=[b"a"]), "no column label; its columns are image"),
    "parquet, null": (parquet(image=[png(IMAGES[0])] * 2, label=[1, None]), "an image without a label"),
    "parquet, number": (parquet(image=[1, 2], label=[0, 1]), "neither the content of a file nor its path"),
    "parquet, float": (parquet(image=[png(IMAGES[0])], label=[0.5]), "labels of type double, expected whole"),
    "parquet, long": (parquet(image=[png(IMAGES[0])], label=["7" * 201]), "text of at most 200 characters"),
    "parquet, bytes": (parquet(image=[png(IMAGES[0])], label=[b"7"]), "no text of at most 200 characters"),
    "parquet, damaged": (parquet(image=[b"no"] * 2, label=[0, 1]), "pictures"),
    "folder, one class": (one_class, "data has images of one class only"),
    "folder, no test": (empty_split, "data/test has no pictures; expected a sub-folder for each class"),
    "nothing": (text("data.bin", bytes(1000)), "data.bin is not a data set; expected one of: "),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_x12_bad_input_gives_one_clear_line(work: Path, invoke: Invoke, name: str) -> None:
    write, message = BAD[name]
    result = invoke("train", "--dataset", write(), "--epochs", 1, "--offline")
    assert_fails(result, message)
    assert not Path("model.npz").exists()


@pytest.mark.parametrize("name", ["train.csv", "data.npz", "data.parquet"])
def test_damaged_files_never_show_a_traceback(work: Path, formats: dict[str, Path], name: str) -> None:
    """Some damage is not noticed, as it only changes pixels; whatever is raised names the file."""
    from tests.helpers import mutated

    source = {"train.csv": formats["csv"] / name, "data.npz": formats["npz"]}.get(name)
    source = source or formats["parquet"] / "train-00000-of-00001.parquet"
    content, generator = source.read_bytes(), np.random.default_rng(1)
    for _ in range(60):
        Path(name).write_bytes(mutated(generator, content))
        with suppress(SoftmaxError):
            load(name)
