"""Digits are drawn like those of MNIST, for any pen and any paper."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from softmax_cli.checkpoint import Checkpoint
from softmax_cli.config import TrainConfig
from softmax_cli.data.dataset import Dataset
from softmax_cli.data.download import Source
from softmax_cli.data.loading import load_dataset
from softmax_cli.features import FeatureMap, evidence_of
from softmax_cli.model import Model
from softmax_cli.pictures import draw_digit, draw_plain, prepare_picture
from softmax_cli.pictures.digit import STROKE, looks_drawn, stroke_width
from softmax_cli.training import fit
from tests import drawing
from tests.drawing import KINDS, draw_kind, encode, ink_of, rounded, strokes_of

SHAPE = (28, 28)

Gray = NDArray[np.uint8]


def enlarged(image: Gray, times: int = 10) -> Gray:
    """Return a digit as a smooth picture, `times` its size, light on black."""
    size = (times * image.shape[1], times * image.shape[0])
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def predictions(model: Model, images: list[Gray]) -> NDArray[np.intp]:
    """Return the class of each image."""
    found = np.stack(images)
    return np.asarray(evidence_of(model, FeatureMap(SHAPE), found).argmax(axis=1))


def centre_of_mass(image: Gray) -> tuple[float, float]:
    """Return the mean row and the mean column of the ink."""
    rows, columns = np.indices(image.shape)
    return float((rows * image).sum() / image.sum()), float((columns * image).sum() / image.sum())


def box(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """Return the height and the width of the bounding box of a mask."""
    return tuple(int(np.ptp(found)) + 1 for found in np.nonzero(mask))  # type: ignore[return-value]


@pytest.fixture
def digit(sample_test: Dataset) -> Gray:
    """Return a digit, a 7."""
    return sample_test.images[np.flatnonzero(sample_test.labels == 7)[1]]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a path for a picture."""
    return tmp_path / "digit.png"


def test_a_digit_is_drawn_as_mnist_draws_it(sample_test: Dataset) -> None:
    """The longest side is 20, the centre of mass is in the middle, and the maximum is 255."""
    generator = np.random.default_rng(0)
    for image in generator.permutation(sample_test.images)[:50]:
        picture = np.zeros((400, 500), np.uint8)
        top, left = generator.integers(0, (120, 220))
        picture[top : top + 280, left : left + 280] = enlarged(image)
        drawn = draw_digit(picture, SHAPE).image
        assert drawn.dtype == np.uint8
        assert drawn.max() == 255
        assert 19 <= max(box(drawn > 0)) <= 20
        for mean in centre_of_mass(drawn):
            assert 13.5 - 0.01 <= mean < 14.5 + 0.01  # the offset is determined before the values are rounded
        assert (drawn == 0).mean() > 0.4
        assert len(np.unique(drawn)) > 10  # greys, not black and white


@pytest.mark.parametrize("pen", [1, 2, 4, 8, 12])
def test_strokes_have_the_width_of_mnist_for_every_pen(sample_test: Dataset, pen: int) -> None:
    drawn = [
        prepare_picture(draw_kind(f"pen {pen}", image, 0), SHAPE, "digit").image / 255
        for image in sample_test.images[:12]
    ]
    widths = [stroke_width(np.pad(image, 2)) for image in drawn]
    assert np.median(widths) == pytest.approx(STROKE, abs=0.35)


def test_dark_on_light_and_light_on_dark_give_the_same_image(sample_test: Dataset) -> None:
    for image in sample_test.images[:20]:
        large = enlarged(image, 9)
        light, dark = draw_digit(large, SHAPE), draw_digit(255 - large, SHAPE)
        assert np.abs(light.image.astype(int) - dark.image).max() <= 1
        assert dark.steps == ("inverted", *light.steps)


def test_size_and_position_have_no_effect(digit: Gray) -> None:
    """The digit is enlarged 4 and 12 times and placed in different corners."""
    once = draw_digit(np.pad(np.kron(digit, np.ones((4, 4), np.uint8)), 5), SHAPE).image
    twice = draw_digit(np.pad(np.kron(digit, np.ones((12, 12), np.uint8)), ((40, 7), (3, 90))), SHAPE).image
    assert np.abs(once.astype(int) - twice).mean() <= 2


