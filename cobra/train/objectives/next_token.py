"""Objective: the next token of the answers."""

from torch import Tensor

from cobra.data.batch import Batch
from cobra.models.vlm import CobraVLM
from cobra.train.objectives.base import Objective


class NextToken(Objective):
    """Cross-entropy of the next token, over the labelled positions."""

    def __init__(self, model: CobraVLM) -> None:
        super().__init__()

    def forward(self, model: CobraVLM, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean loss of the batch's labels."""
        hidden = model(batch.ids, batch.pictures, batch.seq_idx)
        return model.loss(hidden, batch.labels, batch.places), {}
