"""transformers' own Mamba and Mamba-2 in plain torch: what a user without a GPU gets today.

Lives in a process of its own, where the packages that transformers would silently use instead are refused.
"""

from collections.abc import Callable

import torch
from torch import Tensor

import cobra.bench.timing.plain_transformers  # noqa: F401  (before transformers)
from cobra.bench.kernels.inputs import independent, random_ids, selective_inputs, ssd_inputs
from cobra.bench.timing.case import Case, dtype_of, forward, with_gradients

from transformers import Mamba2Config, Mamba2ForCausalLM  # isort: skip
from transformers.models.mamba.modeling_mamba import mamba_selective_scan  # isort: skip
from transformers.models.mamba2.modeling_mamba2 import mamba2_chunk_scan  # isort: skip


def ssd_chunk_scan(
    length: int,
    heads: int,
    head_dim: int,
    d_state: int,
    dtype: str,
    chunk_size: int = 256,
    backward: bool = False,
) -> Case:
    """As our case; 256 is the chunk that published configurations ask for."""
    inputs = ssd_inputs(length, heads, head_dim, d_state, dtype)
    if backward:
        inputs = independent(inputs)

    def run() -> tuple[Tensor, Tensor]:
        names = {"hidden_states": inputs["x"]} | {name: x for name, x in inputs.items() if name != "x"}
        return mamba2_chunk_scan(**names, chunk_size=chunk_size, dt_softplus=True, return_final_states=True)

    return with_gradients(lambda: run()[0], list(inputs.values())) if backward else forward(run)


def selective_scan(length: int, channels: int, d_state: int, dtype: str, backward: bool = False) -> Case:
    """As our case, in the layout that transformers wants: channels before tokens."""
    inputs = selective_inputs(length, channels, d_state, dtype)
    first = {"u": "hidden_states", "delta": "dt", "z": "z", "B": "B", "C": "C"}
    moved = {new: inputs.pop(old).transpose(1, 2).contiguous() for old, new in first.items()}
    moved |= inputs

    def run() -> tuple[Tensor, Tensor]:
        return mamba_selective_scan(**moved, delta_softplus=True, return_last_state=True)

    return with_gradients(lambda: run()[0], list(moved.values())) if backward else forward(run)


def prefill(length: int, d_model: int, layers: int, vocabulary: int, dtype: str) -> Case:
    """Token ids to the logits of the last one, the cache kept for decoding."""
    model, ids = _model(d_model, layers, vocabulary, dtype), random_ids(length, vocabulary)
    return forward(lambda: model(ids, use_cache=True, logits_to_keep=1))


def decode(d_model: int, layers: int, vocabulary: int, dtype: str) -> Case:
    """One token id to the logits of the next, after a prompt."""
    model = _model(d_model, layers, vocabulary, dtype)
    with torch.inference_mode():
        cache = model(random_ids(16, vocabulary), use_cache=True).cache_params
    token = random_ids(1, vocabulary)
    return forward(lambda: model(token, cache_params=cache, use_cache=True))


def _model(d_model: int, layers: int, vocabulary: int, dtype: str) -> Mamba2ForCausalLM:
    config = Mamba2Config(
        hidden_size=d_model,
        num_hidden_layers=layers,
        vocab_size=vocabulary,
        state_size=128,
        head_dim=64,
        num_heads=2 * d_model // 64,
        n_groups=1,
        chunk_size=256,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    return Mamba2ForCausalLM(config).to(dtype_of(dtype)).eval()


CASES: dict[str, Callable[..., Case]] = {
    case.__name__: case for case in (ssd_chunk_scan, selective_scan, prefill, decode)
}
