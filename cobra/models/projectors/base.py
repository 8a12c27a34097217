"""The contract of a projector."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cobra.models.component import Component
from cobra.models.vision.pictures import Layout


class Projector(Component, ABC):
    """Turns patch features into image tokens of the language model's width.

    Subclasses take `in_dim` and `out_dim` first; the model passes both, so that no width is written twice.
    """

    @abstractmethod
    def forward(self, patches: Tensor) -> Tensor:
        """Patches (B, N, in_dim) of B tiles to their image tokens (B, M, out_dim)."""

    def num_tokens(self, num_patches: int) -> int:
        """M, the image tokens made of num_patches patches."""
        return num_patches

    def arrange(self, tokens: Tensor, layouts: Sequence[Layout] | None) -> Tensor:
        """Tokens of all tiles (B, M, out_dim) to those of all pictures (tokens, out_dim), in reading order.

        Tile after tile. One that drops what was padded, or ends each row with a token of its own, gives the
        counter that says so.

        Args:
            tokens: as `forward` made them.
            layouts: of each picture; None where each tile is a picture.
        """
        return tokens.flatten(0, 1)  # (B × M, out_dim)

    def counter(self, num_patches: int) -> Callable[[Layout], int]:
        """Image tokens of a picture by its layout. It travels to worker processes: no module, no weights."""
        return TileTokens(self.num_tokens(num_patches))

    def arguments(self) -> dict[str, Any]:
        """The arguments without the widths: the model passes them again."""
        return {name: value for name, value in self.init_args.items() if name not in ("in_dim", "out_dim")}


@dataclass(frozen=True)
class TileTokens:
    """Counts the image tokens of a picture: the same for each of its tiles.

    Args:
        num_tokens: of a tile, M.
    """

    num_tokens: int

    def __call__(self, layout: Layout) -> int:
        """All tiles' tokens."""
        return layout.tiles * self.num_tokens
