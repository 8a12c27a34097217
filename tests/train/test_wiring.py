"""What reaches the weights: decay, rates, modes and objectives of each stage, through the real Trainer."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn

from cobra.data.batch import Batch
from cobra.models.vision.pictures import Pixels
from cobra.models.vision.small_vit import SmallViT
from cobra.models.vlm import CobraVLM
from cobra.train.objectives.base import Objective
from cobra.train.objectives.next_token import NextToken
from tests.models.builders import LMS, PROJECTORS, small_vit
from tests.train.test_module import run, stage

# mamba_ssm marks A_log, D and dt_bias `_no_weight_decay`; transformers' Trainer, with which LLaVA, TinyLLaVA
# and MobileVLM are trained, spares norms and biases
SPARED = re.compile(r"norm|bias|A_log|\.D")


class Still(Objective):
    """A loss that gives every weight a gradient of 0, so that a step is weight decay alone."""

    def __init__(self, model: CobraVLM) -> None:
        super().__init__()

    def forward(self, model: CobraVLM, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return sum((0 * p.sum() for p in model.parameters()), torch.zeros(())), {}


class Ones(L.Callback):
    """Sets every weight to 1 before training: the initial 0 of a bias could not be seen to decay."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for parameter in pl_module.parameters():
            parameter.data.fill_(1)


@pytest.mark.parametrize("muon", [[], ["lm"]])
@pytest.mark.parametrize("lm", sorted(LMS))
def test_weight_decay_changes_the_matrices_that_are_trained_and_nothing_else(
    lm: str, muon: list[str], tmp_path: Path
) -> None:
    model = partial(CobraVLM, small_vit, PROJECTORS["mamba_scan"], LMS[lm])
    still = stage("a", ["lm"], lr=0.5, weight_decay=0.5, steps=1, objective=Still)
    # the second stage trains the projector, so that it is in the optimizer while the first freezes it
    module = run(
        [still, stage("b", ["projector"], steps=1)], tmp_path, [Ones()], muon=muon, model=model, max_steps=1
    )
    assert module.model is not None
    parameters = dict(module.model.named_parameters())
    matrices = {name for name in parameters if name.startswith("lm.") and not SPARED.search(name)}
    values = {name: set(parameter.unique().tolist()) for name, parameter in parameters.items()}
    assert values == {name: {0.75 if name in matrices else 1.0} for name in parameters}
    groups = module.trainer.optimizers[0].param_groups
    decaying = {p for group in groups if group["weight_decay"] for p in group["params"]}
    names = {name for name, parameter in parameters.items() if parameter in decaying}
    assert not any(SPARED.search(name) for name in names)


def test_weight_decay_spares_what_the_papers_spare_in_a_projector_that_scans(tmp_path: Path) -> None:
    model = partial(CobraVLM, small_vit, PROJECTORS["mamba_scan"], LMS["mamba2"])
    stages = [stage("a", ["projector"], lr=0.5, weight_decay=0.5, steps=1, objective=Still)]
    module = run(stages, tmp_path, [Ones()], model=model)
    assert module.model is not None
    spared = {n for n, p in module.model.projector.named_parameters() if bool((p == 1).all())}
    assert spared == {n for n, _ in module.model.projector.named_parameters() if SPARED.search(n)}


