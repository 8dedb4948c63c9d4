"""Measure the accuracy on pictures of digits, by kind of picture.

    python benchmarks/pictures.py --help

tests/drawing.py draws the pictures from test images of MNIST, with a fixed seed. The output is the accuracy
of each checkpoint by kind, the rows of digits that are read exactly, the single digits that are split, the
drawings of other things that are flagged, and the time per picture.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).parent.parent))

from softmax_cli import Classifier, Source, load_dataset
from softmax_cli.data.dataset import Dataset
from softmax_cli.pictures import find_digits, prepare_picture
from softmax_cli.pictures.digit import distance_to
from tests.drawing import KINDS, OTHERS, draw_kind, draw_other, draw_row, encode, strokes_of, thin, usual_pose
from tests.drawing import ink_of as ink_of_strokes

SHAPE = (28, 28)
FONTS = ("Breip", "Humor", "Femke", "Yusei", "Klee", "Kristi", "Bwht", "Dkg", "Rufscript", "Delphine")

Gray = NDArray[np.uint8]


def main() -> None:
    """Print all tables."""
    options = parser().parse_args()
    models = {path.stem: Classifier.load(path) for path in options.checkpoints}
    data = load_dataset("mnist", "test", Source(options.data_dir, offline=True))
    order = np.random.default_rng(options.seed).permutation(len(data.labels))
    chosen = order[: options.digits]
    images, labels = [np.asarray(data.images[index]) for index in chosen], data.labels[chosen]
    print_row("kind", [*models, "ms", "warned"])
    for kind in KINDS:
        report(kind, [draw_kind(kind, image, seed) for seed, image in enumerate(images)], labels, models)
    fonts = list(glyphs(options.fonts))
    if fonts:
        pictures, digits = zip(*fonts, strict=True)
        report(f"{len(fonts) // 10} fonts", list(pictures), np.array(digits), models)
    print_rows(data, order[options.digits :], models, options.rows)
    print_split(images, models, options.digits)
    print_others(options.digits // 2)


def parser() -> argparse.ArgumentParser:
    """Return the options of the benchmark."""
    found = argparse.ArgumentParser(description=__doc__)
    found.add_argument("checkpoints", nargs="+", type=Path, help="models of MNIST")
    found.add_argument("--data-dir", type=Path, required=True, help="folder with mnist/ in it")
    found.add_argument("--digits", type=int, default=200, help="pictures of each kind")
    found.add_argument("--rows", type=int, default=200, help="rows of 3 to 8 digits")
    found.add_argument("--fonts", type=Path, default=Path("/usr/share/fonts"), help="folder with fonts")
    found.add_argument("--seed", type=int, default=0)
    return found


def print_row(name: str, cells: list[Any]) -> None:
    """Print a name and cells in columns."""
    print(f"{name:24}", *(f"{cell:>9}" for cell in cells), flush=True)


def share(hits: NDArray[np.bool_]) -> str:
    """Return the fraction of hits in per cent."""
    return f"{100 * np.mean(hits):.1f} %"


def report(kind: str, pictures: list[bytes], labels: NDArray[Any], models: dict[str, Classifier]) -> None:
    """Print the accuracy of all models on pictures of one digit, and the time."""
    start = time.process_time()
    prepared = [prepare_picture(picture, SHAPE, "digit") for picture in pictures]
    spent = (time.process_time() - start) / len(pictures)
    found = [share(model.predict(np.stack([one.image for one in prepared])) == labels)
             for model in models.values()]  # fmt: skip
    print_row(
        kind, [*found, f"{1000 * spent:.1f}", share(np.array([bool(one.warnings) for one in prepared]))]
    )


def glyphs(folder: Path) -> Iterator[tuple[bytes, int]]:
    """Yield pictures of digits in fonts that imitate handwriting.

    The glyphs are thinned and drawn with a pen.
    """
    rng = np.random.default_rng(0)
    for path in sorted(folder.rglob("*.[to]tf")):
        if not path.stem.startswith(FONTS):
            continue
        for digit in range(10):
            glyph = Image.new("L", SHAPE)
            ImageDraw.Draw(glyph).text((14, 14), str(digit), 255, ImageFont.truetype(path, 24), anchor="mm")
            if np.asarray(glyph).max() < 200:
                continue
            ink = ink_of_strokes(
                strokes_of(np.asarray(glyph)), (200, 200), rng.uniform(2, 9), usual_pose(rng)
            )
            yield encode(Image.fromarray((255 * (1 - ink)).astype(np.uint8))), digit


def print_rows(data: Dataset, order: NDArray[np.intp], models: dict[str, Classifier], count: int) -> None:
    """Print the fractions of rows of 3 to 8 digits that are cut and read correctly.

    No digit occurs twice. `order` are the indices of the digits. The bound is the fraction of rows whose
    original images are all read correctly. In the last rows, no digit has lost its shape by thinning.
    """
    rows = list(cut_rows(order, count))
    bound = [share(np.array([is_read(model, data, row, data.images[row]) for row in rows]))
             for model in models.values()]  # fmt: skip
    print_row("rows: original images", bound)
    report_rows("rows", rows, data, models)
    kept = [index for index in order[: 2 * 8 * count] if keeps_shape(np.asarray(data.images[index]))]
    report_rows("rows of kept shapes", list(cut_rows(np.array(kept), count)), data, models)


def cut_rows(order: NDArray[np.intp], count: int) -> Iterator[NDArray[np.intp]]:
    """Yield `count` rows of 3 to 8 indices, from the first on."""
    lengths = np.random.default_rng(1).integers(3, 9, count)
    return iter(np.split(order[: lengths.sum()], np.cumsum(lengths)[:-1]))


def report_rows(
    name: str, rows: list[NDArray[np.intp]], data: Dataset, models: dict[str, Classifier]
) -> None:
    """Print the fractions of rows that are cut and read correctly."""
    pictures = [draw_row([np.asarray(data.images[index]) for index in row], n) for n, row in enumerate(rows)]
    exact, cut = [], []
    for model in models.values():
        found = [find_digits(picture, SHAPE, None, confidence_of(model)) for picture in pictures]
        images = [np.array([one.image for one in digits]) for digits in found]
        pairs = list(zip(rows, images, strict=True))
        cut.append(share(np.array([len(row) == len(some) for row, some in pairs])))
        exact.append(share(np.array([is_read(model, data, row, some) for row, some in pairs])))
    print_row(f"{name}: read exactly", exact)
    print_row(f"{name}: cut exactly", cut)


def is_read(model: Classifier, data: Dataset, row: NDArray[np.intp], images: Gray) -> bool:
    """Return whether images are as many as the digits of a row, and all read correctly."""
    return len(images) == len(row) and bool((model.predict(images) == data.labels[row]).all())


def keeps_shape(image: Gray) -> bool:
    """Return whether nearly all ink of a digit is near its skeleton.

    Thinning loses the filled loops and short arms of thick digits: an 8 becomes a 6, a 3 becomes an arc.
    Their ink is farther from the skeleton than half a usual stroke.
    """
    fine = np.asarray(Image.fromarray(image).resize((112, 112), Image.Resampling.BICUBIC))
    ink = np.pad(fine > 90, 1)
    skeleton = thin(ink)
    to_skeleton, to_paper = distance_to(np.stack([skeleton, ~ink]), 40)
    is_far = to_skeleton[ink] > np.median(to_paper[skeleton]) + 4
    return bool(is_far.mean() <= 0.02)


def confidence_of(model: Classifier) -> Callable[[Gray], NDArray[np.float64]]:
    """Return a function from images to their confidence, for `find_digits`."""
    return lambda images: model.predict_proba(images).max(axis=1)


def print_split(images: list[Gray], models: dict[str, Classifier], count: int) -> None:
    """Print the fraction of single digits in which several are found."""
    kinds = ["pen 4", "pen 8", "paper", "jpeg"]
    pictures = [draw_kind(kinds[seed % 4], image, seed) for seed, image in enumerate(images[:count])]
    found = [
        share(np.array([len(find_digits(one, SHAPE, None, confidence_of(model))) != 1 for one in pictures]))
        for model in models.values()
    ]
    print_row("single digits split", found)


def print_others(count: int) -> None:
    """Print the fraction of other drawings that are flagged by their outline alone."""
    for name in OTHERS:
        prepared = [prepare_picture(draw_other(name, seed), SHAPE, "digit") for seed in range(count)]
        print_row(f"{name}: flagged", [share(np.array([bool(one.warnings) for one in prepared]))])


if __name__ == "__main__":
    main()
