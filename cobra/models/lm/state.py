"""Decode states: what a model remembers of the tokens that it has read, whatever its layers are."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cobra.kernels import huge_pages
from cobra.kernels.call import needs_gradient

# of a buffer, in bytes; as torch aligns memory
_ALIGNMENT = 64


@dataclass(frozen=True)
class Buffer:
    """What a layer remembers of a sequence under one name.

    Attributes:
        shape: of one sequence; of one token of it where the buffer grows.
        grows: it has a token axis, before its last: a step reads the tokens that a row has and writes one.
            Any other a step reads and writes whole.
        recurrent: it sums up all tokens, so its precision is a choice; see `LanguageModel.state_dtype`.
    """

    shape: tuple[int, ...]
    grows: bool = False
    recurrent: bool = False

    def shape_of(self, rows: int, max_length: int) -> tuple[int, ...]:
        """Shape of the tensor for so many sequences."""
        *outer, width = self.shape
        return (rows, *outer, *([max_length] if self.grows else []), width)


# both by the buffers' names
Layout = Mapping[str, Buffer]
LayerState = dict[str, Tensor]


def remember(state: LayerState, **new: Tensor) -> None:
    """Let buffers of a layer hold something else: in place, but for what a gradient will be asked of."""
    for name, value in new.items():
        if needs_gradient(value):
            # autograd has saved what was there
            state[name] = value.to(state[name].dtype)
        else:
            state[name].copy_(value)


class State:
    """Buffers of fixed shape for each application of a block, written in place; rows are sequences.

    Args:
        layouts: of each layer.
        rows: sequences, B.
        max_length: tokens that growing buffers have room for.
        dtype: of the buffers.
        recurrent_dtype: of recurrent ones.
        device: of all.
        tables: of what depends on positions alone, e.g. a rotary embedding's angles; rows and copies share
            them.

    Attributes:
        layers: buffers of each layer by name, (B, *shape), or (B, ..., max_length, width) where they grow.
        lengths: (B,) int64, tokens that each row has read; a masked one is not read.
        grows: whether it can be full.
        recorded: whether gradients reach what it has read, since no `detach_`; its buffers are then
            autograd's, not those that are written in place.
    """

    def __init__(
        self,
        layouts: Sequence[Layout],
        rows: int,
        max_length: int,
        dtype: torch.dtype,
        recurrent_dtype: torch.dtype,
        device: torch.device,
        tables: Mapping[Any, Tensor],
    ) -> None:
        self.layouts, self.rows, self.max_length = layouts, rows, max_length
        self.dtype, self.recurrent_dtype, self.tables = dtype, recurrent_dtype, tables
        self.grows = any(buffer.grows for layout in layouts for buffer in layout.values())
        # lengths are read even where there is no memory
        self.lengths = torch.zeros(rows, dtype=torch.int64, device="cpu" if device.type == "meta" else device)
        # one memory, since a layer's may not fill a huge page
        size = sum(_aligned(buffer.nbytes) for layer in self._described() for buffer in layer.values())
        self.memory = huge_pages.zeros((size,), torch.uint8, device)
        self.layers = self._placed()
        self.recorded = False

    @property
    def nbytes(self) -> int:
        """Bytes that the buffers take."""
        return sum(tensor.nbytes for _, tensor in self._buffers())

    def step_bytes(self, context: int) -> int:
        """Bytes of it that a step reads and writes after `context` tokens a row."""
        return sum(
            tensor.nbytes // self.max_length * (context + 1) if buffer.grows else 2 * tensor.nbytes
            for buffer, tensor in self._buffers()
        )

    def check_room(self, tokens: int) -> None:
        """Refuse rows of more tokens than it can hold, with a ValueError."""
        if self.grows and tokens > self.max_length:
            raise ValueError(
                f"{tokens} tokens exceed the state's max_length {self.max_length}: allocate more"
            )

    def record(self, gradients: bool) -> None:
        """Get ready to be written by a call that autograd records, or by one that it does not.

        Raises:
            ValueError: where the call would cut gradients off that were recorded.
        """
        if gradients:
            # what autograd has saved of them must stay as it is
            self.layers = [{name: x.clone() for name, x in layer.items()} for layer in self.layers]
            self.recorded = True
        elif self.recorded:
            self._refuse_gradients()

    def detach_(self) -> "State":
        """Itself, where gradients end from now on: what comes next is trained as if this were given."""
        recorded, self.layers, self.recorded = self.layers, self._placed(), False
        for mine, theirs in zip(self.layers, recorded, strict=True):
            for name, buffer in mine.items():
                buffer.copy_(theirs[name].detach())
        return self

    def clone(self) -> "State":
        """An independent copy, e.g. to ask several questions after one picture."""
        return self.take(range(self.rows))

    def copy_from(self, other: "State") -> None:
        """Remember what `other` does, which has as many rows; errors as for `put`."""
        self.put(range(self.rows), other)

    def take(self, rows: Sequence[int]) -> "State":
        """An independent state of these rows, in this order."""
        sizes = (len(rows), self.max_length, self.dtype, self.recurrent_dtype)
        taken = State(self.layouts, *sizes, self.memory.device, self.tables)
        taken._copy(range(len(rows)), self, rows)
        return taken

    def put(self, rows: Sequence[int], other: "State") -> None:
        """Let these rows remember what those of `other` do, in order; the others stay as they are.

        Raises:
            ValueError: where `other` has another number of rows or another model's layers, or has read more
                tokens than there is room for.
        """
        if other.rows != len(rows) or other.layouts != self.layouts:
            raise ValueError(
                f"a state of {other.rows} rows and {len(other.layers)} layers does not fit {len(rows)} rows "
                f"of {len(self.layers)} layers: allocate both from one model, and name as many rows"
            )
        self._copy(rows, other, range(other.rows))

    def reset(self) -> None:
        """Forget everything."""
        if self.recorded:
            self.detach_()
        self.lengths.zero_()
        for buffer, tensor in self._buffers():
            # a growing one is never read behind its length
            if not buffer.grows:
                tensor.zero_()

    def rewind(self, lengths: int | Tensor) -> None:
        """Forget all but the first `lengths` tokens of each row, one number or (B,).

        Raises:
            ValueError: where a layer does not keep its tokens apart, or a row has read fewer.
        """
        for layer, layout in enumerate(self.layouts):
            for name in (name for name, buffer in layout.items() if not buffer.grows):
                raise ValueError(
                    f"{name!r} of layer {layer} cannot be rewound, since it does not keep tokens apart: "
                    "clone the state in time, and copy_from the clone"
                )
        wanted = torch.as_tensor(lengths, device=self.lengths.device).expand(self.rows)
        if ((wanted < 0) | (wanted > self.lengths)).any():
            read = self.lengths.tolist()
            raise ValueError(f"rows that have read {read} tokens cannot be rewound to {wanted.tolist()}")
        self.lengths.copy_(wanted)

    def __deepcopy__(self, memo: dict[int, Any]) -> "State":
        return self.clone()

    def __getstate__(self) -> dict[str, Any]:
        self._refuse_gradients()
        # each view would be pickled with the whole memory
        return {**self.__dict__, "layers": None}

    def __setstate__(self, attributes: dict[str, Any]) -> None:
        self.__dict__.update(attributes)
        self.layers = self._placed()

    def _copy(self, rows: Sequence[int], other: "State", others: Sequence[int]) -> None:
        for state in (self, other):
            state._refuse_gradients()
        read = max(other.lengths.tolist(), default=0)
        self.check_room(read)
        to, origin = self._index(rows), other._index(others)
        picked = torch.tensor(others, dtype=torch.int64, device=self.memory.device)
        for (buffer, mine), (_, theirs) in zip(self._buffers(), other._buffers(), strict=True):
            # what is not written yet takes no memory
            part = (..., slice(read if buffer.grows else None), slice(None))
            if isinstance(to, slice) and isinstance(origin, list) and mine.dtype == theirs.dtype:
                # an index would make a copy first, in memory that the system has to hand out
                torch.index_select(theirs[part], 0, picked, out=mine[part])
            else:
                mine[part][to] = theirs[part][origin].to(mine.dtype)
        self.lengths[to] = other.lengths[origin]

    def _refuse_gradients(self) -> None:
        if self.recorded:
            raise ValueError(
                "the state holds gradients of what it has read: detach_() it before it is copied, or used "
                "where none are recorded"
            )

    def _index(self, rows: Sequence[int]) -> slice | list[int]:
        return slice(None) if rows == range(self.rows) else list(rows)

    def _buffers(self) -> Iterator[tuple[Buffer, Tensor]]:
        for layout, layer in zip(self.layouts, self.layers, strict=True):
            yield from zip(layout.values(), layer.values(), strict=True)

    def _described(self) -> list[LayerState]:
        """The layers, without memory."""
        dtypes, sizes = {False: self.dtype, True: self.recurrent_dtype}, (self.rows, self.max_length)
        return [
            {
                name: torch.empty(buffer.shape_of(*sizes), dtype=dtypes[buffer.recurrent], device="meta")
                for name, buffer in layout.items()
            }
            for layout in self.layouts
        ]

    def _placed(self) -> list[LayerState]:
        """The layers, one behind the other in the memory."""
        begin, layers = 0, self._described()
        for layer in layers:
            for name, like in layer.items():
                flat = self.memory[begin : begin + like.nbytes]
                layer[name] = flat.view(like.dtype).view(like.shape)
                begin += _aligned(like.nbytes)
        return layers


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
