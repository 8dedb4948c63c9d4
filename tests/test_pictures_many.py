"""Several digits in one picture, drawings that are not digits, blank pictures."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from softmax_cli.data.dataset import Dataset
from softmax_cli.pictures import (
    Prepared,
    draw_digit,
    draw_plain,
    find_digits,
    fit_reference,
    prepare_picture,
    split_touching,
    strangeness,
)
from softmax_cli.pictures.segment import split_narrowest
from tests.drawing import draw_kind, draw_other, draw_row, encode

SHAPE = (28, 28)

Gray = NDArray[np.uint8]


# Several digits


@pytest.mark.parametrize("count", [3, 5, 8])
def test_a_row_of_digits_is_found_from_left_to_right(sample_test: Dataset, count: int) -> None:
    """Each digit is drawn as in a picture of its own."""
    for seed in range(4):
        images = sample_test.images[seed * count : (seed + 1) * count]
        found = find_digits(draw_row(list(images), seed), SHAPE)
        assert [one.line for one in found] == [0] * count
        lefts = [one.box.left for one in found if one.box]
        assert lefts == sorted(lefts)
        for one, image in zip(found, images, strict=True):
            alone = prepare_picture(draw_kind("pen 8", image, 0), SHAPE, "digit").image
            assert np.abs(one.image.astype(int) - alone).mean() < 25


def page(images: Gray, columns: int, gap: int = 20) -> Gray:
    """Return digits, 60 pixels high, in lines on a white page."""
    rows = -(-len(images) // columns)
    sheet = np.full((rows * (60 + gap) + gap, columns * (60 + gap) + gap), 255, np.uint8)
    for index, image in enumerate(images):
        top, left = (gap + place * (60 + gap) for place in divmod(index, columns))
        sheet[top : top + 60, left : left + 60] -= np.asarray(Image.fromarray(image).resize((60, 60)))
    return sheet


def test_lines_are_read_from_top_to_bottom(sample_test: Dataset) -> None:
    images = sample_test.images[20:32]
    found = find_digits(encode(Image.fromarray(page(images, 4))), SHAPE)
    assert [one.line for one in found] == [0] * 4 + [1] * 4 + [2] * 4
    for index, one in enumerate(found):
        assert one.box
        row, column = divmod(index, 4)
        assert 20 + row * 80 - 1 <= one.box.top < one.box.bottom <= 80 + row * 80 + 1
        assert 20 + column * 80 - 1 <= one.box.left < one.box.right <= 80 + column * 80 + 1


def test_boxes_are_in_pixels_of_the_file(sample_test: Dataset) -> None:
    """The page of 2,400 pixels is reduced to half its size or less."""
    small = Image.fromarray(page(sample_test.images[:4], 4))
    large = small.resize((small.width * 8, small.height * 8))
    few, many = (find_digits(encode(picture), SHAPE) for picture in (small, large))
    for one, other in zip(few, many, strict=True):
        assert np.abs(8 * np.array(one.box) - np.array(other.box)).max() <= 16


def test_single_digits_are_not_split(sample_test: Dataset) -> None:
    """Every picture contains one digit and is processed without a classifier."""
    pictures = [draw_kind("pen 4", image, seed) for seed, image in enumerate(sample_test.images[:60])]
    assert [len(find_digits(one, SHAPE)) for one in pictures] == [1] * 60


def touching() -> Gray:
    """Return ink of two frames with a thin bridge between them."""
    ink = np.zeros((60, 90), np.uint8)
    for left in (0, 50):
        ink[:, left : left + 40] = 255
        ink[10:50, left + 10 : left + 30] = 0
    ink[28:32, 40:50] = 255
    return ink


def test_touching_digits_are_cut_at_the_narrowest_place() -> None:
    parts = split_narrowest(touching())
    assert parts
    left, right = parts
    assert np.array_equal(left + right, touching())
    assert (np.nonzero(left)[1].max(), np.nonzero(right)[1].min()) == pytest.approx((44, 45), abs=6)


@pytest.mark.parametrize(
    ("whole", "part", "count"), [(0.5, 0.99, 2), (0.99, 1.0, 1), (0.5, 0.6, 1), (0.95, 0.94, 1)]
)
def test_a_shape_is_split_if_the_confidence_of_the_parts_is_higher(
    whole: float, part: float, count: int
) -> None:
    def confidence(images: Gray) -> NDArray[np.float64]:
        is_narrow = images[0].any(axis=0).sum() < images[0].any(axis=1).sum()
        return np.array([1.0 if is_narrow else whole] + [part] * (len(images) - 1))

    assert len(split_touching(touching(), SHAPE, confidence)) == count
    assert len(find_digits(encode(Image.fromarray(np.pad(touching(), 40))), SHAPE, None, confidence)) == count


def test_without_a_classifier_nothing_is_split() -> None:
    assert len(split_touching(touching(), SHAPE, None)) == 1


def test_two_digits_in_one_picture_give_a_warning(sample_test: Dataset) -> None:
    found = draw_digit(page(sample_test.images[:2], 2), SHAPE)
    assert found.warnings == ("there are 2 separate shapes; --many reads each as a digit",)
    assert draw_digit(page(sample_test.images[:1], 1), SHAPE).warnings == ()


# Drawings that are not digits


LEAST = {"line": 10, "face": 10, "scribble": 3, "photograph": 4}
"""Smallest number of ten pictures that their outline flags."""


@pytest.mark.parametrize("name", LEAST)
def test_i16_drawings_of_other_things_give_a_warning(name: str) -> None:
    found = [prepare_picture(draw_other(name, seed), SHAPE, "digit").warnings for seed in range(10)]
    assert sum(map(bool, found)) >= LEAST[name]


def test_digits_rarely_give_a_warning(sample_test: Dataset) -> None:
    kinds = ["pen 2", "pen 8", "tight", "paper", "jpeg", "rotated"]
    doubted = [
        prepare_picture(draw_kind(kinds[index % 6], image, index), SHAPE, "digit").warnings
        for index, image in enumerate(sample_test.images[:90])
    ]
    assert sum(map(bool, doubted)) <= 2


def pooled(images: list[Gray]) -> NDArray[np.float64]:
    stack = np.stack(images) / 255
    return stack.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)).reshape(len(stack), -1)


def test_letters_are_stranger_than_digits(sample: Dataset, sample_test: Dataset) -> None:
    """The class that fits best and a confidence of 1 are used, so that only the distance matters."""
    reference = fit_reference(pooled(list(sample.images)), sample.labels)
    digits = [
        prepare_picture(draw_kind("pen 4", image, seed), SHAPE, "digit").image
        for seed, image in enumerate(sample_test.images[:60])
    ]
    letters = [prepare_picture(draw_other("letter", seed), SHAPE, "digit").image for seed in range(40)]

    def least(images: list[Gray]) -> NDArray[np.float64]:
        features = pooled(images)
        classes = [np.tile(np.eye(10)[number], (len(images), 1)) for number in range(10)]
        return np.min([strangeness(features, one, reference) for one in classes], axis=0)

    assert np.mean(least(letters) > np.quantile(least(digits), 0.95)) > 0.3


def test_strangeness_agrees_with_its_formula() -> None:
    """All directions but one are used, and the reference is a loop."""
    generator = np.random.default_rng(0)
    features, labels = generator.normal(size=(200, 6)), generator.integers(0, 3, 200)
    reference = fit_reference(features, labels, count=5)
    shares = generator.dirichlet([1, 1, 1], 200)
    found = strangeness(features, shares, reference)
    means = np.stack([features[labels == number].mean(axis=0) for number in range(3)])
    within = features - means[labels]
    values, vectors = np.linalg.eigh(within.T @ within / 200)
    for index in range(0, 200, 17):
        along = (features[index] - means[shares[index].argmax()]) @ vectors
        distance = (along[1:] ** 2 / values[1:]).mean() / 2 + along[0] ** 2 / values[0] / 2
        assert found[index] == pytest.approx(np.log(distance) - np.log(shares[index].max()))


# Blank pictures


def blank(size: tuple[int, int], level: int) -> bytes:
    return encode(Image.new("L", size, level))


@pytest.mark.parametrize("size", [(28, 28), (1, 1), (1, 28), (300, 200), (4096, 1), (1, 4096)])
@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.parametrize("preparation", ["digit", "plain"])
def test_i9_a_blank_picture_is_marked_as_blank(preparation: str, level: int, size: tuple[int, int]) -> None:
    prepared = prepare_picture(blank(size, level), SHAPE, preparation)
    assert prepared.blank
    assert np.ptp(prepared.image) == 0
    assert prepared.warnings == ("the picture is blank",)
    assert find_digits(blank(size, level), SHAPE) == []


def test_noise_is_blank_or_gives_a_warning() -> None:
    generator = np.random.default_rng(0)
    for _ in range(10):
        noise = np.clip(generator.normal(200, 5, (120, 120)), 0, 255).astype(np.uint8)
        prepared = draw_digit(noise, SHAPE)
        assert prepared.blank or prepared.warnings


@pytest.mark.parametrize("size", [(4096, 1), (1, 4096), (2, 1), (3, 3)])
@pytest.mark.parametrize("preparation", ["digit", "plain"])
def test_a_tiny_or_narrow_picture_gives_a_result_and_a_warning(
    preparation: str, size: tuple[int, int]
) -> None:
    picture = np.full(size[::-1], 255, np.uint8)
    middle = picture.size // 2
    picture.flat[middle : middle + 1 + picture.size // 8] = 0
    prepared = prepare_picture(encode(Image.fromarray(picture)), SHAPE, preparation)
    assert prepared.image.shape == SHAPE
    assert prepared.image.max() > 0
    assert prepared.warnings


def test_very_faint_ink_gives_a_warning(sample_test: Dataset) -> None:
    faint = draw_digit(np.pad(sample_test.images[0], 20) // 10, SHAPE)
    assert faint.warnings == ("the ink is very faint",)
    assert faint.image.max() == 255


def test_missing_ink_of_the_requested_polarity_gives_a_hint(sample_test: Dataset) -> None:
    """The picture is dark on white, but `invert` requires light ink, of which there is none."""
    picture = np.full((200, 200), 255, np.uint8)
    picture[50:150, 90:110] = 0
    content = encode(Image.fromarray(picture))
    doubt = "no ink was found in the picture; try without --no-invert"
    assert prepare_picture(content, SHAPE, "digit", False).warnings == (doubt,)
    assert prepare_picture(content, SHAPE, "digit", True).warnings == ()


def test_random_pictures_give_a_result() -> None:
    """No random picture causes an error or a division by zero."""
    generator = np.random.default_rng(0)
    for _ in range(60):
        height, width = generator.integers(1, 40, 2)
        levels = generator.integers(0, 256, generator.integers(1, 5))
        picture = generator.choice(levels, (height, width)).astype(np.uint8)
        shape = tuple(int(side) for side in generator.integers(1, 30, 2))
        for invert in (None, True, False):
            for draw in (draw_digit, draw_plain):
                prepared: Prepared = draw(picture, shape, invert)
                assert (prepared.image.shape, prepared.image.dtype) == (shape, np.uint8)
