"""Whole language models with random weights, and their linears alone."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from cobra.bench.kernels.inputs import random_ids
from cobra.bench.timing.case import Case, dtype_of, forward
from cobra.kernels.step_graph import StepGraph
from cobra.models.lm.mamba2 import Mamba2LM, Mamba2Mixer
from cobra.models.quantize import quantize_


def prefill(length: int, d_model: int, layers: int, vocabulary: int, dtype: str) -> Case:
    """Token ids to the logits of the last one, the state kept for decoding."""
    model = _model(d_model, layers, vocabulary, dtype)
    ids = random_ids(length, vocabulary)

    def run() -> Tensor:
        state = model.allocate_state(1)
        return model.head(model.prefill(model.embed(ids), state)[:, -1])

    return forward(run)


def prefill_linears(length: int, d_model: int, layers: int, vocabulary: int, dtype: str) -> Case:
    """The linears that `prefill` runs, on inputs of the same shape."""
    linears = _linears(_model(d_model, layers, vocabulary, dtype), length)
    x = torch.ones(1, length, d_model, dtype=dtype_of(dtype))
    return forward(lambda: linears(x))


def decode(d_model: int, layers: int, vocabulary: int, dtype: str) -> Case:
    """One token id to the logits of the next, after a prompt, as the generation loop computes them."""
    model = _decoder(d_model, layers, vocabulary, dtype)
    with torch.inference_mode():
        state = model.allocate_state(1)
        model.prefill(model.embed(random_ids(16, vocabulary)), state)
    token = random_ids(1, vocabulary)[0]
    step = StepGraph(lambda token: model.head(model.step(model.embed(token), state)))
    return forward(lambda: step(token))


def decode_linears(d_model: int, layers: int, vocabulary: int, dtype: str) -> Case:
    """The linears that `decode` runs."""
    linears = StepGraph(_linears(_decoder(d_model, layers, vocabulary, dtype)))
    x = torch.ones(1, d_model, dtype=dtype_of(dtype))
    return forward(lambda: linears(x))


def _model(d_model: int, layers: int, vocabulary: int, dtype: str) -> Mamba2LM:
    torch.manual_seed(0)
    return Mamba2LM(vocabulary, d_model, layers).to(dtype_of(dtype)).eval()


def _decoder(d_model: int, layers: int, vocabulary: int, dtype: str) -> Mamba2LM:
    model = _model(d_model, layers, vocabulary, dtype)
    quantize_(model, "bf16" if dtype == "bfloat16" else "none")  # the weights' layout for decoding
    return model


def _linears(model: Mamba2LM, *tokens: int) -> Callable[[Tensor], Tensor]:
    """The model's linears one after another on (1, *tokens, D), the head on the last token alone."""
    inner = torch.ones(1, *tokens, 2 * model.d_model, dtype=model.embedding.weight.dtype)

    def run(x: Tensor) -> Tensor:
        for block in model.blocks:
            mixer = cast(Mamba2Mixer, block.mixer)
            mixer.in_proj(x)
            mixer.out_proj(inner)
        return model.head(x[:, -1] if tokens else x)

    return run
