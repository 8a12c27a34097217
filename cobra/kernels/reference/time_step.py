"""The time step that the recurrences use, from the projected one."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cobra.kernels.reference.masks import blank

# exp(-80) is 2e-35, nothing; longer decays would only cost running sums of them their digits
LONGEST_DECAY = -80.0


def time_step(
    raw: Tensor,
    bias: Tensor | None,
    softplus: bool,
    dtype: torch.dtype,
    mask: Tensor | None = None,
) -> Tensor:
    """dt = softplus(raw + bias) in `dtype`, 0 where `mask` (B, L) is False; same shape as raw.

    Softplus is the identity above 20 and uses log1p below (state-spaces/mamba, `selective_scan_ref`).
    """
    dt = raw.to(dtype)
    if bias is not None:
        dt = dt + bias.to(dtype)
    if softplus:
        dt = F.softplus(dt)
    if mask is not None:
        # dt = 0 is decay 1 and input 0: the token leaves the state as it was
        dt = blank(dt, mask)
    return dt


def skip_and_gate(
    y: Tensor, x: Tensor, D: Tensor | None, z: Tensor | None = None, mask: Tensor | None = None
) -> Tensor:
    """(y + D x) silu(z), all (..., D) or (..., H, P), in x's dtype; D broadcasts against x.

    Zeros where `mask` (B, L) is False, to which no gradient comes back.
    """
    if D is not None:
        y = torch.addcmul(y, x.to(y.dtype), D.to(y.dtype))
    if z is not None:
        y = y * F.silu(z.to(y.dtype))
    return (y if mask is None else blank(y, mask)).to(x.dtype)
