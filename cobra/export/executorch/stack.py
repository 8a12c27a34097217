"""A language model as one function: embeddings and memory to logits and what is new of the memory."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cobra.export.executorch.attention import HIDDEN, AttentionForm, GatedMLPForm, GeluMLPForm
from cobra.export.executorch.form import Form, Piece
from cobra.export.executorch.mamba2 import Mamba2Form
from cobra.export.executorch.rewrites import norm_form
from cobra.models.lm.attention import Attention
from cobra.models.lm.base import LanguageModel
from cobra.models.lm.gated_mlp import GatedMLP
from cobra.models.lm.mamba2 import Mamba2Mixer
from cobra.models.lm.rotary import Rotary
from cobra.models.lm.stacked import StackedLM
from cobra.models.lm.state import Layout
from cobra.models.lm.transformer import TransformerLM
from cobra.models.lm.transformer_steps import Phi, block_steps


class Branch(nn.Module):
    """Mixers that read one norm of all that came before, and are added to it.

    Args:
        norm: as the model has it.
        forms: of its mixers.
    """

    def __init__(self, norm: nn.Module, *forms: Form) -> None:
        super().__init__()
        self.norm, self.forms = norm_form(norm), forms
        self.mixers = nn.ModuleList(forms)


@dataclass
class Shape:
    """What a model is made of, as functions.

    Attributes:
        branches: in the order in which they are applied.
        norm: behind them.
        turns: of rotary embedding by position, (room, R); None where no mixer asks for positions.
    """

    branches: list[Branch]
    norm: nn.Module
    turns: Tensor | None = None


class Stack(nn.Module):
    """A language model for one sequence, in operators that backends take.

    Args:
        lm: whose weights it computes with.
        tokens: of a piece, N; with one it steps.
        room: tokens that growing buffers have room for.

    Attributes:
        layouts: what each application of a mixer remembers; empty where it remembers nothing.
        positions: whether it asks for them.

    Raises:
        ValueError: where a part of the model has no such form, saying which.
    """

    def __init__(self, lm: LanguageModel, tokens: int, room: int) -> None:
        super().__init__()
        shape = shape_of(lm, tokens, room)
        self.tokens, self.room = tokens, room
        self.branches, self.norm = nn.ModuleList(shape.branches), norm_form(shape.norm)
        self.head = _head(lm)
        self.order = shape.branches
        self.taps = sorted({form.taps for form in self._forms()} - {1})
        self.layouts: list[Layout] = [form.layout for form in self._forms()]
        self.positions = shape.turns is not None
        self.turns = None if shape.turns is None else nn.Buffer(shape.turns)
        # [t, last]: whether t is read
        self.read = nn.Buffer(torch.ones(tokens, tokens).triu())

    def shapes(self) -> list[tuple[int, ...]]:
        """Of the buffers of its memory, in the order in which it takes them."""
        return [b.shape_of(1, self.room)[1:] for layout in self.layouts for b in layout.values()]

    def forward(
        self, embeds: Tensor, count: Tensor | None, position: Tensor | None, memory: Iterable[Tensor]
    ) -> list[Tensor]:
        """Logits (1, vocab_size) of the last token, then what is new of each buffer of the memory.

        Args:
            embeds: (N, D).
            count: (1,) int32, tokens of them that are read, the first ones; None: all are.
            position: (1,) int32, tokens that were read before; None where none is asked for.
            memory: as `shapes` says.
        """
        last, piece = self._piece(count, position)
        given, hidden = iter(memory), embeds
        new: list[Tensor] = []
        for branch in self.order:
            normed = branch.norm(hidden)
            for form in branch.forms:
                out, changed = form(normed, [next(given) for _ in form.layout], piece)
                hidden, new = hidden + out, [*new, *changed]
        if last is not None:
            hidden = torch.bmm(last.reshape(1, 1, -1), hidden.reshape(1, *hidden.shape)).reshape(1, -1)
        return [self.head(self.norm(hidden)), *new]

    def _piece(self, count: Tensor | None, position: Tensor | None) -> tuple[Tensor | None, Piece]:
        """Which token is the last, as (1, N) of 0 and 1, and what the forms ask about them."""
        last = read = turns = lacking = None
        windows: dict[int, Tensor] = {}
        if count is not None:
            last = (torch.arange(self.tokens) == count - 1).float().reshape(1, -1)
            read = F.linear(last, self.read).reshape(-1, 1)
            windows = {taps: _window(last, taps) for taps in self.taps}
        if position is not None:
            assert self.turns is not None
            turns = self.turns[(position + torch.arange(self.tokens)).clamp(max=self.room - 1)]
            lacking = (torch.arange(self.room) >= position).float() * HIDDEN
        return last, Piece(read, windows, turns, lacking)

    def _forms(self) -> list[Form]:
        return [form for branch in self.order for form in branch.forms]


def shape_of(lm: LanguageModel, tokens: int, room: int) -> Shape:
    """A language model's branches as functions of pieces of so many tokens; errors as for `Stack`."""
    if isinstance(lm, StackedLM):
        return _stacked(lm, tokens, room)
    steps = block_steps(lm.causal_lm) if isinstance(lm, TransformerLM) else None
    if steps is None:
        name = lm.causal_lm.config.model_type if isinstance(lm, TransformerLM) else type(lm).__name__
        raise ValueError(f"a language model {name} has no form for ExecuTorch: export another, or to gguf")
    return _transformer(lm, steps, tokens, room)


