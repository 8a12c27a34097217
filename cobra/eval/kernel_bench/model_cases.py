"""Whole language models with random weights, and their linears alone."""

from typing import cast

import torch
from torch import Tensor, nn

from cobra.eval.kernel_bench.inputs import random_ids
from cobra.eval.timing.case import Case, dtype_of, forward
from cobra.models.lm.mamba2 import Mamba2LM, Mamba2Mixer


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
    model = _model(d_model, layers, vocabulary, dtype)
    return forward(lambda: _linears(model, torch.ones(1, length, d_model, dtype=dtype_of(dtype))))


def decode(d_model: int, layers: int, vocabulary: int, dtype: str) -> Case:
    """One token id to the logits of the next, after a prompt."""
    model = _model(d_model, layers, vocabulary, dtype)
    with torch.inference_mode():
        state = model.allocate_state(1)
        model.prefill(model.embed(random_ids(16, vocabulary)), state)
    token = random_ids(1, vocabulary)[0]
    return forward(lambda: model.head(model.step(model.embed(token), state)), bytes=_weight_bytes(model))


def decode_linears(d_model: int, layers: int, vocabulary: int, dtype: str) -> Case:
    """The linears that `decode` runs."""
    model = _model(d_model, layers, vocabulary, dtype)
    x = torch.ones(1, d_model, dtype=dtype_of(dtype))
    return forward(lambda: _linears(model, x), bytes=_weight_bytes(model))


def _model(d_model: int, layers: int, vocabulary: int, dtype: str) -> Mamba2LM:
    torch.manual_seed(0)
    return Mamba2LM(vocabulary, d_model, layers).to(dtype_of(dtype)).eval()


def _linears(model: Mamba2LM, x: Tensor) -> Tensor:
    inner = torch.ones(*x.shape[:-1], 2 * model.d_model, dtype=x.dtype)
    for block in model.blocks:
        mixer = cast(Mamba2Mixer, block.mixer)
        mixer.in_proj(x)
        mixer.out_proj(inner)
    return model.head(x[:, -1] if x.dim() == 3 else x)


def _weight_bytes(model: Mamba2LM) -> float:
    linears = sum(m.weight.nbytes for m in model.modules() if isinstance(m, nn.Linear))
    return linears + model.embedding.weight.nbytes
