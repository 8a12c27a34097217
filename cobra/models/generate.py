"""The one decoding loop: everything that produces text goes through it."""

from collections.abc import Iterator

import torch
from torch import Tensor

from cobra.kernels.step_graph import StepGraph
from cobra.models.lm.base import LanguageModel
from cobra.models.lm.state import State
from cobra.models.sampling import Sampler


def decode(
    lm: LanguageModel,
    hidden: Tensor,
    state: State,
    max_new_tokens: int,
    eos_id: int | None,
    sampler: Sampler,
) -> Iterator[Tensor]:
    """Token ids (B,), one position at a time.

    A row that has produced eos_id goes on producing it; the loop ends when all have. Every buffer (the state,
    the token) has a fixed shape, so that the kernels of a step can be repeated without Python. The last token
    that is yielded has not been read by the model yet: the state stands just before it.

    Args:
        lm: the language model.
        hidden: hidden state of the last prompt token, (B, D).
        state: decode state after the prompt, updated in place.
        max_new_tokens: positions to generate at most.
        eos_id: stops a row; None: never.
        sampler: chooses a token from logits (B, V).
    """
    finished = torch.zeros(hidden.shape[0], dtype=torch.bool, device=hidden.device)
    # made anew for every answer, so that it never outlives the weights or the state
    step = StepGraph(lambda token: lm.head(lm.step(lm.embed(token[:, None])[:, 0], state)))
    sampler = sampler.begin()
    logits = lm.head(hidden)
    for position in range(max_new_tokens):
        token = sampler(logits)
        if eos_id is not None:
            token = token.masked_fill(finished, eos_id)
            finished = finished | (token == eos_id)
        yield token
        if position == max_new_tokens - 1 or (eos_id is not None and bool(finished.all())):
            return
        logits = step(token)
