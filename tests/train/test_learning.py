"""What a stage names learns, but for what a part or an objective keeps frozen."""

import copy
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from cobra.convert.parts import Loaded
from cobra.data.batch import Batch
from cobra.models.adapters import Lora
from cobra.models.vlm import CobraVLM
from cobra.train.module import CobraModule
from cobra.train.objectives.base import Objective
from cobra.train.objectives.next_token import NextToken
from cobra.train.stages import Stage
from tests.train.test_module import Watch, run, stage

ADAPTERS = {"lm": Lora(2, 4, dropout=0.1, targets=["in_proj", "out_proj"])}


class StayClose(Objective):
    """Next token, and hidden states near those of a frozen copy of the model as the run started."""

    def __init__(self, model: CobraVLM) -> None:
        super().__init__()
        self.reference = copy.deepcopy(model).requires_grad_(False)
        self.scale = torch.nn.Linear(1, 1)

    def forward(self, model: CobraVLM, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        assert not any(module.training for module in self.reference.modules())
        hidden = model(batch.ids, batch.pictures)
        away = F.mse_loss(hidden, self.reference(batch.ids, batch.pictures))
        return model.loss(hidden, batch.labels) + self.scale(away.view(1)).sum(), {}


def test_lora_in_a_trained_part_keeps_its_base_frozen_in_every_stage(tmp_path: Path) -> None:
    watch = Watch()
    stages = [stage("a", ["projector"]), stage("b", ["lm"]), stage("c", ["vision"]), stage("d", ["lm"])]
    module = run(stages, tmp_path, [watch], adapters=ADAPTERS)
    lora = {name for name in watch.weights[0] if "lora_" in name}
    groups = module.trainer.optimizers[0].param_groups
    stepped = {id(p) for group in groups for p in group["params"]}
    assert {n for n, p in module.named_parameters() if ".lm." in n and id(p) in stepped} == lora
    # A only in the second step, behind B, which is 0 before
    for first in (2, 6):
        before, after = watch.weights[first - 1], watch.weights[first + 1]
        assert {name for name in before if not torch.equal(before[name], after[name])} == lora
    assert watch.changed(5) == {"vision"}


def test_a_reference_copy_never_changes_and_is_not_saved(tmp_path: Path) -> None:
    watch, saved = Watch(), tmp_path / "checkpoints/last.ckpt"
    stages = [stage("a", ["projector"]), stage("b", ["vision", "lm"], objective=StayClose)]
    callbacks = [watch, checkpoints(tmp_path)]
    module = run(stages, tmp_path, callbacks, enable_checkpointing=True)
    assert watch.changed(3) == {"vision", "lm", "1"}, "the head of the objective learns with its stage"
    before, after = watch.weights[0], watch.weights[-1]
    reference = module.objectives[1].reference
    assert isinstance(reference, CobraVLM)
    copied = [name for name in before if ".reference." in name]
    assert len(copied) == len(list(reference.parameters()))
    assert all(torch.equal(before[name], after[name]) for name in copied)
    groups = module.trainer.optimizers[0].param_groups
    frozen = {id(p) for p in reference.parameters()}
    assert not any(p.requires_grad for p in reference.parameters())
    assert not frozen & {id(p) for group in groups for p in group["params"]}
    state = torch.load(saved, weights_only=True)["state_dict"]
    assert state.keys() == {name for name in module.state_dict() if ".reference." not in name}
    assert "objectives.1.scale.weight" in state


def checkpoints(folder: Path) -> ModelCheckpoint:
    return ModelCheckpoint(
        folder / "checkpoints", "last", every_n_train_steps=3, enable_version_counter=False
    )


class Name(L.Callback):
    """Names weights to the module, as the command line does."""

    def __init__(self, attribute: str, named: dict[str, str] | None = None) -> None:
        self.attribute, self.named = attribute, named or {"lm": "somewhere"}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        setattr(pl_module, self.attribute, self.named)


@pytest.mark.parametrize(("objective", "reads"), [(NextToken, 0), (StayClose, 1)])
def test_a_resumed_run_reads_what_it_started_from_for_a_copy_alone(
    objective: type[Objective], reads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[CobraVLM] = []

    def load(model: CobraVLM, weights: dict[str, str], *packing: object) -> list[Loaded]:
        for _ in weights:
            loaded.append(model)
            torch.nn.init.constant_(model.lm.get_parameter("norm_f.weight"), 3.0)
        return []

    monkeypatch.setattr("cobra.train.start.load_parts", load)
    stages = [stage("a", ["lm"], steps=5, objective=objective)]
    run(stages, tmp_path, [checkpoints(tmp_path), Name("weights")], enable_checkpointing=True)
    assert len(loaded) == 1
    resumed = resume(stages, tmp_path, [Name("origin")])
    assert len(loaded) == 1 + reads
    names = [name for name, _ in resumed.named_parameters() if name.endswith("reference.lm.norm_f.weight")]
    assert all((resumed.get_parameter(name) == 3.0).all() for name in names)
    assert len(names) == reads


def resume(stages: list[Stage], folder: Path, callbacks: list | None = None, **options: Any) -> CobraModule:
    return run(stages, folder, callbacks, resume=folder / "checkpoints/last.ckpt", **options)


class Killed(Exception):
    pass


class Kill(L.Callback):
    """Ends a run after step 3 and its checkpoint, as a kill would."""

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *rest: object) -> None:
        if trainer.global_step == 3:
            raise Killed


def test_a_run_with_a_reference_copy_is_resumed_bit_for_bit(tmp_path: Path) -> None:
    stages = [stage("a", ["lm"]), stage("b", ["lm"], objective=StayClose)]
    whole = run(stages, tmp_path / "whole", limit_val_batches=0)
    with pytest.raises(Killed):
        run(stages, tmp_path, [checkpoints(tmp_path), Kill()], enable_checkpointing=True, limit_val_batches=0)
    resumed = resume(stages, tmp_path, limit_val_batches=0)
    # not from the state dicts, which leave the copy out
    for (name, expected), found in zip(whole.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(expected, found), name
