"""Any picture becomes the image that the data set would have drawn, and no file does harm."""

import io
import math
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from PIL import Image, ImageDraw, PngImagePlugin

from softmax_cli.checkpoint import Checkpoint
from softmax_cli.config import TrainConfig
from softmax_cli.data.dataset import Dataset
from softmax_cli.data.download import Source
from softmax_cli.data.loading import load_dataset
from softmax_cli.errors import ImageError
from softmax_cli.features import evidence_of, pixel_features
from softmax_cli.image import (
    MAX_BYTES,
    Prepared,
    _otsu,
    _resize,
    _weights,
    draw_digit,
    draw_plain,
    label,
    prepare_picture,
    read_luminance,
)
from softmax_cli.model import Model, softmax
from softmax_cli.training import fit
from tests.helpers import SOAK, mutated, unprivileged

SHAPE = (28, 28)

Gray = NDArray[np.uint8]


def enlarged(image: Gray, times: int = 10) -> Gray:
    """Return a digit as a smooth picture of that many times its size, light on black."""
    size = (times * image.shape[1], times * image.shape[0])
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def encode(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Return a picture as the bytes of a file."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def predict(model: Model, image: Gray) -> int:
    """Return the class of one image; every probability must be one."""
    shares = softmax(evidence_of(model, pixel_features(image.shape), image[None]).astype(float))[0]
    assert math.isclose(shares.sum(), 1)
    assert shares.min() >= 0
    return int(shares.argmax())


def centre_of_mass(image: Gray) -> tuple[float, float]:
    """Return the mean row and the mean column of the ink."""
    rows, columns = np.indices(image.shape)
    return float((rows * image).sum() / image.sum()), float((columns * image).sum() / image.sum())


def box(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """Return the height and the width of the box round what is set."""
    return tuple(int(np.ptp(found)) + 1 for found in np.nonzero(mask))  # type: ignore[return-value]


def apart(shape: tuple[int, int], *digits: Gray) -> Gray:
    """Return a black picture with enlarged digits side by side, far from its edges."""
    picture = np.zeros(shape, np.uint8)
    for index, digit in enumerate(digits):
        big = enlarged(digit, 5)
        picture[40:180, 40 + 160 * index : 180 + 160 * index] = big
    return picture


@pytest.fixture
def digit(sample_test: Dataset) -> Gray:
    """Return a digit, a 7."""
    return sample_test.images[np.flatnonzero(sample_test.labels == 7)[1]]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a path for a picture."""
    return tmp_path / "digit.png"


# What the preparation is made of


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=9)))
@settings(max_examples=200, deadline=None, database=None)
def test_label_agrees_with_a_flood_fill(mask: NDArray[np.bool_]) -> None:
    assert_labels(mask)


@pytest.mark.parametrize("density", [0.1, 0.35, 0.5, 0.65, 0.9])
def test_label_agrees_with_a_flood_fill_on_large_masks(density: float) -> None:
    generator = np.random.default_rng(0)
    for _ in range(10):
        assert_labels(generator.random((40, 37)) < density)


def test_label_follows_a_spiral() -> None:
    mask = np.zeros((41, 41), bool)
    for ring in range(0, 20, 2):
        mask[ring, ring : 41 - ring] = mask[40 - ring, ring : 41 - ring] = True
        mask[ring : 41 - ring, ring] = mask[ring : 41 - ring, 40 - ring] = True
        mask[ring + 1, ring] = False  # one gap in each ring
        mask[ring + 2, ring + 1] = True  # and one bridge to the next
    assert_labels(mask)
    assert label(mask)[1] == 1


def assert_labels(mask: NDArray[np.bool_]) -> None:
    found, count = label(mask)
    expected, parts = flood_fill(mask)
    assert count == parts
    assert np.array_equal(found > 0, mask)
    pairs = set(zip(found[mask].tolist(), expected[mask].tolist(), strict=True))
    assert {number for number, _ in pairs} == set(range(1, count + 1))
    assert len(pairs) == count  # one to one


def flood_fill(mask: NDArray[np.bool_]) -> tuple[NDArray[np.intp], int]:
    """Number the 8-connected parts of a mask one pixel at a time."""
    numbers, count = np.zeros(mask.shape, np.intp), 0
    for seed in zip(*np.nonzero(mask), strict=True):
        if numbers[seed]:
            continue
        count += 1
        open_pixels = [seed]
        while open_pixels:
            row, column = open_pixels.pop()
            inside = 0 <= row < mask.shape[0] and 0 <= column < mask.shape[1]
            if inside and mask[row, column] and not numbers[row, column]:
                numbers[row, column] = count
                open_pixels += [(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    return numbers, count


@given(
    st.lists(st.integers(0, 255), min_size=1, max_size=6).flatmap(
        lambda levels: st.lists(st.sampled_from(levels), min_size=1, max_size=30)
    )
)
@example([0] * 11 + [1] * 3 + [2] * 11)  # two thresholds are equally good
@example([2] + [3] * 4 + [4] * 11 + [5] * 9)
@settings(max_examples=60, deadline=None, database=None)
def test_otsu_agrees_with_exact_fractions(values: list[int]) -> None:
    """The threshold is the lowest of those that maximise the variance between the two sides."""

    def between(threshold: int) -> Fraction:
        below = [value for value in values if value < threshold]
        above = [value for value in values if value >= threshold]
        if not below or not above:
            return Fraction(0)
        distance = Fraction(sum(above), len(above)) - Fraction(sum(below), len(below))
        return len(below) * len(above) * distance**2

    assert _otsu(np.array([values])) == max(range(1, 256), key=between)  # max takes the first of equals


@given(st.integers(1, 90), st.integers(1, 60))
@settings(max_examples=150, deadline=None, database=None)
def test_resizing_is_the_mean_of_what_is_covered_or_linear_between_centres(old: int, new: int) -> None:
    weights = _weights(old, new)
    values = np.random.default_rng((old, new)).random(old)
    edges = np.arange(new + 1) * (old / new)
    if new < old:
        area = np.interp(edges, np.arange(old + 1), np.concatenate([[0], np.cumsum(values)]))
        expected = np.diff(area) / (old / new)
    else:
        expected = np.interp((edges[1:] + edges[:-1]) / 2, np.arange(old) + 0.5, values)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-12)
    assert weights.min() >= 0
    np.testing.assert_allclose(weights @ values, expected, rtol=1e-9, atol=1e-12)


def test_shrinking_by_a_whole_factor_takes_block_means() -> None:
    picture = np.random.default_rng(0).random((60, 84))
    blocks = picture.reshape(20, 3, 12, 7).mean(axis=(1, 3))
    np.testing.assert_allclose(_resize(picture, (20, 12)), blocks, rtol=1e-12)


def test_resizing_to_the_same_size_changes_nothing() -> None:
    picture = np.random.default_rng(0).random((9, 13))
    np.testing.assert_array_equal(_resize(picture, (9, 13)), picture)


# Digits


def test_a_digit_is_drawn_as_mnist_draws_it(sample_test: Dataset) -> None:
    """The longest side is 20, the centre of mass at the middle, the brightest pixel 255."""
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
            assert 13.5 - 0.01 <= mean < 14.5 + 0.01  # the whole pixels are chosen before values are rounded
        assert (drawn == 0).mean() > 0.5
        assert len(np.unique(drawn)) > 20  # greys, not black and white


def test_dark_on_light_and_light_on_dark_give_the_same_image(sample_test: Dataset) -> None:
    for image in sample_test.images[:20]:
        light = draw_digit(enlarged(image), SHAPE)
        dark = draw_digit(255 - enlarged(image), SHAPE)
        assert np.array_equal(light.image, dark.image)
        assert dark.steps == ("inverted", *light.steps)


def test_size_and_place_do_not_matter(digit: Gray) -> None:
    once = draw_digit(np.pad(np.kron(digit, np.ones((4, 4), np.uint8)), 5), SHAPE).image
    twice = draw_digit(np.pad(np.kron(digit, np.ones((12, 12), np.uint8)), ((40, 7), (3, 90))), SHAPE).image
    assert np.abs(once.astype(int) - twice).max() <= 1


def test_an_image_of_the_right_size_on_black_is_used_as_it_is(sample_test: Dataset, file: Path) -> None:
    for image in sample_test.images[:10]:
        Image.fromarray(image).save(file)
        for preparation in ("digit", "plain"):
            prepared = prepare_picture(file, SHAPE, preparation)
            assert np.array_equal(prepared.image, image)
            assert (prepared.steps, prepared.warnings) == (("used as it is: 28 x 28, light on black",), ())


def test_an_image_of_the_right_size_on_white_is_prepared(digit: Gray, file: Path) -> None:
    Image.fromarray(255 - digit).save(file)
    assert "inverted" in prepare_picture(file, SHAPE, "digit").steps


def test_invert_forces_the_polarity() -> None:
    """On grey paper, a black bar that stands and a white one that lies; the black one is stronger."""
    picture = np.full((100, 100), 100, np.uint8)
    picture[20:60, 20:30] = 0
    picture[70:80, 20:60] = 190
    found, dark, light = (draw_digit(picture, SHAPE, invert) for invert in (None, True, False))
    assert box(dark.image > 0) == (20, 5)
    assert box(light.image > 0) == (5, 20)
    assert np.array_equal(found.image, dark.image)
    assert ("inverted" in dark.steps, "inverted" in light.steps) == (True, False)


@pytest.mark.parametrize("preparation", ["digit", "plain"])
def test_invert_applies_to_a_file_of_the_right_size_too(digit: Gray, file: Path, preparation: str) -> None:
    Image.fromarray(digit).save(file)
    assert "inverted" in prepare_picture(file, SHAPE, preparation, True).steps
    prepared = prepare_picture(file, SHAPE, preparation, False)
    assert not any("inverted" in step or "as it is" in step for step in prepared.steps)


def test_a_faint_scratch_away_from_the_digit_is_removed(digit: Gray) -> None:
    clean = np.pad(enlarged(digit), 60)
    scratched, inked = clean.copy(), clean.copy()
    scratched[380:384, 20:380] = 40
    inked[380:384, 20:380] = 255
    expected, found = draw_digit(clean, SHAPE), draw_digit(scratched, SHAPE)
    assert np.array_equal(found.image, expected.image)
    assert (found.steps, found.warnings) == (expected.steps, ())
    assert not np.array_equal(draw_digit(inked, SHAPE).image, expected.image)  # strong ink does count


def test_faint_ink_stays_where_it_hangs_on_the_digit() -> None:
    """In a strong ring, a faint bar that touches it keeps its grey; a faint spot that does not is gone."""
    picture = np.zeros((100, 100), np.uint8)
    picture[20:80, 20:80] = 200
    picture[30:70, 30:70] = 0
    picture[30:70, 30:36] = 40
    picture[45:55, 50:63] = 40
    drawn = draw_digit(picture, SHAPE).image
    rows, columns = np.nonzero(drawn)
    ring = drawn[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert ring.shape == (20, 20)
    assert (ring[4:16, 4] == 40 * 255 // 200).all()
    assert (ring[4:16, 6:16] == 0).all()


def test_the_noise_of_paper_is_no_ink(digit: Gray, trained: Checkpoint) -> None:
    paper = 200 - np.pad(enlarged(digit), 60) * 0.6
    noise = np.random.default_rng(0).normal(0, 3, paper.shape)
    clean, noisy = (draw_digit(picture.astype(np.uint8), SHAPE).image for picture in (paper, paper + noise))
    assert np.abs(clean.astype(int) - noisy).mean() < 3
    assert (noisy[clean == 0] == 0).mean() > 0.97
    assert predict(trained.state.model, noisy) == predict(trained.state.model, digit)


@pytest.mark.parametrize("shape", [(20, 16), (16, 20), (64, 48), (8, 8), (1, 1), (2, 9)])
def test_models_of_other_sizes_get_their_size(digit: Gray, shape: tuple[int, int]) -> None:
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
    """A disc in the middle of a wide picture is still a disc in the middle, on the same background."""
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


# Formats


def modes(gray: Gray) -> dict[str, bytes]:
    """Return one picture, dark on white, as a PNG file of each mode."""
    black = np.zeros_like(gray)
    ink = 255 - gray
    palette = Image.fromarray(ink).convert("P")
    palette.putpalette([255 - index // 3 for index in range(768)])
    veiled = Image.fromarray(ink).convert("P")
    veiled.putpalette([0] * 768)
    return {
        "L": encode(Image.fromarray(gray)),
        "LA": encode(Image.fromarray(np.dstack([black, ink]))),
        "P": encode(palette),
        "P with tRNS": encode(veiled, transparency=bytes(range(256))),
        "RGB": encode(Image.fromarray(gray).convert("RGB")),
        "RGBA": encode(Image.fromarray(np.dstack([black, black, black, ink]))),
        "I;16": encode(Image.fromarray(gray.astype(np.uint16) * 257)),
    }


@pytest.mark.parametrize("mode", ["L", "LA", "P", "P with tRNS", "RGB", "RGBA", "I;16"])
def test_a_picture_is_the_same_in_every_mode(digit: Gray, file: Path, trained: Checkpoint, mode: str) -> None:
    gray = 255 - enlarged(digit)
    file.write_bytes(modes(gray)[mode])
    with Image.open(file) as picture:
        assert picture.mode == mode.split()[0]
        assert picture.has_transparency_data == (mode in ("LA", "P with tRNS", "RGBA"))
    luminance, steps = read_luminance(file)
    assert np.abs(luminance.astype(int) - gray).max() <= 1
    assert ("laid over white" in steps) == (mode in ("LA", "P with tRNS", "RGBA"))
    expected = draw_digit(gray, SHAPE).image
    found = prepare_picture(file, SHAPE, "digit").image
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert predict(trained.state.model, found) == predict(trained.state.model, expected)


@pytest.mark.parametrize(("mode", "kind"), [("1", "PNG"), ("CMYK", "JPEG"), ("L", "JPEG"), ("RGB", "JPEG")])
def test_a_coarse_picture_gives_the_same_prediction(
    digit: Gray, file: Path, trained: Checkpoint, mode: str, kind: str
) -> None:
    gray = 255 - enlarged(digit)
    file.write_bytes(encode(Image.fromarray(gray).convert(mode), kind))
    with Image.open(file) as picture:
        assert (picture.mode, picture.format) == (mode, kind)
    found = prepare_picture(file, SHAPE, "digit")
    assert predict(trained.state.model, found.image) == predict(trained.state.model, digit)
    assert "inverted" in found.steps


def test_sixteen_bits_with_a_transparent_grey_are_scaled_too(digit: Gray, file: Path) -> None:
    """Only the one grey that the file names is laid over white; the rest is as it was."""
    gray = 100 + enlarged(digit) // 2
    content = encode(Image.fromarray(gray.astype(np.uint16) * 257))
    at = content.index(b"IDAT") - 4
    file.write_bytes(content[:at] + chunk(b"tRNS", struct.pack(">H", 100 * 257)) + content[at:])
    expected = np.where(gray == 100, 255, gray)
    assert np.abs(read_luminance(file)[0].astype(int) - expected).max() <= 1


def test_sixteen_bits_are_scaled_and_not_clipped(file: Path) -> None:
    values = np.arange(0, 65536, 7).astype(np.uint16)[:9216].reshape(96, 96)
    Image.fromarray(values).save(file)
    assert np.abs(read_luminance(file)[0] - values / 257).max() <= 0.5


def test_luminance_is_that_of_bt_601(file: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (20, 20, 3)).astype(np.uint8)
    Image.fromarray(colours).save(file)
    red, green, blue = np.moveaxis(colours.astype(int), -1, 0)
    expected = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16
    np.testing.assert_array_equal(read_luminance(file)[0], expected)


def test_a_large_picture_is_averaged_first(file: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (1024, 300)).astype(np.uint8)
    Image.fromarray(picture).save(file)
    means = picture.reshape(512, 2, 150, 2).mean(axis=(1, 3))
    found = read_luminance(file)[0]
    assert found.shape == (512, 150)
    assert np.abs(found - means).max() <= 0.5


STORED = {  # how a camera that was held like this stores the picture: what undoes it, by the EXIF standard
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("orientation", STORED)
def test_a_picture_is_turned_upright(
    digit: Gray, file: Path, trained: Checkpoint, orientation: int, kind: str
) -> None:
    upright = Image.fromarray(np.pad(255 - enlarged(digit), ((0, 40), (0, 0)), constant_values=255))
    how, exif = STORED[orientation], Image.Exif()
    exif[0x0112] = orientation
    stored = upright if how is None else upright.transpose(how)
    file.write_bytes(encode(stored, kind, exif=exif))
    prepared = prepare_picture(file, SHAPE, "digit")
    expected = draw_digit(np.asarray(upright), SHAPE).image
    assert ("turned upright" in prepared.steps) == (orientation != 1)
    assert np.abs(prepared.image.astype(int) - expected).max() <= (0 if kind == "PNG" else 20)
    assert predict(trained.state.model, prepared.image) == predict(trained.state.model, digit)


# From digits to predictions


def transparent(ink: Gray) -> Image.Image:
    """Return blue ink on nothing."""
    colour = [np.full_like(ink, value) for value in (20, 30, 120)]
    return Image.merge("RGBA", [Image.fromarray(band) for band in (*colour, ink)])


def coloured(ink: Gray) -> Image.Image:
    """Return dark blue ink on yellow paper."""
    paper, pen = np.array([250, 235, 170]), np.array([20, 30, 120])
    share = ink[:, :, None] / 255
    return Image.fromarray((paper * (1 - share) + pen * share).round().astype(np.uint8))


KINDS: dict[str, Callable[[Gray], Image.Image]] = {
    "enlarged": Image.fromarray,
    "inverted": lambda ink: Image.fromarray(255 - ink),
    "transparent": transparent,
    "coloured": coloured,
    "sixteen bits": lambda ink: Image.fromarray(60_000 - 200 * ink.astype(np.uint16)),
}


def count_agreements(model: Model, images: NDArray[np.uint8], file: Path) -> int:
    """Return how many of forty pictures of digits, of five kinds, are predicted as the digits are."""
    chosen = np.random.default_rng(0).choice(len(images), 40, replace=False)
    agreements = 0
    for index, image in enumerate(images[chosen]):
        draw = list(KINDS.values())[index % 5]
        draw(enlarged(image)).save(file)
        prepared = prepare_picture(file, SHAPE, "digit")
        assert ("inverted" in prepared.steps) == (index % 5 > 0)
        agreements += predict(model, prepared.image) == predict(model, image)
    return agreements


def test_pictures_of_digits_are_predicted_as_the_digits_are(
    trained: Checkpoint, sample_test: Dataset, file: Path
) -> None:
    assert count_agreements(trained.state.model, sample_test.images, file) >= 38


@pytest.mark.full
def test_pictures_of_digits_of_the_full_mnist_are_predicted_as_the_digits_are(
    full_mnist: Path, file: Path
) -> None:
    source = Source(full_mnist, offline=True)
    data = load_dataset("mnist", "train", source)
    config = TrainConfig(dataset="mnist")
    *_, state = fit(config, data)
    assert count_agreements(state.model, load_dataset("mnist", "test", source).images, file) >= 38


# Doubtful pictures


@pytest.mark.parametrize("size", [(28, 28), (1, 1), (1, 28), (300, 200), (4096, 1), (1, 4096)])
@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.parametrize("preparation", ["digit", "plain"])
def test_a_blank_picture_is_blank_and_said_to_be(
    file: Path, trained: Checkpoint, preparation: str, level: int, size: tuple[int, int]
) -> None:
    Image.new("L", size, level).save(file)
    prepared = prepare_picture(file, SHAPE, preparation)
    assert np.ptp(prepared.image) == 0
    assert prepared.warnings == ("the picture is blank",)
    predict(trained.state.model, prepared.image)


@pytest.mark.parametrize("size", [(4096, 1), (1, 4096), (2, 1), (3, 3)])
@pytest.mark.parametrize("preparation", ["digit", "plain"])
def test_a_picture_that_is_hardly_one_has_a_result(
    file: Path, trained: Checkpoint, preparation: str, size: tuple[int, int]
) -> None:
    picture = np.full(size[::-1], 255, np.uint8)
    middle = picture.size // 2
    picture.flat[middle : middle + 1 + picture.size // 8] = 0
    Image.fromarray(picture).save(file)
    prepared = prepare_picture(file, SHAPE, preparation)
    assert prepared.image.shape == SHAPE
    assert prepared.image.max() > 0
    assert prepared.warnings
    predict(trained.state.model, prepared.image)


def test_two_digits_in_one_picture_are_doubtful(digit: Gray, trained: Checkpoint) -> None:
    one, two = draw_digit(apart((220, 220), digit), SHAPE), draw_digit(apart((220, 380), digit, digit), SHAPE)
    assert one.warnings == ()
    assert two.warnings == ("there are 2 separate shapes; one digit to a picture is expected",)
    predict(trained.state.model, two.image)


def test_very_faint_ink_is_doubtful(digit: Gray) -> None:
    faint = draw_digit((enlarged(digit) // 10).astype(np.uint8), SHAPE)
    assert faint.warnings == ("the ink is very faint",)
    assert faint.image.max() == 255


def test_random_pictures_have_a_result() -> None:
    """No noise, however mad, makes the preparation fail or divide by zero."""
    generator = np.random.default_rng(0)
    for _ in range(200):
        height, width = generator.integers(1, 40, 2)
        levels = generator.integers(0, 256, generator.integers(1, 5))
        picture = generator.choice(levels, (height, width)).astype(np.uint8)
        shape = tuple(int(side) for side in generator.integers(1, 30, 2))
        for invert in (None, True, False):
            for draw in (draw_digit, draw_plain):
                prepared: Prepared = draw(picture, shape, invert)
                assert (prepared.image.shape, prepared.image.dtype) == (shape, np.uint8)


# Files that are no pictures


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return one chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, before: bytes = b"", after: bytes = b"") -> bytes:
    """Return a PNG file with a header that claims a size, and other chunks round its pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(bytes(10_000)))
    return b"\x89PNG\r\n\x1a\n" + header + before + rows + after + chunk(b"IEND", b"")


def inflating(kind: bytes) -> bytes:
    """Return a chunk of 100 kB that inflates to 100 MB."""
    start = {b"zTXt": b"k\0\0", b"iCCP": b"k\0\0", b"iTXt": b"k\0\1\0\0\0"}[kind]
    return chunk(kind, start + zlib.compress(bytes(100_000_000)))


def real(side: int) -> bytes:
    """Return a whole PNG file, all black, of that many pixels a side."""
    content = encode(Image.new("L", (side, side)), compress_level=9)
    assert len(content) < 100_000
    return content


def claiming_jpeg() -> bytes:
    """Return a JPEG file that claims 65,500 x 65,500 pixels."""
    content = encode(Image.new("L", (64, 64)), "JPEG")
    at = content.index(b"\xff\xc0") + 5
    return content[:at] + struct.pack(">HH", 65500, 65500) + content[at + 4 :]


BOMBS: dict[str, Callable[[], bytes]] = {
    "claimed": lambda: png(65535, 65535),
    "claimed by JPEG": claiming_jpeg,
    "just above the limit": lambda: png(8000, 4001),
    "real": lambda: real(9000),
    "zTXt": lambda: png(100, 99, before=inflating(b"zTXt")),
    "iTXt": lambda: png(100, 99, before=inflating(b"iTXt")),
    "iCCP": lambda: png(100, 99, before=inflating(b"iCCP")),
    "zTXt after the pixels": lambda: png(100, 99, after=inflating(b"zTXt")),
}

CHILD = """
import resource, sys
from pathlib import Path
from PIL import ImageOps, JpegImagePlugin, PngImagePlugin
from softmax_cli.errors import ImageError
from softmax_cli.image import prepare_picture

resource.setrlimit(resource.RLIMIT_CPU, (10, 10))
if sys.platform == "linux":  # elsewhere the limit does not bind
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 60_000_000,) * 2)
try:
    prepare_picture(Path(sys.argv[1]), (28, 28), "digit")
except ImageError as error:
    print(error)
"""


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_at_once_and_in_little_memory(file: Path, bomb: str) -> None:
    file.write_bytes(BOMBS[bomb]())
    line = [sys.executable, "-c", CHILD, str(file)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{file} is too large" in done.stdout


def test_the_largest_picture_that_is_read(file: Path) -> None:
    file.write_bytes(encode(Image.new("1", (8000, 4000))))
    assert prepare_picture(file, SHAPE, "digit").warnings == ("the picture is blank",)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_every_cut_is_refused(digit: Gray, file: Path, kind: str) -> None:
    """From the signature to the end of the pixels, wherever a file is cut."""
    content = encode(Image.fromarray(enlarged(digit, 3)), kind)
    end = len(content) - (12 if kind == "PNG" else 2)  # what follows ends the file and holds nothing
    for size in np.linspace(4, end - 1, 30).astype(int):
        file.write_bytes(content[:size])
        with pytest.raises(ImageError, match="is truncated or damaged; save it again"):
            prepare_picture(file, SHAPE, "digit")


@pytest.mark.parametrize("kind", [b"IHDR", b"tEXt", b"IDAT"])
def test_a_broken_checksum_is_refused(digit: Gray, file: Path, kind: bytes) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", "seven")
    content = bytearray(encode(Image.fromarray(digit), pnginfo=text))
    at = content.index(kind)
    crc = at + 4 + struct.unpack(">I", content[at - 4 : at])[0]
    content[crc] ^= 1
    file.write_bytes(content)
    with pytest.raises(ImageError, match="is truncated or damaged; save it again"):
        prepare_picture(file, SHAPE, "digit")


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script><path d="M0 0L9 9"/></svg>'
PSD = b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 1, 1, 1, 8, 1) + bytes(12) + b"\0\0\0"
FOREIGN: dict[str, tuple[bytes, bool]] = {  # content, and whether Pillow would know it
    "text": (b"This is a seven.\n", False),
    "page": (b"<!DOCTYPE html><title>404 Not Found</title>", False),
    "SVG": (SVG, False),
    "PDF": (encode(Image.new("L", (9, 9)), "PDF"), False),
    "EPS": (encode(Image.new("L", (9, 9)), "EPS"), True),
    "TIFF": (encode(Image.new("L", (9, 9)), "TIFF"), True),
    "PSD": (PSD, True),
    "GIF": (encode(Image.new("L", (9, 9)), "GIF"), True),
    "BMP": (encode(Image.new("L", (9, 9)), "BMP"), True),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_other_formats_are_refused_and_start_nothing(
    file: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    started: list[object] = []
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **_: started.append(args))
    monkeypatch.setattr(os, "system", started.append)
    content, known = FOREIGN[kind]
    file.write_bytes(content)
    with pytest.raises(ImageError) as caught:
        prepare_picture(file, SHAPE, "digit")
    assert str(caught.value) == f"{file} is not a PNG or JPEG picture"
    assert not started
    assert opens(file) == known


def opens(path: Path) -> bool:
    """Tell whether Pillow would open a file, left to itself."""
    try:
        Image.open(path).close()
    except Image.UnidentifiedImageError:
        return False
    return True


@pytest.mark.usefixtures("alarm")
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("empty", "empty is empty"),
        ("folder", "folder is a folder, not a file"),
        ("pipe", "pipe is not a regular file"),
        ("/dev/zero", "/dev/zero is not a regular file"),
        ("missing.png", "cannot read missing.png: no such file or directory"),
        ("secret", "cannot read secret: permission denied"),
        ("long", "long is too large: more than 10,000,000 bytes; save a smaller copy"),
        ("n" * 300, f"cannot read {'n' * 300}: file name too long"),
    ],
)
def test_what_is_no_file_of_a_picture_is_refused(work: Path, name: str, reason: str) -> None:
    (work / "empty").touch()
    (work / "folder").mkdir()
    os.mkfifo(work / "pipe")
    (work / "secret").touch(mode=0)
    with open(work / "long", "wb") as file:
        file.write(real(28))
        file.truncate(MAX_BYTES + 1)
    work.chmod(0o755)
    with unprivileged(), pytest.raises(ImageError) as caught:
        prepare_picture(Path(name), SHAPE, "digit")
    assert str(caught.value) == reason


