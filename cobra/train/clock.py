"""Lightning callback: the processor time that a run has trained for."""

import time
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before lightning)

from lightning.pytorch import Callback, LightningModule, Trainer  # isort: skip


def is_logged(trainer: Trainer, step: int) -> bool:
    """Whether Lightning writes what is logged in optimizer step `step`, the first of which is 1."""
    every = trainer.log_every_n_steps
    return trainer.should_stop or (every > 0 and step % every == 0)


class TrainingClock(Callback):
    """Log `cpu_seconds`: what this process has spent on training, over all launches, validation left out.

    Wall time on a shared machine says more about its other users.
    """

    def __init__(self) -> None:
        self.before = 0.0
        # None while it stands: before training, e.g. in Lightning's check of validation, and in validation
        self.since: float | None = None

    @property
    def cpu_seconds(self) -> float:
        """Processor time up to now, while training."""
        return self.before + (0.0 if self.since is None else time.process_time() - self.since)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start, or go on from what a checkpoint says."""
        self.since = time.process_time()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *rest: Any) -> None:
        """Log it with the step, where one is logged."""
        if is_logged(trainer, trainer.global_step):
            pl_module.log("cpu_seconds", self.cpu_seconds, batch_size=1)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop."""
        self.before, self.since = self.cpu_seconds, None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on."""
        self.since = time.process_time()

    def state_dict(self) -> dict[str, float]:
        """The time up to this checkpoint."""
        return {"cpu_seconds": self.cpu_seconds}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Go on from a checkpoint's time."""
        self.before = state_dict["cpu_seconds"]
