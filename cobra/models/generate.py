"""The one decoding loop: everything that produces text goes through it."""

from collections.abc import Iterator

import torch
from torch import Tensor

from cobra.models.lm.base import DecodeState, LanguageModel
from cobra.models.sampling import Sampler


def decode(
    lm: LanguageModel,
    hidden: Tensor,
    state: DecodeState,
    max_new_tokens: int,
    eos_id: int | None,
    sampler: Sampler,
) -> Iterator[Tensor]:
    """Token ids (B,), one position at a time.

    A row that has produced eos_id goes on producing it; the loop ends when all have. Every buffer (the state,
    the token) has a fixed shape, so a faster inner step can replace `lm.step` without touching the loop. The
    last token that is yielded has not been read by the model yet: the state stands just before it.

    Args:
        lm: the language model.
        hidden: hidden state of the last prompt token, (B, D).
        state: decode state after the prompt, updated in place.
        max_new_tokens: positions to generate at most.
        eos_id: stops a row; None: never.
        sampler: chooses a token from logits (B, V).
    """
    finished = torch.zeros(hidden.shape[0], dtype=torch.bool, device=hidden.device)
    for position in range(max_new_tokens):
        token = sampler(lm.head(hidden))
        if eos_id is not None:
            token = token.masked_fill(finished, eos_id)
            finished = finished | (token == eos_id)
        yield token
        if position == max_new_tokens - 1 or (eos_id is not None and bool(finished.all())):
            return
        hidden = lm.step(lm.embed(token[:, None])[:, 0], state)
