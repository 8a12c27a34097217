"""One token of decoding on the native kernels, without a gradient."""

from torch import Tensor

from cobra.kernels.cpu import OPERATORS
from cobra.kernels.cpu.conv1d import taken_taps
from cobra.kernels.cpu.library import Kernel
from cobra.kernels.cpu.tensors import keep, natives, writable

_state_update = Kernel("selective_state_update", arrays=10, sizes=7)
_mamba = Kernel("mamba_step", arrays=11, sizes=5)
_mamba2 = Kernel("mamba2_step", arrays=10, sizes=6, reals=1)


@OPERATORS.register(lambda state, x, *_: x.new_empty(x.shape), changes=("state",))
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
    """y like x; `state` becomes exp(dt A) state + dt x B^T."""
    y, changed, mamba2 = x.new_empty(x.shape), writable(state), state.dim() == 4
    head_dim = state.shape[2] if mamba2 else 1
    sizes = (*state.shape[:2], head_dim, state.shape[-1], B.shape[1], mamba2, dt_softplus)
    _state_update((changed, x, *natives(dt, A, B, C, D, z, dt_bias), y), sizes)
    keep(state, changed)
    return y


@OPERATORS.register(
    lambda xz, conv_state, *_: xz.new_empty(xz.shape[0], conv_state.shape[1]),
    changes=("conv_state", "ssm_state"),
    limits=[taken_taps("conv_weight")],
)
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
    """y (B, d_inner) between in_proj and out_proj of a Mamba-1 mixer."""
    y, conv, ssm = xz.new_empty(ssm_state.shape[:2]), writable(conv_state), writable(ssm_state)
    weights = natives(conv_weight, conv_bias, x_proj_weight, dt_proj_weight, dt_proj_bias, A_log, D)
    _mamba((xz, conv, ssm, *weights, y), (*ssm.shape, dt_proj_weight.shape[1], conv_weight.shape[1]))
    keep(conv_state, conv)
    keep(ssm_state, ssm)
    return y


@OPERATORS.register(
    lambda zxbcdt, *rest: zxbcdt.new_empty(zxbcdt.shape[0], rest[7].shape[0]),
    changes=("conv_state", "ssm_state"),
    limits=[taken_taps("conv_weight")],
)
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
    """y (B, d_inner) between in_proj and out_proj of a Mamba-2 mixer."""
    y, conv = zxbcdt.new_empty(zxbcdt.shape[0], norm_weight.shape[0]), writable(conv_state)
    ssm = writable(ssm_state)
    weights = natives(conv_weight, conv_bias, dt_bias, A_log, D, norm_weight)
    _mamba2((zxbcdt, conv, ssm, *weights, y), (*ssm.shape, n_groups, conv_weight.shape[1]), eps)
    keep(conv_state, conv)
    keep(ssm_state, ssm)
    return y
