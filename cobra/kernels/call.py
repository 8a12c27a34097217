"""What of a call decides which backend runs it, and what a backend may refuse."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Call(NamedTuple):
    """What the choice of a backend reads: all of it known before the op runs, and guarded by torch.compile.

    Attributes:
        op: its name.
        device: type of the device.
        dtype: of the first input; of the result where that is integers.
        taps: width of the convolution's filter; None where there is no convolution.
        gradient: whether autograd will ask for a gradient. Only ops that not every backend can differentiate
            tell.
    """

    op: str
    device: str
    dtype: torch.dtype
    taps: int | None = None
    gradient: bool = False


@dataclass(frozen=True)
class Limit:
    """Which calls of an op a backend takes.

    Attributes:
        accepts: whether it takes a call.
        reason: why it takes no others, behind the backend's name.
    """

    accepts: Callable[[Call], bool]
    reason: str


def needs_gradient(*tensors: Tensor | None) -> bool:
    """Whether autograd will ask for a gradient of what is computed from these."""
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)
