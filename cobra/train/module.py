"""The only LightningModule: stages, loss, optimizer, answers."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before lightning)

import lightning as L  # isort: skip
import numpy as np
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from cobra.convert.parts import load_parts
from cobra.data.batch import Batch
from cobra.eval.predictions import Prediction
from cobra.models.adapters import Lora, adapt
from cobra.models.compiled import check_compiler, compile_blocks
from cobra.models.lm.init import is_time_scale
from cobra.models.quantize import Quantization, lms_on_meta, quantize_
from cobra.models.recompute import recompute
from cobra.models.vlm import IGNORE_ID, CobraVLM
from cobra.pretrained import described
from cobra.train.clock import is_logged
from cobra.train.divergence import LossCheck, check_state
from cobra.train.held_out import HeldOut, held_out_losses
from cobra.train.learning import Learning, frozen_modules, leave_out
from cobra.train.muon_adamw import MuonAdamW
from cobra.train.objectives.base import Objective
from cobra.train.param_groups import decayed_names, group_parameters, hidden_matrices
from cobra.train.recipe import check_groups, check_recipe, describe, go_on
from cobra.train.selection import named_modules
from cobra.train.sharding import data_parallel, shard, start_moments, whole, zero
from cobra.train.show_start import show_start
from cobra.train.stages import Plan, Stage
from cobra.train.step_loss import StepLoss
from cobra.train.supervision import Supervision
from cobra.weights.check_fit import check_fit
from cobra.weights.run_checkpoint import FILES


class ModelError(ValueError):
    """The model cannot be built as configured, or not started from the weights that are named."""


class CobraModule(L.LightningModule):
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
        super().__init__()
        self.stages = stages
        self.build = model
        self.betas = betas
        self.muon = muon or []
        self.recompute = recompute or {}
        self.compiled = compile or []
        self.max_new_tokens = max_new_tokens
        self.weights = weights or {}
        self.adapters = adapters or {}
        self.quantization, self.group_size = quantization, group_size
        # in the place of `weights`, where a checkpoint will follow: for copies that it does not hold
        self.origin: dict[str, str] = {}
        # a model folder to answer with, in the place of a checkpoint
        self.opened: str | None = None
        # whether a checkpoint of another plan may be gone on from
        self.change_plan = False
        self.model: CobraVLM | None = None
        self.entered: int | None = None
        # what a checkpoint holds of a model folder
        self.files: dict[str, Tensor] = {}
        self.answering = ExitStack()
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
            self.model, objectives = self._start()
            # behind the objectives, whose copies of the model nothing is asked of
            if self.compiled:
                check_compiler(self.trainer.strategy.root_device)
                compile_blocks(self.model, self.compiled)
            recompute(self.model, self.recompute)
            self._check_precision()
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

    def _start(self) -> tuple[CobraVLM, list[Objective]]:
        """The model as the run starts, and the objectives of its stages."""
        trainer = self._trainer
        fits = trainer is not None and trainer.state.fn == TrainerFn.FITTING
        sources = self.weights | self.origin if fits else {}
        # nothing is kept that is not packed, where something to pack follows, or a checkpoint
        on_meta = self.quantization != "none" and (not fits or "lm" in sources)
        with lms_on_meta() if on_meta else nullcontext():
            model = self.build()
        self._check_parts(model)
        if fits:
            first = self.weights if self._is_first(model) else self.origin
            loaded = load_parts(model, first, self.quantization, self.group_size)
            if self.weights and self.trainer.is_global_zero:
                show_start(loaded)
        elif self.opened is not None:
            load_parts(model, dict.fromkeys(model.parts(), self.opened), self.quantization, self.group_size)
        if self.quantization != "none" and model.lm.quantized is None:
            quantize_(model.lm, self.quantization, self.group_size, _empty)
        if not model.adapters:
            adapt(model, self.adapters)
        return model, [stage.objective(model) for stage in self.stages]

    def _is_first(self, model: CobraVLM) -> bool:
        """Whether no checkpoint follows, or all is in it.

        What a checkpoint leaves out, the frozen modules of objectives, may be a copy of the model as the run
        started.
        """
        if not self.origin:
            return True
        # what is drawn after it stays the same
        with torch.random.fork_rng(devices=[]):
            return not any(any(frozen_modules(stage.objective(model))) for stage in self.stages)

    def _check_parts(self, model: CobraVLM) -> None:
        if unknown := sorted(set(self.muon) - set(model.parts())):
            raise ValueError(f"muon steps unknown parts {unknown}: {list(model.parts())}")
        if both := sorted(set(self.muon) & set(self.adapters)):
            raise ValueError(f"muon steps {both}, which have adapters: leave them to AdamW")
        whole = [stage.name for stage in self.stages if "lm" in stage.parts and "lm" not in self.adapters]
        if whole and self.quantization != "none":
            raise ValueError(
                f"stage {whole[0]!r} trains the lm, whose weights are packed ({self.quantization}): give it "
                "adapters, or leave model.quantization out"
            )
        for stage in self.stages:
            for name in stage.train:
                try:
                    named_modules(model, name)
                except ValueError as error:
                    raise ValueError(f"stage {stage.name!r} trains {name!r}, but {error}") from error

    def _check_precision(self) -> None:
        """Refuse to train the time scales of a state in half precision.

        bf16 has 8 bits, so updates of less than 0.4 % of a weight are lost. Mamba's authors keep weights in
        fp32 (state-spaces/mamba, README, "Precision"), and so do Cobra's.
        """
        assert self.model is not None
        trained = dict.fromkeys(name for stage in self.stages for name in stage.train)
        precision = "" if self._trainer is None else str(self.trainer.precision)
        modules = [(name, module) for name in trained for module in named_modules(self.model, name)]
        for name, module in modules:
            marked = [n for n, p in module.named_parameters() if is_time_scale(p) and p.requires_grad]
            if marked and precision in ("bf16-true", "16-true"):
                mixed = precision.replace("true", "mixed")
                raise ValueError(
                    f"trainer.precision {precision} would lose most updates of {name}.{marked[0]} and its "
                    f"like, which need fp32: use {mixed}; trainer.strategy sharded saves memory"
                )

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

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Count the right answers of each type, unless the stage says not to; add up what is held out."""
        number = dataloader_idx - len(self.trainer.datamodule.datasets["val"])
        if number >= 0:
            assert self.model is not None
            self.held_out.add(list(self.trainer.datamodule.datasets["held_out"])[number], self.model, batch)
            return
        fitting = self.trainer.state.fn == TrainerFn.FITTING
        if fitting and self.entered is not None and not self.stages[self.entered].validate:
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


def _empty(weight: Tensor) -> Tensor:
    """What stands for a weight on the meta device that a checkpoint will bring; there it stays."""
    return weight if torch.get_default_device().type == "meta" else torch.zeros_like(weight, device="cpu")
