"""Lightning callback: how fast a run is, what it waits for and when it will be done."""

import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before lightning)

import torch  # isort: skip
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.utilities import rank_zero_warn

from cobra.data.batch import Batch
from cobra.train.clock import is_logged
from cobra.train.schedule import ResumableLoader
from cobra.train.stages import Plan
from cobra.train.step_flops import StepFlops, peak_of


@dataclass
class Work:
    """What was done in some time, on this device.

    Attributes:
        seconds: of training, without validation.
        waited: of those for batches.
        examples, pictures, tokens, answers: that were trained on; tokens without padding, and of those
            the ones with a loss.
        flops: that the model asked for.
    """

    seconds: float = 0.0
    waited: float = 0.0
    examples: int = 0
    pictures: int = 0
    tokens: int = 0
    answers: int = 0
    flops: float = 0.0


class Throughput(Callback):
    """Log, with every step that is logged, numbers of the time since the one logged before.

    `images_per_second`, `tokens_per_second` and `answer_tokens_per_second` are those of all devices, which
    are taken to get equal shares of what this one gets; `data_wait` is the share of time in which it waited
    for a batch, `mfu` the share of its peak that the model's own operations are (Chowdhery et al.,
    arXiv 2204.02311, appendix B), `gpu_gigabytes` its most memory so far. `eta_hours` counts validation and
    checkpoints in, and takes an example to cost in later stages what it costs in this one.

    Nothing waits for a GPU: counts are known on the host, which runs ahead by a few steps at most.

    Args:
        peak_tflops: of a device, for `mfu`; that of the device's name if left out, where it is known.
    """

    def __init__(self, peak_tflops: float | None = None) -> None:
        self.peak = None if peak_tflops is None else peak_tflops * 1e12
        self.work = Work()
        self.since = self.waited = 0.0
        self.step = 0
        self.stage: int | None = None
        # when the first step of this launch in the stage was done, which warms up, and which it was
        self.start: tuple[float, int] | None = None
        self.flops: StepFlops | None = None
        # what a progress bar shows
        self.shown: dict[str, str] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.step = trainer.global_step
        device = trainer.strategy.root_device
        if self.peak is None and device.type == "cuda":
            self.peak = peak_of(torch.cuda.get_device_name(device))
        self._restart(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self.work.seconds += time.perf_counter() - self.since

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on."""
        self.since = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, *rest: Any
    ) -> None:
        """Count a batch; where its step is logged, log the numbers."""
        if pl_module.entered != self.stage:
            self._enter(pl_module)
        self._add(batch)
        # gradients are still being added up
        if trainer.global_step == self.step:
            return
        self.step = trainer.global_step
        if self.start is None:
            self.start = (time.perf_counter(), self.step)
        if is_logged(trainer, self.step):
            work = self._measured(trainer)
            numbers = self._rates(trainer, work) | self._rest(trainer, pl_module.plan)
            pl_module.log_dict(numbers, batch_size=1)
            self.shown = _shown(numbers)
            self._restart(trainer)

    def _restart(self, trainer: Trainer) -> None:
        self.work, self.since, self.waited = Work(), time.perf_counter(), _waited(trainer)

    def _measured(self, trainer: Trainer) -> Work:
        self.work.seconds += time.perf_counter() - self.since
        self.work.waited = _waited(trainer) - self.waited
        return self.work

    def _enter(self, module: LightningModule) -> None:
        """Count anew for a stage, in which other parts learn."""
        self.stage, self.start, self.flops = module.entered, None, None
        if self.peak is None:
            return
        try:
            self.flops = StepFlops(module.model, module.objectives[module.entered].reads_answers)
        except (ValueError, NotImplementedError) as error:
            rank_zero_warn(f"mfu is left out: {error}")

    def _add(self, batch: Batch) -> None:
        answers = 0 if batch.places is None else len(batch.places)
        examples, pictures = len(batch.names), len(batch.pictures.each())
        work = self.work
        work.examples += examples
        work.pictures += pictures
        work.tokens += batch.tokens
        work.answers += answers
        if self.flops is not None:
            work.flops += self.flops(pictures, batch.tokens, answers, examples)

    def _rates(self, trainer: Trainer, work: Work) -> dict[str, float]:
        world, seconds = trainer.world_size, max(work.seconds, 1e-9)
        numbers = {
            "images_per_second": world * work.pictures / seconds,
            "tokens_per_second": world * work.tokens / seconds,
            "answer_tokens_per_second": world * work.answers / seconds,
            "data_wait": work.waited / seconds,
        }
        if self.flops is not None and self.peak:
            numbers["mfu"] = work.flops / seconds / self.peak
        device = trainer.strategy.root_device
        if device.type == "cuda":
            numbers["gpu_gigabytes"] = torch.cuda.max_memory_allocated(device) / 1e9
        return numbers

    def _rest(self, trainer: Trainer, plan: Plan) -> dict[str, float]:
        """Hours to the end of the plan, once two steps of the stage have told."""
        assert self.start is not None
        started, first = self.start
        if self.step == first:
            return {}
        index = plan.index(first - 1)
        size = plan.stages[index].batch_size
        a_step = (time.perf_counter() - started) / (self.step - first)
        left = sum(
            stage.batch_size / size * max(0, min(steps, end - self.step))
            for stage, steps, end in zip(plan.stages, plan.steps, plan.ends, strict=True)
        )
        return {"eta_hours": a_step * left / 3600}


class Bar(RichProgressBar):
    """Lightning's, with the numbers of a `Throughput`."""

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """What is logged for it, then those."""
        metrics: dict[str, Any] = super().get_metrics(trainer, pl_module)
        own = (callback.shown for callback in trainer.callbacks if isinstance(callback, Throughput))
        return {**metrics, **next(own, {})}


def _waited(trainer: Trainer) -> float:
    loader = trainer.train_dataloader
    return loader.waited if isinstance(loader, ResumableLoader) else 0.0


def _shown(numbers: dict[str, float]) -> dict[str, str]:
    shown = {"img/s": f"{numbers['images_per_second']:.3g}", "tok/s": f"{numbers['tokens_per_second']:.3g}"}
    shown |= {"data": f"{numbers['data_wait']:.0%}"}
    if "mfu" in numbers:
        shown["mfu"] = f"{numbers['mfu']:.0%}"
    if "gpu_gigabytes" in numbers:
        shown["GB"] = f"{numbers['gpu_gigabytes']:.0f}"
    if "eta_hours" in numbers:
        shown["eta"] = str(timedelta(seconds=round(3600 * numbers["eta_hours"])))
    return shown
