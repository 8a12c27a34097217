"""Rotary embedding of positions (arXiv 2104.09864)."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rotary:
    """Channel i < P / 2 of a head turns with channel i + P / 2, as in LLaMA, by position / theta^(2 i / P).

    Attributes:
        head_dim: P.
        theta: how much slower the last channels turn.
    """

    head_dim: int
    theta: float

    def turns(self, positions: Tensor) -> Tensor:
        """Positions (...) to P / 2 cosines, then as many sines, (..., P), in fp32."""
        exponents = torch.arange(0, self.head_dim, 2, device=positions.device).float() / self.head_dim
        angles = positions[..., None].float() * (1 / self.theta**exponents)
        return torch.cat([angles.cos(), angles.sin()], dim=-1)


def rotate(x: Tensor, turns: Tensor) -> Tensor:
    """Queries or keys (B, H, T, P), turned by (B or 1, 1, T, P) of `Rotary.turns`."""
    (cos, sin), (first, second) = turns.chunk(2, -1), x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
