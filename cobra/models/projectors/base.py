"""The contract of a projector."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor

from cobra.models.component import Component


class Projector(Component, ABC):
    """Turns patch features into image tokens of the language model's width.

    Subclasses take `in_dim` and `out_dim` first; the model passes both, so that no width is written twice.
    """

    @abstractmethod
    def forward(self, patches: Tensor) -> Tensor:
        """Patches (B, N, in_dim) to image tokens (B, M, out_dim)."""

    def num_tokens(self, num_patches: int) -> int:
        """M, the image tokens made of num_patches patches."""
        return num_patches

    def arguments(self) -> dict[str, Any]:
        """The arguments without the widths: the model passes them again."""
        return {name: value for name, value in self.init_args.items() if name not in ("in_dim", "out_dim")}
