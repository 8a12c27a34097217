"""A check that the weights in a file are those that a model needs."""

from collections.abc import Mapping

import torch


def check_fit(expected: Mapping[str, torch.Size], found: Mapping[str, torch.Size], problem: str) -> None:
    """Compare the weights that are there with those that must be.

    Raises:
        ValueError: starting with `problem` and naming what is missing, unexpected and mis-shaped.
    """
    missing = sorted(set(expected) - set(found))
    unexpected = sorted(set(found) - set(expected))
    shapes = [
        f"{name}: {tuple(found[name])} instead of {tuple(shape)}"
        for name, shape in sorted(expected.items())
        if name in found and found[name] != shape
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "mis-shaped": shapes}
    if any(kinds.values()):
        raise ValueError(f"{problem}: " + "; ".join(f"{k} {_first(v)}" for k, v in kinds.items() if v))


def _first(names: list[str], limit: int = 5) -> str:
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"{names[:limit]}{rest}"
