"""What a model is fed."""

from dataclasses import dataclass, field

from torch import Tensor

from cobra.data.record import Record
from cobra.models.vision.base import Pixels


@dataclass
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

    ids: Tensor
    pixels: Pixels | None
    mask: Tensor
    labels: Tensor
    cells: Tensor | None = None
    records: list[Record] = field(default_factory=list)
