"""The half of the LightningModule that answers questions: in validation, test and predict."""

from contextlib import ExitStack
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before lightning)

import lightning as L  # isort: skip
import torch

from cobra.data.batch import Batch
from cobra.eval.predictions import Prediction
from cobra.models.vlm import CobraVLM
from cobra.train.held_out import HeldOut, held_out_losses
from cobra.train.sharding import whole


class AnsweringModule(L.LightningModule):
    """Answers questions and measures held-out sources; which questions there are the data module knows.

    Args:
        max_new_tokens: longest answer.
    """

    def __init__(self, max_new_tokens: int) -> None:
        super().__init__()
        self.max_new_tokens = max_new_tokens
        self.model: CobraVLM | None = None
        self.answering = ExitStack()

    def validates(self) -> bool:
        """Whether questions are answered in validation."""
        return True

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Count the right answers of each type, unless the stage says not to; add up what is held out."""
        number = dataloader_idx - len(self.trainer.datamodule.datasets["val"])
        if number >= 0:
            assert self.model is not None
            self.held_out.add(list(self.trainer.datamodule.datasets["held_out"])[number], self.model, batch)
            return
        if not self.validates():
            return
        for prediction in self.answer(batch, self._source("val", dataloader_idx)):
            counts = self.counts.setdefault(prediction.kind, [0, 0])
            counts[0] += prediction.is_right
            counts[1] += 1

    def on_validation_start(self) -> None:
        """Gather sharded weights: devices answer different questions, at different lengths."""
        assert self.model is not None
        self.answering.enter_context(whole(self, self.model))

    on_test_start = on_predict_start = on_validation_start

    def on_validation_end(self) -> None:
        """Go back to shares."""
        self.answering.close()

    on_test_end = on_predict_end = on_validation_end

    def on_validation_epoch_start(self) -> None:
        """Start counting."""
        self.counts: dict[str, list[int]] = {}
        self.held_out = HeldOut()

    def on_validation_epoch_end(self) -> None:
        """Log the accuracy of each type, and their mean; the loss of what is held out."""
        gathered: list[Any] = [(self.counts, self.held_out.sums)]
        if self.trainer.world_size > 1:
            own, gathered = gathered[0], [None] * self.trainer.world_size
            torch.distributed.all_gather_object(gathered, own)
        losses = held_out_losses([sums for _, sums in gathered], self.trainer.datamodule.datasets["held_out"])
        self.log_dict(losses, sync_dist=True)
        gathered = [counts for counts, _ in gathered]
        kinds = sorted({kind for counts in gathered for kind in counts})
        accuracy = {}
        for kind in kinds:
            right, total = (sum(counts.get(kind, [0, 0])[i] for counts in gathered) for i in (0, 1))
            accuracy[f"val/{kind}"] = right / total
        if accuracy:
            accuracy["val/macro"] = sum(accuracy.values()) / len(accuracy)
            # equal on all devices, each of which may wait for it, e.g. to stop early
            self.log_dict(accuracy, sync_dist=True)
        # callbacks come before `on_validation_end`, and may save shares
        self.answering.close()

    def predict_step(
        self, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, list[Prediction]]:
        """The answers to a batch of questions; a callback writes them."""
        return {"predictions": self.answer(batch, self._source("test", dataloader_idx))}

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, list[Prediction]]:
        """The answers to a batch of questions; a callback writes and scores them."""
        return {"predictions": self.answer(batch, self._source("test", dataloader_idx))}

    def answer(self, batch: Batch, source: str) -> list[Prediction]:
        """Generate greedily and decode."""
        # no question of the batch could be read
        if not batch.records:
            return []
        assert self.model is not None
        chat = self.trainer.datamodule.chat
        new = self.model.generate(
            batch.ids,
            batch.pictures,
            batch.mask,
            max_new_tokens=self.max_new_tokens,
            eos_id=chat.eos_id,
            suppress=chat.unknown_ids(self.model.lm.vocab_size).to(self.device),
        )
        return [
            Prediction.of(record, source, chat.decode(ids))
            for record, ids in zip(batch.records, new.tolist(), strict=True)
        ]

    def _source(self, split: str, dataloader_idx: int) -> str:
        return list(self.trainer.datamodule.datasets[split])[dataloader_idx]
