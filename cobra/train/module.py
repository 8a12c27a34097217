"""The only LightningModule: stages, loss, optimizer; answers it inherits."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before lightning)

import numpy as np  # isort: skip
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from cobra.data.batch import Batch
from cobra.models.adapters import Lora
from cobra.models.compiled import check_compiler, compile_blocks
from cobra.models.quantize import Quantization
from cobra.models.recompute import recompute
from cobra.models.vlm import IGNORE_ID, CobraVLM
from cobra.pretrained import described
from cobra.train.answering import AnsweringModule
from cobra.train.clock import is_logged
from cobra.train.divergence import LossCheck, check_state
from cobra.train.learning import Learning, leave_out
from cobra.train.muon_adamw import MuonAdamW
from cobra.train.objectives.base import Objective
from cobra.train.param_groups import decayed_names, group_parameters, hidden_matrices
from cobra.train.recipe import check_groups, check_recipe, describe, go_on
from cobra.train.sharding import data_parallel, shard, start_moments, zero
from cobra.train.show_start import show_start
from cobra.train.stages import Plan, Stage
from cobra.train.start import Start, check_precision
from cobra.train.step_loss import StepLoss
from cobra.train.supervision import Supervision
from cobra.weights.check_fit import check_fit
from cobra.weights.run_checkpoint import FILES


class ModelError(ValueError):
    """The model cannot be built as configured, or not started from the weights that are named."""


class CobraModule(AnsweringModule):
    """Trains and evaluates a vision-language model.

    Args:
        stages: set from the run's `stages`.
        model: the model, as a factory: it is built when the strategy is ready for it.
        betas: AdamW's momentum coefficients.
        muon: parts (vision, projector, lm) in which Muon steps the matrices between hidden states, AdamW the
            rest; it takes the same rates. For training from nothing on few devices: it needs whole matrices.
        recompute: parts (vision, lm) whose blocks keep only their inputs for the backward pass and compute
            the rest again (activation checkpointing): all of a part's with 1, every n-th with n. Gradients
            stay the same; memory is saved, for up to a third more time. `cobra models --training` says how
            much.
        compile: parts (vision, lm) whose blocks torch.compile turns into graphs for training. It takes a
            minute or more at the start, once for all blocks that are alike, and a compiler: of C++ on the
            CPU, Triton on GPUs.
        max_new_tokens: longest answer in validation, test and predict.
        weights: what parts (vision, projector, lm) start training from: a folder, a file of weights, another
            run's last.ckpt or a hub repository, in any layout that `cobra convert` reads. With --ckpt_path
            they are read only where an objective keeps modules frozen, which checkpoints leave out.
            Every rank reads them before the model is sharded; building on the meta device is refused.
        adapters: parts whose weights stay as they are, and the adapters (LoRA) that learn in their place in
            the stages that train the part, e.g. {lm: {r: 128, alpha: 256}}. See `cobra.models.adapters.Lora`.
        quantization: of the language model, whose weights are packed while they are read and stay as they
            are: bf16, int8 or int4 (QLoRA). Where a stage trains it, it needs adapters.
        group_size: weights a scale in int4: 32, 64 or 128.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        model: Callable[[], CobraVLM],
        betas: tuple[float, float] = (0.9, 0.999),
        muon: list[str] | None = None,
        recompute: dict[str, int] | None = None,
        compile: list[str] | None = None,
        max_new_tokens: int = 16,
        weights: dict[str, str] | None = None,
        adapters: dict[str, Lora] | None = None,
        quantization: Quantization = "none",
        group_size: int = 32,
    ) -> None:
        super().__init__(max_new_tokens)
        self.stages = stages
        self.build = model
        self.betas = betas
        self.muon = muon or []
        self.recompute = recompute or {}
        self.compiled = compile or []
        self.weights = weights or {}
        self.adapters = adapters or {}
        self.quantization, self.group_size = quantization, group_size
        # in the place of `weights`, where a checkpoint will follow: for copies that it does not hold
        self.origin: dict[str, str] = {}
        # a model folder to answer with, in the place of a checkpoint
        self.opened: str | None = None
        # whether a checkpoint of another plan may be gone on from
        self.change_plan = False
        self.entered: int | None = None
        # what a checkpoint holds of a model folder
        self.files: dict[str, Tensor] = {}
        self.loss_check = LossCheck(self._kept)

    def configure_model(self) -> None:
        """Build the model and the heads of the objectives, once.

        Raises:
            ModelError: saying what of the configuration does not fit.
        """
        if self.model is not None:
            return
        try:
            mesh = None if self.device_mesh is None else data_parallel(self.device_mesh)
            trainer = self._trainer
            fits = trainer is not None and trainer.state.fn == TrainerFn.FITTING
            start = Start(
                self.build, self.stages, self.muon, self.weights, self.origin, self.opened,
                self.adapters, self.quantization, self.group_size,
            )  # fmt: skip
            self.model, objectives, loaded = start.make(fits)
            if self.weights and fits and self.trainer.is_global_zero:
                show_start(loaded)
            # behind the objectives, whose copies of the model nothing is asked of
            if self.compiled:
                check_compiler(self.trainer.strategy.root_device)
                compile_blocks(self.model, self.compiled)
            recompute(self.model, self.recompute)
            check_precision(self.model, self.stages, "" if trainer is None else str(trainer.precision))
        except (ValueError, OSError) as error:
            raise ModelError(str(error)) from error
        self.objectives = nn.ModuleList(objectives)
        self.learning = Learning(self.model, objectives)
        self.learning.thaw({name for stage in self.stages for name in stage.train}, range(len(objectives)))
        # stages set the modes; Lightning warns where any but training is found before
        self.train()
        leave_out(self, [f"objectives.{name}" for name in self.learning.references])
        self.decayed = decayed_names(self)
        self.hidden = hidden_matrices(self.model, self.muon)
        if mesh is not None:
            shard(self, mesh, "training_step")

    def configure_optimizers(self) -> dict[str, Any]:
        """The optimizer, and a schedule that returns the rate itself."""
        self.plan: Plan = self.trainer.datamodule.plan()
        self.recipe = self._recipe()
        optimizer = self.optimizer()
        rates: list[Callable[[int], float]] = [
            partial(self.plan.rate, part=group["part"]) for group in optimizer.param_groups
        ]
        schedule = LambdaLR(optimizer, rates)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def optimizer(self) -> Optimizer:
        """AdamW, and Muon where asked, over all that any stage trains.

        What is trained in two stages keeps its moments from one to the next.
        """
        groups = group_parameters(self, self.decayed, self.hidden)
        if any(group["muon"] for group in groups):
            return MuonAdamW(groups, lr=1.0, betas=self.betas)
        optimizer = AdamW(groups, lr=1.0, betas=self.betas, weight_decay=0.0)
        if self.device_mesh is not None:
            start_moments(optimizer)
        return optimizer

    def on_train_start(self) -> None:
        """Enter the stage of the first step; at the end of the plan, where none follows, the last."""
        trainer = self.trainer
        sums = partial(trainer.strategy.reduce, reduce_op="sum")
        self.step_loss = StepLoss(trainer.accumulate_grad_batches, trainer.world_size, sums)
        self.enter(self.plan.index(self.global_step))

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Enter the next stage when its first step comes."""
        index = self.plan.index(self.global_step)
        if index != self.entered:
            self.enter(index)
        if any(lora.dropout for lora in self.adapters.values()):
            # a run that is resumed drops what it would have dropped
            seed = (self.trainer.datamodule.seed, self.trainer.global_rank, batch_idx)
            torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]) >> 1)

    def enter(self, index: int) -> None:
        """Freeze and thaw parts, and set rates and weight decay, as a stage says."""
        stage, self.entered = self.stages[index], index
        self.learning.thaw(stage.train, [index])
        # Lightning logs what was logged once with every step until the epoch ends, which is the run's end
        self.trainer.fit_loop.epoch_loop._results.reset()
        for group in self.trainer.optimizers[0].param_groups:
            # a checkpoint has brought the next step's, of the plan that it was written under
            group["lr"] = self.plan.rate(self.global_step, group["part"])
            group["weight_decay"] = stage.weight_decay if group["decays"] else 0.0
        records = self.plan.steps[index] * self.trainer.accumulate_grad_batches * stage.batch_size
        self.supervision = Supervision(stage.name, records, self.trainer.datamodule.max_length)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The batch's share of the step's loss; see `StepLoss`."""
        assert self.entered is not None
        objective = self.objectives[self.entered]
        assert isinstance(objective, Objective)
        if objective.reads_answers:
            self.supervision.add(batch)
        loss, logged = objective(self.model, batch)
        self.loss_check.add(loss, self.stages[self.entered].name, self.global_step, batch.names)
        self.log_dict(logged, prog_bar=True, batch_size=len(batch.ids))
        # logging takes a while beside a small model's step
        if is_logged(self.trainer, self.global_step + 1):
            rate = self.trainer.optimizers[0].param_groups[0]["lr"]
            self.log_dict({"stage": float(self.entered), "lr": rate}, batch_size=1)
            if objective.reads_answers:
                self.log("answer_tokens", (batch.labels != IGNORE_ID).sum().float(), batch_size=1)
        loss = self.step_loss.add(loss, objective.weight(batch))
        return loss if self.device_mesh is None else loss + zero(self)

    def on_after_backward(self) -> None:
        """Behind the step's last batch, take the mean over all of it; before anybody looks at gradients."""
        if not self.trainer.fit_loop.epoch_loop._should_accumulate():
            loss = self.step_loss.finish(p.grad for p in self.parameters())
            self.log("loss", loss, prog_bar=True, batch_size=1)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Free the gradients behind the step: Lightning would keep them through the next forward pass."""
        super().optimizer_step(*args, **kwargs)
        self.trainer.optimizers[0].zero_grad()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say what model it is of; where weights are not finite, keep the checkpoint that is there."""
        on_any_device = partial(self.trainer.strategy.reduce_boolean_decision, all=False)
        assert self.entered is not None
        stage = self.stages[self.entered].name
        check_state(checkpoint["state_dict"], stage, self.global_step, self._kept(), on_any_device)
        checkpoint["recipe"] = self.recipe
        assert self.model is not None
        if not self.files:
            self.files = described(self.model, self.trainer.datamodule.chat)
        checkpoint[FILES] = self.files

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another plan or model, and go on behind its last step."""
        if self.trainer.state.fn == TrainerFn.FITTING:
            name = str(self.trainer.ckpt_path)
            if not self.change_plan:
                check_recipe(checkpoint.get("recipe"), self._recipe(), name)
            total = self.trainer.datamodule.plan().total
            go_on(checkpoint, total, self.trainer.accumulate_grad_batches, name)
            # a sharded strategy has them elsewhere
            if states := checkpoint.get("optimizer_states"):
                check_groups(states, group_parameters(self, self.decayed, self.hidden), name)
        # a sharded strategy has taken the weights out before
        if "state_dict" in checkpoint:
            expected = {name: tensor.shape for name, tensor in self.state_dict().items()}
            found = {name: tensor.shape for name, tensor in checkpoint["state_dict"].items()}
            check_fit(expected, found, f"{self.trainer.ckpt_path} is of another model than this yaml")

    def validates(self) -> bool:
        """As the stage says, in training."""
        fitting = self.trainer.state.fn == TrainerFn.FITTING
        return not fitting or self.entered is None or self.stages[self.entered].validate

    def _recipe(self) -> Any:
        """What a run that goes on from this one's checkpoints must have."""
        trainer, data = self.trainer, self.trainer.datamodule
        return describe(
            data.plan(),
            list(self.objectives),
            data.identity(),
            trainer.accumulate_grad_batches,
            trainer.world_size,
        )

    def _kept(self) -> str | None:
        """The newest checkpoint, for messages."""
        # the name is there before the file is
        written = getattr(self.trainer.checkpoint_callback, "best_model_path", "")
        kept = written if written and Path(written).exists() else self.trainer.ckpt_path
        return kept and str(kept)
