"""Blocks that compute their activations again in the backward pass (activation checkpointing)."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before transformers)

import torch  # isort: skip
from torch.utils.checkpoint import checkpoint
from transformers import Cache

from cobra.models.vlm import CobraVLM


def recompute(model: CobraVLM, every: Mapping[str, int]) -> None:
    """Let blocks keep only their inputs for the backward pass; before a model is sharded or compiled.

    Gradients stay the same, bit for bit. Nothing changes where none is asked for, and where a block is given
    a decode state: it would go on from it twice.

    Args:
        model: whose blocks.
        every: by part, n: of each n blocks the first.

    Raises:
        ValueError: where a part is unknown or has no blocks, or n is less than 1.
    """
    for name, n in every.items():
        parts = {"vision": model.vision.units(), "lm": model.lm.units()}
        blocks = parts.get(name)
        if not blocks:
            known = ", ".join(part for part, units in parts.items() if units)
            raise ValueError(f"recompute names {name!r}, which has no blocks: name some of {known}")
        if n < 1:
            raise ValueError(f"recompute {name}: {n} must be 1, for all its blocks, or more, for every n-th")
        for block in blocks[::n]:
            # not a module around it, which would rename its weights
            block.forward = partial(_twice, block.forward)


def _twice(forward: Any, *inputs: Any, **named: Any) -> Any:
    """The outputs of a block; in the backward pass it runs again."""
    if holds_state(inputs, named) or not torch.is_grad_enabled():
        return forward(*inputs, **named)
    return checkpoint(forward, *inputs, use_reentrant=False, **named)


def holds_state(inputs: Iterable[Any], named: Mapping[str, Any]) -> bool:
    """Whether a decode state is among the arguments of a block."""
    return any(isinstance(value, dict | Cache) for value in (*inputs, *named.values()))
