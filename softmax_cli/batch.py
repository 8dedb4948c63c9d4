"""Predictions for many images, and the misclassified images of an evaluation, as CSV files.

Memory is bounded: images are read, classified and written in blocks where the format allows it.
"""

import csv
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from softmax_cli.classifier import Classifier
from softmax_cli.data.dataset import Dataset
from softmax_cli.data.decoding import decode_pictures
from softmax_cli.data.readers import ReadOptions, find_reader, folder
from softmax_cli.data.readers import csv as csv_reader
from softmax_cli.data.readers.idx import read_idx
from softmax_cli.errors import DataError
from softmax_cli.files import atomic_write, check_writable
from softmax_cli.model import softmax

BLOCK = 4096
"""Number of images that are classified, on all cores, and written at a time."""

PICTURES = 8192
"""Number of pictures that are decoded at a time."""

OnImages = Callable[[int], object]


class Images(NamedTuple):
    """Images of a source, to be classified.

    Attributes:
        size: Their number; None if it is not known before they are read.
        key: Name of the column that identifies an image.
        answer: Name of the column with the predicted class.
        blocks: Images (n, rows, cols) with what identifies each.
    """

    size: int | None
    key: str
    answer: str
    blocks: Iterator[tuple[NDArray[np.uint8], Sequence[object]]]


def predict_file(
    classifier: Classifier,
    path: str | Path,
    output: str | Path,
    *,
    options: ReadOptions | None = None,
    probabilities: bool = False,
    on_progress: OnImages = lambda images: None,
) -> int:
    """Classify the images at a path, write a CSV file with a line for each, and return their number.

    The columns are ``index``, ``class`` and ``probability``; for pictures ``image`` instead of the index;
    for a CSV file without labels ``ImageId``, from 1, and ``Label``. The file appears when it is complete. If
    a folder, an archive or a parquet data set has a test split, its images are classified, else all.

    Args:
        classifier: The classifier.
        path: A data file, a folder of pictures, or a folder of a data set.
        output: The CSV file to write.
        options: How pictures are read; by default, as those of the classifier's data set.
        probabilities: Add a column with the probability of each class.
        on_progress: Called with the number of images that were just classified.

    Raises:
        DataError: The data cannot be read, or do not suit the classifier.
        OutputError: The file cannot be written; an older file is unchanged.
    """
    path, output = Path(path), Path(output)
    check_writable(output)
    checkpoint = classifier.checkpoint
    options = (options or ReadOptions()).with_defaults(checkpoint.image_shape, checkpoint.preparation)
    images = find_images(path, options)
    done = 0
    with atomic_write(output) as file:
        _write_rows(file, [_header(images, classifier, probabilities)])
        for block, keys in images.blocks:
            rows = _answers(classifier, block, keys, images.key != "ImageId", probabilities)
            _write_rows(file, rows)
            done += len(block)
            on_progress(len(block))
        if not done:
            raise DataError(f"{path} has no images")
    return done


def write_errors(classifier: Classifier, data: Dataset, rows: NDArray[np.intp], output: str | Path) -> int:
    """Write the misclassified images among ``data.images[rows]`` to a CSV file, and return their number.

    The columns are ``image`` if the images are pictures, else ``index`` in the split, then ``label``, the
    predicted ``class`` and its ``probability``.

    Raises:
        OutputError: The file cannot be written; an older file is unchanged.
    """
    names, count = classifier.class_names, 0
    with atomic_write(Path(output)) as file:
        _write_rows(file, [["image" if data.image_names else "index", "label", "class", "probability"]])
        for block, z in classifier.evidence_blocks(data.images, rows):
            labels, found = data.labels[block], z.argmax(axis=1)
            wrong = np.flatnonzero(found != labels)
            best = softmax(z[wrong].astype(np.float64)).max(axis=1)
            keys = [data.image_names[row] if data.image_names else row for row in block[wrong].tolist()]
            lines = zip(keys, labels[wrong].tolist(), found[wrong].tolist(), best.tolist(), strict=True)
            _write_rows(file, ([key, names[true], names[guess], _text(p)] for key, true, guess, p in lines))
            count += len(wrong)
    return count


