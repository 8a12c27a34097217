"""The choice of the next token."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Sampler:
    """Greedy by default; with a temperature, samples from the tokens that every filter leaves.

    Attributes:
        temperature: softness of the distribution; 0 is greedy.
        top_k: keep the k likeliest tokens; 0 keeps all.
        top_p: keep the likeliest tokens that together reach this probability (Holtzman et al., 2020); 1: all.
        min_p: keep tokens at least this fraction as likely as the likeliest (Nguyen et al., 2024); 0: all.
        generator: source of randomness, for reproducible samples.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        # a comparison with nan is false
        heat = math.isfinite(self.temperature) and self.temperature >= 0
        if not heat or self.top_k < 0 or not 0 < self.top_p <= 1 or not 0 <= self.min_p <= 1:
            raise ValueError(
                f"temperature {self.temperature} must be finite, it and top_k {self.top_k} at least 0, top_p "
                f"{self.top_p} in (0, 1] and min_p {self.min_p} in [0, 1]"
            )

    def __call__(self, logits: Tensor) -> Tensor:
        """Logits (B, V) to token ids (B,)."""
        if self.temperature == 0:
            return logits.argmax(dim=-1)
        probs = self.filtered(logits)
        return torch.multinomial(probs, 1, generator=self.generator).squeeze(-1)

    def filtered(self, logits: Tensor) -> Tensor:
        """Probabilities (B, V) after temperature, top_k, top_p and min_p, in this order."""
        probs = (logits.float() / self.temperature).softmax(dim=-1)
        ordered, order = probs.sort(dim=-1, descending=True)
        if self.top_k:
            ordered[:, self.top_k :] = 0
            ordered /= ordered.sum(dim=-1, keepdim=True)
        # the token that crosses top_p is kept, so that at least one is
        keep = ordered.cumsum(dim=-1) - ordered < self.top_p
        keep &= ordered >= self.min_p * ordered[:, :1]
        ordered = ordered * keep
        return torch.zeros_like(probs).scatter(-1, order, ordered / ordered.sum(dim=-1, keepdim=True))
