"""A decode state as if a model had read a context, and what a step moves of it."""

import torch

from cobra.models.lm.base import LanguageModel
from cobra.models.lm.state import State


def state_at(lm: LanguageModel, context: int, room: int, dtype: torch.dtype) -> State:
    """A state of random numbers in which `context` tokens seem read, with room for more.

    A step costs the same as after a real prompt: a cache is read up to its length, a recurrent state whole.
    """
    state = lm.allocate_state(1, context + room, dtype)
    for layer in state.layers:
        for buffer in layer.values():
            buffer.normal_()
    state.lengths.fill_(context)
    return state


def state_bytes_of_step(lm: LanguageModel, context: int, dtype: torch.dtype) -> int:
    """Bytes that a step reads and writes of a state after `context` tokens."""
    return lm.allocate_state(1, context + 1, dtype, torch.device("meta")).step_bytes(context)
