"""A decode state as if a model had read a context, and what a step moves of it."""

from functools import singledispatch
from typing import Any

import torch

from cobra.models.lm.base import DecodeState, LanguageModel
from cobra.models.lm.kv_state import KVState
from cobra.models.lm.state_space import SSMState


def state_at(lm: LanguageModel, context: int, room: int, dtype: torch.dtype) -> DecodeState:
    """A state of random numbers in which `context` tokens seem read, with room for more.

    A step costs the same as after a real prompt: a cache is read up to its length, a recurrent state whole.
    """
    state = lm.allocate_state(1, context + room, dtype)
    fill(state)
    rewind(state, context)
    return state


@singledispatch
def fill(state: Any) -> None:
    """Random numbers into every buffer."""
    raise NotImplementedError(f"no way to fill a {type(state).__name__}: register one in {__name__}")


@fill.register
def _(state: SSMState) -> None:
    state.conv.normal_()
    state.ssm.normal_()


@fill.register
def _(state: KVState) -> None:
    state.keys.normal_()
    state.values.normal_()


@singledispatch
def rewind(state: Any, context: int) -> None:
    """Back to `context` tokens, whatever was read since."""
    raise NotImplementedError(f"no way to rewind a {type(state).__name__}: register one in {__name__}")


@rewind.register
def _(state: SSMState, context: int) -> None:
    # it has one size, and does not know how many tokens it has read
    return


@rewind.register
def _(state: KVState, context: int) -> None:
    state.length = context


def state_bytes_of_step(lm: LanguageModel, context: int, dtype: torch.dtype) -> float:
    """Bytes that a step reads and writes of a state after `context` tokens.

    A state of constant size is read and written whole; a cache that grows is read up to its length, and one
    token is written.
    """
    meta = torch.device("meta")
    short, long = (lm.allocate_state(1, length, dtype, meta).nbytes for length in (512, 1024))
    return 2 * short if short == long else (long - short) / 512 * (context + 1)
