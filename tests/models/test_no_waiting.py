"""Decoding on a GPU starts one kernel after the other: nothing is asked of the device in between.

Shown on the CPU, by modes that see every question.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor

from cobra.kernels import triton
from cobra.kernels.dispatch import use_backend
from cobra.kernels.reference import attention
from cobra.models import generate
from cobra.models.generate import decode
from cobra.models.lm.state import State
from cobra.models.quantize import Quantization, quantize_
from cobra.models.sampling import Sampler
from tests.kernels.no_waiting import no_waiting
from tests.models.builders import LMS, VOCAB


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Kernels that are said to run by themselves; plain ones, which the CPU does not interpret."""
    monkeypatch.setattr(generate, "_runs_by_itself", lambda device: True)
    monkeypatch.setattr(generate, "OnItsWay", Arrival)
    monkeypatch.setattr(attention, "_is_read_at_once", lambda lengths: False)
    with use_backend("torch"), torch.inference_mode():
        yield


class Known:
    """A tensor's numbers on the host."""

    def __init__(self, x: Tensor) -> None:
        with torch._C.DisableTorchFunction(), torch.utils._python_dispatch._disable_current_modes():
            self.numbers, self.dtype = x.tolist(), x.dtype

    def tolist(self) -> list[float]:
        return self.numbers


class Arrival:
    """As `OnItsWay`, of a device that has always finished."""

    def __init__(self, *tensors: Tensor) -> None:
        self.tensors = tensors

    def arrived(self) -> list[Known]:
        return [Known(x) for x in self.tensors]


def ids(*shape: int) -> Tensor:
    return torch.randint(VOCAB, shape, generator=torch.Generator().manual_seed(1))


# longrope's angles depend on how long the text has become, which is asked
@pytest.mark.parametrize("backend", ["torch", pytest.param("triton", marks=pytest.mark.triton)])
@pytest.mark.parametrize(
    ("name", "quantization"),
    [(name, "none") for name in LMS if name != "phi3_longrope"] + [("mamba", "int4"), ("llama", "int8")],
)
def test_a_step_asks_nothing(name: str, quantization: Quantization, backend: str) -> None:
    if backend == "triton" and (reason := triton.unavailable()):
        pytest.skip(reason)
    torch.manual_seed(0)
    lm = LMS[name]().eval()
    quantize_(lm, quantization)
    state = lm.allocate_state(3, 9)
    with use_backend(None):
        lm.prefill(lm.embed(ids(3, 4)), state, torch.arange(4) >= torch.arange(3)[:, None])
    expected, token = state.clone(), ids(3)
    with no_waiting(), use_backend(backend):
        logits = lm.head(lm.step(lm.embed(token[:, None])[:, 0], state))
    with use_backend(None):
        right = lm.head(lm.step(lm.embed(token[:, None])[:, 0], expected))
    torch.testing.assert_close(logits, right, rtol=1e-3, atol=1e-3)
    assert torch.equal(state.lengths, expected.lengths)


KNOWN = [3, 50, 400]
SUPPRESSED = torch.tensor([i for i in range(VOCAB) if i not in KNOWN])


@dataclass
class Answer:
    """What `decode` did: its tokens (L, B), the state after them, steps, and what a sampler draws next."""

    tokens: Tensor
    state: State
    steps: int
    next_draw: Tensor


def answer(name: str, eos: int, **options: bool) -> Answer:
    """Of three rows that end one after the other, among three tokens that are drawn."""
    torch.manual_seed(0)
    lm = LMS[name]().eval()
    step = Mock(wraps=lm.step)
    lm.step = step  # type: ignore[method-assign]
    sampler = Sampler(5.0, generator=torch.Generator().manual_seed(3), repetition_penalty=1.1)
    state, hidden = lm.allocate_state(3, 80), torch.randn(3, lm.d_model)
    tokens = decode(lm, hidden, state, 99, eos, sampler, SUPPRESSED, **options)
    # before it the room for tokens is asked for
    answered = [next(tokens)]
    with no_waiting() if options else nullcontext():
        answered += tokens
    return Answer(torch.stack(answered), state, step.call_count, torch.rand(4, generator=sampler.generator))


@pytest.mark.parametrize("eos", KNOWN)
@pytest.mark.parametrize("name", ["mamba2", "llama"])
def test_an_answer_is_the_same_where_nothing_is_waited_for(
    name: str, eos: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate, "StepGraph", lambda function: function)
    # a step is checked above; in Triton's interpreter one takes long
    with use_backend("torch"):
        ahead, exact = answer(name, eos, ahead=True), answer(name, eos)
        monkeypatch.setattr(generate, "_runs_by_itself", lambda device: False)
        on_cpu = answer(name, eos)
    assert len(on_cpu.tokens) > 2
    for other in (ahead, exact):
        assert torch.equal(other.tokens, on_cpu.tokens)
        assert torch.equal(other.next_draw, on_cpu.next_draw)
    # who goes on with the state finds it just before the last token; who does not pays for one step more
    assert torch.equal(exact.state.lengths, on_cpu.state.lengths)
    assert (on_cpu.steps, exact.steps, ahead.steps) == (n := len(on_cpu.tokens) - 1, n, n + 1)


@pytest.mark.parametrize("ahead", [True, False])
def test_a_full_state_ends_an_answer_after_the_same_token(ahead: bool) -> None:
    lm = LMS["llama"]().eval()
    tokens = decode(lm, torch.zeros(1, lm.d_model), lm.allocate_state(1, 5), 9, -1, Sampler(), ahead=ahead)
    for _ in range(6):
        next(tokens)
    with pytest.raises(ValueError, match="6 tokens exceed the state's max_length 5"):
        next(tokens)


def test_logits_that_are_no_numbers_are_told_one_step_later() -> None:
    lm = LMS["llama"]().eval()
    state = lm.allocate_state(3, 12)
    tokens = decode(lm, torch.randn(3, lm.d_model), state, 9, VOCAB + 1, Sampler(), ahead=True)
    for _ in range(4):
        next(tokens)
    state.layers[0]["values"][1] = torch.nan
    next(tokens)
    with pytest.raises(ValueError, match=r"logits of rows \[1\] at new token 5 are not finite"):
        next(tokens)
