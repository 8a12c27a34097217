"""Lightning callback: the end of a run that is asked to terminate, with a checkpoint of its last step."""

import signal
from pathlib import Path
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before lightning)

from lightning.pytorch import Callback, LightningModule, Trainer  # isort: skip
from lightning.pytorch.utilities.exceptions import SIGTERMException

# of several GPUs, between two questions to each other
_STEPS = 4


def may_ask(trainer: Trainer, step: int) -> bool:
    """Whether devices may ask each other behind a step: GPUs wait for each other then, so in every fourth."""
    alone = trainer.world_size == 1 or trainer.strategy.root_device.type == "cpu"
    return alone or step % _STEPS == 0


class StopWhenTerminated(Callback):
    """After SIGTERM, write a checkpoint when the step is done, and stop; all devices after the same step.

    Lightning's own answer to SIGTERM writes nothing, and has devices wait for each other at different places.
    On one device validation stops at once: there may be no time to end it.
    """

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        self.terminated = False
        self.step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen from here to the end of the run, when Lightning takes its listeners back."""
        self.step = trainer.global_step
        signal.signal(signal.SIGTERM, self._terminate)

    def _terminate(self, *_: Any) -> None:
        self.terminated = True

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Stop, unless gradients are still being added up for a step."""
        if trainer.global_step == self.step:
            return
        self.step = trainer.global_step
        if not (may_ask(trainer, self.step) or self.step == pl_module.plan.total):
            return
        if trainer.strategy.reduce_boolean_decision(self.terminated, all=False):
            # Lightning would log the step behind the callbacks
            trainer._logger_connector.update_train_step_metrics()
            self._stop(trainer)

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Stop one device; several are at different questions, and what is sharded is gathered to answer."""
        if self.terminated and trainer.world_size == 1 and pl_module.device_mesh is None:
            self._stop(trainer)

    def _stop(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.checkpoint, weights_only=False)
        raise SIGTERMException(f"terminated after step {self.step}")
