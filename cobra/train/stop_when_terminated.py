"""Lightning callback: the end of a run that is asked to terminate, with a checkpoint of its last step."""

import logging
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before lightning)

from lightning.pytorch import Callback, LightningModule, Trainer  # isort: skip
from lightning.pytorch.utilities.exceptions import SIGTERMException

logger = logging.getLogger(__name__)

# of several GPUs, between two questions to each other
_STEPS = 4


def may_ask(trainer: Trainer, step: int) -> bool:
    """Whether devices may ask each other behind a step: GPUs wait for each other then, so in every fourth."""
    alone = trainer.world_size == 1 or trainer.strategy.root_device.type == "cpu"
    return alone or step % _STEPS == 0


class StopWhenTerminated(Callback):
    """After SIGTERM, write a checkpoint when the step is done, and stop; all devices after the same step.

    In a SLURM job SIGUSR1, which `sbatch --signal` sends before the time limit, does the same and puts the
    job back into the queue. SIGTERM does not: whoever cancels a job sends it, and one that makes room for
    others SLURM requeues itself.

    Lightning's own answer to SIGTERM writes nothing, and has devices wait for each other at different places.
    On one device validation stops at once: there may be no time to end it.
    """

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        self.terminated = self.requeued = False
        self.step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen from here to the end of the run, when Lightning takes its listeners back."""
        self.step = trainer.global_step
        signal.signal(signal.SIGTERM, self._terminate)
        if "SLURM_JOB_ID" in os.environ:
            # Lightning's answer would save in the middle of a step
            signal.signal(signal.SIGUSR1, self._requeue)

    def _terminate(self, *_: Any) -> None:
        self.terminated = True

    def _requeue(self, *_: Any) -> None:
        self.terminated = self.requeued = True

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
        if trainer.strategy.reduce_boolean_decision(self.requeued, all=False) and trainer.is_global_zero:
            _requeue_job()
        raise SIGTERMException(f"terminated after step {self.step}")


def _requeue_job() -> None:
    """Put this SLURM job back into the queue; SLURM then ends what is left of it."""
    job = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        subprocess.run(["scontrol", "requeue", job], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        logger.warning("job %s was not requeued (%s): submit it again, with --ckpt_path auto", job, error)
