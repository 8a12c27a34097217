"""One token of decoding: the state updates, and whole mixers between their two linears."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cobra.kernels.reference.conv1d import causal_conv1d_update
from cobra.kernels.reference.norms import rms_norm_gated
from cobra.kernels.reference.precision import accumulator, without_autocast
from cobra.kernels.reference.time_step import skip_and_gate, time_step


@without_autocast
def selective_state_update(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    dt_softplus: bool,
) -> Tensor:
    """y like x; `state` becomes exp(dt A) state + dt x B^T. As `ops.selective_state_update`."""
    dtype, groups = accumulator(x), B.shape[1]
    dt = time_step(dt, dt_bias, dt_softplus, dtype)
    if state.dim() == 4:  # Mamba-2: one decay and one step a head
        dt, A = dt.unsqueeze(-1), A.unsqueeze(-1).unsqueeze(-1)  # (B, H, 1), (H, 1, 1)
        D = None if D is None else D.unsqueeze(-1)
    decay = torch.exp(dt.unsqueeze(-1) * A.to(dtype))  # (B, D, N) or (B, H, 1, 1)
    fed = (dt * x.to(dtype)).unflatten(1, (groups, -1)).unsqueeze(-1)  # (B, G, ..., 1)
    # each group's B and C, lined up with (B, G, R, N) or (B, G, R, P, N)
    B, C = (m.to(dtype).view(*m.shape[:2], *[1] * (state.dim() - 2), m.shape[2]) for m in (B, C))
    # a copy, because the decay's gradient needs the state as it was
    after = decay * state.to(dtype, copy=True) + (fed * B).flatten(1, 2)
    state.copy_(after)
    y = (after.unflatten(1, (groups, -1)) * C).sum(-1).flatten(1, 2)
    return skip_and_gate(y, x, D, z)


def mamba_step(
    xz: Tensor,
    conv_state: Tensor,
    ssm_state: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor | None,
    x_proj_weight: Tensor,
    dt_proj_weight: Tensor,
    dt_proj_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
) -> Tensor:
    """y (B, d_inner) between in_proj and out_proj of a Mamba-1 mixer; as `ops.mamba_step`."""
    x, z = xz.chunk(2, dim=-1)
    # 1. convolve
    x = causal_conv1d_update(x, conv_state, conv_weight, conv_bias, "silu")
    # 2. project to dt, B and C, in the weights' dtype as the prefill's linears do
    sizes = [dt_proj_weight.shape[1], A_log.shape[1], A_log.shape[1]]
    dt, B, C = F.linear(x.to(x_proj_weight.dtype), x_proj_weight).split(sizes, dim=-1)
    dt = F.linear(dt, dt_proj_weight)  # its bias belongs inside the softplus
    # 3. update the state
    A = -torch.exp(A_log.to(accumulator(xz)))
    B, C = B.unsqueeze(1), C.unsqueeze(1)  # (B, 1, N)
    return selective_state_update(ssm_state, x, dt, A, B, C, D, z, dt_proj_bias, True)


def mamba2_step(
    zxbcdt: Tensor,
    conv_state: Tensor,
    ssm_state: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor | None,
    dt_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
    norm_weight: Tensor,
    n_groups: int,
    eps: float,
) -> Tensor:
    """y (B, d_inner) between in_proj and out_proj of a Mamba-2 mixer; as `ops.mamba2_step`."""
    heads, head_dim, d_state = ssm_state.shape[1:]
    d_inner, d_groups = heads * head_dim, n_groups * d_state
    z, xbc, dt = zxbcdt.split([d_inner, d_inner + 2 * d_groups, heads], dim=-1)
    # 1. convolve x, B and C together
    xbc = causal_conv1d_update(xbc, conv_state, conv_weight, conv_bias, "silu")
    x, B, C = xbc.split([d_inner, d_groups, d_groups], dim=-1)
    # 2. update the state
    x = x.unflatten(1, (heads, head_dim))  # (B, H, P)
    B, C = (m.unflatten(1, (n_groups, d_state)) for m in (B, C))  # (B, G, N)
    A = -torch.exp(A_log.to(accumulator(zxbcdt)))
    y = selective_state_update(ssm_state, x, dt, A, B, C, D, None, dt_bias, True)  # (B, H, P)
    # 3. gate and norm, one norm a group
    return rms_norm_gated(y.flatten(1), z, norm_weight, eps, d_inner // n_groups)
