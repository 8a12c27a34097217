"""Whole mixers composed of our ops against transformers' PyTorch paths, on the same weights."""

# declares operators that transformers' import of torchvision needs
import cobra.torchvision_shim  # noqa: F401  isort: skip

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.mamba.configuration_mamba import MambaConfig
from transformers.models.mamba.modeling_mamba import MambaMixer
from transformers.models.mamba2.configuration_mamba2 import Mamba2Config
from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

from cobra.kernels.ops import causal_conv1d, rms_norm_gated, selective_scan, ssd_chunk_scan

WIDTH, STATE, LENGTH = 16, 8, 37


def scramble(mixer: nn.Module) -> None:
    """Random values for every parameter, so that none hides behind a one or a zero."""
    rng = torch.Generator().manual_seed(0)
    for parameter in mixer.parameters():
        parameter.data = 0.5 * torch.randn(parameter.shape, generator=rng)


def hidden_states() -> Tensor:
    return torch.randn(2, LENGTH, WIDTH, generator=torch.Generator().manual_seed(1))


def run_mamba2(mixer: Mamba2Mixer, hidden: Tensor, groups: int, heads: int) -> Tensor:
    inner = 2 * WIDTH
    z, xbc, dt = mixer.in_proj(hidden).split([inner, inner + 2 * groups * STATE, heads], dim=-1)
    xbc, _ = causal_conv1d(xbc, mixer.conv1d.weight.squeeze(1), mixer.conv1d.bias, activation="silu")
    x, B, C = xbc.split([inner, groups * STATE, groups * STATE], dim=-1)
    y, _ = ssd_chunk_scan(
        x.unflatten(2, (heads, -1)),
        dt,
        -mixer.A_log.exp(),
        B.unflatten(2, (groups, STATE)),
        C.unflatten(2, (groups, STATE)),
        D=mixer.D,
        dt_bias=mixer.dt_bias,
        dt_softplus=True,
        chunk_size=16,
    )
    y = rms_norm_gated(
        y.flatten(2), z, mixer.norm.weight, mixer.norm.variance_epsilon, group_size=inner // groups
    )
    return mixer.out_proj(y)


def run_mamba(mixer: MambaMixer, hidden: Tensor) -> Tensor:
    x, z = mixer.in_proj(hidden).chunk(2, dim=-1)
    x, _ = causal_conv1d(x, mixer.conv1d.weight.squeeze(1), mixer.conv1d.bias, activation="silu")
    dt, B, C = mixer.x_proj(x).split([mixer.time_step_rank, STATE, STATE], dim=-1)
    y, _ = selective_scan(
        x,
        F.linear(dt, mixer.dt_proj.weight),
        -mixer.A_log.exp(),
        B.unsqueeze(2),
        C.unsqueeze(2),
        D=mixer.D,
        z=z,
        delta_bias=mixer.dt_proj.bias,
        delta_softplus=True,
    )
    return mixer.out_proj(y)


def assert_relatively_close(actual: Tensor, expected: Tensor) -> None:
    assert ((actual - expected).abs().max() / expected.abs().max()).item() <= 1e-5


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_mamba2_mixer_equals_transformers(groups: int) -> None:
    config = Mamba2Config(
        hidden_size=WIDTH,
        state_size=STATE,
        num_heads=4,
        head_dim=8,
        n_groups=groups,
        chunk_size=8,
        num_hidden_layers=1,
    )
    mixer, hidden = Mamba2Mixer(config, layer_idx=0).eval(), hidden_states()
    scramble(mixer)
    with torch.no_grad():
        assert_relatively_close(run_mamba2(mixer, hidden, groups, 4), mixer(hidden))


def test_a_mamba_mixer_equals_transformers() -> None:
    config = MambaConfig(hidden_size=WIDTH, state_size=STATE, num_hidden_layers=1)
    mixer, hidden = MambaMixer(config, layer_idx=0).eval(), hidden_states()
    scramble(mixer)
    with torch.no_grad():
        assert_relatively_close(run_mamba(mixer, hidden), mixer(hidden))


def test_gradients_of_a_mamba2_mixer_equal_transformers() -> None:
    config = Mamba2Config(
        hidden_size=WIDTH,
        state_size=STATE,
        num_heads=4,
        head_dim=8,
        n_groups=2,
        chunk_size=8,
        num_hidden_layers=1,
    )
    mixer, hidden = Mamba2Mixer(config, layer_idx=0), hidden_states()
    scramble(mixer)
    parameters = dict(mixer.named_parameters())
    ours = torch.autograd.grad(run_mamba2(mixer, hidden, 2, 4).square().sum(), list(parameters.values()))
    theirs = torch.autograd.grad(mixer(hidden).square().sum(), list(parameters.values()))
    for actual, expected in zip(ours, theirs, strict=True):
        assert_relatively_close(actual, expected)