def test_a_small_digit_on_a_large_sheet_is_drawn_at_full_resolution(digit: Gray) -> None:
    """Around the digit, 40 pixels high, there is so much paper that the picture is reduced at first."""
    small = np.asarray(Image.fromarray(digit).resize((56, 56), Image.Resampling.BICUBIC))
    close, far = (draw_digit(np.pad(small, margin), SHAPE) for margin in (20, 200))
    assert np.abs(close.image.astype(int) - far.image).max() <= 8
    assert close.steps == far.steps


# Pictures that are used unchanged


def test_images_of_the_data_set_are_used_unchanged(sample_test: Dataset) -> None:
    ready = [looks_drawn(image) for image in sample_test.images]
    assert np.mean(ready) > 0.98
    for image in sample_test.images[np.flatnonzero(ready)[:10]]:
        for preparation in ("digit", "plain"):
            prepared = prepare_picture(encode(Image.fromarray(image)), SHAPE, preparation)
            assert np.array_equal(prepared.image, image)
            assert (prepared.steps, prepared.warnings) == (("used as it is: 28 x 28, light on black",), ())


def shifted(image: Gray) -> Gray:
    rows, columns = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
    cut = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.pad(cut, ((1, 27 - cut.shape[0]), (1, 27 - cut.shape[1])))


def halved(image: Gray) -> Gray:
    small = Image.fromarray(image).resize((14, 14), Image.Resampling.BOX)
    return np.pad(np.asarray(small), 7)


def dimmed(image: Gray) -> Gray:
    return image // 2


@pytest.mark.parametrize("change", [shifted, halved, dimmed], ids=["off centre", "too small", "too dark"])
def test_other_pictures_of_the_right_size_are_redrawn(
    sample_test: Dataset, change: Callable[[Gray], Gray]
) -> None:
    differences = []
    for image in sample_test.images[:20]:
        prepared = prepare_picture(encode(Image.fromarray(change(image))), SHAPE, "digit")
        assert "stroke width normalised" in prepared.steps
        expected = draw_digit(image, SHAPE).image
        differences.append(np.abs(prepared.image.astype(int) - expected).mean())
    assert np.mean(differences) < (15 if change is halved else 4)


@pytest.mark.full
def test_the_test_images_of_mnist_read_from_png_lose_at_most_a_tenth_of_a_point(full_mnist: Path) -> None:
    source = Source(full_mnist, offline=True)
    data, test = load_dataset("mnist", "train", source), load_dataset("mnist", "test", source)
    config = TrainConfig(dataset="mnist")
    *_, state = fit(config, data)
    images = [prepare_picture(encode(Image.fromarray(one)), SHAPE, "digit").image for one in test.images]
    right = [(predictions(state.model, list(some)) == test.labels).mean() for some in (test.images, images)]
    assert right[1] >= right[0] - 0.001


# Polarity


def test_invert_determines_the_polarity() -> None:
    """On grey paper, there are a vertical black bar and a weaker horizontal white bar."""
    picture = np.full((100, 100), 100, np.uint8)
    picture[20:60, 20:30] = 0
    picture[70:80, 20:60] = 190
    found, dark, light = (draw_digit(picture, SHAPE, invert) for invert in (None, True, False))
    assert box(dark.image > 0)[0] == box(light.image > 0)[1] == 20
    assert max(box(dark.image > 0)[1], box(light.image > 0)[0]) <= 6
    assert np.array_equal(found.image, dark.image)
    assert ("inverted" in dark.steps, "inverted" in light.steps) == (True, False)


@pytest.mark.parametrize("preparation", ["digit", "plain"])
def test_invert_applies_to_a_file_of_the_right_size_too(
    digit: Gray, tmp_path: Path, preparation: str
) -> None:
    file = tmp_path / "digit.png"
    Image.fromarray(digit).save(file)
    assert "inverted" in prepare_picture(file, SHAPE, preparation, True).steps
    prepared = prepare_picture(file, SHAPE, preparation, False)
    assert not any("inverted" in step or "as it is" in step for step in prepared.steps)


# Papers, pens and marks


COMMON = 10
"""Number of digits of each kind; all of them are read correctly if a plain pen draws them."""


