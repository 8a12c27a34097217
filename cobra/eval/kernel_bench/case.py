"""Something that can be run again and again, and the random inputs for it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Case:
    """A call without arguments.

    Attributes:
        run: the call.
        bytes: what it must read and write at least; 0 where nobody asks.
        flops: what it computes; 0 where nobody asks.
    """

    run: Callable[[], object]
    bytes: float = 0.0
    flops: float = 0.0


def dtype_of(name: str) -> torch.dtype:
    """float32 or bfloat16, by name."""
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


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
