"""One token of decoding: state updates, and whole mixers between their linears. States change in place."""

from torch import Tensor

from cobra.kernels.checks import check, check_divides, check_first, check_state
from cobra.kernels.dispatch import op


@op(dtype_of="x", changes=("state",))
def selective_state_update(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    *,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
) -> Tensor:
    """y like x, of one token; `state` becomes exp(dt A) state + dt x B^T, in place and in its own dtype.

    Source: state-spaces/mamba, `selective_state_update_ref`. Computes in fp32 or fp64. The rank of `state`
    tells Mamba-1 from Mamba-2; a token of `selective_scan` or `ssd_chunk_scan` gives the same.

    Args:
        state: (B, D, N) for Mamba-1, (B, H, P, N) for Mamba-2.
        x: (B, D), or (B, H, P).
        dt: (B, D), or (B, H), before `dt_bias` and softplus.
        A: (D, N), or (H,); negative.
        B: (B, G, N) in both; channel d uses group d // (D / G), head h group h // (H / G).
        C: as B.
        D: (D,), or (H,).
        z: gate like x.
        dt_bias: (D,), or (H,).
        dt_softplus: whether dt goes through softplus.

    Raises:
        ValueError: if shapes, dtypes or devices do not fit, naming the argument.
    """
    mamba2 = state.dim() == 4
    check_first("state", state, "B, H, P, N" if mamba2 else "B, D, N")
    check_state("state", state)
    check_first("B", B, "B, G, N")
    batch, width, d_state = state.shape[0], state.shape[1], state.shape[-1]
    letter = "H" if mamba2 else "D"
    check("x", x, "B, H, P" if mamba2 else "B, D", state.shape[:-1], state)
    check("dt", dt, f"B, {letter}", (batch, width), state)
    check("A", A, "H" if mamba2 else "D, N", (width,) if mamba2 else (width, d_state), state)
    check("B", B, "B, G, N", (batch, B.shape[1], d_state), state)
    check("C", C, "B, G, N", tuple(B.shape), state)
    check_divides("the number of groups in B", B.shape[1], f"the {letter} of state", width)
    check("D", D, letter, (width,), state)
    check("z", z, "x's shape", x.shape, state)
    check("dt_bias", dt_bias, letter, (width,), state)


@op(changes=("conv_state", "ssm_state"))
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
    """y (B, d_inner) in xz's dtype: one token through a Mamba-1 mixer, from in_proj to out_proj.

    Source: state-spaces/mamba, `Mamba.step`. Widths: D = d_inner, R = dt_rank, N = d_state.

    Args:
        xz: output of in_proj (B, 2 D): x, then the gate z.
        conv_state: last inputs of the convolution (B, D, K - 1), updated in place.
        ssm_state: (B, D, N), updated in place.
        conv_weight: (D, K).
        conv_bias: (D,).
        x_proj_weight: rows of dt, B and C (R + 2 N, D).
        dt_proj_weight: (D, R).
        dt_proj_bias: (D,), added inside the softplus.
        A_log: (D, N); A = -exp(A_log).
        D: skip weights (D,).

    Raises:
        ValueError: if shapes, dtypes or devices do not fit, naming the argument.
    """
    check_first("xz", xz, "B, 2 D")
    check_first("A_log", A_log, "D, N")
    check_first("dt_proj_weight", dt_proj_weight, "D, R")
    check_first("conv_weight", conv_weight, "D, K")
    (d_inner, d_state), dt_rank, taps, batch = (
        A_log.shape,
        dt_proj_weight.shape[1],
        conv_weight.shape[1],
        len(xz),
    )
    check("xz", xz, "B, 2 D", (batch, 2 * d_inner), xz)
    check("conv_state", conv_state, "B, D, K - 1", (batch, d_inner, taps - 1), xz)
    check("ssm_state", ssm_state, "B, D, N", (batch, d_inner, d_state), xz)
    check_state("conv_state", conv_state)
    check_state("ssm_state", ssm_state)
    check("conv_weight", conv_weight, "D, K", (d_inner, taps), xz)
    check("conv_bias", conv_bias, "D", (d_inner,), xz)
    check("x_proj_weight", x_proj_weight, "R + 2 N, D", (dt_rank + 2 * d_state, d_inner), xz)
    check("dt_proj_weight", dt_proj_weight, "D, R", (d_inner, dt_rank), xz, (x_proj_weight.dtype,))
    check("dt_proj_bias", dt_proj_bias, "D", (d_inner,), xz)
    check("A_log", A_log, "D, N", (d_inner, d_state), xz)
    check("D", D, "D", (d_inner,), xz)


@op(changes=("conv_state", "ssm_state"))
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
    *,
    n_groups: int,
    eps: float = 1e-5,
) -> Tensor:
    """y (B, d_inner) in zxbcdt's dtype: one token through a Mamba-2 mixer, from in_proj to out_proj.

    Source: state-spaces/mamba, `Mamba2.step`. d_inner = H P, and the convolution has C = d_inner + 2 G N
    channels.

    Args:
        zxbcdt: output of in_proj (B, 2 d_inner + 2 G N + H): gate z, then x, B and C, then dt.
        conv_state: last inputs of the convolution (B, C, K - 1), updated in place.
        ssm_state: (B, H, P, N), updated in place.
        conv_weight: (C, K).
        conv_bias: (C,).
        dt_bias: (H,).
        A_log: (H,); A = -exp(A_log).
        D: skip weights (H,).
        norm_weight: weight of the gated norm (d_inner,).
        n_groups: groups of B, C and the norm.
        eps: the norm's.

    Raises:
        ValueError: if shapes, dtypes or devices do not fit, naming the argument.
    """
    check_first("zxbcdt", zxbcdt, "B, 2 d_inner + 2 G N + H")
    check_first("ssm_state", ssm_state, "B, H, P, N")
    check_first("conv_weight", conv_weight, "C, K")
    batch, heads, head_dim, d_state = ssm_state.shape
    check_divides("n_groups", n_groups, "the number of heads in ssm_state", heads)
    d_inner, taps = heads * head_dim, conv_weight.shape[1]
    channels = d_inner + 2 * n_groups * d_state
    check("zxbcdt", zxbcdt, "B, 2 d_inner + 2 G N + H", (batch, d_inner + channels + heads), zxbcdt)
    check("conv_state", conv_state, "B, C, K - 1", (batch, channels, taps - 1), zxbcdt)
    check("ssm_state", ssm_state, "B, H, P, N", (batch, heads, head_dim, d_state), zxbcdt)
    check_state("conv_state", conv_state)
    check_state("ssm_state", ssm_state)
    check("conv_weight", conv_weight, "C, K", (channels, taps), zxbcdt)
    check("conv_bias", conv_bias, "C", (channels,), zxbcdt)
    check("dt_bias", dt_bias, "H", (heads,), zxbcdt)
    check("A_log", A_log, "H", (heads,), zxbcdt)
    check("D", D, "H", (heads,), zxbcdt)
    check("norm_weight", norm_weight, "d_inner", (d_inner,), zxbcdt)
