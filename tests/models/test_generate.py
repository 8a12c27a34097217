"""The decoding loop: what is never chosen, and logits that are no numbers."""

import pytest
import torch
from torch import Tensor

from cobra.models.generate import decode
from cobra.models.quantize import Quantization, quantize_
from cobra.models.sampling import Sampler
from tests.models.builders import LMS, VOCAB

KNOWN = [3, 50, 400]
SUPPRESSED = torch.tensor([i for i in range(VOCAB) if i not in KNOWN])
SAMPLERS = [Sampler(), Sampler(3.0), Sampler(3.0, top_k=2), Sampler(3.0, min_p=0.5)]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: f"{s.temperature}-{s.top_k}-{s.min_p}")
@pytest.mark.parametrize("quantization", ["none", "int8"])
@pytest.mark.parametrize("name", ["mamba2", "llama"])
@torch.inference_mode()
def test_suppressed_ids_are_never_chosen(name: str, quantization: Quantization, sampler: Sampler) -> None:
    """Called (none) and replayed (int8)."""
    torch.manual_seed(0)
    lm = LMS[name]().eval()
    quantize_(lm, quantization)
    hidden, state = torch.randn(4, lm.d_model), lm.allocate_state(4, 12)
    tokens = torch.stack(list(decode(lm, hidden, state, 12, None, sampler, SUPPRESSED)))
    assert set(tokens.flatten().tolist()) <= set(KNOWN)
    # the first token is the likeliest of those that are left
    if not sampler.temperature:
        assert tokens[0].tolist() == [KNOWN[i] for i in lm.head(hidden)[:, KNOWN].argmax(-1)]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("eos", [None, VOCAB + 1])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("quantization", ["none", "int8"])
@torch.inference_mode()
def test_logits_that_are_no_numbers_end_the_answer(
    quantization: Quantization, temperature: float, eos: int | None, value: float
) -> None:
    """At once, whether the step is called or replayed, and whichever row of the batch it is."""
    lm = LMS["llama"]().eval()
    quantize_(lm, quantization)
    state = lm.allocate_state(3, 12)
    tokens = decode(lm, torch.randn(3, lm.d_model), state, 9, eos, Sampler(temperature))
    for _ in range(4):
        assert next(tokens).shape == (3,)
    state.layers[0]["values"][1] = value
    with pytest.raises(
        ValueError, match=r"logits of rows \[1\] at new token 5 are not finite.*float32 is too"
    ):
        next(tokens)


@torch.inference_mode()
def test_a_row_that_has_ended_may_be_anything() -> None:
    lm = LMS["llama"]().eval()
    hidden = torch.randn(2, lm.d_model)
    first = lm.head(hidden).argmax(-1)
    eos = int(first[1])
    assert int(first[0]) != eos
    state = lm.allocate_state(2, 12)
    tokens = decode(lm, hidden, state, 4, eos, Sampler())
    next(tokens)
    state.layers[0]["values"][1] = torch.nan
    rest: list[Tensor] = list(tokens)
    assert [int(token[1]) for token in rest] == [eos] * len(rest)
