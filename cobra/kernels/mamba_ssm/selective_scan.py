"""Mamba-1's scan by mamba_ssm's CUDA kernel."""

from typing import Any

import torch
from torch import Tensor

from cobra.kernels.call import Function, Limit, limited
from cobra.kernels.mamba_ssm.limits import NO_MASK, not_empty, one_dtype
from cobra.kernels.scan_order import Grid, ScanOrder, unvisit, visit


class _WithoutGradient(torch.autograd.Function):
    """The final state, of which the kernel computes no gradient: it would be 0 without a word."""

    @staticmethod
    def forward(ctx: Any, state: Tensor) -> Tensor:
        ctx.set_materialize_grads(False)
        return state.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> None:
        if gradients[0] is not None:
            raise RuntimeError(
                "mamba_ssm's selective_scan has no gradient through the final state: "
                "compute it under COBRA_BACKEND=triton or torch"
            )


@limited(
    NO_MASK,
    Limit(lambda call: call.shape("seq_idx") is None, "takes no seq_idx"),
    Limit(lambda call: call.shape("initial_state") is None, "takes no initial_state"),
    Limit(lambda call: call.shape("A")[1] <= 256, "takes at most 256 states a channel"),  # type: ignore[index]
    not_empty("u"),
    one_dtype("u", "delta", "B", "C", "z"),
)
def selective_scan(
    selective_scan_fn: Function,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    mask: Tensor | None,
    scan_order: ScanOrder,
    grid: Grid | None,
) -> tuple[Tensor, Tensor]:
    """y (B, L, D) and the final state (B, D, N); as `ops.selective_scan`."""
    u, delta, B, C = (visit(m, scan_order, grid) for m in (u, delta, B, C))
    z = visit(z, scan_order, grid)
    y, state = selective_scan_fn(
        u.transpose(1, 2).contiguous(),  # (B, D, L)
        delta.transpose(1, 2).contiguous(),
        A.float(),
        B.permute(0, 2, 3, 1).contiguous(),  # (B, G, N, L)
        C.permute(0, 2, 3, 1).contiguous(),
        D=None if D is None else D.float(),
        z=None if z is None else z.transpose(1, 2).contiguous(),
        delta_bias=None if delta_bias is None else delta_bias.float().contiguous(),
        delta_softplus=delta_softplus,
        return_last_state=True,
    )
    return unvisit(y.transpose(1, 2), scan_order, grid), _WithoutGradient.apply(state)