@pytest.fixture(scope="module")
def readable(sample_test: Dataset, trained: Checkpoint) -> NDArray[np.intp]:
    """Return test digits that are predicted correctly when a plain pen draws them."""
    some = np.arange(0, 60)
    images = [draw_digit(plainly(sample_test.images[index]), SHAPE).image for index in some]
    right = predictions(trained.state.model, images) == sample_test.labels[some]
    return some[right][:COMMON]


def plainly(image: Gray) -> Gray:
    ink = ink_of(strokes_of(image), (200, 200), 6, drawing.Pose())
    return rounded(255 * (1 - ink))


FEWER = {"12 to 16": 6, "16 to 40": 7, "perspective": 7, "rotated": 7, "shadow": 7}
"""Minimum for kinds that are more difficult; at most 2 of 10 of the others may be wrong."""


@pytest.mark.parametrize("kind", KINDS)
def test_digits_are_predicted_correctly_on_every_kind_of_picture(
    kind: str, sample_test: Dataset, trained: Checkpoint, readable: NDArray[np.intp]
) -> None:
    images = [
        prepare_picture(draw_kind(kind, sample_test.images[index], int(index)), SHAPE, "digit").image
        for index in readable
    ]
    right = predictions(trained.state.model, images) == sample_test.labels[readable]
    assert right.sum() >= FEWER.get(kind, 8)


MARKED = {
    "lined": "ruled lines removed",
    "squared": "ruled lines removed",
    "specks": "specks removed",
    "desk": "cut to the sheet of paper",
    "transparent": "ink found by transparency",
    "coloured": "ink found by colour",
}


@pytest.mark.parametrize("kind", MARKED)
def test_the_steps_name_the_marks_that_were_removed(kind: str, sample_test: Dataset) -> None:
    said = [
        prepare_picture(draw_kind(kind, image, number), SHAPE, "digit").steps
        for number, image in enumerate(sample_test.images[:10])
    ]
    assert sum(any(step.startswith(MARKED[kind]) for step in steps) for steps in said) >= 8
    plain = [draw_digit(plainly(image), SHAPE).steps for image in sample_test.images[:10]]
    assert not any("removed" in step or "sheet" in step for steps in plain for step in steps)


@pytest.mark.parametrize("width", [1, 2, 5, 9])
def test_a_frame_has_no_effect(digit: Gray, width: int) -> None:
    clean = np.pad(255 - enlarged(digit, 5), 30, constant_values=255)
    framed = clean.copy()
    framed[:width] = framed[-width:] = framed[:, :width] = framed[:, -width:] = 0
    found = draw_digit(framed, SHAPE)
    assert any(word in " ".join(found.steps) for word in ("removed", "sheet"))
    assert np.abs(found.image.astype(int) - draw_digit(clean, SHAPE).image).max() <= 8


@pytest.mark.parametrize("side", [0, 1, 2, 3])
@pytest.mark.parametrize("depth", [2, 8, 15])
def test_a_dark_edge_has_no_effect(digit: Gray, side: int, depth: int) -> None:
    clean = np.pad(255 - enlarged(digit, 5), 30, constant_values=255)
    edged = np.rot90(clean, side).copy()
    edged[:, :depth] = 20
    found = draw_digit(np.ascontiguousarray(np.rot90(edged, -side)), SHAPE)
    assert np.abs(found.image.astype(int) - draw_digit(clean, SHAPE).image).max() <= 8


def test_strokes_across_a_tight_picture_are_not_removed_as_ruled_lines() -> None:
    """A 7 touches both sides, a 4 touches top and bottom, and a 1 is a single line."""
    seven, four, one = (Image.new("L", size, 255) for size in ((120, 180), (120, 180), (12, 180)))
    ImageDraw.Draw(seven).line([(0, 3), (119, 3), (40, 179)], fill=0, width=5)
    ImageDraw.Draw(four).line([(100, 0), (100, 179)], fill=0, width=5)
    ImageDraw.Draw(four).line([(90, 0), (3, 120), (119, 120)], fill=0, width=5)
    ImageDraw.Draw(one).line([(6, 0), (6, 179)], fill=0, width=5)
    for picture in (seven, four, one):
        tight = np.asarray(picture)
        wide = np.pad(tight, 35, constant_values=255)
        found, expected = draw_digit(tight, SHAPE), draw_digit(wide, SHAPE)
        assert not any("removed" in step for step in found.steps)
        assert np.abs(found.image.astype(int) - expected.image).mean() < 3


