"""Language models that are a stack of blocks, whatever mixes the tokens in each."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from cobra.models.linear import adopt_linears
from cobra.models.lm.base import LanguageModel
from cobra.models.lm.layers import RMSNorm, TiedEmbedding, method
from cobra.models.lm.mixer import Mixer
from cobra.models.lm.rotary import Rotary
from cobra.models.lm.state import LayerState, Layout, State
from cobra.models.lm.tokens import Tokens, following


@dataclass(frozen=True)
class Names:
    """What checkpoints call the parts of a model and of its blocks; by default as mamba_ssm does."""

    embedding: str = "embedding"
    norm: str = "norm"
    mixer: str = "mixer"
    mlp_norm: str = "norm2"
    mlp: str = "mlp"
    final_norm: str = "norm_f"


class Block(nn.Module):
    """Residual branches: each mixer reads the norm of the sum of all before it, which is kept in fp32.

    Args:
        parts: norms and mixers in turn, by their names in a checkpoint.
    """

    def __init__(self, parts: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)
        mixers = [mixer for _, mixer in self.branches()]
        for other in (mixer for mixer in mixers if not isinstance(mixer, Mixer)):
            raise ValueError(f"a block holds Mixers, not a {type(other).__name__}: name another class")
        names = [name for mixer in mixers for name in mixer.layout]
        if len(set(names)) < len(names):
            raise ValueError(f"mixers of a block share a state, but two call a buffer the same: {names}")

    @property
    def layout(self) -> Layout:
        """The buffers of all its mixers."""
        return {name: buffer for _, mixer in self.branches() for name, buffer in mixer.layout.items()}

    def branches(self) -> Iterator[tuple[RMSNorm, Mixer]]:
        """Each mixer behind its norm."""
        # straight from where they are kept: children() takes longer than a small norm
        parts: Iterator[Any] = iter(self._modules.values())
        return zip(parts, parts, strict=True)

    def forward(
        self, hidden: Tensor, residual: Tensor | None, state: LayerState | None, tokens: Tokens
    ) -> tuple[Tensor, Tensor | None]:
        """Output and sum of the branches before (B, T, D) to those of its last one."""
        for norm, mixer in self.branches():
            normed, residual = method(norm, "add")(hidden, residual)
            hidden = mixer(normed, state, tokens)
        return hidden, residual

    def step(
        self, hidden: Tensor, residual: Tensor | None, state: LayerState, tokens: Tokens
    ) -> tuple[Tensor, Tensor | None]:
        """As forward for one token a sequence, (B, D)."""
        for norm, mixer in self.branches():
            normed, residual = method(norm, "add")(hidden, residual)
            hidden = mixer.step(normed, state, tokens)
        return hidden, residual


class StackedLM(LanguageModel):
    """Embedding, blocks of a mixer and perhaps an MLP, a norm and a tied head.

    Args:
        vocab_size: rows of the embedding, padding included.
        d_model: width D.
        mixers: one for each block, first to last.
        mlp: of every block, behind its mixer; left out, there is none.
        norm_eps: epsilon of the norms.

    Attributes:
        names: of its parts.
        passes: how often in a row each block is applied; every application has a state of its own.
    """

    names = Names()
    passes = 1

    def __init__(
        self,
        vocab_size: int,
        d_model: int,
        mixers: Sequence[Callable[[int], Mixer]],
        mlp: Callable[[int], Mixer] | None = None,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.vocab_size, self.d_model = vocab_size, d_model
        blocks = [self._block(mixer, mlp, norm_eps) for mixer in mixers]
        if not blocks:
            raise ValueError("there are no mixers: a language model needs one at least")
        branches = [mixer for block in blocks for _, mixer in block.branches()]
        for branch in branches:
            branch.initialize(len(branches))
        embedding = TiedEmbedding(vocab_size, d_model)
        nn.init.normal_(embedding.weight, std=0.02)
        self.add_module(self.names.embedding, embedding)
        self.layers = nn.ModuleList(blocks)
        self.add_module(self.names.final_norm, RMSNorm(d_model, norm_eps))
        adopt_linears(self)

    @property
    def blocks(self) -> list[Block]:
        """In the order in which they are applied."""
        return [block for block in self.units() for _ in range(self.passes)]

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids (B, T) to embeddings (B, T, D)."""
        return getattr(self, self.names.embedding)(ids)

    def read(self, embeds: Tensor, layers: list[LayerState] | None, tokens: Tokens) -> Tensor:
        """See `LanguageModel.read`."""
        hidden, residual, tokens = embeds, None, self._turned(tokens, embeds.dtype)
        for index, block in enumerate(self.blocks):
            hidden, residual = block(hidden, residual, None if layers is None else layers[index], tokens)
        return self._final_norm(hidden, residual)

    def read_one(self, embed: Tensor, state: State) -> Tensor:
        """See `LanguageModel.read_one`."""
        hidden, residual, tokens = embed, None, Tokens(lengths=state.lengths, rotations=state.tables)
        if state.grows and not state.tables:
            tokens = self._turned(following(state, embed[:, None], None), embed.dtype)
        for block, layer in zip(self.blocks, state.layers, strict=True):
            hidden, residual = block.step(hidden, residual, layer, tokens)
        return self._final_norm(hidden, residual)

    def head(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., D) to logits (..., vocab_size), with the embedding's weights."""
        return method(getattr(self, self.names.embedding), "logits")(hidden)

    def layouts(self) -> list[Layout]:
        """See `LanguageModel.layouts`."""
        return [block.layout for block in self.blocks]

    def units(self) -> list[Block]:
        """See `LanguageModel.units`."""
        return list(cast(Iterable[Block], self.layers))

    def tables(self, length: int, device: torch.device) -> dict[Rotary, Tensor]:
        """See `LanguageModel.tables`."""
        # of a state without memory the lengths are on the CPU all the same, where no kernel takes them
        rotaries = set() if device.type == "meta" else self._rotaries()
        return {rotary: rotary.turns(torch.arange(length, device=device)) for rotary in rotaries}

    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments, with the mixers that were built."""
        built = [[mixer for _, mixer in block.branches()] for block in self.units()]
        parts = {"mixers": [mixer for mixer, *_ in built], "mlp": (*built[0], None)[1]}
        return {name: parts.get(name, value) for name, value in self.init_args.items()}

    def _block(
        self, mixer: Callable[[int], Mixer], mlp: Callable[[int], Mixer] | None, norm_eps: float
    ) -> Block:
        names = self.names
        parts: dict[str, nn.Module] = {
            names.norm: RMSNorm(self.d_model, norm_eps),
            names.mixer: mixer(self.d_model),
        }
        if mlp is not None:
            parts |= {names.mlp_norm: RMSNorm(self.d_model, norm_eps), names.mlp: mlp(self.d_model)}
        return Block(parts)

    def _final_norm(self, hidden: Tensor, residual: Tensor | None) -> Tensor:
        return method(getattr(self, self.names.final_norm), "add")(hidden, residual)[0]

    def _turned(self, tokens: Tokens, dtype: torch.dtype) -> Tokens:
        """The same with the turns of their positions, where they have any."""
        if tokens.positions is None:
            return tokens
        turns = {rotary: rotary.turns(tokens.positions) for rotary in self._rotaries()}
        return replace(tokens, rotations={rotary: x[:, None].to(dtype) for rotary, x in turns.items()})

    def _rotaries(self) -> set[Rotary]:
        return {mixer.rotary for block in self.blocks for _, mixer in block.branches() if mixer.rotary}
