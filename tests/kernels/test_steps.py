"""Decoding token by token against the same tokens in one prefill, for both mixers."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cobra.kernels.ops import (
    causal_conv1d,
    mamba2_step,
    mamba_step,
    rms_norm_gated,
    selective_scan,
    selective_state_update,
    ssd_chunk_scan,
)

BATCH, TAPS, STATE = 2, 4, 5


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@dataclass
class Mixer2:
    """What a Mamba-2 mixer holds between its linears: H = 4 heads of P = 3 channels in G groups."""

    groups: int
    dtype: torch.dtype = torch.float64

    def __post_init__(self) -> None:
        self.inner, self.channels = 12, 12 + 2 * self.groups * STATE
        self.conv_weight = normal(self.channels, TAPS, seed=1, dtype=self.dtype)
        self.conv_bias = normal(self.channels, seed=2, dtype=self.dtype)
        self.dt_bias, self.A_log = normal(4, seed=3), normal(4, seed=4)
        self.D = normal(4, seed=5)
        self.norm_weight = normal(self.inner, seed=6, dtype=self.dtype)

    def projected(self, length: int) -> Tensor:
        return normal(BATCH, length, self.inner + self.channels + 4, seed=7, dtype=self.dtype)

    def prefill(self, zxbcdt: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z, xbc, dt = zxbcdt.split([self.inner, self.channels, 4], dim=-1)
        xbc, conv_state = causal_conv1d(xbc, self.conv_weight, self.conv_bias, activation="silu")
        x, B, C = xbc.split([self.inner, self.groups * STATE, self.groups * STATE], dim=-1)
        y, state = ssd_chunk_scan(
            x.unflatten(2, (4, 3)),
            dt,
            -self.A_log.exp(),
            B.unflatten(2, (self.groups, STATE)),
            C.unflatten(2, (self.groups, STATE)),
            D=self.D,
            dt_bias=self.dt_bias,
            dt_softplus=True,
            chunk_size=4,
        )
        y = rms_norm_gated(y.flatten(2), z, self.norm_weight, group_size=self.inner // self.groups)
        return y, conv_state, state

    def step(self, token: Tensor, conv_state: Tensor, state: Tensor) -> Tensor:
        return mamba2_step(
            token,
            conv_state,
            state,
            self.conv_weight,
            self.conv_bias,
            self.dt_bias,
            self.A_log,
            self.D,
            self.norm_weight,
            n_groups=self.groups,
        )


@dataclass
class Mixer1:
    """What a Mamba-1 mixer holds between its linears: D = 6 channels, dt of rank 2."""

    dtype: torch.dtype = torch.float64

    def __post_init__(self) -> None:
        self.conv_weight = normal(6, TAPS, seed=1, dtype=self.dtype)
        self.conv_bias = normal(6, seed=2, dtype=self.dtype)
        self.x_proj = normal(2 + 2 * STATE, 6, seed=3, dtype=self.dtype)
        self.dt_proj, self.dt_bias = normal(6, 2, seed=4, dtype=self.dtype), normal(6, seed=5)
        self.A_log, self.D = normal(6, STATE, seed=6), normal(6, seed=7)

    def projected(self, length: int) -> Tensor:
        return normal(BATCH, length, 12, seed=8, dtype=self.dtype)

    def prefill(self, xz: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, z = xz.chunk(2, dim=-1)
        x, conv_state = causal_conv1d(x, self.conv_weight, self.conv_bias, activation="silu")
        dt, B, C = F.linear(x, self.x_proj).split([2, STATE, STATE], dim=-1)
        y, state = selective_scan(
            x,
            F.linear(dt, self.dt_proj),
            -self.A_log.exp(),
            B.unsqueeze(2),
            C.unsqueeze(2),
            D=self.D,
            z=z,
            delta_bias=self.dt_bias,
            delta_softplus=True,
        )
        return y, conv_state, state

    def step(self, token: Tensor, conv_state: Tensor, state: Tensor) -> Tensor:
        return mamba_step(
            token,
            conv_state,
            state,
            self.conv_weight,
            self.conv_bias,
            self.x_proj,
            self.dt_proj,
            self.dt_bias,
            self.A_log,
            self.D,
        )


@pytest.mark.parametrize(
    "mixer",
    [
        Mixer1(),
        Mixer2(1),
        Mixer2(2),
        # these run on the native kernels
        Mixer1(torch.float32),
        Mixer2(2, torch.float32),
    ],
    ids=["mamba", "mamba2", "two groups", "mamba fp32", "mamba2 fp32"],
)
@pytest.mark.parametrize("prompt", [0, 1, 6])
def test_steps_after_a_prefill_equal_one_prefill(mixer: Mixer1 | Mixer2, prompt: int) -> None:
    tokens = mixer.projected(11)
    tolerance = 1e-5 if tokens.dtype == torch.float32 else 1e-7
    whole, last_conv, last_state = mixer.prefill(tokens)
    _, conv_state, state = mixer.prefill(tokens[:, :prompt])
    for t in range(prompt, 11):
        torch.testing.assert_close(
            mixer.step(tokens[:, t], conv_state, state), whole[:, t], rtol=tolerance, atol=tolerance
        )
    torch.testing.assert_close(conv_state, last_conv)
    torch.testing.assert_close(state, last_state, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "mixer", [Mixer1(torch.bfloat16), Mixer2(2, torch.bfloat16)], ids=["mamba", "mamba2"]
)
def test_bf16_steps_stay_near_the_prefill(mixer: Mixer1 | Mixer2) -> None:
    tokens = mixer.projected(9)
    whole, _, _ = mixer.prefill(tokens)
    _, conv_state, state = mixer.prefill(tokens[:, :2])
    assert (conv_state.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    steps = torch.stack([mixer.step(tokens[:, t], conv_state, state) for t in range(2, 9)], dim=1)
    assert steps.dtype == torch.bfloat16
    torch.testing.assert_close(steps, whole[:, 2:], rtol=3e-2, atol=3e-2)


@pytest.mark.parametrize("groups", [1, 3])
def test_a_mamba1_update_is_one_token_of_the_scan(groups: int) -> None:
    u, delta, z = (normal(BATCH, 1, 6, seed=seed) for seed in range(3))
    A, D, bias = -normal(6, STATE, seed=3).exp(), normal(6, seed=4), normal(6, seed=5)
    B, C = (normal(BATCH, 1, groups, STATE, seed=seed) for seed in (6, 7))
    state = normal(BATCH, 6, STATE, seed=8)
    expected, after = selective_scan(
        u, delta, A, B, C, D=D, z=z, delta_bias=bias, delta_softplus=True, initial_state=state
    )
    y = selective_state_update(
        state, u[:, 0], delta[:, 0], A, B[:, 0], C[:, 0], D=D, z=z[:, 0], dt_bias=bias, dt_softplus=True
    )
    torch.testing.assert_close(y, expected[:, 0])
    torch.testing.assert_close(state, after)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_mamba2_update_is_one_token_of_the_scan(groups: int) -> None:
    x = normal(BATCH, 1, 4, 3)
    dt, A, D, bias = (
        normal(BATCH, 1, 4, seed=2),
        -normal(4, seed=3).exp(),
        normal(4, seed=4),
        normal(4, seed=5),
    )
    B, C = (normal(BATCH, 1, groups, STATE, seed=seed) for seed in (6, 7))
    state = normal(BATCH, 4, 3, STATE, seed=8)
    options: dict[str, Any] = {"D": D, "dt_bias": bias, "dt_softplus": True}
    expected, after = ssd_chunk_scan(x, dt, A, B, C, initial_state=state, **options)
    y = selective_state_update(state, x[:, 0], dt[:, 0], A, B[:, 0], C[:, 0], **options)
    torch.testing.assert_close(y, expected[:, 0])
    torch.testing.assert_close(state, after)


def test_a_state_in_half_precision_keeps_its_dtype() -> None:
    state = normal(BATCH, 6, STATE).bfloat16()
    u, A, B = normal(BATCH, 6), -normal(6, STATE, seed=1).exp(), normal(BATCH, 1, STATE, seed=2)
    y = selective_state_update(state, u, u, A, B, B, dt_softplus=True)
    assert (state.dtype, y.dtype) == (torch.bfloat16, torch.float64)
