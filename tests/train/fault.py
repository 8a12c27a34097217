"""Lightning callback: what can befall a training process, at a batch that is named."""

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before lightning)

import torch  # isort: skip
import lightning as L


class Fault(L.Callback):
    """Sends a signal to this process, or to a worker of its loader.

    Args:
        batch: from which on it may happen, counted over the run.
        where: `start` of a batch, `backward` behind it, in the first `save` when half of a file is written,
            when it is whole but not yet in its place (`move`), or to a `worker`.
        number: of the signal.
        rank: of the device whose process it is.
    """

    def __init__(self, batch: int, where: str = "start", number: int = signal.SIGKILL, rank: int = 0) -> None:
        self.batch, self.where, self.number, self.rank = batch, where, number, rank

    def _strike(self) -> None:
        self.where = "done"
        os.kill(os.getpid(), self.number)

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Any, n: int) -> None:
        if n < self.batch or trainer.global_rank != self.rank:
            return
        if self.where == "start":
            self._strike()
        elif self.where == "worker":
            os.kill(multiprocessing.active_children()[0].pid or 0, self.number)
        elif self.where == "save":
            save = torch.save

            def half(checkpoint: Any, file: Any) -> None:
                if self.where == "save":
                    file.write(b"half of it")
                    file.flush()
                    self._strike()
                    file.seek(0)
                    file.truncate()
                save(checkpoint, file)

            vars(torch).update(save=half)
        elif self.where == "move":
            replace = os.replace

            def late(source: Any, target: Any) -> None:
                if self.where == "move" and Path(target).suffix == ".ckpt":
                    self._strike()
                replace(source, target)

            vars(os).update(replace=late)

    def on_after_backward(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        here = self.where == "backward" and trainer.global_rank == self.rank
        if here and trainer.fit_loop.total_batch_idx >= self.batch:
            self._strike()
