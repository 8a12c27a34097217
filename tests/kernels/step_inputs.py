"""Inputs of ops on one token: odd in all widths."""

import torch

from tests.kernels.sequence_inputs import BATCH, HEAD_DIM, HEADS, STATE, TAPS, Inputs, normal


def conv_update(_: int = 1) -> Inputs:
    state = normal(BATCH, 133, TAPS - 1)
    return {"x": normal(BATCH, 133), "state": state, "weight": normal(133, TAPS), "bias": normal(133)}


def head_update(_: int = 1) -> Inputs:
    return {
        "state": normal(BATCH, HEADS, HEAD_DIM, STATE),
        "x": normal(BATCH, HEADS, HEAD_DIM),
        "dt": normal(BATCH, HEADS),
        "A": -normal(HEADS).exp(),
        "B": normal(BATCH, 2, STATE),
        "C": normal(BATCH, 2, STATE, seed=1),
        "D": normal(HEADS),
        "z": normal(BATCH, HEADS, HEAD_DIM, seed=1),
        "dt_bias": normal(HEADS, seed=1),
        "dt_softplus": True,
    }


def plain_head_update(_: int = 1) -> Inputs:
    return {name: head_update()[name] for name in ("state", "x", "dt", "A", "B", "C")}


def channel_update(_: int = 1) -> Inputs:
    return {
        "state": normal(BATCH, 134, 5),
        "x": normal(BATCH, 134),
        "dt": normal(BATCH, 134, seed=1),
        "A": -normal(134, 5).exp(),
        "B": normal(BATCH, 2, 5),
        "C": normal(BATCH, 2, 5, seed=1),
        "D": normal(134),
        "z": normal(BATCH, 134, seed=2),
        "dt_bias": normal(134, seed=1),
        "dt_softplus": True,
    }


def step(_: int = 1) -> Inputs:
    return {
        "xz": normal(BATCH, 2 * 134),
        "conv_state": normal(BATCH, 134, TAPS - 1),
        "ssm_state": normal(BATCH, 134, 5),
        "conv_weight": normal(134, TAPS),
        "conv_bias": normal(134),
        "x_proj_weight": normal(9 + 2 * 5, 134),
        "dt_proj_weight": normal(134, 9),
        "dt_proj_bias": normal(134, seed=1),
        "A_log": normal(134, 5),
        "D": normal(134, seed=2),
    }


def step2(_: int = 1) -> Inputs:
    inner = HEADS * HEAD_DIM
    channels = inner + 2 * 2 * STATE
    return {
        "zxbcdt": normal(BATCH, inner + channels + HEADS),
        "conv_state": normal(BATCH, channels, TAPS - 1),
        "ssm_state": normal(BATCH, HEADS, HEAD_DIM, STATE),
        "conv_weight": normal(channels, TAPS),
        "conv_bias": normal(channels),
        "dt_bias": normal(HEADS),
        "A_log": normal(HEADS, seed=1),
        "D": normal(HEADS),
        "norm_weight": normal(inner),
        "n_groups": 2,
    }


def attention(_: int = 1) -> Inputs:
    # more than a part and a tile of the kernel have
    return {
        "q": normal(BATCH, HEADS, STATE),
        "keys": normal(BATCH, HEADS, 700, STATE),
        "values": normal(BATCH, HEADS, 700, STATE, seed=1),
    }


def grouped_attention(_: int = 1) -> Inputs:
    return {
        "q": normal(BATCH, 2 * 3, 16),
        "keys": normal(BATCH, 2, 150, 16),
        "values": normal(BATCH, 2, 150, 16, seed=1),
        "lengths": torch.tensor([150, 113]),
        "scale": 0.7,
    }


def attend_step(_: int = 1) -> Inputs:
    return {
        "q": normal(BATCH, HEADS, STATE),
        "k": normal(BATCH, HEADS, STATE, seed=2),
        "v": normal(BATCH, HEADS, STATE, seed=3),
        "keys": normal(BATCH, HEADS, 700, STATE),
        "values": normal(BATCH, HEADS, 700, STATE, seed=1),
        "lengths": torch.tensor([611, 64]),
        "rotation": normal(700, 14),
    }


def grouped_attend_step(_: int = 1) -> Inputs:
    # as many heads a group as the kernel takes together, and some
    return {
        "q": normal(BATCH, 2 * 11, 80),
        "k": normal(BATCH, 2, 80, seed=2),
        "v": normal(BATCH, 2, 80, seed=3),
        "keys": normal(BATCH, 2, 150, 80),
        "values": normal(BATCH, 2, 150, 80, seed=1),
        "lengths": torch.tensor([149, 37]),
        "rotation": normal(160, 80),
        "scale": 0.1,
    }


def gate(_: int = 1) -> Inputs:
    return {"gate": normal(BATCH, 5003), "up": normal(BATCH, 5003, seed=1)}


def activation(_: int = 1) -> Inputs:
    return {"x": 3 * normal(BATCH, 5003)}


def layer_norm(_: int = 1) -> Inputs:
    # a mean that is larger than what differs from it
    return {
        "x": normal(BATCH, 163) + 3,
        "residual": normal(BATCH, 163, seed=1) + 2,
        "weight": normal(163),
        "bias": normal(163, seed=1),
        "parallel": normal(BATCH, 163, seed=2),
    }


def first_layer_norm(_: int = 1) -> Inputs:
    return layer_norm() | {"residual": None, "parallel": None}
