"""Keys and values of a transformer's past, in buffers of a fixed length, and attention over them."""

from dataclasses import dataclass, field
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from cobra.kernels import huge_pages
from cobra.kernels.ops import decode_attention


@dataclass
class KVState:
    """Keys and values of every layer; a step reads those that are written, not all of max_length.

    Attributes:
        keys: (layers, B, G, max_length, P), of G key-value heads.
        values: as keys.
        lengths: (B,) int64 on the CPU, how many tokens each row has: where its next one goes. The kernels of
            a step read and raise them, so that they can be repeated without Python.
        rotation: (max_length, R) fp32, as `ops.attention_step` takes it; None where steps do not use that.
    """

    keys: Tensor
    values: Tensor
    lengths: Tensor
    rotation: Tensor | None = None
    _mask: Tensor | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        # the same memory, to be read without an operator
        self._lengths = self.lengths.numpy()
        self._ragged = False

    @property
    def length(self) -> int:
        """Tokens of the longest row."""
        return int(self._lengths.max())

    @length.setter
    def length(self, tokens: int) -> None:
        self._lengths[:] = tokens

    @cached_property
    def layers(self) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of each layer, sharing memory with the whole."""
        return list(zip(self.keys, self.values, strict=True))

    @classmethod
    def empty(
        cls,
        layers: int,
        batch: int,
        heads: int,
        max_length: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device,
        rotation: Tensor | None = None,
    ) -> "KVState":
        """Buffers for layers of `heads` key-value heads each; pages are taken as they are written."""
        shape = (layers, batch, heads, max_length, head_dim)
        keys, values = (huge_pages.zeros(shape, dtype, torch.device(device)) for _ in range(2))
        return cls(keys, values, torch.zeros(batch, dtype=torch.int64, device="cpu"), rotation)

    @property
    def nbytes(self) -> int:
        """Bytes that keys and values take, for all of max_length."""
        return self.keys.nbytes + self.values.nbytes

    def clone(self) -> "KVState":
        """An independent copy; copies what is written only."""
        written = slice(0, self.length)
        shape, dtype, device = tuple(self.keys.shape), self.keys.dtype, self.keys.device
        keys, values = (huge_pages.zeros(shape, dtype, device) for _ in range(2))
        keys[..., written, :] = self.keys[..., written, :]
        values[..., written, :] = self.values[..., written, :]
        return KVState(keys, values, self.lengths.clone(), self.rotation)

    def reset(self) -> None:
        """Forget everything."""
        self.length = 0

    def begin(self, tokens: int, mask: Tensor | None) -> None:
        """Make sure that `tokens` more a row fit; those under a False in `mask` (B, T) leave no trace.

        Raises:
            ValueError: if they do not fit.
        """
        new = tokens if mask is None else mask.sum(1).cpu().numpy()
        stop, room = int((self._lengths + new).max()), self.keys.shape[3]
        if stop > room:
            raise ValueError(f"{stop} tokens exceed the state's max_length {room}: allocate more")
        self._mask, self._ragged = mask, mask is not None or bool((self._lengths != self._lengths[0]).any())

    def end(self, tokens: int) -> None:
        """Count the `tokens` that were begun with as read."""
        self.lengths += tokens if self._mask is None else self._mask.sum(1).cpu()

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write a layer's new keys and values (B, G, T, P); all, (B, G, S, P), S the longest row's."""
        pasts = self.keys[layer], self.values[layer]
        if not self._ragged:
            stop = self.length + keys.shape[2]
            for past, new in zip(pasts, (keys, values), strict=True):
                past[:, :, self.length : stop] = new
            return pasts[0][:, :, :stop], pasts[1][:, :, :stop]
        mask, places = self._places(keys.shape[2])
        rows, tokens = mask.nonzero(as_tuple=True)
        for past, new in zip(pasts, (keys, values), strict=True):
            past[rows, :, places[rows, tokens]] = new[rows, :, tokens].to(past.dtype)
        stops = places[:, -1:] + 1
        written = torch.arange(int(stops.max()), device=places.device) < stops
        # a weight of 0 does not undo what is not finite
        seen = [past[:, :, : written.shape[1]].where(written[:, None, :, None], 0) for past in pasts]
        return seen[0], seen[1]

    def _places(self, tokens: int) -> tuple[Tensor, Tensor]:
        """Which of the new tokens are written, and where, (B, T); others are where the one before is."""
        mask = self._mask
        if mask is None:
            mask = torch.ones(len(self.lengths), tokens, dtype=torch.bool, device=self.keys.device)
        return mask, self.lengths.to(mask.device)[:, None] + mask.cumsum(1) - 1

    def positions(self, tokens: int) -> Tensor:
        """Position ids of the next `tokens` tokens, (B, T), or (1, T) where rows are alike."""
        if self._ragged:
            return self._places(tokens)[1].clamp(min=0)
        return torch.arange(self.length, self.length + tokens, device=self.keys.device)[None]

    def visibility(self, tokens: int) -> Tensor | None:
        """What the next `tokens` tokens see, as `attend` takes it."""
        if not self._ragged and (tokens == 1 or self.length == 0):
            return None
        last = self.positions(tokens)
        if tokens == 1:
            return (last + 1)[:, :, None, None]
        stop = int(self._places(tokens)[1].max()) + 1
        return (torch.arange(stop, device=last.device) <= last[..., None])[:, None]  # (B or 1, 1, T, S)


def attend(
    q: Tensor, keys: Tensor, values: Tensor, seen: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """Causal attention of T queries (B, H, T, P) over keys and values (B, G, S, P), to (B, H, T, P).

    Args:
        q: of the last T of S tokens.
        keys: head h reads group h // (H / G).
        values: as keys.
        seen: (B, 1, T, S) bool; or, for one query, how many tokens a row sees, (B, 1, 1, 1) int64. None: all
            up to the query itself, where T is 1 or S.
        scale: 1 / sqrt(P) by default.
    """
    if q.shape[2] == 1 and (seen is None or seen.dtype == torch.int64):
        lengths = None if seen is None else seen[:, 0, 0, 0]
        return decode_attention(q[:, :, 0], keys, values, lengths, scale=scale).unsqueeze(2)
    shared = q.shape[1] // keys.shape[1]
    if shared > 1:
        # little beside T x S scores, and no fused kernel is lost, as with enable_gqa under a mask
        keys, values = keys.repeat_interleave(shared, 1), values.repeat_interleave(shared, 1)
    # under autocast the rotary embedding leaves queries and keys in fp32
    q, keys = q.to(values.dtype), keys.to(values.dtype)
    return F.scaled_dot_product_attention(
        q, keys, values, attn_mask=seen, is_causal=seen is None, scale=scale
    )