def seeds(gray: Gray) -> dict[str, list[bytes]]:
    """Return pictures with what can hang on one: text, EXIF, transparency, a palette, 16 bits."""
    picture, exif, text = Image.fromarray(gray), Image.Exif(), PngImagePlugin.PngInfo()
    exif[0x0112], exif[0x010E] = 6, "a seven"
    text.add_text("Title", "seven" * 9, zip=True)
    return {
        "PNG": [
            encode(picture, pnginfo=text, exif=exif),
            encode(picture.quantize(8), transparency=0),
            encode(picture.convert("RGBA")),
            encode(Image.fromarray(gray.astype(np.uint16) * 257)),
        ],
        "JPEG": [
            encode(picture.convert("RGB"), "JPEG", exif=exif, comment=b"seven"),
            encode(picture, "JPEG", progressive=True),
            encode(picture.convert("CMYK"), "JPEG", exif=exif),
        ],
    }


def with_checksums(content: bytes) -> bytes:
    """Return a PNG file whose every chunk has the right CRC, so that what is in it is looked at."""
    data, at = bytearray(content), 8
    while at + 12 <= len(data):
        end = at + 8 + struct.unpack(">I", data[at : at + 4])[0]
        if end + 4 > len(data):
            break
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[at + 4 : end]))
        at = end + 4
    return bytes(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_mutated_picture_is_refused_or_has_a_result(digit: Gray, file: Path, kind: str) -> None:
    """Nothing but `ImageError` comes out: no other error, and no warning that would end up on a terminal."""
    generator, originals = np.random.default_rng(0), seeds(255 - enlarged(digit, 2))[kind]
    refused, rounds = 0, 3000 if SOAK else 200
    for number in range(rounds):
        content = mutated(generator, originals[number % len(originals)])
        file.write_bytes(with_checksums(content) if kind == "PNG" and number % 2 else content)
        try:
            prepared = prepare_picture(file, SHAPE, "digit")
        except ImageError:
            refused += 1
        else:
            assert (prepared.image.shape, prepared.image.dtype) == (SHAPE, np.uint8)
    assert 0.1 * rounds < refused < rounds


def test_a_picture_without_ink_on_the_side_that_was_told_is_not_called_blank(
    file: Path, sample_test: Dataset
) -> None:
    """Dark on white, told to be light on dark: there is nothing lighter than white."""
    Image.fromarray(255 - enlarged(sample_test.images[0])).save(file)
    assert prepare_picture(file, SHAPE, "digit", False).warnings == (
        "no ink is left of the picture; is it right to give --no-invert?",
    )
    assert prepare_picture(file, SHAPE, "digit", True).warnings == ()