class Rates(L.Callback):
    """Remembers what every step is done with, as the optimizer has it."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.logged: list[float] = []
        self.momenta: set[tuple[float, float]] = set()

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any
    ) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])
        self.momenta |= {group["betas"] for group in optimizer.param_groups if not group["muon"]}

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *rest: object) -> None:
        self.logged.append(trainer.callback_metrics["lr"].item())


@pytest.mark.parametrize("muon", [[], ["lm"]])
def test_the_optimizer_steps_with_the_rates_of_the_stages(muon: list[str], tmp_path: Path) -> None:
    rates = Rates()
    stages = [stage("a", ["lm"], steps=4, warmup=0.5, hold=0.0, decay="linear", lr=1.0), stage("b", ["lm"])]
    run(stages, tmp_path, [rates], muon, accumulate_grad_batches=2, betas=(0.8, 0.9), log_every_n_steps=1)
    assert rates.rates == [0.0, 0.5, 1.0, 0.5, 0.01, 0.01]
    assert rates.logged[::2] == rates.logged[1::2] == pytest.approx(rates.rates)
    assert rates.momenta == {(0.8, 0.9)}


class Norms(L.Callback):
    """Remembers the norm of what every step was made of."""

    def __init__(self) -> None:
        self.norms: list[float] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # behind the step they are freed
        trainer.optimizers[0].register_step_post_hook(lambda *_: self.note(pl_module))

    def note(self, module: L.LightningModule) -> None:
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        self.norms.append(torch.nn.utils.get_total_norm(gradients).item())


def test_gradients_of_all_groups_are_clipped_together(tmp_path: Path) -> None:
    norms = Norms()
    run([stage("a", ["projector", "lm"])], tmp_path, [norms], muon=["lm"], gradient_clip_val=1e-3)
    assert norms.norms == [pytest.approx(1e-3, rel=1e-2)] * 2


class Learners(L.Callback):
    """Remembers at every step what requires a gradient and what moved."""

    def __init__(self) -> None:
        self.learn: list[set[str]] = []
        self.moved: list[set[str]] = []
        self.before: dict[str, Tensor] = {}

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *rest: object) -> None:
        named = dict(pl_module.named_parameters())
        self.learn.append({".".join(n.split(".")[:2]) for n, p in named.items() if p.requires_grad})
        self.moved.append(
            {
                ".".join(n.split(".")[:2])
                for n, p in named.items()
                if n in self.before and not p.equal(self.before[n])
            }
        )
        self.before = {name: parameter.detach().clone() for name, parameter in named.items()}


class Head(NextToken):
    """A loss with a weight of its own, the gradient of which is never 0."""

    def __init__(self, model: CobraVLM) -> None:
        super().__init__(model)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, model: CobraVLM, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        loss, logged = super().forward(model, batch)
        return self.scale * loss, logged


def test_the_objective_of_the_stage_learns_and_no_other(tmp_path: Path) -> None:
    learners = Learners()
    stages = [stage(name, ["lm"], objective=Head, steps=2) for name in "abc"]
    run(stages, tmp_path, [learners])
    expected = [{"model.lm", f"objectives.{number}"} for number in (0, 0, 1, 1, 2, 2)]
    assert learners.learn == expected
    assert learners.moved[1:] == expected[1:]


def test_the_optimizer_holds_what_some_stage_trains(tmp_path: Path) -> None:
    module = run([stage("a", ["projector"], objective=Head), stage("b", ["lm"], objective=Head)], tmp_path)
    held = {p for group in module.trainer.optimizers[0].param_groups for p in group["params"]}
    trained = {name for name, p in module.named_parameters() if not name.startswith("model.vision.")}
    assert {name for name, p in module.named_parameters() if p in held} == trained


class NormedViT(SmallViT):
    """A tower that behaves otherwise in training: dropout, and statistics of the batches."""

    def __init__(self) -> None:
        super().__init__(image_size=32, embed_dim=16)
        self.seen = nn.BatchNorm1d(16)
        self.drop = nn.Dropout(0.5)
        self.dropped: list[bool] = []

    def forward(self, pixels: Pixels) -> Tensor:
        features = self.seen(super().forward(pixels).mT).mT
        kept = self.drop(features)
        self.dropped.append(not torch.equal(kept, features))
        return kept


class Seeing(Objective):
    """A loss of features of pictures, whatever the batch holds."""

    def __init__(self, model: CobraVLM) -> None:
        super().__init__()

    def forward(self, model: CobraVLM, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        seen = model.projector(model.vision(torch.ones(2, 3, 32, 32)))
        return model.lm.prefill(seen).square().mean(), {}


class Modes(L.Callback):
    """Remembers after every step how many batches the tower's norm has counted, and whether it dropped."""

    def __init__(self) -> None:
        self.counted: list[int] = []
        self.dropped: list[bool] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *rest: object) -> None:
        tower = pl_module.model.vision
        self.counted.append(int(tower.seen.num_batches_tracked))
        self.dropped.append(tower.dropped[-1])


def test_a_frozen_part_is_in_eval_mode_also_after_a_validation(tmp_path: Path) -> None:
    modes = Modes()
    model = partial(CobraVLM, NormedViT, PROJECTORS["linear"], LMS["mamba2"])
    stages = [stage("a", ["lm"]), stage("b", ["vision"]), stage("c", ["projector"])]
    stages = [stage(s.name, s.train, objective=Seeing) for s in stages]
    run(stages, tmp_path, [modes], model=model, val_check_interval=1, check_val_every_n_epoch=None)
    assert modes.counted == [0, 0, 1, 2, 2, 2]
    assert modes.dropped == [False, False, True, True, False, False]


def test_weights_of_half_precision_train_and_answer(tmp_path: Path) -> None:
    """Lightning then casts what a step is given, as it does under sharding."""
    model = partial(CobraVLM, small_vit, PROJECTORS["pixel_unshuffle"], LMS["llama"])
    module = run([stage("a", ["projector", "lm"])], tmp_path, model=model, precision="bf16-true")
    assert {parameter.dtype for parameter in module.parameters()} == {torch.bfloat16}
    assert "val/macro" in module.trainer.callback_metrics
