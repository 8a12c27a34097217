"""Kernels of a picture's program, of operations that ggml has: what it is traced with."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import silu

from cobra.kernels.call import Function
from cobra.kernels.scan_order import unvisit, visit


class CannotExpress(ValueError):
    """A part of the picture's path that ggml's operations do not make."""


# operators that a trace keeps whole; they make shapes and no values
OPERATORS = torch.library.Library("cobra_ggml", "DEF")


def _operator(make: Function) -> Function:
    name = make.__name__
    OPERATORS.define(torch.library.infer_schema(make, mutates_args=(), op_name=name))
    torch.library.register_fake(f"cobra_ggml::{name}", make, lib=OPERATORS)
    found: Function = getattr(torch.ops.cobra_ggml, name).default
    return found


@_operator
def rms_norm(x: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) over the last dimension."""
    return torch.empty_like(x)


@_operator
def ssm_conv(x: Tensor, weight: Tensor) -> Tensor:
    """(1, L, C): what filters (C, K) make of x (1, L, C) and the zeros before it."""
    return torch.empty_like(x)


@_operator
def ssm_scan(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """(1, L, H, P): `ssd_chunk_scan` from a state of zeros, without D, of dt before its softplus."""
    return torch.empty_like(x)


def _causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    activation: str | None,
    mask: Tensor | None,
    scan_order: str,
    grid: Sequence[int] | None,
) -> tuple[Tensor, Tensor]:
    _refuse("causal_conv1d", initial_state=initial_state, seq_idx=seq_idx, mask=mask)
    y = ssm_conv(visit(x, scan_order, grid), weight)
    y = y if bias is None else y + bias
    return unvisit(y if activation is None else silu(y), scan_order, grid), x.new_empty(0)


def _ssd_chunk_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    dt_softplus: bool,
    initial_state: Tensor | None,
    initial_rows: Tensor | None,
    seq_idx: Tensor | None,
    mask: Tensor | None,
    scan_order: str,
    grid: Sequence[int] | None,
    chunk_size: int,
    return_final_state: bool,
) -> tuple[Tensor, Tensor]:
    _refuse("ssd_chunk_scan", initial_state=initial_state, seq_idx=seq_idx, mask=mask)
    if not dt_softplus or return_final_state:
        raise CannotExpress("ggml's scan here takes dt through a softplus, and returns no state")
    x, dt, B, C = (visit(m, scan_order, grid) for m in (x, dt, B, C))
    y = ssm_scan(x, dt if dt_bias is None else dt + dt_bias, A, B, C)
    y = y if D is None else y + x * D.unsqueeze(-1)
    return unvisit(y, scan_order, grid), x.new_empty(0)


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return rms_norm(x, eps) * weight


def _rms_norm_gated(x: Tensor, z: Tensor, weight: Tensor, eps: float, group_size: int | None) -> Tensor:
    groups = (x * silu(z)).unflatten(-1, (-1, group_size or x.shape[-1]))
    return rms_norm(groups, eps).flatten(-2) * weight


def _refuse(name: str, **arguments: Tensor | None) -> None:
    """Refuse arguments that ggml's operation has not."""
    if given := [argument for argument, value in arguments.items() if value is not None]:
        raise CannotExpress(f"{name} is given {given[0]}, which ggml's operations here do not take")


KERNELS: Mapping[str, Function] = {
    "causal_conv1d": _causal_conv1d,
    "rms_norm": _rms_norm,
    "rms_norm_gated": _rms_norm_gated,
    "ssd_chunk_scan": _ssd_chunk_scan,
}
