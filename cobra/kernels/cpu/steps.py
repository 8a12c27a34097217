"""One token of decoding on the native kernels, without a gradient; arguments as in `cobra.kernels.ops`."""

from torch import Tensor

from cobra.kernels.call import NO_GRADIENT, limited
from cobra.kernels.cpu.conv1d import taken_taps
from cobra.kernels.cpu.library import Kernel
from cobra.kernels.cpu.registration import register
from cobra.kernels.cpu.tensors import native, writable

_state_update = Kernel("selective_state_update", arrays=10, sizes=7)
_mamba = Kernel("mamba_step", arrays=11, sizes=5)
_mamba2 = Kernel("mamba2_step", arrays=10, sizes=6, reals=1)


@limited(NO_GRADIENT)
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
    changed = writable(state)
    inputs = [native(m) for m in (dt, A, B, C, D, z, dt_bias)]
    y = _selective_state_update(changed, x, *inputs, dt_softplus)
    _keep(state, changed)
    return y


@limited(taken_taps("conv_weight"), NO_GRADIENT)
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
    weights = (conv_weight, conv_bias, x_proj_weight, dt_proj_weight, dt_proj_bias, A_log, D)
    conv, ssm = writable(conv_state), writable(ssm_state)
    y = _mamba_step(xz, conv, ssm, *[native(weight) for weight in weights])
    _keep(conv_state, conv)
    _keep(ssm_state, ssm)
    return y


@limited(taken_taps("conv_weight"), NO_GRADIENT)
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
    weights = (conv_weight, conv_bias, dt_bias, A_log, D, norm_weight)
    conv, ssm = writable(conv_state), writable(ssm_state)
    inputs = [native(weight) for weight in weights]
    y = _mamba2_step(zxbcdt, conv, ssm, *inputs, n_groups, eps)
    _keep(conv_state, conv)
    _keep(ssm_state, ssm)
    return y


def _keep(state: Tensor, changed: Tensor) -> None:
    """Bring a state that had to be copied up to date."""
    if changed is not state:
        state.copy_(changed)


# ---- selective_state_update


def _state_update_run(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    softplus: bool,
) -> Tensor:
    y, mamba2 = x.new_empty(x.shape), state.dim() == 4
    head_dim = state.shape[2] if mamba2 else 1
    sizes = (*state.shape[:2], head_dim, state.shape[-1], B.shape[1], mamba2, softplus)
    _state_update((state, x, dt, A, B, C, D, z, dt_bias, y), sizes)
    return y


_selective_state_update = register(
    "selective_state_update(Tensor(a!) state, Tensor x, Tensor dt, Tensor A, Tensor B, Tensor C, Tensor? D,"
    " Tensor? z, Tensor? dt_bias, bool softplus) -> Tensor",
    _state_update_run,
    lambda state, x, *_: x.new_empty(x.shape),
)


# ---- mamba_step


def _mamba_step_run(xz: Tensor, conv_state: Tensor, ssm_state: Tensor, *weights: Tensor) -> Tensor:
    y = xz.new_empty(ssm_state.shape[:2])
    conv_weight, _, _, dt_proj_weight, *_ = weights
    sizes = (*ssm_state.shape, dt_proj_weight.shape[1], conv_weight.shape[1])
    _mamba((xz, conv_state, ssm_state, *weights, y), sizes)
    return y


_mamba_step = register(
    "mamba_step(Tensor xz, Tensor(a!) conv_state, Tensor(b!) ssm_state, Tensor conv_weight,"
    " Tensor? conv_bias, Tensor x_proj_weight, Tensor dt_proj_weight, Tensor dt_proj_bias, Tensor A_log,"
    " Tensor D) -> Tensor",
    _mamba_step_run,
    lambda xz, conv_state, *_: xz.new_empty(len(xz), conv_state.shape[1]),
)


# ---- mamba2_step


def _mamba2_step_run(
    zxbcdt: Tensor,
    conv_state: Tensor,
    ssm_state: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor | None,
    dt_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
    norm_weight: Tensor,
    groups: int,
    eps: float,
) -> Tensor:
    y = zxbcdt.new_empty(len(zxbcdt), norm_weight.shape[0])
    weights = (conv_weight, conv_bias, dt_bias, A_log, D, norm_weight)
    sizes = (*ssm_state.shape, groups, conv_weight.shape[1])
    _mamba2((zxbcdt, conv_state, ssm_state, *weights, y), sizes, eps)
    return y


_mamba2_step = register(
    "mamba2_step(Tensor zxbcdt, Tensor(a!) conv_state, Tensor(b!) ssm_state, Tensor conv_weight,"
    " Tensor? conv_bias, Tensor dt_bias, Tensor A_log, Tensor D, Tensor norm_weight, int groups, float eps)"
    " -> Tensor",
    _mamba2_step_run,
    lambda zxbcdt, *rest: zxbcdt.new_empty(len(zxbcdt), rest[7].shape[0]),
)
