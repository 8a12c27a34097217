"""The contract of a mixer as a function: its memory goes in, and what changes of it comes out."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from cobra.models.lm.state import Layout


@dataclass(frozen=True)
class Piece:
    """Tokens (N, D) of one sequence that a program reads at once; all of them, or the first few of a piece.

    Attributes:
        read: (N, 1), 1 at tokens that are read and 0 at padding behind them; None: all are read.
        windows: of a convolution with K taps, by K: (1, K - 1, K - 1 + N), which inputs it then remembers.
        turns: (N, R), of rotary embedding at the tokens' positions; None where no mixer asks for positions.
        lacking: (room,), what is added to the scores of slots that no token fills: far below 0.
    """

    read: Tensor | None = None
    windows: Mapping[int, Tensor] = field(default_factory=dict)
    turns: Tensor | None = None
    lacking: Tensor | None = None


class Form(nn.Module, ABC):
    """A mixer with its weights, in operators that backends take.

    Attributes:
        layout: what it remembers of a sequence.
        taps: of its convolution, K; 1 where it has none.
    """

    layout: Layout
    taps = 1

    @abstractmethod
    def forward(self, x: Tensor, memory: list[Tensor], piece: Piece) -> tuple[Tensor, list[Tensor]]:
        """Tokens (N, D) to (N, D), and what is new of each buffer of `layout`.

        A buffer that grows comes as (..., room, width), of which programs read alone; its new rows are
        (..., N, width), for the caller to put behind those that are there. Any other comes and goes whole.
        """
