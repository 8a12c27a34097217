"""The one decoding loop: everything that produces text goes through it."""

import math
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
    suppress: Tensor | None = None,
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
        suppress: ids (N,) that are never chosen, e.g. those that the tokenizer does not have.

    Raises:
        ValueError: where the logits of a row that goes on are no finite numbers, instead of its token; on a
            GPU that no eos_id makes wait for each token, with the last one.
    """
    finished, waits = [False] * len(hidden), eos_id is not None or hidden.is_cpu
    # made anew for every answer, so that it never outlives the weights or the state
    step = StepGraph(lambda token: lm.head(lm.step(lm.embed(token[:, None])[:, 0], state)))
    sampler = sampler.begin()
    logits = lm.head(hidden)
    for position in range(1, max_new_tokens + 1):
        if suppress is not None:
            logits.index_fill_(1, suppress, -torch.inf)
        peak, token = logits.amax(-1), sampler(logits)
        if eos_id is not None and any(finished):
            token = token.masked_fill(torch.tensor(finished, device=token.device), eos_id)
        is_last = position == max_new_tokens
        if waits or is_last:
            _check_finite(peak, finished, position)
            finished = [chosen == eos_id for chosen in token.tolist()]
            is_last = is_last or all(finished)
        yield token
        if is_last:
            return
        logits = step(token)


def _check_finite(peak: Tensor, finished: list[bool], position: int) -> None:
    """Refuse rows whose largest logit is not finite: a NaN among them is the largest."""
    peaks = peak.tolist()
    if all(map(math.isfinite, peaks)):
        return
    rows = [row for row, value in enumerate(peaks) if not (math.isfinite(value) or finished[row])]
    if rows:
        raise ValueError(
            f"the logits of rows {rows} at new token {position} are not finite: the weights are damaged, or "
            f"{peak.dtype} is too narrow; take an earlier checkpoint, or another dtype"
        )
