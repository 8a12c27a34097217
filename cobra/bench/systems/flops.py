"""Floating-point operations: counted on the meta device, and by formula for what a counter does not see.

An operation is an addition or a multiplication. torch's counter sees matrix products and convolutions; the
scans of a state-space language model are added by formula.
"""

from collections.abc import Callable
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from cobra.models.lm.mamba import MambaMixer
from cobra.models.lm.mamba2 import Mamba2Mixer
from cobra.models.lm.state_space import Mixer


@torch.no_grad()
def count(run: Callable[[], Any]) -> int:
    """Operations of the matrix products and convolutions in a call."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def count_and_read(module: nn.Module, run: Callable[[], Any]) -> tuple[int, int]:
    """Operations of a call, as `count`, and the parameters of a module that it touches, each once."""
    with _Seen() as seen:
        operations = count(run)
    return operations, sum(x.numel() for x in module.parameters() if id(x) in seen.ids)


@torch.no_grad()
def tensors_read(module: nn.Module, run: Callable[[], Any]) -> list[Tensor]:
    """Parameters and buffers of a module that a call touches, each once."""
    tensors = {id(x): x for x in [*module.parameters(), *module.buffers()]}
    with _Seen() as seen:
        run()
    return [tensor for key, tensor in tensors.items() if key in seen.ids]


class _Seen(TorchDispatchMode):
    """Remembers the tensors that operators are given."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.ids |= {id(x) for x in (*args, *(kwargs or {}).values()) if isinstance(x, Tensor)}
        return func(*args, **(kwargs or {}))


@singledispatch
def scan_flops(mixer: Mixer) -> int:
    """Operations of a mixer's convolution and scan for one token of a prompt, outside matrix products."""
    raise NotImplementedError(f"no formula for {type(mixer).__name__}: register one in {__name__}")


@scan_flops.register
def _(mixer: MambaMixer) -> int:
    d_inner, d_state = mixer.ssm_shape
    # a parallel scan has 9 an element (state-spaces/mamba, issue 110; VMamba's counter); D u and the gate
    return 9 * d_inner * d_state + 2 * d_inner + _conv_flops(mixer)


@scan_flops.register
def _(mixer: Mamba2Mixer) -> int:
    heads, head_dim, d_state = mixer.ssm_shape
    d_inner, chunk = heads * head_dim, mixer.chunk_size
    # Mamba-2, section 6: C B^T and its product with x in a chunk; states into chunks and out of them
    within = 2 * chunk * d_state * mixer.n_groups + 2 * chunk * d_inner
    return within + 4 * d_state * d_inner + _conv_flops(mixer)


@singledispatch
def update_flops(mixer: Mixer) -> int:
    """Operations of a mixer's convolution and state update for one token of decoding."""
    raise NotImplementedError(f"no formula for {type(mixer).__name__}: register one in {__name__}")


@update_flops.register
def _(mixer: MambaMixer) -> int:
    d_inner, d_state = mixer.ssm_shape
    # dt A; dt u B; state times decay, plus it; C times state, summed
    return 6 * d_inner * d_state + _conv_flops(mixer)


@update_flops.register
def _(mixer: Mamba2Mixer) -> int:
    heads, head_dim, d_state = mixer.ssm_shape
    # as above, but for dt A, which is one number a head
    return 5 * heads * head_dim * d_state + _conv_flops(mixer)


def _conv_flops(mixer: Mixer) -> int:
    channels, before = mixer.conv_shape
    return 2 * (before + 1) * channels
