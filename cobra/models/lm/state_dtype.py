"""The precision of a recurrent state, by the names that the command line has."""

import torch

from cobra.models.lm.base import LanguageModel
from cobra.models.lm.state_space import StateSpaceLM

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def set_state_dtype(lm: LanguageModel, name: str) -> None:
    """Let `lm` allocate states of fp32 or bf16; see `StateSpaceLM.state_dtype`.

    Raises:
        ValueError: where it has no recurrent state to narrow.
    """
    if isinstance(lm, StateSpaceLM):
        lm.state_dtype = _DTYPES[name]
    elif name != "fp32":
        raise ValueError(f"--state-dtype {name}: a {type(lm).__name__} has no recurrent state; leave it out")
