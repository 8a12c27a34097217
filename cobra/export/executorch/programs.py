"""The programs of a vision-language model: pictures, text in pieces, one token."""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from cobra.export.executorch.rewrites import with_rewritten_norms
from cobra.export.executorch.stack import Stack
from cobra.models.lm.base import LanguageModel
from cobra.models.vision.pictures import ONE_TILE, Pixels
from cobra.models.vlm import CobraVLM


class EncodeImage(nn.Module):
    """Pixels of one picture of one tile to its image tokens (M, D).

    Args:
        model: whose encoder and projector it has.
        pixels: (1, 3, side, side), one tensor an encoder, as an example.
    """

    def __init__(self, model: CobraVLM, pixels: Pixels) -> None:
        super().__init__()
        self.vision, self.projector = copy.deepcopy(model.vision), copy.deepcopy(model.projector)
        self.spec = tree_flatten(pixels)[1]
        with_rewritten_norms(self, *tree_leaves(pixels))

    def forward(self, *pixels: Tensor) -> Tensor:
        """One tensor an encoder, in its order."""
        patches = self.vision(tree_unflatten(pixels, self.spec))
        return self.projector.arrange(self.projector(patches), (ONE_TILE,))


class Embedding(nn.Module):
    """Token ids (N,) to embeddings (N, D).

    Args:
        weight: (vocab_size, D).
        bits: 8: int8 with a scale a row, a quarter of the bytes; 32: as it is.
    """

    def __init__(self, weight: Tensor, bits: int) -> None:
        super().__init__()
        weight = weight.detach().float()
        scale = None
        if bits == 8:
            # of a row of zeros any will do
            scale = (weight.abs().amax(1, keepdim=True) / 127).clamp(min=torch.finfo(torch.float32).tiny)
            weight = (weight / scale).round().to(torch.int8)
        self.weight, self.scale = nn.Buffer(weight), None if scale is None else nn.Buffer(scale)

    def forward(self, ids: Tensor) -> Tensor:
        """(N,) int32 to (N, D)."""
        rows = F.embedding(ids, self.weight)
        return rows if self.scale is None else rows.float() * F.embedding(ids, self.scale)


class Prefill(nn.Module):
    """A piece of embeddings, and memory, to logits of its last token and what is new of the memory.

    Args:
        stack: of pieces of N tokens.
    """

    def __init__(self, stack: Stack) -> None:
        super().__init__()
        self.stack = stack

    def forward(self, embeds: Tensor, count: Tensor, *rest: Tensor) -> list[Tensor]:
        """Embeddings (N, D), of which the first `count` (1,) int32 are read; the position, if it is asked
        for; memory. Those behind must be finite numbers, which leave no trace.
        """
        position, memory = _taken(self.stack, rest)
        return self.stack(embeds, count, position, memory)


class Step(nn.Module):
    """A token, and memory, to logits and what is new of the memory.

    Args:
        embedding: of token ids.
        stack: of one token.
    """

    def __init__(self, embedding: Embedding, stack: Stack) -> None:
        super().__init__()
        self.embedding, self.stack = embedding, stack

    def forward(self, token: Tensor, *rest: Tensor) -> list[Tensor]:
        """Token id (1,) int32; the position, if it is asked for; memory."""
        position, memory = _taken(self.stack, rest)
        return self.stack(self.embedding(token), None, position, memory)


def _taken(stack: Stack, rest: tuple[Tensor, ...]) -> tuple[Tensor | None, tuple[Tensor, ...]]:
    return (rest[0], rest[1:]) if stack.positions else (None, rest)


def example(stack: Stack) -> tuple[Tensor, ...]:
    """Position, if it is asked for, and empty memory."""
    position = (torch.zeros(1, dtype=torch.int32),) if stack.positions else ()
    return (*position, *(torch.zeros(shape) for shape in stack.shapes()))


def lm_programs(lm: LanguageModel, tokens: int, room: int, embedding_bits: int) -> dict[str, Any]:
    """`embed`, `prefill` and `step` of a language model, each with inputs as an example.

    Args:
        lm: the language model.
        tokens: of a piece.
        room: tokens that growing buffers have room for.
        embedding_bits: see `Embedding`.
    """
    piece, one = Stack(lm, tokens, room), Stack(lm, 1, room)
    embedding = Embedding(lm.embed(torch.arange(lm.vocab_size)[None])[0], embedding_bits)
    ids, count = torch.zeros(tokens, dtype=torch.int32), torch.ones(1, dtype=torch.int32)
    return {
        "embed": (embedding, (ids,)),
        "prefill": (Prefill(piece), (torch.zeros(tokens, lm.d_model), count, *example(piece))),
        "step": (Step(embedding, one), (ids[:1], *example(one))),
    }
