"""Tokens of one call: what every layer asks about them, made once by the model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cobra.models.lm.state import State


@dataclass(frozen=True)
class Slots:
    """Where the tokens of a call go in growing buffers, behind those that each row has.

    Attributes:
        end: tokens that the longest row has then.
        begin: where they go in every row; None where rows differ, and the rest is given.
        places: row, token and slot of each that is written.
        sources: instead of these, the token of each slot before `end`, and whether it is written, both
            (B, 1, end, 1).
        lacking: (B, 1, end, 1) bool, slots before `end` that a row has no token for.
    """

    end: int
    begin: int | None = None
    places: tuple[Tensor, Tensor, Tensor] | None = None
    sources: tuple[Tensor, Tensor] | None = None
    lacking: Tensor | None = None

    def extend(self, buffer: Tensor, new: Tensor) -> Tensor:
        """Write new keys or values (B, G, T, P); all that there are then, (B, G, end, P)."""
        if self.sources is not None:
            tokens, written = self.sources
            tokens = tokens.expand(-1, new.shape[1], -1, new.shape[3])
            buffer.copy_(torch.where(written, new.gather(2, tokens).to(buffer.dtype), buffer))
        elif self.places is None:
            buffer[:, :, self.begin : self.end] = new
        else:
            rows, tokens, slots = self.places
            buffer[rows, :, slots] = new[rows, :, tokens].to(buffer.dtype)
        past = buffer[:, :, : self.end]
        # a weight of 0 does not undo what is not finite
        return past if self.lacking is None else past.masked_fill(self.lacking, 0)


@dataclass(frozen=True)
class Tokens:
    """The tokens (B, T) that a model reads at once, or one of each row, which it steps.

    Attributes:
        mask: (B, T) bool, False at those that are not read; None: all are.
        seq_idx: (B, T), the packed sequence of each; None: there is one a row.
        positions: (B, T) or (1, T), of each in its sequence; a masked one has that of the one before.
        attn_mask: which tokens each one sees, as `attention.attend` takes it.
        slots: where keys and values go; None without a state, and in a step that kernels make alone.
        rotations: turns at `positions` by rotary embedding, (B or 1, 1, T, R); in a step at all positions,
            (max_length, R).
        lengths: in a step, (B,) int64: tokens that each row has.
        rows: (B,) int64, the row of a state that each row is read behind, which does not remember it; None:
            each goes on from its own, in place.
    """

    mask: Tensor | None = None
    seq_idx: Tensor | None = None
    positions: Tensor | None = None
    attn_mask: Tensor | None = None
    slots: Slots | None = None
    rotations: Mapping[Any, Tensor] = field(default_factory=dict)
    lengths: Tensor | None = None
    rows: Tensor | None = None

    @property
    def kept(self) -> bool:
        """Whether a state is to remember them."""
        return self.rows is None

    def before(self, buffer: Tensor) -> Tensor:
        """What they go on from of a buffer (S, ...): itself, or a copy (B, ...) of the rows before them."""
        return buffer if self.rows is None else buffer.index_select(0, self.rows)


def packed(embeds: Tensor, mask: Tensor | None, seq_idx: Tensor | None) -> Tokens:
    """Tokens that follow nothing, for attention among themselves."""
    count, device = embeds.shape[1], embeds.device
    positions = torch.arange(count, device=device)[None] if mask is None else mask.cumsum(1) - 1
    if seq_idx is not None:
        starts = seq_idx.diff(dim=1, prepend=seq_idx[:, :1] - 1) != 0
        # positions of a sequence's first token, whether that is read or not
        first = positions + 1 - (1 if mask is None else mask.long())
        positions = positions - torch.where(starts, first, 0).cummax(1).values
    if mask is None and seq_idx is None:
        return Tokens(positions=positions)
    seen = torch.ones(count, count, dtype=torch.bool, device=device).tril()
    if mask is not None:
        seen = seen & mask[:, None]
    if seq_idx is not None:
        seen = seen & (seq_idx[:, :, None] == seq_idx[:, None])
    # a masked one sees itself: with nothing to see its softmax would be NaN, which spreads
    seen = seen | torch.eye(count, dtype=torch.bool, device=device)
    return Tokens(mask, seq_idx, positions.clamp(min=0), seen[:, None])


def following(state: State, embeds: Tensor, mask: Tensor | None, rows: Tensor | None = None) -> Tokens:
    """Tokens that follow what each row of a state has read, or what these rows (B,) of it have.

    Raises:
        ValueError: where there is no room for them.
    """
    lengths = state.lengths if rows is None else state.lengths[rows]
    if torch.compiler.is_compiling():
        return _following_unseen(state, embeds, mask, lengths)
    known, count, device = lengths.tolist(), embeds.shape[1], embeds.device
    if mask is None and len(set(known)) == 1:
        begin, end = known[0], known[0] + count
        state.check_room(end)
        positions = torch.arange(begin, end, device=device)[None]
        # attention knows these two without a mask
        simple = begin == 0 or count == 1
        return Tokens(
            positions=positions, attn_mask=None if simple else _up_to(positions, end), slots=Slots(end, begin)
        )
    if mask is None and count == 1:
        end, each = max(known) + 1, torch.arange(len(known), device=device)
        state.check_room(end)
        # a copy: autograd saves it, and the lengths count on
        slots = Slots(end, places=(each, torch.zeros_like(each), lengths.clone()))
        stops = lengths[:, None, None, None] + 1
        return Tokens(positions=lengths[:, None], attn_mask=stops, slots=slots)
    read = mask if mask is not None else torch.ones(embeds.shape[:2], dtype=torch.bool, device=device)
    stops = lengths + read.sum(1)
    end = max(1, *stops.tolist())
    state.check_room(end)
    positions = (lengths[:, None] + read.cumsum(1) - 1).clamp(min=0)
    each, tokens = read.nonzero(as_tuple=True)
    lacking = torch.arange(end, device=device) >= stops[:, None]
    slots = Slots(end, places=(each, tokens, positions[each, tokens]), lacking=lacking[:, None, :, None])
    return Tokens(mask, None, positions, _up_to(positions, end), slots)


def _following_unseen(state: State, embeds: Tensor, mask: Tensor | None, lengths: Tensor) -> Tokens:
    """The same over all that there is room for: how many tokens there are, a compiled graph does not know."""
    read = mask if mask is not None else torch.ones(embeds.shape[:2], dtype=torch.bool, device=embeds.device)
    stops, room = lengths + read.sum(1), state.max_length
    torch._assert_async((stops <= room).all(), f"tokens exceed the state's max_length {room}: allocate more")
    positions = (lengths[:, None] + read.cumsum(1) - 1).clamp(min=0)
    index = torch.arange(room, device=embeds.device)
    # how many of those that are read come before the one of a slot
    before = index - lengths[:, None]  # (B, room)
    in_turn = (~read).int().argsort(stable=True, dim=1)
    sources = (
        in_turn.gather(1, before.clamp(0, embeds.shape[1] - 1)),
        (before >= 0) & (index < stops[:, None]),
    )
    tokens, written = (x[:, None, :, None] for x in sources)
    lacking = (index >= stops[:, None])[:, None, :, None]
    slots = Slots(room, sources=(tokens, written), lacking=lacking)
    return Tokens(mask, None, positions, _up_to(positions, room), slots)


def _up_to(positions: Tensor, end: int) -> Tensor:
    """Each token sees those before it and itself, of `end` tokens: (B or 1, 1, T, end) bool."""
    return (torch.arange(end, device=positions.device) <= positions[..., None])[:, None]
