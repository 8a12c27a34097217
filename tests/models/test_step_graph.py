"""Steps repeated without Python equal steps with it, bit for bit."""

from typing import Any

import pytest
import torch
from torch import Tensor

from cobra.kernels.dispatch import use_backend
from cobra.kernels.ops import rms_norm
from cobra.kernels.step_graph import StepGraph
from cobra.models.generate import decode
from cobra.models.lm.base import LanguageModel
from cobra.models.lm.state import State
from cobra.models.quantize import Quantization, quantize_
from cobra.models.sampling import Sampler
from tests.models.builders import LMS, VOCAB


def ids(*shape: int) -> Tensor:
    return torch.randint(VOCAB, shape, generator=torch.Generator().manual_seed(1))


def quantized(name: str, quantization: Quantization, dtype: torch.dtype = torch.float32) -> LanguageModel:
    torch.manual_seed(0)
    lm = LMS[name]().eval().to(dtype)
    quantize_(lm, quantization)
    return lm


def next_logits(lm: LanguageModel, token: Tensor, state: Any) -> Tensor:
    return lm.head(lm.step(lm.embed(token[:, None])[:, 0], state))


def assert_same(state: State, expected: State) -> None:
    assert torch.equal(state.lengths, expected.lengths)
    for layer, other in zip(state.layers, expected.layers, strict=True):
        for name, buffer in layer.items():
            assert torch.equal(buffer, other[name]), name


REPEATED = [
    "mamba",
    "mamba2",
    "mamba2_groups",
    "llama",
    "qwen2",
    "stablelm",
    "phi",
    "phi3",
    "hybrid",
    "hybrid_without_mlp",
    "mobile_llm",
    "mobile_llm_shared",
]


@pytest.mark.parametrize("name", REPEATED)
@pytest.mark.parametrize("quantization", ["bf16", "int8", "int4"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("batch", [1, 3])
@torch.inference_mode()
def test_repeated_steps_equal_steps(
    name: str, quantization: Quantization, dtype: torch.dtype, batch: int
) -> None:
    lm = quantized(name, quantization, dtype)
    mask = torch.arange(5) >= torch.arange(batch)[:, None]
    state = lm.allocate_state(batch, 20)
    lm.prefill(lm.embed(ids(batch, 5)), state, mask)
    expected_state = state.clone()
    step = StepGraph(lambda token: next_logits(lm, token, state))
    for token in ids(6, batch):
        assert torch.equal(step(token), next_logits(lm, token, expected_state))
    assert step.obstacle is None
    assert_same(state, expected_state)
    # what the state holds is read where it lies
    state.reset()
    assert torch.equal(step(token), next_logits(lm, token, lm.allocate_state(batch, 1)))


@torch.inference_mode()
def test_a_repeated_step_refuses_a_token_that_the_model_does_not_know() -> None:
    lm = quantized("mamba2", "int4")
    state = lm.allocate_state(1, 9)
    step = StepGraph(lambda token: next_logits(lm, token, state))
    step(ids(1))
    step(ids(1))
    with pytest.raises(IndexError, match="embedding_w4: an id is no row of the weight"):
        step(torch.tensor([VOCAB]))
    fork = state.clone()
    assert torch.equal(step(ids(1)), next_logits(lm, ids(1), fork))


@torch.inference_mode()
def test_a_full_state_refuses_repeated_steps() -> None:
    lm = quantized("llama", "int4")
    tokens = decode(lm, torch.zeros(1, lm.d_model), lm.allocate_state(1, 5), 9, None, Sampler())
    with pytest.raises(ValueError, match="max_length"):
        list(tokens)


@pytest.mark.parametrize("name", ["mamba2", "llama"])
@torch.inference_mode()
def test_a_fork_is_not_written_by_the_other(name: str) -> None:
    lm = quantized(name, "int4")
    state, hidden = lm.allocate_state(1, 20), torch.zeros(1, lm.d_model)
    tokens = decode(lm, hidden, state, 9, None, Sampler())
    for _ in range(5):
        next(tokens)
    fork = state.clone()
    before = fork.clone()
    list(tokens)
    assert_same(fork, before)


@torch.inference_mode()
def test_a_step_that_computes_with_torch_is_not_repeated() -> None:
    lm = quantized("mamba2", "none")
    state = lm.allocate_state(1, 9)
    step = StepGraph(lambda token: next_logits(lm, token, state))
    step(ids(1))
    assert "aten.embedding.default computes" in str(step.obstacle)


@torch.inference_mode()
def test_what_changes_between_two_calls_is_not_repeated() -> None:
    scale = iter(range(1, 9))
    weight = torch.ones(8)
    step = StepGraph(lambda x: rms_norm(x, weight, eps=float(next(scale))))
    x = torch.ones(1, 8)
    for eps in range(1, 5):
        torch.testing.assert_close(step(x), x / (1 + eps) ** 0.5)
    assert "differ" in str(step.obstacle)


def test_the_reference_and_gradients_are_not_repeated() -> None:
    x, weight = torch.ones(1, 8), torch.ones(8)
    recorded = StepGraph(lambda x: rms_norm(x, weight))
    recorded(x)
    assert recorded.obstacle
    with torch.no_grad(), use_backend("reference"):
        recorded = StepGraph(lambda x: rms_norm(x, weight))
        recorded(x)
    assert recorded.obstacle
