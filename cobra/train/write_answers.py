"""Lightning callback: the answers of test and predict, written and scored."""

from pathlib import Path
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before lightning)

import torch  # isort: skip
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.table import Table

from cobra.data.batch import Batch
from cobra.data.image import load_rgb
from cobra.eval.contact_sheet import Answered, draw_contact_sheet, pick
from cobra.eval.predictions import accuracy, write_predictions


class WriteAnswers(Callback):
    """Collect the answers, write them as JSON Lines, and after a test score them and draw some.

    Args:
        directory: where to; None writes nothing.
    """

    def __init__(self, directory: Path | None) -> None:
        self.directory = directory
        self.answered: list[Answered] = []

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, *rest: Any
    ) -> None:
        """Keep the answers of a batch."""
        self.answered += zip(batch.records, outputs["predictions"], strict=True)

    # predict hands over the same outputs
    on_predict_batch_end = on_test_batch_end

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the answers, print their accuracy, draw some of them."""
        for split, answered in self._written(trainer).items():
            scores = accuracy(prediction for _, prediction in answered)
            table = Table("question", "accuracy", title=f"{split}: {len(answered)} questions")
            for kind, value in scores.items():
                table.add_row(kind, f"{100 * value:.1f} %")
            Console().print(table)
            if self.directory is None:
                continue
            draw_contact_sheet(pick(answered), self.directory / f"contact_sheet-{split}.png")
            first = next((record for record, _ in answered if record.images), None)
            if first is not None:
                load_rgb(first.images[0]).save(self.directory / f"picture-{split}.png")

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the answers."""
        self._written(trainer)

    def _written(self, trainer: Trainer) -> dict[str, list[Answered]]:
        """The answers of all devices by split, written to disk; empty but on the first device."""
        shares = [self.answered]
        if trainer.world_size > 1:
            shares = [[] for _ in range(trainer.world_size)]
            torch.distributed.all_gather_object(shares, self.answered)
        self.answered = []
        if not trainer.is_global_zero:
            return {}
        splits: dict[str, list[Answered]] = {}
        for record, prediction in (pair for share in shares for pair in share):
            splits.setdefault(prediction.split, []).append((record, prediction))
        if self.directory is not None:
            for split, answered in splits.items():
                path = self.directory / f"predictions-{split}.jsonl"
                write_predictions(path, (prediction for _, prediction in answered))
        return splits
