"""The contract of a training objective."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from cobra.data.batch import Batch
from cobra.models.vlm import CobraVLM, label_places


class Objective(nn.Module, ABC):
    """A loss, with whatever heads it needs (which are trained with it and saved in checkpoints).

    Subclasses take the model first and read its widths; they do not keep it. Modules that they build frozen,
    e.g. a copy of the model as the run starts, stay frozen, in evaluation mode and out of checkpoints: a run
    that is resumed builds them anew.

    Attributes:
        reads_answers: whether the loss is over the answers' tokens: records without any then teach nothing.
    """

    reads_answers = True

    @abstractmethod
    def forward(self, model: CobraVLM, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss (scalar), a mean over what `weight` counts, and what else to log, by name."""

    def weight(self, batch: Batch) -> int:
        """The tokens of answers, or the examples, that the loss of a batch is a mean over."""
        if not self.reads_answers:
            return len(batch.ids)
        return len(label_places(batch.labels) if batch.places is None else batch.places)
