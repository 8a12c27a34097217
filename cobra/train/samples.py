"""Rows of a run's batches, encoded when they are asked for; what cannot be read is passed over, and told."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch.utils.data import Dataset

from cobra.config.limits import MAX_BAD_SAMPLES
from cobra.data.bad_sample import BadSample
from cobra.data.batch import Batch
from cobra.data.processor import Example, Processor
from cobra.data.source import Source
from cobra.models.vision.pictures import Pictures
from cobra.train.streams import Row

# What a run does at a sample that it cannot read: take another in its place, or end with its error; `stop`
# is what `raise` was called before.
Policy = Literal["skip", "raise", "stop"]

# Records among which one of the same kind, with or without pictures, is looked for.
_NEAR = 1000


@dataclass
class Filled:
    """A row as it could be filled.

    Attributes:
        examples: those that could be read.
        bad: those that could not.
    """

    examples: list[Example] = field(default_factory=list)
    bad: list[BadSample] = field(default_factory=list)


class Encoded(Dataset):
    """Rows of examples of several sources, encoded when they are asked for.

    Args:
        sources: records by the source's name.
        processor: encodes them.
        prompt: leave the last answer out.
        counted: each record counts once, in an evaluation: one that cannot be read is left out, as another in
            its place would be counted twice.
        on_bad_sample: whether to go on past a record that cannot be read. In its place comes the next of its
            source that has pictures, or has none, as it; in a row that it shares none does: another may find
            no room.
        room: tokens of a row of several examples.
    """

    def __init__(
        self,
        sources: dict[str, Source],
        processor: Processor,
        prompt: bool = False,
        counted: bool = False,
        on_bad_sample: Policy = "skip",
        room: int = 0,
    ) -> None:
        self.sources, self.processor, self.room = sources, processor, room
        self.prompt, self.counted = prompt, counted
        self.skips = on_bad_sample == "skip"

    def __getitem__(self, row: Row) -> Filled:
        filled = Filled()
        for name, index in row:
            self._add(filled, name, index)
        if not filled.examples and self.skips and not self.counted:
            self._add_another(filled, *row[0])
        return filled

    def _add(self, filled: Filled, name: str, index: int) -> bool:
        """Encode a record, and say whether it could be."""
        record = str(index)
        try:
            found = self.sources[name][index]
            record = found.id
            filled.examples.append(self.processor.encode(found, self.prompt))
        except (ValueError, OSError) as error:
            filled.bad.append(BadSample(name, record, str(error)))
            return False
        return True

    def _add_another(self, filled: Filled, name: str, index: int) -> None:
        """Encode a record in the place of one that cannot be read."""
        for other in self._others(name, index):
            if len(filled.bad) >= MAX_BAD_SAMPLES or self._add(filled, name, other):
                return

    def _others(self, name: str, index: int) -> Iterator[int]:
        """Records behind one, first those that have pictures or have none as it."""
        size, kind = len(self.sources[name]), self._has_pictures(name, index)
        rest = []
        for other in ((index + step) % size for step in range(1, min(size, _NEAR))):
            if kind is None or self._has_pictures(name, other) == kind:
                yield other
            else:
                rest.append(other)
        yield from rest

    def _has_pictures(self, name: str, index: int) -> bool | None:
        """None where there is no knowing."""
        try:
            return bool(self.sources[name][index].images)
        except (ValueError, OSError):
            return None

    def collate(self, rows: list[Filled]) -> Batch:
        """The batch of those that could be read. An error is kept for the run's own process to raise."""
        filled = [row.examples for row in rows if row.examples]
        if not filled:
            batch = _empty()
        elif any(len(examples) > 1 for examples in filled):
            batch = self.processor.pack(filled, self.room)
        else:
            batch = self.processor.collate([examples[0] for examples in filled], left=self.prompt)
        batch.bad = [sample for row in rows for sample in row.bad]
        batch.names = [example.record.id for examples in filled for example in examples]
        batch.tokens = sum(len(example.ids) for examples in filled for example in examples)
        hopeless = [row.bad for row in rows if not row.examples]
        if batch.bad and not self.skips:
            batch.error = f"{batch.bad[0]}; on_bad_sample: skip goes on without it"
        elif hopeless and not self.counted:
            batch.error = f"{len(hopeless[0])} records in a row cannot be read, from {hopeless[0][0]}"
        return batch


def _empty() -> Batch:
    none = torch.zeros(0, 0, dtype=torch.long)
    return Batch(none, Pictures.stack([], checked=True), none.bool(), none)