def _stacked(lm: StackedLM, tokens: int, room: int) -> Shape:
    mixers = [(norm, mixer) for block in lm.blocks for norm, mixer in block.branches()]
    branches = [Branch(norm, form_of(mixer, tokens)) for norm, mixer in mixers]
    rotaries: set[Rotary] = {mixer.rotary for _, mixer in mixers if mixer.rotary}
    if len(rotaries) > 1:
        raise ValueError(f"mixers turn positions in {len(rotaries)} ways: ExecuTorch's programs have one")
    turns = [rotary.turns(torch.arange(room)) for rotary in rotaries]
    return Shape(branches, getattr(lm, lm.names.final_norm), turns[0] if turns else None)


def form_of(mixer: nn.Module, tokens: int) -> Form:
    """A mixer as a function of pieces of so many tokens; errors as for `Stack`."""
    make = _FORMS.get(type(mixer))
    if make is None:
        raise ValueError(
            f"a {type(mixer).__name__} has no form for ExecuTorch, only "
            f"{', '.join(known.__name__ for known in _FORMS)}: export another model, or to gguf"
        )
    return make(mixer, tokens)


def _attention(mixer: Any, tokens: int) -> Form:
    (heads, head_dim) = mixer.layout["keys"].shape
    return AttentionForm(mixer, _qkv, mixer.o_proj, heads, head_dim, tokens)


def _qkv(mixer: Any, x: Tensor) -> tuple[Tensor, ...]:
    return mixer.q_proj(x), mixer.k_proj(x), mixer.v_proj(x)


def _gated_mlp(mixer: Any, tokens: int) -> Form:
    return GatedMLPForm(mixer, _gate_and_up, mixer.down_proj)


def _gate_and_up(mixer: Any, x: Tensor) -> tuple[Tensor, ...]:
    return mixer.gate_proj(x), mixer.up_proj(x)


_FORMS: dict[type, Callable[[Any, int], Form]] = {
    Mamba2Mixer: Mamba2Form,
    Attention: _attention,
    GatedMLP: _gated_mlp,
}


def _transformer(lm: Any, steps: Any, tokens: int, room: int) -> Shape:
    """As `transformer_steps` steps it: attention and MLP in turn or, as in Phi-2, side by side."""
    heads, head_dim = lm.layout["keys"].shape
    branches = []
    for block in steps.model.layers:
        attention, mlp = block.self_attn, block.mlp
        if isinstance(steps, Phi):
            attend = AttentionForm(attention, steps.qkv, attention.dense, heads, head_dim, tokens)
            branches.append(Branch(block.input_layernorm, attend, GeluMLPForm(mlp)))
        else:
            attend = AttentionForm(attention, steps.qkv, attention.o_proj, heads, head_dim, tokens)
            branches.append(Branch(block.input_layernorm, attend))
            gated = GatedMLPForm(mlp, steps.gate_and_up, mlp.down_proj)
            branches.append(Branch(block.post_attention_layernorm, gated))
    norm = steps.model.final_layernorm if isinstance(steps, Phi) else steps.model.norm
    return Shape(branches, norm, steps.rotation(room, torch.device("cpu")))


def _head(lm: LanguageModel) -> nn.Linear:
    """The head as a linear of its own: where it is the embedding, a quantization must not reach that, too."""
    if isinstance(lm, TransformerLM):
        given: Any = lm.causal_lm.get_output_embeddings()
    else:
        assert isinstance(lm, StackedLM)
        given = getattr(lm, lm.names.embedding)
    head: Any = nn.Linear(lm.d_model, lm.vocab_size, device="meta")
    head.weight, head.bias = nn.Parameter(given.weight.detach()), getattr(given, "bias", None)
    return head


def _window(last: Tensor, taps: int) -> Tensor:
    """Which of K - 1 + N inputs are the last K - 1 up to that of `last` (1, N): (1, K - 1, K - 1 + N)."""
    zeros = last.new_zeros(1, taps - 1)
    rows = [torch.cat([zeros[:, : lag + 1], last, zeros[:, lag + 1 :]], dim=1) for lag in range(taps - 1)]
    return torch.cat(rows).reshape(1, taps - 1, -1)
