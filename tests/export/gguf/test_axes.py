"""Shapes of a picture's program in ggml's four axes."""

import itertools

import numpy as np

from cobra.export.gguf.axes import aligned, merged


def test_a_permutation_with_fewer_axes_is_the_same() -> None:
    for shape in ((2, 3, 1, 4), (1, 2, 3, 4), (2, 1, 1, 3), (2, 2, 2, 2), (5,)):
        x = np.arange(np.prod(shape)).reshape(shape)
        for order in itertools.permutations(range(len(shape))):
            sizes, places = merged(shape, order)
            expected = x.transpose(order).flatten()
            np.testing.assert_array_equal(x.reshape(sizes).transpose(places).flatten(), expected)
            assert len(sizes) <= sum(size > 1 for size in shape)


def test_a_pixel_unshuffle_has_four_axes() -> None:
    assert merged((1, 4, 2, 4, 2, 64), (0, 1, 3, 2, 4, 5)) == ([4, 2, 4, 128], [0, 2, 1, 3])


def test_repeated_shapes_with_fewer_axes_are_the_same() -> None:
    for first, second in (
        ((1, 6, 4), (1, 6, 4)),
        ((2, 3, 4), (4,)),
        ((1, 8, 5, 6), (8, 1, 1)),
        ((2, 3), (2, 1)),
    ):
        a, b = np.arange(np.prod(first)).reshape(first), np.arange(np.prod(second)).reshape(second)
        sizes, others = aligned(first, second)
        found = a.reshape(sizes) + b.reshape(others)
        np.testing.assert_array_equal(found.flatten(), (a + b).flatten())
