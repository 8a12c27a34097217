"""Whether the weights in a file are those that a model needs."""

from collections.abc import Mapping

import torch
from torch import nn

from cobra.models.vision.base import VisionEncoder


def expected_shapes(model: nn.Module) -> dict[str, torch.Size]:
    """The shape of every weight that a file must hold, of a model on any device.

    Without those of an encoder that its features do not use, and a tied head only once: it is the embedding
    under a second name.
    """
    seen: set[int] = set()
    unused = {
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        if isinstance(module, VisionEncoder)
        for name in module.unused_parameters()
    }
    shapes = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen and name not in unused:
            shapes[name] = tensor.shape
            seen.add(id(tensor))
    return shapes


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
