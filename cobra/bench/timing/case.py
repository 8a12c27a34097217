"""Something that can be run again and again, and the random inputs for it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Case:
    """A call without arguments.

    Attributes:
        run: the call. It may return a `Sample`, where it knows better than a clock around it: stages, or
            seconds that another program measured.
        bytes: what it must read and write at least; 0 where nobody asks.
        flops: what it computes; 0 where nobody asks.
        rehearsal: a shorter call that warms up all the same and takes as much memory; None: `run`.
        about: what the report should know of it, plain JSON.
    """

    run: Callable[[], object]
    bytes: float = 0.0
    flops: float = 0.0
    rehearsal: Callable[[], object] | None = None
    about: Mapping[str, Any] = field(default_factory=dict)


def dtype_of(name: str) -> torch.dtype:
    """float32, bfloat16 or float16, by name."""
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


def normal(*shape: int, dtype: str = "float32", seed: int = 0) -> Tensor:
    """Normal random numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype_of(dtype))


def forward(function: Callable[[], object], flops: float = 0.0, bytes: float = 0.0) -> Case:
    """A case that keeps nothing for a backward pass."""

    def run() -> object:
        with torch.inference_mode():
            return function()

    return Case(run, bytes, flops)


def with_gradients(function: Callable[[], Tensor], inputs: list[Tensor], seed: int = 9) -> Case:
    """A case that runs the function, then the gradients of `inputs` by a random gradient of its result."""
    for tensor in inputs:
        tensor.requires_grad_()
    with torch.no_grad():
        gradient = normal(*function().shape, seed=seed)

    def run() -> object:
        y = function()
        return torch.autograd.grad(y, inputs, gradient.to(y.dtype))

    return Case(run)
