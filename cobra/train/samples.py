"""Examples of a run, encoded when they are asked for; those that cannot be read are passed over, and told."""

from typing import Literal

import torch
from torch.utils.data import Dataset

from cobra.config.limits import MAX_BAD_SAMPLES
from cobra.data.bad_sample import BadSample
from cobra.data.batch import Batch
from cobra.data.processor import Example, Processor
from cobra.data.source import Source
from cobra.models.vision.pictures import Pictures
from cobra.train.schedule import Pick

# What a run does at a sample that it cannot read: take the next of its source, or end.
Policy = Literal["skip", "stop"]
# An example, if there is one, and the bad samples that came before it.
Sample = tuple[Example | None, list[BadSample]]


class Encoded(Dataset):
    """Examples of several sources, encoded when they are asked for.

    Args:
        sources: records by the source's name.
        processor: encodes them.
        prompt: leave the last answer out. A question that cannot be read is then left out, too: another in
            its place would be counted twice.
        on_bad_sample: whether the next record of the source takes the place of one that cannot be read.
    """

    def __init__(
        self,
        sources: dict[str, Source],
        processor: Processor,
        prompt: bool = False,
        on_bad_sample: Policy = "skip",
    ) -> None:
        self.sources, self.processor, self.prompt, self.on_bad_sample = (
            sources,
            processor,
            prompt,
            on_bad_sample,
        )

    def __getitem__(self, pick: Pick) -> Sample:
        name, first = pick
        size = len(self.sources[name])
        tries = 1 if self.prompt or self.on_bad_sample == "stop" else min(size, MAX_BAD_SAMPLES)
        bad: list[BadSample] = []
        for index in range(first, first + tries):
            read = self._read(name, index % size)
            if isinstance(read, Example):
                return read, bad
            bad.append(read)
        return None, bad

    def _read(self, name: str, index: int) -> Example | BadSample:
        record = str(index)
        try:
            found = self.sources[name][index]
            record = found.id
            return self.processor.encode(found, self.prompt)
        except (ValueError, OSError) as error:
            return BadSample(name, record, str(error))

    def collate(self, samples: list[Sample]) -> Batch:
        """The batch of those that could be read. An error is kept for the run's own process to raise."""
        examples = [example for example, _ in samples if example is not None]
        batch = self.processor.collate(examples, left=self.prompt) if examples else _empty()
        batch.bad = [sample for _, bad in samples for sample in bad]
        hopeless = [bad for example, bad in samples if example is None]
        if hopeless and self.on_bad_sample == "stop":
            batch.error = f"{hopeless[0][0]}; on_bad_sample: skip goes on without it"
        elif hopeless and not self.prompt:
            batch.error = f"{len(hopeless[0])} records in a row cannot be read, from {hopeless[0][0]}"
        return batch


def _empty() -> Batch:
    none = torch.zeros(0, 0, dtype=torch.long)
    return Batch(none, Pictures.stack([], checked=True), none.bool(), none)
