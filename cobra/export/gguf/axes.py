"""Shapes with as few axes as possible: ggml has four."""

import math
from collections.abc import Sequence

# of a tensor of ggml's
AXES = 4


def merged(shape: Sequence[int], order: Sequence[int]) -> tuple[list[int], list[int]]:
    """Sizes and order of the same permutation with as few axes as possible.

    Those of size 1 are left out, and those that stay neighbours are one.
    """
    kept = [axis for axis in order if shape[axis] > 1]
    groups: list[list[int]] = []
    for axis in kept:
        before = [a for a in range(axis) if shape[a] > 1]
        if groups and before and groups[-1][-1] == before[-1]:
            groups[-1].append(axis)
        else:
            groups.append([axis])
    by_place = sorted(groups)
    sizes = [math.prod(shape[axis] for axis in group) for group in by_place]
    return sizes, [by_place.index(group) for group in groups]


def aligned(first: Sequence[int], second: Sequence[int]) -> tuple[list[int], list[int]]:
    """Two shapes of which the second is repeated to the first, with as few axes as possible."""
    second = [1] * (len(first) - len(second)) + list(second)
    pairs: list[list[int]] = []
    for a, b in zip(first, second, strict=True):
        if a == 1:
            continue
        if pairs and (pairs[-1][1] == 1) == (b == 1):
            pairs[-1] = [pairs[-1][0] * a, pairs[-1][1] * b]
        else:
            pairs.append([a, b])
    return [a for a, _ in pairs], [b for _, b in pairs]
