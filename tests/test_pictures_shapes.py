"""Shapes, thresholds and resizing agree with slow or exact references."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from softmax_cli.pictures.digit import distance_to, signed_distance, stroke_width
from softmax_cli.pictures.paper import windowed_maximum
from softmax_cli.pictures.resize import fit_longest, resize, weights
from softmax_cli.pictures.shapes import find_shapes, grown, label, otsu, run_lengths

Masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=9))


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
    assert len(pairs) == count  # the mapping is one to one


def flood_fill(mask: NDArray[np.bool_]) -> tuple[NDArray[np.intp], int]:
    """Return the 8-connected parts of a mask, numbered one pixel at a time."""
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
    """The threshold is the smallest of those that maximise the variance between the two sides."""

    def between(threshold: int) -> Fraction:
        below = [value for value in values if value < threshold]
        above = [value for value in values if value >= threshold]
        if not below or not above:
            return Fraction(0)
        distance = Fraction(sum(above), len(above)) - Fraction(sum(below), len(below))
        return len(below) * len(above) * distance**2

    assert otsu(np.array([values], np.uint8)) == max(
        range(1, 256), key=between
    )  # max takes the first of equals


@given(st.integers(1, 90), st.integers(1, 60))
@settings(max_examples=150, deadline=None, database=None)
def test_resizing_averages_when_shrinking_and_interpolates_when_growing(old: int, new: int) -> None:
    shares = weights(old, new)
    values = np.random.default_rng((old, new)).random(old)
    edges = np.arange(new + 1) * (old / new)
    if new < old:
        area = np.interp(edges, np.arange(old + 1), np.concatenate([[0], np.cumsum(values)]))
        expected = np.diff(area) / (old / new)
    else:
        expected = np.interp((edges[1:] + edges[:-1]) / 2, np.arange(old) + 0.5, values)
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-12)
    assert shares.min() >= 0
    np.testing.assert_allclose(shares @ values, expected, rtol=1e-9, atol=1e-12)


def test_shrinking_by_an_integer_factor_averages_blocks() -> None:
    picture = np.random.default_rng(0).random((60, 84))
    blocks = picture.reshape(20, 3, 12, 7).mean(axis=(1, 3))
    np.testing.assert_allclose(resize(picture, (20, 12)), blocks, rtol=1e-12)


def test_resizing_to_the_same_size_changes_nothing() -> None:
    picture = np.random.default_rng(0).random((9, 13))
    np.testing.assert_array_equal(resize(picture, (9, 13)), picture)


@given(Masks)
@settings(max_examples=100, deadline=None, database=None)
def test_run_lengths_agree_with_counting(mask: NDArray[np.bool_]) -> None:
    found = run_lengths(mask)
    for row, column in zip(*np.nonzero(mask), strict=True):
        top = bottom = row
        while top > 0 and mask[top - 1, column]:
            top -= 1
        while bottom + 1 < len(mask) and mask[bottom + 1, column]:
            bottom += 1
        assert found[row, column] == bottom - top + 1
    assert (found[~mask] == 0).all()


@given(Masks)
@settings(max_examples=50, deadline=None, database=None)
def test_a_mask_grows_by_its_eight_neighbours(mask: NDArray[np.bool_]) -> None:
    padded = np.pad(mask, 1)
    height, width = mask.shape
    shifted = [padded[i : i + height, j : j + width] for i in range(3) for j in range(3)]
    assert np.array_equal(grown(mask), np.any(shifted, axis=0))


def test_shapes_have_the_boxes_masses_and_peaks_of_their_pixels() -> None:
    ink = np.random.default_rng(0).integers(0, 256, (30, 40)) * (
        np.random.default_rng(1).random((30, 40)) < 0.3
    )
    shapes = find_shapes(ink.astype(np.uint8), 100)
    for number in range(1, len(shapes.mass)):
        rows, columns = np.nonzero(shapes.labels == number)
        box = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
        assert shapes.boxes[number].tolist() == box
        assert shapes.mass[number] == ink[rows, columns].sum()
        assert shapes.peak[number] == ink[rows, columns].max()


@given(arrays(bool, array_shapes(min_dims=3, max_dims=3, max_side=12)), st.integers(1, 8))
@settings(max_examples=100, deadline=None, database=None)
def test_distances_are_euclidean_up_to_the_reach(masks: NDArray[np.bool_], reach: int) -> None:
    found = distance_to(masks, reach)
    rows, columns = np.indices(masks.shape[1:])
    for distance, mask in zip(found, masks, strict=True):
        expected = np.full(mask.shape, float(reach))
        for row, column in zip(*np.nonzero(mask), strict=True):
            expected = np.minimum(expected, np.hypot(rows - row, columns - column))
        np.testing.assert_allclose(distance, expected, atol=1e-6)


def test_the_signed_distance_of_a_disc_is_that_to_its_circle() -> None:
    rows, columns = np.indices((61, 61)) - 30
    radius = np.hypot(rows, columns)
    found = signed_distance(radius <= 15, 10)
    near = np.abs(radius - 15) < 8
    assert np.abs(found - (radius - 15))[near].max() < 0.75


@pytest.mark.parametrize("width", [3, 6, 11])
def test_the_width_of_a_long_bar_is_measured(width: int) -> None:
    """2 area / perimeter of a bar of length l and width w is l w / (l + w)."""
    bar = np.zeros((240, 40))
    bar[20:220, 10 : 10 + width] = 1
    assert stroke_width(bar) == pytest.approx(200 * width / (200 + width), rel=0.02)


@given(
    arrays(np.float64, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.floats(0, 9)),
    st.integers(1, 6),
)
@settings(max_examples=50, deadline=None, database=None)
def test_a_windowed_maximum_is_the_maximum_of_each_window(values: NDArray[np.float64], reach: int) -> None:
    found = windowed_maximum(values, reach)
    for row, column in np.ndindex(values.shape):
        window = values[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1]
        assert found[row, column] == window.max()


def test_a_thin_slanted_stroke_stays_even_if_it_is_enlarged() -> None:
    """Its cross-sections vary less than with linear interpolation, which is strong on pixel centres only."""
    rows, columns = np.indices((12, 12))
    stroke = 255 * np.clip(1.1 - np.abs(rows - 0.3 * columns - 4), 0, 1)
    found, linear = fit_longest(stroke, 60), resize(stroke, (60, 60))
    peaks, linear_peaks = (one[:, 8:52].max(axis=0) for one in (found, linear))
    assert np.std(peaks) / np.mean(peaks) < 0.85 * np.std(linear_peaks) / np.mean(linear_peaks)
    assert found.min() >= 0
