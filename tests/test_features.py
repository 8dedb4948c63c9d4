"""From uint8 images to the numbers that the model weighs."""

import numpy as np

from softmax_cli.features import batches, evidence_of, pixels, scaled, transform
from softmax_cli.model import Model

ALL_VALUES = np.arange(256, dtype=np.uint8).reshape(4, 8, 8)
MAP = pixels((8, 8))


def test_pixels_are_intensities_over_255() -> None:
    """Every value is v/255 to float32 precision once the scale is on it; the shape is (n, D)."""
    x = transform(MAP, ALL_VALUES)
    assert (x.dtype, x.shape, MAP.dimension) == (np.float32, (4, 64), 64)
    np.testing.assert_allclose(MAP.scale * x.ravel(), [v / 255 for v in range(256)], rtol=1.5e-7)


def test_pixels_go_row_by_row() -> None:
    image = np.zeros((1, 3, 5), np.uint8)
    image[0, 2, 1] = 255
    assert np.flatnonzero(transform(pixels((3, 5)), image)).tolist() == [2 * 5 + 1]


def test_a_buffer_that_is_given_is_filled() -> None:
    """The first rows of `out` are filled and returned, with no copy; the rows after them stay."""
    out = np.full((6, 64), 7, np.float32)
    x = transform(MAP, ALL_VALUES, out)
    assert np.shares_memory(x, out)
    np.testing.assert_array_equal(out[:4], ALL_VALUES.reshape(4, 64))
    assert (out[4:] == 7).all()


def test_the_scale_may_be_given_to_the_weights() -> None:
    """(scale · raw)·W + b = raw·(scale · W) + b, against float64."""
    generator = np.random.default_rng(0)
    model = Model(*(generator.normal(size=shape).astype(np.float32) for shape in ((64, 3), 3)))
    expected = ALL_VALUES.reshape(4, 64) / 255 @ model.weights.astype(float) + model.bias
    np.testing.assert_allclose(evidence_of(model, MAP, ALL_VALUES), expected, rtol=1e-4, atol=1e-5)
    assert scaled(model, MAP).weights.dtype == np.float32


def test_batches_are_the_rows_in_order_whether_gathered_or_not() -> None:
    images = np.random.default_rng(0).integers(0, 256, (100, 4, 4), np.uint8)
    labels = np.arange(100, dtype=np.uint8)
    for rows in (np.arange(20, 61), np.array([5]), np.array([3, 9, 9, 1, 4]), np.array([7, 6, 5, 4])):
        pairs = [(x.copy(), y) for x, y in batches(pixels((4, 4)), images, labels, rows, 7)]
        assert [len(y) for _, y in pairs] == [7] * (len(rows) // 7) + [len(rows) % 7] * (len(rows) % 7 > 0)
        np.testing.assert_array_equal(np.concatenate([x for x, _ in pairs]), images[rows].reshape(-1, 16))
        np.testing.assert_array_equal(np.concatenate([y for _, y in pairs]), labels[rows])
