"""Inputs of ops over a sequence: odd in all widths, with few and with all options."""

from typing import Any

import torch
from torch import Tensor

Inputs = dict[str, Any]
BATCH, HEADS, HEAD_DIM, STATE, TAPS = 2, 4, 5, 21, 4


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def packed(length: int) -> Inputs:
    """Sequences that end inside chunks and at their edges, others in each row, and some padding."""
    position = torch.arange(length)
    ids = torch.stack([position // 50, (position >= 64).int() + 2 * (position >= 70).int()])
    return {"seq_idx": ids.int(), "mask": normal(BATCH, length, seed=9) > -1}


def norm(length: int) -> Inputs:
    return {"x": normal(BATCH, length, 37), "weight": normal(37)}


def add_norm(length: int) -> Inputs:
    return norm(length) | {"residual": normal(BATCH, length, 37, seed=1)}


def first_norm(length: int) -> Inputs:
    return norm(length) | {"residual": None}


def gated_norm(length: int) -> Inputs:
    return {"x": normal(BATCH, length, 66), "z": normal(BATCH, length, 66, seed=1), "weight": normal(66)}


def grouped_norm(length: int) -> Inputs:
    return gated_norm(length) | {"group_size": 22}


def conv(length: int) -> Inputs:
    return {"x": normal(BATCH, length, 37), "weight": normal(37, TAPS)}


def conv_with_all(length: int) -> Inputs:
    # more channels than a block of the kernel has
    more = {
        "x": normal(BATCH, length, 133),
        "weight": normal(133, TAPS),
        "bias": normal(133),
        "initial_state": normal(BATCH, 133, TAPS - 1),
        "activation": "silu",
    }
    return more | packed(length)


def narrow_conv(length: int) -> Inputs:
    return {"x": normal(BATCH, length, 16), "weight": normal(16, 2), "bias": normal(16), "activation": "silu"}


def reversed_conv(length: int) -> Inputs:
    return conv_with_all(length) | {"scan_order": "reversed"}


def column_conv(length: int) -> Inputs:
    height = max(h for h in range(1, 17) if length % h == 0)
    more = {
        "mask": packed(length)["mask"],
        "scan_order": "columns_reversed",
        "grid": (height, length // height),
    }
    return narrow_conv(length) | more


def ssd(length: int) -> Inputs:
    return {
        "x": normal(BATCH, length, HEADS, HEAD_DIM),
        "dt": normal(BATCH, length, HEADS).abs(),
        "A": -normal(HEADS).exp(),
        "B": normal(BATCH, length, 1, STATE),
        "C": normal(BATCH, length, 1, STATE, seed=1),
    }


def ssd_with_all(length: int) -> Inputs:
    more = {
        "B": normal(BATCH, length, 2, STATE),
        "C": normal(BATCH, length, 2, STATE, seed=1),
        "D": normal(HEADS),
        "dt_bias": normal(HEADS, seed=1),
        "dt_softplus": True,
        "initial_state": normal(BATCH, HEADS, HEAD_DIM, STATE),
    }
    return ssd(length) | more | packed(length)


def scan(length: int) -> Inputs:
    return {
        "u": normal(BATCH, length, 22),
        "delta": normal(BATCH, length, 22, seed=1).abs(),
        "A": -normal(22, 5).exp(),
        "B": normal(BATCH, length, 1, 5),
        "C": normal(BATCH, length, 1, 5, seed=1),
    }


def scan_with_all(length: int) -> Inputs:
    more = {
        "B": normal(BATCH, length, 2, 5),
        "C": normal(BATCH, length, 2, 5, seed=1),
        "D": normal(22),
        "z": normal(BATCH, length, 22, seed=2),
        "delta_bias": normal(22, seed=1),
        "delta_softplus": True,
        "initial_state": normal(BATCH, 22, 5),
    }
    return scan(length) | more | packed(length)
