"""Initializations that the Mamba family shares."""

import math

import torch
from torch import Tensor, nn


def strata(count: int) -> Tensor:
    """Random numbers (count,) from 0 to 1 in rising order, one from each of `count` equal parts.

    Uniform as independent numbers are, but the heads of a small layer have all time scales with every seed.
    """
    return (torch.arange(count) + torch.rand(count)) / count


def inverse_softplus_dt(count: int, dt_range: tuple[float, float], floor: float = 1e-4) -> Tensor:
    """Biases (count,) whose softplus is log-uniform in dt_range (Mamba, section 3.6), in rising order.

    Neighbours, such as heads that share B, C and a norm, so have similar ones.
    """
    low, high = math.log(dt_range[0]), math.log(dt_range[1])
    dt = torch.exp(strata(count) * (high - low) + low).clamp(min=floor)
    return dt + torch.log(-torch.expm1(-dt))


def decay_logs(count: int, rates: tuple[float, float]) -> Tensor:
    """Logarithms (count,) of decay rates, uniform (Mamba-2's reference code), from all of a range."""
    low, high = rates
    return (low + (high - low) * strata(count))[torch.randperm(count)].log()


def scale_output(linear: nn.Linear, layers: int) -> None:
    """Divide a residual branch's last weights by sqrt(layers), as GPT-2 does."""
    with torch.no_grad():
        linear.weight /= math.sqrt(layers)


def stack(linear: nn.Linear, rows: tuple[int, ...]) -> None:
    """Mark a weight: it stacks matrices of so many rows, which an optimizer may step apart."""
    linear.weight._stacked_rows = rows  # type: ignore[attr-defined]


def without_weight_decay(parameter: nn.Parameter) -> nn.Parameter:
    """The same parameter, marked: decaying it would change the time scales of the state."""
    parameter._no_weight_decay = True  # type: ignore[attr-defined]
    return parameter


def is_time_scale(parameter: nn.Parameter) -> bool:
    """Whether a parameter is so marked."""
    return getattr(parameter, "_no_weight_decay", False)
