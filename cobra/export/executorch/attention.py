"""Attention and MLPs of transformers for one sequence, in operators that backends take."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cobra.export.executorch.form import Form, Piece
from cobra.export.executorch.rewrites import silu
from cobra.models.lm.attention import keys_and_values

# added to the score of what a token must not see: as far below 0 as a softmax in half precision bears
HIDDEN = -3e4

Linears = Callable[[nn.Module, Tensor], tuple[Tensor, ...]]


class AttentionForm(Form):
    """Attention over the tokens of a piece and those before it.

    Args:
        attention: the module that holds the linears.
        qkv: it and x (N, D) to queries (N, H P), keys and values (N, G P).
        out: its last linear.
        kv_heads: G.
        head_dim: P.
        tokens: of a piece, N.
    """

    def __init__(
        self, attention: nn.Module, qkv: Linears, out: nn.Module, kv_heads: int, head_dim: int, tokens: int
    ) -> None:
        super().__init__()
        self.attention, self.qkv, self.out = attention, qkv, out
        self.kv_heads, self.head_dim = kv_heads, head_dim
        self.layout = keys_and_values(kv_heads, head_dim)
        self.later = nn.Buffer(torch.full((tokens, tokens), HIDDEN).triu(1))

    def forward(self, x: Tensor, memory: list[Tensor], piece: Piece) -> tuple[Tensor, list[Tensor]]:
        """See `Form.forward`."""
        assert piece.turns is not None
        assert piece.lacking is not None
        q, k, v = (self._heads(m) for m in self.qkv(self.attention, x))  # (H or G, N, P)
        q, k = rotated(q, piece.turns), rotated(k, piece.turns)
        keys, values = memory  # (G, room, P)
        room, shape = keys.shape[1], (self.kv_heads, -1, self.head_dim)
        # heads that share keys are so many queries of one head
        queries = (q * self.head_dim**-0.5).reshape(shape)  # (G, R N, P)
        past = torch.bmm(queries, keys.permute(0, 2, 1)) + piece.lacking  # (G, R N, room)
        new = torch.bmm(queries, k.permute(0, 2, 1))
        # each head's N queries see those up to their own
        new = (new.reshape(self.kv_heads, -1, len(x), len(x)) + self.later).reshape(new.shape)
        weights = F.softmax(torch.cat([past, new], dim=-1), dim=-1)
        y = torch.bmm(weights[..., :room], values) + torch.bmm(weights[..., room:], v)  # (G, R N, P)
        y = y.reshape(-1, len(x), self.head_dim).permute(1, 0, 2).reshape(len(x), -1)
        return self.out(y), [k, v]

    def _heads(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), -1, self.head_dim).permute(1, 0, 2)


class GatedMLPForm(Form):
    """An MLP whose one half gates the other.

    Args:
        mlp: the module that holds the linears.
        gate_and_up: it and x (N, D) to both halves.
        down: its last linear.
    """

    def __init__(self, mlp: nn.Module, gate_and_up: Linears, down: nn.Module) -> None:
        super().__init__()
        self.layout = {}
        self.mlp, self.gate_and_up, self.down = mlp, gate_and_up, down

    def forward(self, x: Tensor, memory: list[Tensor], piece: Piece) -> tuple[Tensor, list[Tensor]]:
        """See `Form.forward`; there is nothing to remember."""
        gate, up = self.gate_and_up(self.mlp, x)
        return self.down(silu(gate) * up), []


class GeluMLPForm(Form):
    """Linear, GELU by tanh, linear.

    Args:
        mlp: the module that holds `fc1` and `fc2`.
    """

    def __init__(self, mlp: Any) -> None:
        super().__init__()
        self.layout = {}
        self.first, self.second = mlp.fc1, mlp.fc2

    def forward(self, x: Tensor, memory: list[Tensor], piece: Piece) -> tuple[Tensor, list[Tensor]]:
        """See `Form.forward`; there is nothing to remember."""
        return self.second(F.gelu(self.first(x), approximate="tanh")), []


def rotated(x: Tensor, turns: Tensor) -> Tensor:
    """x (H, N, P) with channel i turned with channel i + R / 2; turns (N, R): cosines, then sines."""
    half = turns.shape[1] // 2
    cos, sin = turns[:, :half], turns[:, half:]
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    turned = [first * cos - second * sin, second * cos + first * sin]
    return torch.cat([*turned, rest] if rest.shape[-1] else turned, dim=-1)
