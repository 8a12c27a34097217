"""One token of decoding in Triton: two launches a Mamba-2 mixer, three a Mamba-1 mixer; no gradient."""

import torch
import triton
from torch import Tensor

from cobra.kernels.triton import OPERATORS
from cobra.kernels.triton.launch import launch
from cobra.kernels.triton.step_kernels import (
    mamba2_norm_kernel,
    mamba2_update_kernel,
    mamba_conv_kernel,
    mamba_project_kernel,
    mamba_update_kernel,
    state_update_kernel,
)
from cobra.kernels.triton.tensors import as_rows, dense, like_first, strides

# elements of a tile of the state: 32 a thread of 4 warps at most, and one at least
_MOST, _LEAST = 4096, 128
# parts into which the columns of x_proj are cut, so that its few rows make work for a whole GPU
_SPLITS = 8
# programs of Mamba-1's update that a GPU runs at once, about; beyond them one takes several rows of the batch
_PROGRAMS = 2048


def _rows_of_tile(rows: int, d_state: int) -> tuple[int, int]:
    """Rows and columns, powers of two, of a tile of a state of so many rows of N."""
    columns = triton.next_power_of_2(d_state)
    most, least = max(1, _MOST // columns), max(1, _LEAST // columns)
    return min(most, max(least, triton.next_power_of_2(rows))), columns


@OPERATORS.register(lambda state, x, *_: like_first(x), changes=("state",))
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
    y, of_channels = x.new_empty(x.shape), state.dim() == 3
    if of_channels:
        # as heads of one place
        state, x, z = state.unsqueeze(2), x.unsqueeze(2), None if z is None else z.unsqueeze(2)
    batch, heads, head_dim, d_state = state.shape
    rows, columns = _rows_of_tile(heads * head_dim, d_state)
    launch(
        state_update_kernel, (-(-heads * head_dim // rows), batch), state, x, dt, A, B, C, *dense(D), z,
        *dense(dt_bias), y, *state.stride(), *x.stride(), *dt.stride(), A.stride(0), A.stride(-1),
        *B.stride(), *C.stride(), *strides(z, 3), heads, head_dim, d_state, heads // B.shape[1],
        OF_CHANNELS=of_channels, ONE_GROUP=B.shape[1] == 1, SKIPS=D is not None, GATES=z is not None,
        BIASED=dt_bias is not None, SOFTPLUS=dt_softplus, ROWS=rows, N_BLOCK=columns,
    )  # fmt: skip
    return y


@OPERATORS.register(
    lambda xz, conv_state, *_: xz.new_empty(xz.shape[0], conv_state.shape[1]),
    changes=("conv_state", "ssm_state"),
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
    xz, (batch, inner, d_state) = as_rows(xz), ssm_state.shape
    rank, taps = dt_proj_weight.shape[1], conv_weight.shape[1]
    x, y = xz.new_empty(batch, inner, dtype=torch.float32), xz.new_empty(batch, inner)
    # 1. convolve
    launch(
        mamba_conv_kernel, (-(-inner // 128), batch), xz, conv_state, *dense(conv_weight, conv_bias), x,
        xz.stride(0), *conv_state.stride(), inner, BIASED=conv_bias is not None, TAPS=taps,
        SLOTS=triton.next_power_of_2(taps), CHANNELS=128,
    )  # fmt: skip
    # 2. project to dt, B and C
    rows, span = rank + 2 * d_state, -(-inner // _SPLITS)
    sums = xz.new_empty(_SPLITS, batch, rows, dtype=torch.float32)
    launch(
        mamba_project_kernel, (-(-rows // 16), _SPLITS, -(-batch // 16)), x, *dense(x_proj_weight), sums,
        batch, inner, rows, span, ROWS=16, BATCH=16,
        BLOCK=128 if x_proj_weight.itemsize == 2 else 32, num_stages=4,
    )  # fmt: skip
    # 3. update the state
    channels, columns = _rows_of_tile(16, d_state)
    tiles = -(-inner // channels)
    per_program = max(1, tiles * batch // _PROGRAMS)
    launch(
        mamba_update_kernel, (tiles, -(-batch // per_program)), xz, x, sums, ssm_state,
        *dense(dt_proj_weight, dt_proj_bias, A_log, D), y, xz.stride(0), *ssm_state.stride(),
        batch, inner, d_state, rank, per_program, SPLITS=_SPLITS, CHANNELS=channels,
        R_BLOCK=triton.next_power_of_2(rank), N_BLOCK=columns,
    )  # fmt: skip
    return y


@OPERATORS.register(
    lambda zxbcdt, *rest: zxbcdt.new_empty(zxbcdt.shape[0], rest[7].shape[0]),
    changes=("conv_state", "ssm_state"),
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
    zxbcdt, (batch, heads, head_dim, d_state) = as_rows(zxbcdt), ssm_state.shape
    inner, (channels, taps) = heads * head_dim, conv_weight.shape
    before, y = zxbcdt.new_empty(batch, inner, dtype=torch.float32), zxbcdt.new_empty(batch, inner)
    places, columns = _rows_of_tile(head_dim, d_state)
    # 1. convolve, and update the state
    launch(
        mamba2_update_kernel, (heads * -(-head_dim // places), batch), zxbcdt, conv_state, ssm_state,
        *dense(conv_weight, conv_bias, dt_bias, A_log, D), before, zxbcdt.stride(0), *conv_state.stride(),
        *ssm_state.stride(), heads, head_dim, d_state, n_groups, BIASED=conv_bias is not None,
        TAPS=taps, SLOTS=triton.next_power_of_2(taps), P_BLOCK=places, N_BLOCK=columns,
    )  # fmt: skip
    # 2. gate and norm; all have read the convolution's state now, so that it can change
    block = triton.next_power_of_2(inner // n_groups)
    launch(
        mamba2_norm_kernel, (n_groups + -(-channels // 512), batch), before, zxbcdt, conv_state,
        norm_weight.contiguous(), y, zxbcdt.stride(0), *conv_state.stride(), inner, channels, n_groups, eps,
        TAPS=taps, SLOTS=triton.next_power_of_2(taps), BLOCK=block, CHANNELS=512,
        num_warps=min(max(block // 512, 4), 16),
    )  # fmt: skip
    return y
