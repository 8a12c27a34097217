"""Log-likelihoods of choices: the prompt is read once, and what remembers it is forked for each choice."""

from collections.abc import Sequence
from itertools import islice

import torch
from torch import Tensor

from cobra.models.lm.base import LanguageModel
from cobra.models.lm.state import State

# Token ids of each choice of a row.
Choices = Sequence[Sequence[int]]
# Forks that are read at a time: each has a state.
_FORKS = 64


def score_choices(
    lm: LanguageModel, hidden: Tensor, state: State | None, choices: Sequence[Choices]
) -> list[Tensor]:
    """Log-likelihood, in nats, of each choice of each row: one tensor (choices,) a row, in fp32.

    It is the sum over a choice's tokens of log p(token | prompt, tokens before), over the whole vocabulary
    and without an end of text, as EleutherAI's lm-evaluation-harness defines it. The prompt's last hidden
    state gives it for the first tokens, so that choices of one token, such as Yes and No, cost nothing more.

    Args:
        lm: the language model.
        hidden: hidden state of the last prompt token, (B, D).
        state: after the prompt, left as it is; None does where each choice is one token.
        choices: of each row, as many as it has, each of a token or more.

    Raises:
        ValueError: where the logits of a row are no finite numbers.
    """
    logits = lm.head(hidden).float()  # (B, V)
    total = logits.logsumexp(-1)
    if not (finite := total.isfinite()).all():
        bad = finite.logical_not().nonzero().flatten().tolist()
        raise ValueError(
            f"the logits of rows {bad} are not finite: the weights are damaged, or their dtype is too "
            "narrow; try fp32"
        )
    places = [(row, choice[0]) for row, given in enumerate(choices) for choice in given]
    rows, tokens = torch.tensor(places, device=logits.device).unbind(1)
    scores = (logits[rows, tokens] - total[rows]).split([len(given) for given in choices])
    # by length, so that forks that are read together need little padding
    longer = sorted(
        (len(choice), row, place)
        for row, given in enumerate(choices)
        for place, choice in enumerate(given)
        if len(choice) > 1
    )
    pending = iter(longer)
    while piece := list(islice(pending, _FORKS)):
        assert state is not None
        rest = _rest(lm, state.take([row for _, row, _ in piece]), [choices[r][p] for _, r, p in piece])
        for (_, row, place), more in zip(piece, rest, strict=True):
            scores[row][place] += more
    return list(scores)


def check_choices(choices: Sequence[Choices], rows: int, vocab_size: int) -> None:
    """Refuse choices that are not of these rows, or have no token.

    Raises:
        ValueError: naming the row.
    """
    if len(choices) != rows:
        raise ValueError(f"{len(choices)} lists of choices for {rows} prompts: give one a prompt")
    for row, given in enumerate(choices):
        if not given or not all(given):
            raise ValueError(f"row {row} has no choice, or one without a token: there is nothing to score")
        if any(not 0 <= token < vocab_size for choice in given for token in choice):
            raise ValueError(f"row {row} has a choice with a token that is not below {vocab_size}")


def _rest(lm: LanguageModel, state: State, choices: Choices) -> Tensor:
    """Log-likelihood (K,) of the tokens of choices behind their first, which a state has not read yet."""
    device = state.lengths.device
    width = max(map(len, choices)) - 1
    rows = [[*choice, *[0] * (width + 1 - len(choice))] for choice in choices]
    ids = torch.tensor(rows, device=device)  # (K, width + 1)
    lengths = torch.tensor([len(choice) - 1 for choice in choices], device=device)
    mask = torch.arange(width, device=device) < lengths[:, None]  # (K, width)
    read = lm.prefill(lm.embed(ids[:, :-1]), state, None if mask.all() else mask)
    # the head runs only on what is scored
    logits = lm.head(read[mask]).float()  # (N, V)
    said = logits.log_softmax(-1).gather(1, ids[:, 1:][mask][:, None]).squeeze(1)
    return torch.zeros(mask.shape, device=device).masked_scatter(mask, said).sum(1)
