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
        padding: (B,) int64, tokens of padding that each row begins with; None without any.
        rotation: (max_length, R) fp32, as `ops.attention_step` takes it; None where steps do not use that.
        position: (1,) int64 on the CPU, how many tokens are written, padding included: where the next goes.
            The kernels of a step read and raise it, so that they can be repeated without Python.
    """

    keys: Tensor
    values: Tensor
    padding: Tensor | None = None
    rotation: Tensor | None = None
    position: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.int64, device="cpu"))

    def __post_init__(self) -> None:
        # the same memory, to be read without an operator
        self._position = self.position.numpy()

    @property
    def length(self) -> int:
        """Tokens written, padding included."""
        return int(self._position[0])

    @length.setter
    def length(self, tokens: int) -> None:
        self._position[0] = tokens

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
        return cls(keys, values, rotation=rotation)

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
        padding = None if self.padding is None else self.padding.clone()
        return KVState(keys, values, padding, self.rotation, self.position.clone())

    def reset(self) -> None:
        """Forget everything."""
        self.length = 0
        self.padding = None

    def begin(self, tokens: int, mask: Tensor | None) -> None:
        """Make sure that `tokens` more fit, and take note of their padding, where `mask` (B, T) is False.

        Raises:
            ValueError: if they do not fit, or if there is padding behind what is written.
        """
        stop, room = self.length + tokens, self.keys.shape[3]
        if stop > room:
            raise ValueError(f"{stop} tokens exceed the state's max_length {room}: allocate more")
        if mask is None:
            return
        if self.length == 0:
            self.padding = (~mask).sum(1)
        elif not mask.all():
            raise ValueError(
                f"a mask with padding came after {self.length} tokens, but ragged rows start from an empty "
                "state: reset it, or read the rows one by one"
            )

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write a layer's new keys and values (B, G, T, P); views (B, G, length + T, P) of all there are."""
        stop = self.length + keys.shape[2]
        for buffer, new in ((self.keys, keys), (self.values, values)):
            buffer[layer, :, :, self.length : stop] = new
        return self.keys[layer, :, :, :stop], self.values[layer, :, :, :stop]

    def positions(self, tokens: int) -> Tensor:
        """Position ids of the next `tokens` tokens, (B, T), or (1, T) without padding; 0 on padding."""
        index = torch.arange(self.length, self.length + tokens, device=self.keys.device)[None]
        return index if self.padding is None else (index - self.padding[:, None]).clamp(min=0)

    def visibility(self, tokens: int) -> Tensor | None:
        """What the next `tokens` tokens see, as `attend` takes it."""
        if tokens == 1:
            return None if self.padding is None else self.padding[:, None, None, None]
        if self.padding is None and self.length == 0:
            return None
        rows = torch.arange(self.length, self.length + tokens, device=self.keys.device)[:, None]  # (T, 1)
        columns = torch.arange(self.length + tokens, device=self.keys.device)
        seen = columns <= rows
        if self.padding is not None:
            # a padding query sees itself: with nothing to see its softmax would be NaN, which spreads
            seen = seen & (columns >= self.padding[:, None, None]) | (columns == rows)
        return seen.view(-1, 1, *seen.shape[-2:])  # (B or 1, 1, T, length + T)


def attend(
    q: Tensor, keys: Tensor, values: Tensor, seen: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """Causal attention of T queries (B, H, T, P) over keys and values (B, G, S, P), to (B, H, T, P).

    Args:
        q: of the last T of S tokens.
        keys: head h reads group h // (H / G).
        values: as keys.
        seen: (B, 1, T, S) bool; or, for one query, the first token that a row sees, (B, 1, 1, 1) int64. None:
            all up to the query itself, where T is 1 or S.
        scale: 1 / sqrt(P) by default.
    """
    if q.shape[2] == 1 and (seen is None or seen.dtype == torch.int64):
        starts = None if seen is None else seen[:, 0, 0, 0]
        return decode_attention(q[:, :, 0], keys, values, starts, scale=scale).unsqueeze(2)
    shared = q.shape[1] // keys.shape[1]
    if shared > 1:
        # little beside T x S scores, and no fused kernel is lost, as with enable_gqa under a mask
        keys, values = keys.repeat_interleave(shared, 1), values.repeat_interleave(shared, 1)
    # under autocast the rotary embedding leaves queries and keys in fp32
    q, keys = q.to(values.dtype), keys.to(values.dtype)
    return F.scaled_dot_product_attention(
        q, keys, values, attn_mask=seen, is_causal=seen is None, scale=scale
    )
