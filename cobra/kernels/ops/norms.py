"""Root mean square norms: plain, after a residual sum, and with Mamba-2's gate; layer norm after a sum."""

from torch import Tensor

from cobra.kernels.checks import check, check_divides, check_rows
from cobra.kernels.dispatch import op


@op
def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-5) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension, in x's dtype.

    Statistics in fp32 or fp64. Source: RMSNorm (arXiv 1910.07467), equation 4.

    Args:
        x: (..., D).
        weight: (D,).
        eps: added to the mean square.

    Raises:
        ValueError: if shapes, dtypes or devices do not fit, naming the argument.
    """
    check_rows("x", x)
    check("weight", weight, "D", x.shape[-1:], x)


@op
def add_rms_norm(
    x: Tensor, residual: Tensor | None, weight: Tensor, eps: float = 1e-5, *, residual_in_fp32: bool = False
) -> tuple[Tensor, Tensor]:
    """The norm of x + residual in x's dtype, and that sum in the residual's: the next block's residual.

    Args:
        x: output of the block before (..., D).
        residual: sum of the blocks before it (..., D); None before the first.
        weight: (D,).
        eps: added to the mean square.
        residual_in_fp32: keep the sum in fp32 even if the residual came in half precision or not at all.

    Raises:
        ValueError: if shapes, dtypes or devices do not fit, naming the argument.
    """
    check_rows("x", x)
    check("residual", residual, "x's shape", x.shape, x)
    check("weight", weight, "D", x.shape[-1:], x)


@op
def rms_norm_gated(
    x: Tensor,
    z: Tensor,
    weight: Tensor,
    eps: float = 1e-5,
    *,
    group_size: int | None = None,
) -> Tensor:
    """RMSNorm(x silu(z)) weight in x's dtype, the mean square taken over each group of channels by itself.

    Source: state-spaces/mamba, `rmsnorm_fn`; Mamba-2 gates first and has d_inner / n_groups channels a group.

    Args:
        x: (..., D).
        z: gate (..., D).
        weight: (D,).
        eps: added to the mean square.
        group_size: channels of a group; None is all D.

    Raises:
        ValueError: if shapes, dtypes or devices do not fit, naming the argument.
    """
    check_rows("x", x)
    check("z", z, "x's shape", x.shape, x)
    check("weight", weight, "D", x.shape[-1:], x)
    if group_size is not None:
        check_divides("group_size", group_size, "the width of x", x.shape[-1])


@op
def add_layer_norm(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-5,
    *,
    parallel: Tensor | None = None,
    residual_in_fp32: bool = False,
) -> tuple[Tensor, Tensor]:
    """LayerNorm(x + parallel + residual) in x's dtype, and that sum in the residual's: the next residual.

    Sums and statistics in fp32 or fp64. Source: layer norm (arXiv 1607.06450), equation 4.

    Args:
        x: output of the block before (..., D).
        residual: sum of the blocks before it (..., D); None before the first.
        weight: (D,).
        bias: (D,).
        eps: added to the variance.
        parallel: output of the other branch of the block before (..., D), where it has two side by side.
        residual_in_fp32: keep the sum in fp32 even if the residual came in half precision or not at all.

    Raises:
        ValueError: if shapes, dtypes or devices do not fit, naming the argument.
    """
    check_rows("x", x)
    check("residual", residual, "x's shape", x.shape, x)
    check("parallel", parallel, "x's shape", x.shape, x)
    check("weight", weight, "D", x.shape[-1:], x)
    check("bias", bias, "D", x.shape[-1:], x)
