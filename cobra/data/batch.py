"""Batches: examples stacked, as a model is fed them."""

from copy import copy

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from cobra.data.record import Record
from cobra.models.vision.base import Pixels


# no dataclass: Lightning would take it apart, records and all, wherever a precision casts its input
class Batch:
    """Examples stacked into tensors.

    Attributes:
        ids: (B, T) token ids, IMAGE_ID where image tokens go.
        pixels: pixels of all pictures, in reading order over the batch; None without pictures.
        mask: (B, T) bool, False on padding.
        labels: (B, T) token ids, IGNORE_ID where there is no loss; only in training.
        cells: (B, cells, attributes) class of every cell; only for sources that have them.
        records: where the examples came from; only in evaluation.
    """

    def __init__(
        self,
        ids: Tensor,
        pixels: Pixels | None,
        mask: Tensor,
        labels: Tensor,
        cells: Tensor | None = None,
        records: list[Record] | None = None,
    ) -> None:
        self.ids, self.pixels, self.mask, self.labels = ids, pixels, mask, labels
        self.cells, self.records = cells, records or []

    def to(self, device: torch.device | str) -> "Batch":
        """The same with its tensors on a device, as Lightning asks for; records stay where they are."""
        moved = copy(self)
        # copies from a device would not be waited for
        to_gpu = torch.device(device).type == "cuda"
        vars(moved).update(tree_map_only(Tensor, lambda t: t.to(device, non_blocking=to_gpu), vars(self)))
        return moved
