"""Decoding on a GPU: steps are replayed as a CUDA graph, and nobody waits for one who does not stream."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from cobra.kernels.step_graph import StepGraph
from cobra.models import generate
from cobra.models.generate import decode
from cobra.models.lm.base import LanguageModel
from cobra.models.lm.state import State
from cobra.models.quantize import Quantization, quantize_
from cobra.models.sampling import Sampler
from tests.models.builders import LMS, VOCAB

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[StepGraph]:
    """All that are made."""
    made: list[StepGraph] = []

    def make(function: object) -> StepGraph:
        made.append(StepGraph(function))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(generate, "StepGraph", make)
    return made


def prompted(name: str, batch: int, quantization: Quantization) -> tuple[LanguageModel, Tensor, State]:
    """A model, its hidden states (B, D) after a prompt that is padded, and that state."""
    torch.manual_seed(0)
    lm = LMS[name]().eval()
    quantize_(lm, quantization)
    lm, state = lm.cuda(), lm.cuda().allocate_state(batch, 60)
    ids, mask = torch.randint(VOCAB, (batch, 6)), torch.arange(6) >= torch.arange(batch)[:, None]
    return lm, lm.prefill(lm.embed(ids.cuda()), state, mask.cuda())[:, -1], state


@pytest.mark.parametrize("quantization", ["none", "int4"])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", ["mamba2", "mamba", "llama", "mobile_llm", "phi"])
@torch.inference_mode()
def test_replayed_answers_equal_called_ones(
    name: str,
    batch: int,
    quantization: Quantization,
    graphs: list[StepGraph],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lm, hidden, state = prompted(name, batch, quantization)
    called, called_state = [], state.clone()
    with monkeypatch.context() as patch:
        patch.setattr(generate, "StepGraph", lambda function: function)
        called = list(decode(lm, hidden, called_state, 20, None, Sampler()))
    replayed = list(decode(lm, hidden, state, 20, None, Sampler()))
    assert graphs[-1].obstacle is None
    assert torch.equal(torch.stack(replayed), torch.stack(called))
    assert torch.equal(state.memory, called_state.memory)
    assert torch.equal(state.lengths, called_state.lengths)


@pytest.fixture
def waiting_is_an_error() -> Iterator[None]:
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("sampler", [Sampler(), Sampler(1.0, 5, 0.9, 0.01, repetition_penalty=1.1)])
@pytest.mark.parametrize("name", ["mamba2", "mamba", "llama"])
@torch.inference_mode()
def test_nothing_waits_between_tokens(name: str, sampler: Sampler, waiting_is_an_error: None) -> None:
    lm, hidden, state = prompted(name, 3, "int4")
    suppress = torch.tensor([0, 7], device="cuda")
    tokens = decode(lm, hidden, state, 50, VOCAB + 1, sampler, suppress, ahead=True)
    next(tokens)
    torch.cuda.set_sync_debug_mode("error")
    for _ in range(20):
        next(tokens)


@torch.inference_mode()
def test_a_step_that_waits_is_called() -> None:
    step = StepGraph(lambda x: x * x.sum().item())
    for _ in range(3):
        assert torch.equal(step(torch.ones(2, device="cuda")), torch.full((2,), 2.0, device="cuda"))
    assert "waits for the device" in str(step.obstacle)


@torch.inference_mode()
def test_graphs_of_answers_leave_no_memory_behind() -> None:
    lm, hidden, state = prompted("mamba2", 3, "none")
    reserved = []
    for _ in range(5):
        list(decode(lm, hidden, state, 4, None, Sampler()))
        reserved.append(torch.cuda.memory_reserved())
    assert reserved[1:] == reserved[1:2] * 4
