"""Lightning callback: the checkpoints of a run, by steps, by time, the newest few, and the best."""

import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cobra.torchvision_shim  # noqa: F401  (before lightning)

from lightning.pytorch import LightningModule, Trainer  # isort: skip
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn

from cobra.train.stop_when_terminated import may_ask
from cobra.weights.saving import put, remove, saving


@dataclass
class CheckpointPlan:
    """When checkpoints are written, and which are kept.

    Args:
        every: steps between two.
        minutes: between two, whatever their steps; left out, only steps count.
        keep: the newest so many: `last.ckpt`, and those before it under their steps, e.g. `step-000200.ckpt`.
        best: a metric that validation logs, e.g. `val/macro`: the checkpoint that had the best of it is kept
            as `best.ckpt`.
        mode: whether the best is the most or the least.
    """

    every: int = 200
    minutes: float | None = None
    keep: int = 1
    best: str | None = None
    mode: Literal["max", "min"] = "max"


class Checkpoints(Checkpoint):
    """Write what a run can go on from; each replaces the one before when it is whole.

    A checkpoint that is kept is a second name of the same file, so it costs no writing.

    Args:
        last: the newest, beside which the others are.
        plan: which there are.
    """

    def __init__(self, last: Path, plan: CheckpointPlan) -> None:
        self.last, self.best, self.plan = last, last.with_name("best.ckpt"), plan
        self.score: float | None = None
        self.scored: int | None = None
        # the step that `last` is of, where this run wrote it or goes on from it
        self.newest: int | None = None
        # the newest, too, as Lightning's own callback calls it; it takes it over from another process
        self.best_model_path = ""
        self.step = 0
        self.since = time.monotonic()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove what is left of a run that this one replaces."""
        self.step, self.since = trainer.global_step, time.monotonic()
        start = None if trainer.ckpt_path is None else Path(trainer.ckpt_path).resolve()
        if start == self.last.resolve():
            self.newest, self.best_model_path = self.step, str(self.last)
        if not trainer.is_global_zero:
            return
        if start is None or start.parent != self.last.resolve().parent:
            for old in (self.best, *self._earlier()):
                remove(old)
        # killed between the two
        elif self.scored is not None and self.scored == self.newest and self.last.exists():
            name(self.last, self.best)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *rest: Any) -> None:
        """Save where steps or minutes say so, unless gradients are still being added up for a step."""
        if trainer.global_step == self.step:
            return
        self.step = trainer.global_step
        due = self.step % self.plan.every == 0
        if not due and self.plan.minutes is not None and may_ask(trainer, self.step):
            late = time.monotonic() - self.since >= 60 * self.plan.minutes
            due = trainer.strategy.reduce_boolean_decision(late, all=False)
        if due:
            self._save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save where the metric is better than it ever was."""
        wanted, metrics = self.plan.best, trainer.callback_metrics
        fits = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if wanted is None or not fits:
            return
        if wanted not in metrics:
            if validated := sorted(name for name in metrics if name.startswith("val/")):
                raise ValueError(f"checkpoint.best {wanted!r} is not logged: name one of {validated}")
            # a stage that does not validate
            return
        value, sign = float(metrics[wanted]), 1 if self.plan.mode == "max" else -1
        if self.score is None or sign * value > sign * self.score:
            self.score, self.scored = value, trainer.global_step
            self._save(trainer)
            if trainer.is_global_zero:
                name(self.last, self.best)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say where there is no best."""
        if self.plan.best is not None and self.score is None:
            rank_zero_warn(f"checkpoint.best {self.plan.best!r} was never logged: there is no {self.best}")

    def _save(self, trainer: Trainer) -> None:
        if self.plan.keep > 1 and trainer.is_global_zero and self.newest not in (None, trainer.global_step):
            name(self.last, self.last.with_name(f"step-{self.newest:06}.ckpt"))
        trainer.save_checkpoint(self.last, weights_only=False)
        self.newest, self.since = trainer.global_step, time.monotonic()
        self.best_model_path = str(self.last)
        if trainer.is_global_zero:
            for old in self._earlier()[self.plan.keep - 1 :]:
                remove(old)

    def _earlier(self) -> list[Path]:
        """Those under their steps, the newest first; last those that a run left which this one went back in.

        A clock may have been set back.
        """
        held = self.last.parent.glob("step-*.ckpt")
        names = (re.fullmatch(r"step-(\d{6,})\.ckpt", path.name) for path in held)
        steps = {int(found[1]): self.last.with_name(found[0]) for found in names if found}
        return [steps[step] for step in sorted(steps, key=lambda step: (step > self.step, -step))]

    def state_dict(self) -> dict[str, Any]:
        """The best value so far, and its step."""
        return {"best": self.plan.best, "score": self.score, "scored": self.scored}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from them, where the metric is the same."""
        if state_dict["best"] == self.plan.best:
            self.score, self.scored = state_dict["score"], state_dict["scored"]


def name(checkpoint: Path, other: Path) -> None:
    """Give a checkpoint, a file or a folder, another name beside it, which outlives the first."""
    with saving(other.parent) as folder:
        target = folder / other.name
        if checkpoint.is_dir():
            shutil.copytree(checkpoint, target, copy_function=_link)
        else:
            _link(checkpoint, target)
        put(target, other)


def _link(source: Any, target: Any) -> None:
    link: Callable[[Any, Any], Any] = os.link
    try:
        link(source, target)
    # not every file system has a second name for a file
    except OSError:
        shutil.copy2(source, target)
