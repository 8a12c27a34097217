"""Floating-point operations: counted on the meta device, and by formula for what a counter does not see.

An operation is an addition or a multiplication. torch's counter sees matrix products and convolutions;
Mamba-2's scan, which is one operator to it, and the mixers of a stack are added by formula.
"""

import math
from collections.abc import Callable
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from cobra.models.lm.attention import Attention
from cobra.models.lm.gated_mlp import GatedMLP
from cobra.models.lm.mamba import MambaMixer
from cobra.models.lm.mamba2 import Mamba2Mixer
from cobra.models.lm.mixer import Mixer


@torch.no_grad()
def count(run: Callable[[], Any]) -> int:
    """Operations of the matrix products and convolutions in a call."""
    # there once its file is imported
    import cobra.kernels.torch.ssd  # noqa: F401

    formulas = {torch.ops.cobra_torch.ssd_chunk_scan: _scan_flops}
    with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        run()
    return counter.get_total_flops()


def _scan_flops(x: torch.Size, dt: torch.Size, A: torch.Size, B: torch.Size, *rest: Any, **_: Any) -> int:
    """Products of the scan by its operator's arguments, tensors as shapes."""
    batch, length, heads, head_dim = x
    # behind B come C, D, dt_bias, dt_softplus, initial_state and rows, seq_idx, mask, scan_order and grid
    return batch * length * _ssd_flops(heads * head_dim, B[3], B[2], chunk=rest[10])


def _ssd_flops(d_inner: int, d_state: int, groups: int, chunk: int) -> int:
    """For a token: C B^T and its product with x in a chunk, states into chunks and out of them.

    Source: Mamba-2 (arXiv 2405.21060), section 6.
    """
    return 2 * chunk * (d_state * groups + d_inner) + 4 * d_state * d_inner


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
def mixing_flops(mixer: Mixer, context: int) -> int:
    """Operations for one token of a prompt of `context` tokens, outside linears."""
    raise NotImplementedError(f"no formula for {type(mixer).__name__}: register one in {__name__}")


@mixing_flops.register
def _(mixer: MambaMixer, context: int) -> int:
    d_inner, d_state = mixer.layout["ssm"].shape
    # a parallel scan has 9 an element (state-spaces/mamba, issue 110; VMamba's counter); D u and the gate
    return 9 * d_inner * d_state + 2 * d_inner + _conv_flops(mixer)


@mixing_flops.register
def _(mixer: Mamba2Mixer, context: int) -> int:
    heads, head_dim, d_state = mixer.layout["ssm"].shape
    return _ssd_flops(heads * head_dim, d_state, mixer.n_groups, mixer.chunk_size) + _conv_flops(mixer)


@mixing_flops.register
def _(mixer: Attention, context: int) -> int:
    # scores and sums; a prompt's later half is masked, but counted, as torch's counter does
    return 4 * context * mixer.q_proj.out_features


@mixing_flops.register
def _(mixer: GatedMLP, context: int) -> int:
    return 0


@singledispatch
def step_flops(mixer: Mixer, context: int) -> int:
    """Operations for one token of an answer after `context` tokens, itself among them, outside linears."""
    return mixing_flops(mixer, context)


@step_flops.register
def _(mixer: MambaMixer, context: int) -> int:
    d_inner, d_state = mixer.layout["ssm"].shape
    # dt A; dt u B; state times decay, plus it; C times state, summed
    return 6 * d_inner * d_state + _conv_flops(mixer)


@step_flops.register
def _(mixer: Mamba2Mixer, context: int) -> int:
    # as above, but for dt A, which is one number a head
    return 5 * math.prod(mixer.layout["ssm"].shape) + _conv_flops(mixer)


def _conv_flops(mixer: Mixer) -> int:
    channels, before = mixer.layout["conv"].shape
    return 2 * (before + 1) * channels
