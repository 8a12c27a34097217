"""The contract of what a block holds: Mamba, attention, an MLP, or whatever else reads tokens in turn."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from cobra.models.component import Component
from cobra.models.lm.rotary import Rotary
from cobra.models.lm.state import Buffer, LayerState
from cobra.models.lm.tokens import Tokens


class Mixer(Component, ABC):
    """A residual branch of a language model, usually one in which tokens hear of those before them.

    Subclasses take `d_model` first; the model passes it, so that no width is written twice.

    Attributes:
        layout: what it remembers of the tokens that it has read, which `State` allocates; by default nothing.
        rotary: the embedding of positions that it looks up in `Tokens.rotations`, if it does.
        unadapted: its linears that get adapters only where they are named.
    """

    layout: Mapping[str, Buffer] = {}
    rotary: Rotary | None = None
    unadapted: tuple[str, ...] = ()

    @abstractmethod
    def forward(self, x: Tensor, state: LayerState | None, tokens: Tokens) -> Tensor:
        """(B, T, D) to (B, T, D); continues from `state` and updates it in place."""

    @abstractmethod
    def step(self, x: Tensor, state: LayerState, tokens: Tokens) -> Tensor:
        """(B, D) to (B, D), one token; updates `state` in place."""

    def initialize(self, branches: int) -> None:
        """Draw weights in a way of its own, as one of so many branches that are added up."""

    def arguments(self) -> dict[str, Any]:
        """The arguments without the width: the model passes it again."""
        return {name: value for name, value in self.init_args.items() if name != "d_model"}
