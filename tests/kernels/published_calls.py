"""Calls of every op at the shapes of published models, on tensors without data."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

BF16, FP32 = torch.bfloat16, torch.float32


def empty(*shape: int, dtype: torch.dtype = BF16, gradient: bool = True) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta", requires_grad=gradient)


def still(*shape: int, dtype: torch.dtype = BF16) -> Tensor:
    return empty(*shape, dtype=dtype, gradient=False)


def norm(tokens: int, width: int, **more: Any) -> dict[str, Any]:
    return {"x": empty(1, tokens, width), "weight": empty(width, dtype=FP32), **more}


def step(batch: int, channels: int, rank: int, d_state: int) -> dict[str, Any]:
    """Of Mamba-1."""
    return {
        "xz": still(batch, 2 * channels),
        "conv_state": still(batch, channels, 3),
        "ssm_state": still(batch, channels, d_state, dtype=FP32),
        "conv_weight": still(channels, 4),
        "conv_bias": still(channels),
        "x_proj_weight": still(rank + 2 * d_state, channels),
        "dt_proj_weight": still(channels, rank),
        "dt_proj_bias": still(channels, dtype=FP32),
        "A_log": still(channels, d_state, dtype=FP32),
        "D": still(channels, dtype=FP32),
    }


def step2(batch: int, heads: int, head_dim: int, d_state: int, groups: int) -> dict[str, Any]:
    """Of Mamba-2."""
    channels = heads * head_dim + 2 * groups * d_state
    return {
        "zxbcdt": still(batch, heads * head_dim + channels + heads),
        "conv_state": still(batch, channels, 3),
        "ssm_state": still(batch, heads, head_dim, d_state, dtype=FP32),
        "conv_weight": still(channels, 4),
        "conv_bias": still(channels),
        **{name: still(heads, dtype=FP32) for name in ("dt_bias", "A_log", "D")},
        "norm_weight": still(heads * head_dim),
        "n_groups": groups,
    }


def update(*state: int) -> dict[str, Any]:
    batch, *heads, d_state = state
    dt = still(batch, heads[0])
    return {
        "state": still(*state, dtype=FP32),
        "x": still(batch, *heads),
        "dt": dt,
        "A": still(heads[0], *([d_state] if len(heads) == 1 else []), dtype=FP32),
        "B": still(batch, 1, d_state),
        "C": still(batch, 1, d_state),
        "dt_bias": still(heads[0], dtype=FP32),
        "dt_softplus": True,
    }


def attend(heads: int, groups: int, head_dim: int, dtype: torch.dtype = BF16) -> dict[str, Any]:
    past = still(1, groups, 4096, head_dim, dtype=dtype)
    return {
        "q": still(1, heads, head_dim, dtype=dtype),
        "keys": past,
        "values": past,
        "lengths": torch.empty(1, dtype=torch.int64, device="meta"),
    }


def attend_step(heads: int, groups: int, head_dim: int, dtype: torch.dtype = BF16) -> dict[str, Any]:
    new = still(1, groups, head_dim, dtype=dtype)
    return attend(heads, groups, head_dim, dtype) | {
        "k": new,
        "v": new,
        "rotation": still(4096, head_dim, dtype=FP32),
    }


def linears(rows: int, width: int, count: int, bias: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Those of a projection of a published model, in all formats."""
    x = {"x": empty(rows, width, gradient=False)}
    if bias:
        x["bias"] = empty(count, gradient=False)
    yield "linear_bf16", {**x, "weight": empty(count, width, gradient=False)}
    words = empty(count, width // 4, dtype=torch.int32, gradient=False)
    yield "linear_w8", {**x, "packed": words, "scales": empty(count, dtype=FP32, gradient=False)}
    words, scales = words[:, : width // 8], empty(count, width // 32, gradient=False)
    yield "linear_w4", {**x, "packed": words, "scales": scales, "group": 32}


def embeddings(width: int, count: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Those of a published model's embedding, in all formats."""
    ids = {"ids": empty(1, 1, dtype=torch.int64, gradient=False), "dtype": BF16}
    for op, inputs in linears(1, width, count):
        del inputs["x"]
        yield (
            op.replace("linear", "embedding"),
            {**ids, **inputs, **({} if op[-1] == "6" else {"columns": width})},
        )


def ssd(batch: int, tokens: int, heads: int, dtype: torch.dtype = BF16, **more: Any) -> dict[str, Any]:
    """A layer of Mamba-2: x, B and C slices of what the convolution returns, dt of the projection's."""
    d_inner = heads * 64
    x, B, C = empty(batch, tokens, d_inner + 256, dtype=dtype).split([d_inner, 128, 128], dim=-1)
    return {
        "x": x.unflatten(2, (heads, 64)),
        "dt": empty(batch, tokens, 2 * d_inner + 256 + heads, dtype=dtype)[..., -heads:],
        "A": empty(heads, dtype=FP32),
        "B": B.unflatten(2, (1, 128)),
        "C": C.unflatten(2, (1, 128)),
        "D": empty(heads, dtype=FP32),
        "dt_bias": empty(heads, dtype=FP32),
        "dt_softplus": True,
        "return_final_state": False,
        **more,
    }


def conv(width: int, channels: int, dtype: torch.dtype) -> dict[str, Any]:
    """Some channels of a projection of so many."""
    x = empty(1, 2777, width, dtype=dtype, gradient=False)[..., :channels].detach().requires_grad_()
    filters = {"weight": empty(channels, 4, dtype=FP32), "bias": empty(channels, dtype=FP32)}
    return {"x": x, "activation": "silu", **filters}


def scan(width: int, rank: int, dtype: torch.dtype) -> dict[str, Any]:
    """Of a layer of so many channels: gate, B and C are parts of projections."""
    z = empty(1, 2777, 2 * width, dtype=dtype, gradient=False)[..., width:]
    _, B, C = empty(1, 2777, 1, rank + 32, dtype=dtype, gradient=False).split((rank, 16, 16), dim=-1)
    parts = {"z": z, "B": B, "C": C}
    return {
        "u": empty(1, 2777, width, dtype=dtype),
        "delta": empty(1, 2777, width, dtype=dtype),
        "A": empty(width, 16, dtype=FP32),
        "D": empty(width, dtype=FP32),
        "delta_bias": empty(width, dtype=FP32),
        "delta_softplus": True,
        **{name: x.detach().requires_grad_() for name, x in parts.items()},
    }


def conv_update(channels: int) -> dict[str, Any]:
    inputs = {"x": (1, channels), "state": (1, channels, 3), "weight": (channels, 4), "bias": (channels,)}
    return {name: empty(*shape, gradient=False) for name, shape in inputs.items()} | {"activation": "silu"}


# an op and its arguments, without gradients where it has none
CALLS: list[tuple[str, dict[str, Any]]] = [
    ("rms_norm", norm(2777, 2560)),
    ("add_rms_norm", norm(2777, 2560, residual=empty(1, 2777, 2560, dtype=FP32))),
    ("add_rms_norm", norm(2777, 5120, residual=empty(1, 2777, 5120, dtype=FP32))),
    ("add_rms_norm", norm(2777, 16384, residual=empty(1, 2777, 16384, dtype=FP32))),
    ("rms_norm_gated", norm(2777, 5120, z=empty(1, 2777, 5120))),
    # Mamba-2 2.7B, alone and in a batch, and with eight groups; Mamba 2.8B
    ("mamba2_step", step2(1, 80, 64, 128, 1)),
    ("mamba2_step", step2(16, 80, 64, 128, 8)),
    ("mamba_step", step(1, 5120, 160, 16)),
    ("mamba_step", step(16, 5120, 160, 16)),
    ("selective_state_update", update(1, 80, 64, 128)),
    ("selective_state_update", update(1, 5120, 16)),
    # MobileLLaMA 1.4B and Llama 3 8B
    ("attention_step", attend_step(16, 16, 128)),
    ("attention_step", attend_step(32, 8, 128)),
    ("decode_attention", attend(16, 16, 128)),
    ("decode_attention", attend(32, 8, 128)),
    ("advance", {"lengths": torch.empty(16, dtype=torch.int64, device="meta")}),
    ("silu_mul", {"gate": still(1, 5632), "up": still(1, 5632)}),
    ("gelu_tanh", {"x": still(1, 10240)}),
    (
        "add_layer_norm",
        {"x": still(1, 2560), "residual": still(1, 2560), "weight": still(2560), "bias": still(2560)},
    ),
    *(case for rows in (1, 4, 16) for case in linears(rows, 2560, 10576)),
    *(case for rows in (1, 4, 16, 2777) for case in linears(rows, 5120, 2560)),
    *linears(1, 2560, 50280, bias=True),
    *embeddings(2560, 50280),
    # mamba2-2.7b, in segments, and 130m, also in fp32 and packed
    ("ssd_chunk_scan", ssd(1, 2777, 80)),
    ("ssd_chunk_scan", ssd(16, 2777, 24, return_final_state=True)),
    (
        "ssd_chunk_scan",
        ssd(1, 2777, 24, dtype=FP32, seq_idx=empty(1, 2777, dtype=torch.int32, gradient=False)),
    ),
    # mamba-2.8b and 130m, and the convolution of mamba2-2.7b
    ("selective_scan", scan(5120, 160, BF16)),
    ("selective_scan", scan(1536, 48, FP32)),
    ("causal_conv1d", conv(10240, 5120, BF16)),
    ("causal_conv1d", conv(10576, 5376, FP32)),
    ("causal_conv1d_update", conv_update(5120)),
]
