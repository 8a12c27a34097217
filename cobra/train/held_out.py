"""The loss of held-out sources: nats a token, and bits a byte of text."""

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from cobra.data.batch import Batch
from cobra.data.source import Source
from cobra.models.vlm import CobraVLM, label_places

# the sum of a source's cross-entropies, and its labels
_Sums = dict[str, tuple[float, int]]


class HeldOut:
    """Adds up the cross-entropies of all labels that have a token before them.

    Attributes:
        sums: nats and labels of each source, on this device.
    """

    def __init__(self) -> None:
        self.waiting: dict[str, list[tuple[Tensor, int]]] = {}

    def add(self, source: str, model: CobraVLM, batch: Batch) -> None:
        """Measure a batch of a source."""
        # none of its records could be read
        if not len(batch.ids):
            return
        places = label_places(batch.labels) if batch.places is None else batch.places
        hidden = model(batch.ids, batch.pictures, batch.seq_idx)
        # a number on a device, which is waited for when all are there
        loss = model.loss(hidden, batch.labels, places).double()
        self.waiting.setdefault(source, []).append((loss * len(places), len(places)))

    @property
    def sums(self) -> _Sums:
        return {
            source: (sum(float(nats) for nats, _ in measured), sum(count for _, count in measured))
            for source, measured in self.waiting.items()
        }


def held_out_losses(sums: Sequence[_Sums], sources: Mapping[str, Source]) -> dict[str, float]:
    """What is logged of each source, from the sums of all devices: `held_out/NAME` in nats a token.

    `held_out/NAME_bits_per_byte` of those that know how many bytes a token of theirs stands for.
    """
    losses = {}
    for name, source in sources.items():
        nats, labels = (sum(each.get(name, (0.0, 0))[i] for each in sums) for i in (0, 1))
        if labels:
            losses[f"held_out/{name}"] = nats / labels
            if source.bytes_per_token:
                losses[f"held_out/{name}_bits_per_byte"] = (
                    nats / labels / source.bytes_per_token / math.log(2)
                )
    return losses
