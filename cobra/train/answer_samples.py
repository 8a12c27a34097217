"""Lightning callback: what the model answers while it trains, to the same few records, as pictures."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import cobra.torchvision_shim  # noqa: F401  (before lightning)

import numpy as np  # isort: skip
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from cobra.data.processor import Example
from cobra.eval.contact_sheet import Answered, draw_contact_sheet
from cobra.train.loggers import log_picture
from cobra.train.sharding import is_sharded, whole

logger = logging.getLogger(__name__)


class AnswerSamples(Callback):
    """Write `samples/step-000200.png` into the run's folder, and hand it to the loggers that take pictures.

    The records are spread over the sources of the split, and stay the same for the whole run. Training goes
    on as if nothing had been asked.

    Args:
        every: steps between two pictures.
        count: records that are answered.
        split: `val` or `train`, whose records' last answers are asked for.
    """

    def __init__(self, every: int = 500, count: int = 6, split: Literal["val", "train"] = "val") -> None:
        self.every, self.count, self.split = every, count, split
        self.step = 0
        self.examples: list[tuple[str, Example]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the records once."""
        self.step = trainer.global_step
        sources = trainer.datamodule.datasets.get(self.split, {})
        if not sources:
            raise ValueError(
                f"AnswerSamples: data.{self.split} has no source: give it one, or the other split"
            )
        share = -(-self.count // len(sources))
        picked = [(name, index) for name, source in sources.items() for index in _spread(len(source), share)]
        processor = trainer.datamodule.processor()
        self.examples = []
        for name, index in picked[: self.count]:
            try:
                self.examples.append((name, processor.encode(sources[name][index], True)))
            except (ValueError, OSError) as error:
                logger.warning("no sample of %s: %s", name, error)
        self.collate = processor.collate

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *rest: Any) -> None:
        """Answer behind every step whose number says so."""
        if trainer.global_step == self.step:
            return
        self.step = trainer.global_step
        # shares are gathered on all devices, which must then use them alike
        shared = is_sharded(pl_module.model)
        if self.step % self.every == 0 and self.examples and (shared or trainer.is_global_zero):
            with whole(pl_module, pl_module.model), _evaluating(pl_module.model):
                answered = self._answer(trainer, pl_module)
            if trainer.is_global_zero:
                self._draw(trainer, answered)

    def _answer(self, trainer: Trainer, module: LightningModule) -> list[Answered]:
        names, examples = zip(*self.examples, strict=True)
        plugin = trainer.precision_plugin
        batch = plugin.convert_input(self.collate(list(examples), left=True))
        batch = trainer.strategy.batch_to_device(batch, module.device)
        with plugin.val_step_context():
            predictions = module.answer(batch, "")
        for name, prediction in zip(names, predictions, strict=True):
            prediction.split = name
        return list(zip(batch.records, predictions, strict=True))

    def _draw(self, trainer: Trainer, answered: list[Answered]) -> None:
        path = Path(trainer.default_root_dir) / "samples" / f"step-{self.step:06}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_contact_sheet(answered, path)
        log_picture(trainer.loggers, "samples", path, self.step)


def _spread(size: int, count: int) -> list[int]:
    """Numbers below `size`, evenly far from each other."""
    return sorted({int(number) for number in np.linspace(0, size - 1, min(size, count))})


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Inside, every module is in evaluation mode and no random number is drawn that training would miss."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    devices = [next(model.parameters()).device] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng([d for d in devices if d.type == "cuda"]):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
