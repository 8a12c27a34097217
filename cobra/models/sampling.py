"""The choice of the next token."""

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

# Below it the likeliest token alone is left, in fp32; zeros and subnormal numbers would make it nan.
_COLDEST = 1e-30


@dataclass
class Sampler:
    """Greedy by default; with a temperature, samples from the tokens that every filter leaves.

    Attributes:
        temperature: softness of the distribution; 0 is greedy.
        top_k: keep the k likeliest tokens; 0 keeps all.
        top_p: keep the likeliest tokens that together reach this probability (Holtzman et al., 2020); 1: all.
        min_p: keep tokens at least this fraction as likely as the likeliest (Nguyen et al., 2024); 0: all.
        repetition_penalty: makes what the answer has said less likely, where above 1 (Keskar et al., 2019,
            section 4.1).
        generator: source of randomness, for reproducible samples.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    generator: torch.Generator | None = None
    repetition_penalty: float = 1.0
    # (B, V), tokens of this answer
    _said: Tensor | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # a comparison with nan is false
        heat = math.isfinite(self.temperature) and self.temperature >= 0
        if not heat or self.top_k < 0 or not 0 < self.top_p <= 1 or not 0 <= self.min_p <= 1:
            raise ValueError(
                f"temperature {self.temperature} must be finite, it and top_k {self.top_k} at least 0, top_p "
                f"{self.top_p} in (0, 1] and min_p {self.min_p} in [0, 1]"
            )
        if not (math.isfinite(self.repetition_penalty) and self.repetition_penalty > 0):
            raise ValueError(
                f"repetition_penalty {self.repetition_penalty} must be finite and above 0; 1 is none"
            )

    def begin(self) -> "Sampler":
        """The same for a new answer: nothing is said yet. The source of randomness goes on."""
        return replace(self)

    def clone(self) -> "Sampler":
        """One that shares nothing with this one."""
        return replace(self, generator=self.generator and self.generator.clone_state())

    def __call__(self, logits: Tensor) -> Tensor:
        """Logits (B, V) to token ids (B,)."""
        logits = self._penalised(logits)
        if self.temperature == 0:
            # sooner than argmax, which is slow in bf16
            token = logits.max(dim=-1).indices
        else:
            # a row of no numbers gets some id: a GPU could not go on after a refusal
            probs = self.filtered(logits.masked_fill(~logits.amax(-1, keepdim=True).isfinite(), 0))
            # as torch.multinomial draws one, which on a GPU waits to check what it is given
            drawn = torch.empty_like(probs).exponential_(generator=self.generator)
            token = (probs / drawn).max(dim=-1).indices
        if self._said is not None:
            self._said.scatter_(-1, token[:, None], True)
        return token

    def filtered(self, logits: Tensor) -> Tensor:
        """Probabilities (B, V) after temperature, top_k, top_p and min_p, in this order."""
        below = logits.float() - logits.float().amax(dim=-1, keepdim=True)
        probs = (below / max(self.temperature, _COLDEST)).softmax(dim=-1)
        ordered, order = probs.sort(dim=-1, descending=True)
        if self.top_k:
            ordered[:, self.top_k :] = 0
            ordered /= ordered.sum(dim=-1, keepdim=True)
        # the token that crosses top_p is kept, so that at least one is
        keep = ordered.cumsum(dim=-1) - ordered < self.top_p
        keep &= ordered >= self.min_p * ordered[:, :1]
        ordered = ordered * keep
        return torch.zeros_like(probs).scatter(-1, order, ordered / ordered.sum(dim=-1, keepdim=True))

    def _penalised(self, logits: Tensor) -> Tensor:
        """Logits of tokens that were said divided by the penalty, or multiplied where they are negative."""
        if self.repetition_penalty == 1:
            return logits
        if self._said is None:
            self._said = torch.zeros_like(logits, dtype=torch.bool)
        penalty = self.repetition_penalty
        penalised = torch.where(logits > 0, logits / penalty, logits * penalty)
        # a penalty next to 0 must not make the logits infinite, of which none is the largest
        return torch.where(self._said, penalised.clamp(max=torch.finfo(logits.dtype).max), logits)