def _header(images: Images, classifier: Classifier, probabilities: bool) -> list[str]:
    header = [images.key, images.answer]
    if images.key != "ImageId":
        header.append("probability")
    return header + list(classifier.class_names) * probabilities


def _answers(
    classifier: Classifier,
    images: NDArray[np.uint8],
    keys: Sequence[object],
    with_probability: bool,
    probabilities: bool,
) -> Iterator[Sequence[object]]:
    """Return the row of each image."""
    y = classifier.predict_proba(images)
    best = y.argmax(axis=1)
    columns: list[Iterable[object]] = [keys, (classifier.class_names[index] for index in best.tolist())]
    if with_probability:
        columns.append(map(_text, y[np.arange(len(y)), best].tolist()))
    if probabilities:
        columns += (map(_text, column) for column in y.T.tolist())
    return zip(*columns, strict=True)


def _text(probability: float) -> str:
    return f"{probability:.6g}"


def _write_rows(file: BinaryIO, rows: Iterable[Sequence[object]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    file.write(text.getvalue().encode())


# Sources of images


def find_images(path: Path, options: ReadOptions) -> Images:
    """Return the images at a path: a CSV or IDX file, a folder of pictures, or a data set.

    Raises:
        DataError: Nothing there has a known format.
    """
    if not os.path.exists(path):
        raise DataError(f"there is nothing at {path}; expected a data file or a folder of pictures")
    if os.path.isdir(path):
        return _pictures_or_data(path, options)
    if _is_idx(path):
        return _arrays(read_idx(path, "images"))
    if csv_reader.detect(path):
        return _lines(path)
    return _arrays(find_reader(path).read(path, "test", options).images)


def _is_idx(path: Path) -> bool:
    try:
        read_idx(path, "images")
    except DataError:
        return False
    return True


def _lines(path: Path) -> Images:
    layout = csv_reader.find_layout(path)
    is_labelled = layout.label is not None

    def blocks() -> Iterator[tuple[NDArray[np.uint8], Sequence[object]]]:
        begin = 0 if is_labelled else 1
        for pixels in _gathered(block.pixels for block in csv_reader.read_blocks(path, layout)):
            yield pixels.reshape(-1, *layout.image_shape), range(begin, begin + len(pixels))
            begin += len(pixels)

    return Images(None, *(("index", "class") if is_labelled else ("ImageId", "Label")), blocks())


def _gathered(blocks: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    """Yield the rows of blocks, at least `BLOCK` at a time except for the last ones."""
    gathered: list[NDArray[np.uint8]] = []
    for block in blocks:
        gathered.append(block)
        if sum(map(len, gathered)) >= BLOCK:
            yield np.concatenate(gathered)
            gathered.clear()
    if gathered:
        yield np.concatenate(gathered)


def _arrays(images: NDArray[np.uint8]) -> Images:
    begins = range(0, len(images), BLOCK)
    blocks = ((images[i : i + BLOCK], range(i, min(i + BLOCK, len(images)))) for i in begins)
    return Images(len(images), "index", "class", blocks)


def _pictures_or_data(path: Path, options: ReadOptions) -> Images:
    files = folder.list_files(path)
    if folder.detect(path):
        files = folder.pictures_to_predict(path)
    elif not any(map(folder.starts_as_picture, files)):
        return _arrays(find_reader(path).read(path, "test", options).images)

    def blocks() -> Iterator[tuple[NDArray[np.uint8], Sequence[object]]]:
        for begin in range(0, len(files), PICTURES):
            block = files[begin : begin + PICTURES]
            images, readable = decode_pictures(block, options)
            names = [str(file.relative_to(path)) for file, good in zip(block, readable, strict=True) if good]
            yield images, names

    return Images(len(files), "image", "class", blocks())
