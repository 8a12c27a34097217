"""The one decoding loop: everything that produces text goes through it."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from cobra.kernels.on_its_way import OnItsWay
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
    ahead: bool = False,
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
        ahead: on a GPU, let the model read a token before it is known whether it was the last, so that the
            device never waits for Python. The tokens are the same, but the state may end behind the last.

    Raises:
        ValueError: where the state is full; where the logits of a row that goes on are no finite numbers,
            instead of its token, or, on a GPU, just after it if `ahead`, and if there is no eos_id with the
            last one.
    """
    rows = _Rows(len(hidden), eos_id)
    waits = not _runs_by_itself(hidden.device) or (eos_id is not None and not ahead)
    # counted here, since a GPU cannot refuse a token
    read = max(state.lengths.tolist(), default=0) if state.grows else 0
    # made anew for every answer, so that it never outlives the weights or the state
    step = StepGraph(lambda token: lm.head(lm.step(lm.embed(token[:, None])[:, 0], state)))
    sampler = sampler.begin()
    logits, token = lm.head(hidden), None
    for position in range(1, max_new_tokens + 1):
        if suppress is not None:
            logits.index_fill_(1, suppress, -torch.inf)
        peak, token = logits.amax(-1), rows.going_on(sampler(logits), token)
        is_last, is_full = position == max_new_tokens, state.grows and read + position > state.max_length
        is_known = waits or is_last or is_full
        if is_known:
            is_last = rows.have_ended(position, peak, token) or is_last
        yield token
        if is_last:
            return
        state.check_room(read + position)
        on_its_way = None if is_known or eos_id is None else OnItsWay(peak, token)
        logits = step(token)
        if on_its_way is not None and rows.have_ended(position, *on_its_way.arrived()):
            return


def _runs_by_itself(device: torch.device) -> bool:
    """Whether kernels run while Python goes on."""
    return device.type != "cpu"


class _Rows:
    """What is known of the rows of an answer.

    Args:
        count: of them, B.
        eos_id: ends a row; None: none ends.
    """

    def __init__(self, count: int, eos_id: int | None) -> None:
        self.eos_id, self.finished = eos_id, [False] * count

    def going_on(self, chosen: Tensor, before: Tensor | None) -> Tensor:
        """The tokens that were chosen (B,), or those before in rows that have ended with them."""
        if before is None or self.eos_id is None or not any(self.finished):
            return chosen
        return torch.where(before.eq(self.eos_id), before, chosen)

    def have_ended(self, position: int, peak: Tensor, token: Tensor) -> bool:
        """Whether all rows have ended with these tokens (B,), which the device is waited for.

        Raises:
            ValueError: where the largest logits (B,) of a row that goes on are not finite: a NaN among them
                is the largest.
        """
        peaks = peak.tolist()
        if not all(map(math.isfinite, peaks)):
            rows = [
                row for row, value in enumerate(peaks) if not (math.isfinite(value) or self.finished[row])
            ]
            if rows:
                raise ValueError(
                    f"the logits of rows {rows} at new token {position} are not finite: the weights are "
                    f"damaged, or {peak.dtype} is too narrow; take an earlier checkpoint, or another dtype"
                )
        self.finished = [chosen == self.eos_id for chosen in token.tolist()]
        return all(self.finished)
