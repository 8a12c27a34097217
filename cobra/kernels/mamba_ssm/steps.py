"""The state update of one token by mamba_ssm's Triton kernel."""

import torch
from torch import Tensor

from cobra.kernels.call import NO_GRADIENT, Call, Function, Limit, limited
from cobra.kernels.mamba_ssm.limits import not_empty


def _whole(call: Call) -> bool:
    return call.shape("D") is not None and call.shape("dt_bias") is not None


@limited(NO_GRADIENT, Limit(_whole, "takes no call without D and dt_bias"), not_empty("x"))
def selective_state_update(
    selective_state_update: Function,
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor | None,
    dt_bias: Tensor,
    dt_softplus: bool,
) -> Tensor:
    """y like x; `state` becomes exp(dt A) state + dt x B^T. As `ops.selective_state_update`."""
    if state.dim() == 4:
        # strides of 0 tell the kernel that the channels of a head share them
        shape = state.shape[1:]  # (H, P, N)
        y = selective_state_update(
            state,
            x,
            dt.unsqueeze(-1).expand(x.shape),
            A[:, None, None].expand(shape),
            B,
            C,
            D=D.unsqueeze(-1).expand(shape[:2]),
            z=z,
            dt_bias=dt_bias.unsqueeze(-1).expand(shape[:2]),
            dt_softplus=dt_softplus,
        )
    else:
        # a group of channels as a head: Mamba-1 has one group there
        parts = (B.shape[1], -1)
        y = selective_state_update(
            state.unflatten(1, parts),  # (B, G, D / G, N)
            x.unflatten(1, parts),
            dt.unflatten(1, parts),
            A.unflatten(0, parts),
            B,
            C,
            D=D.unflatten(0, parts),
            z=None if z is None else z.unflatten(1, parts),
            dt_bias=dt_bias.unflatten(0, parts),
            dt_softplus=dt_softplus,
        ).flatten(1)
    torch.autograd.graph.increment_version([state])
    return y
