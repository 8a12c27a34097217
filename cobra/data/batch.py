"""Batches: examples stacked, as a model is fed them."""

from collections.abc import Callable, Sequence
from copy import copy

import torch
from torch import Tensor

from cobra.data.bad_sample import BadSample
from cobra.data.record import Record
from cobra.models.vision.pictures import Pictures


# no dataclass: Lightning would take it apart, records and all, wherever a precision casts its input
class Batch:
    """Examples stacked into tensors.

    Attributes:
        ids: (B, T) token ids, IMAGE_ID where image tokens go.
        pictures: all pictures, in reading order over the batch; the ids have room for exactly these.
        mask: (B, T) bool, False on padding; None where no row is padded.
        labels: (B, T) token ids, IGNORE_ID where there is no loss; only in training.
        places: (K,) of the tokens before a label, as `CobraVLM.loss` takes them; only in training.
        cells: (B, cells, attributes) class of every cell; only for sources that have them.
        records: where the examples came from; only in evaluation.
        empty: ids of the records that have no label; only in training.
        seq_idx: (B, T) int32, the number of the packed example that a token belongs to, rising in a row; None
            where each row is one example.
        examples: how many, B unless they are packed.
    """

    # records that could not be read, and the error in which the run is to end for want of them
    bad: Sequence[BadSample] = ()
    error = ""
    # of its examples the ids, and all their tokens without padding: known on the host, nothing waits for them
    names: Sequence[str] = ()
    tokens = 0

    def __init__(
        self,
        ids: Tensor,
        pictures: Pictures,
        mask: Tensor | None,
        labels: Tensor,
        cells: Tensor | None = None,
        records: list[Record] | None = None,
        empty: list[str] | None = None,
        places: Tensor | None = None,
        seq_idx: Tensor | None = None,
    ) -> None:
        self.ids, self.pictures, self.mask, self.labels = ids, pictures, mask, labels
        # found where the labels are still on the host
        self.places = places
        self.seq_idx = seq_idx
        self.examples = len(ids)
        self.cells, self.records, self.empty = cells, records or [], empty or []

    def to(self, device: torch.device | str) -> "Batch":
        """The same with its tensors on a device, as Lightning asks for; records stay where they are."""
        # copies from a device would not be waited for
        to_gpu = torch.device(device).type == "cuda"
        return self._map(lambda tensor: tensor.to(device, non_blocking=to_gpu))

    def pin_memory(self) -> "Batch":
        """The same with its tensors in pinned memory, as a data loader asks for where `pin_memory` is set."""
        return self._map(Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        changed = copy(self)
        tensors = {name: change(value) for name, value in vars(self).items() if isinstance(value, Tensor)}
        vars(changed).update(tensors, pictures=self.pictures.map(change))
        return changed