def test_a_faint_scratch_away_from_the_digit_is_removed(digit: Gray) -> None:
    clean = np.pad(enlarged(digit), 60)
    scratched = clean.copy()
    scratched[380:384, 20:380] = 40
    expected, found = draw_digit(clean, SHAPE), draw_digit(scratched, SHAPE)
    assert np.array_equal(found.image, expected.image)
    assert (found.steps, found.warnings) == (expected.steps, ())


@pytest.mark.parametrize("deviation", [2, 5])
def test_the_noise_of_paper_is_not_ink(digit: Gray, deviation: float) -> None:
    paper = 200 - np.pad(enlarged(digit), 60) * 0.6
    noise = np.random.default_rng(0).normal(0, deviation, paper.shape)
    clean, noisy = (draw_digit(picture.astype(np.uint8), SHAPE).image for picture in (paper, paper + noise))
    assert np.abs(clean.astype(int) - noisy).mean() < 10
    assert (noisy[clean == 0] == 0).mean() > 0.97


@pytest.mark.parametrize("shape", [(20, 16), (16, 20), (64, 48), (8, 8), (1, 1), (2, 9)])
def test_images_have_the_size_that_a_model_requires(digit: Gray, shape: tuple[int, int]) -> None:
    for draw in (draw_digit, draw_plain):
        drawn = draw(255 - enlarged(digit), shape).image
        assert (drawn.shape, drawn.dtype) == (shape, np.uint8)
        assert drawn.max() > 0
    if min(shape) < 8:
        return
    drawn = draw_digit(255 - enlarged(digit), shape).image
    assert max(box(drawn > 0)) == round(min(shape) * 20 / 28)
    for mean, side in zip(centre_of_mass(drawn), shape, strict=True):
        assert side / 2 - 0.51 <= mean < side / 2 + 0.51


# Whole pictures


def test_a_plain_picture_keeps_its_proportions() -> None:
    """A disc in the middle of a wide picture remains a disc in the middle on the same background."""
    picture = Image.new("L", (240, 120), 30)
    ImageDraw.Draw(picture).ellipse((80, 20, 160, 100), fill=220)
    prepared = draw_plain(np.asarray(picture), SHAPE)
    height, width = box(prepared.image > 125)
    assert 8 <= height <= 10
    assert abs(height - width) <= 1
    np.testing.assert_allclose(centre_of_mass(prepared.image - 30), (13.5, 13.5), atol=0.2)
    assert (prepared.image[:5] == 30).all()
    assert (prepared.image[-5:] == 30).all()
    assert prepared.steps == ("padded", "resized to 28 x 28")


def test_a_plain_picture_of_the_right_proportions_is_averaged() -> None:
    picture = np.random.default_rng(0).integers(0, 120, (84, 84)).astype(np.uint8)
    means = picture.reshape(28, 3, 28, 3).mean(axis=(1, 3))
    prepared = draw_plain(picture, SHAPE)
    np.testing.assert_array_equal(prepared.image, np.floor(means + 0.5))
    assert prepared.steps == ("resized to 28 x 28",)


def test_a_plain_picture_on_white_is_inverted_and_padded_with_black() -> None:
    picture = np.full((100, 60), 255, np.uint8)
    picture[20:80, 20:40] = 55
    dark, light = draw_plain(picture, SHAPE), draw_plain(255 - picture, SHAPE)
    assert np.array_equal(dark.image, light.image)
    assert (dark.image.max(), dark.image[:, 0].max(), dark.image[:, -1].max()) == (200, 0, 0)
    assert dark.steps == ("inverted", "padded", "resized to 28 x 28")
    assert light.steps == ("padded", "resized to 28 x 28")
    assert np.array_equal(draw_plain(255 - picture, SHAPE, True).image, 255 - light.image)
    assert np.array_equal(draw_plain(picture, SHAPE, False).image, 255 - light.image)
