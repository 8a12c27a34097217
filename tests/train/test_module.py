"""Training through the real Trainer: stages, freezing, weight decay."""

import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch.optim import AdamW

from cobra.data.batch import Batch
from cobra.data.record import Record, assistant, user
from cobra.data.source import Source
from cobra.models.adapters import Lora
from cobra.models.lm.mamba import MambaLM
from cobra.models.quantize import Quantization
from cobra.models.vlm import CobraVLM
from cobra.train.clock import TrainingClock
from cobra.train.data import DataModule
from cobra.train.module import CobraModule, ModelError
from cobra.train.objectives.next_token import NextToken
from cobra.train.stages import Stage
from tests.models.builders import LMS, PROJECTORS, small_vit


class Noise(Source):
    """Pictures of noise, half of the records without one."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Record:
        pixels = np.random.default_rng(index).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        seen = index % 2
        question, answer = user("what digit is written?", images=seen), assistant("seven")
        return Record(str(index), [question, answer], [pixels] * seen, meta={"type": str(seen)})


def stage(name: str, train: list[str], **changes: object) -> Stage:
    defaults: dict = {
        "data": {"noise": 1.0},
        "batch_size": 2,
        "lr": 0.01,
        "steps": 2,
        "warmup": 0.0,
        "hold": 1.0,
    }
    return Stage(name=name, train=train, **{**defaults, **changes})


def run(
    stages: list[Stage],
    tmp_path: Path,
    callbacks: list | None = None,
    muon: list[str] | None = None,
    model: Callable[[], CobraVLM] | None = None,
    betas: tuple[float, float] = (0.9, 0.999),
    resume: Path | None = None,
    recompute: dict[str, int] | None = None,
    adapters: dict[str, Lora] | None = None,
    quantization: Quantization = "none",
    compile: list[str] | None = None,
    **options: object,
) -> CobraModule:
    lm = partial(MambaLM, 512, 16, 1)
    model = model or partial(CobraVLM, small_vit, PROJECTORS["pixel_unshuffle"], lm)
    module = CobraModule(
        stages, model, betas, muon, recompute, compile, adapters=adapters, quantization=quantization
    )
    data = DataModule(stages, "cobra:data/shapes/tokenizer", train={"noise": Noise}, val={"noise": Noise})
    trainer = L.Trainer(
        default_root_dir=tmp_path, max_epochs=1, accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
        num_sanity_val_steps=0, callbacks=callbacks,
        **{"devices": 1, "enable_checkpointing": False, "logger": False, **options},
    )  # fmt: skip
    L.seed_everything(0)
    trainer.fit(module, data, ckpt_path=resume)
    return module


class Watch(L.Callback):
    """Remembers the weights at every step, and the decay that the optimizer used."""

    def __init__(self) -> None:
        self.weights: list[dict[str, torch.Tensor]] = []
        self.decays: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *rest: object) -> None:
        self.weights.append({n: p.detach().clone() for n, p in pl_module.named_parameters()})
        self.decays.append(trainer.optimizers[0].param_groups[0]["weight_decay"])

    def changed(self, step: int) -> set[str]:
        """Parts whose weights moved in a step."""
        before, after = self.weights[step - 1], self.weights[step]
        return {name.split(".")[1] for name in before if not torch.equal(before[name], after[name])}


def test_each_stage_trains_its_parts_and_no_others(tmp_path: Path) -> None:
    watch = Watch()
    run(
        [stage("a", ["projector"], weight_decay=0.5), stage("b", ["lm"]), stage("c", ["vision"])],
        tmp_path,
        [watch],
    )
    assert [watch.changed(step) for step in (1, 2, 3, 4, 5)] == [
        {"projector"}, {"lm"}, {"lm"}, {"vision"}, {"vision"},
    ]  # fmt: skip
    assert watch.decays == [0.5, 0.5, 0.0, 0.0, 0.0, 0.0]


class Scores(L.Callback):
    """Remembers after every validation whether there is a score."""

    def __init__(self) -> None:
        self.given: list[bool] = []

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.given.append("val/macro" in trainer.callback_metrics)


def test_a_stage_that_does_not_validate_answers_nothing(tmp_path: Path) -> None:
    scores = Scores()
    stages = [stage("a", ["vision"], validate=False), stage("b", ["lm"])]
    run(stages, tmp_path, [scores], val_check_interval=1, check_val_every_n_epoch=None)
    assert scores.given == [False, False, True, True]


def test_a_logged_step_has_all_that_is_logged(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    options = {"logger": logger, "log_every_n_steps": 2, "accumulate_grad_batches": 3, "limit_val_batches": 0}
    run([stage("a", ["lm"], steps=3), stage("b", ["lm"], steps=2)], tmp_path, [TrainingClock()], **options)
    with (Path(logger.log_dir) / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["step"], row["stage"]) for row in rows] == [("1", "0.0"), ("3", "1.0")]
    assert all(float(row[name]) > 0 for row in rows for name in ("loss", "lr", "cpu_seconds"))


class Extra(NextToken):
    """Logs something of its own."""

    def forward(self, model: CobraVLM, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return super().forward(model, batch)[0], {"extra": torch.ones(())}


def test_what_a_stage_logs_ends_with_it(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    options = {"logger": logger, "log_every_n_steps": 1, "limit_val_batches": 0}
    stages = [stage("a", ["lm"]), stage("b", ["lm"], objective=Extra), stage("c", ["lm"])]
    run(stages, tmp_path, **options)
    with (Path(logger.log_dir) / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["extra"] for row in rows] == ["", "", "1.0", "1.0", "", ""]
    assert all(row["loss"] and row["lr"] and float(row["answer_tokens"]) > 0 for row in rows)


def test_parts_with_rates_of_their_own_move_as_far(tmp_path: Path) -> None:
    watch = Watch()
    run([stage("a", ["projector", "lm"], lr={"projector": 1e-2, "lm": 1e-4})], tmp_path, [watch])
    before, after = watch.weights
    for part, rate in (("projector", 1e-2), ("lm", 1e-4)):
        names = [name for name in before if name.startswith(f"model.{part}.")]
        moved = max((after[name] - before[name]).abs().max().item() for name in names)
        # Adam moves a weight by about its rate, whatever its gradient
        assert 0.5 * rate < moved < 1.5 * rate
    assert watch.changed(1) == {"projector", "lm"}


def test_stages_are_counted_in_optimizer_steps_under_accumulation(tmp_path: Path) -> None:
    watch = Watch()
    stages = [stage("a", ["projector"], batch_size=1), stage("b", ["lm"], batch_size=1)]
    run(stages, tmp_path, [watch], accumulate_grad_batches=3)
    moved = [watch.changed(batch) for batch in range(1, 12)]
    still: set[str] = set()
    assert moved == [
        still,
        {"projector"},
        still,
        still,
        {"projector"},
        still,
        still,
        {"lm"},
        still,
        still,
        {"lm"},
    ]


def test_weight_decay_spares_norms_biases_and_time_scales(tmp_path: Path) -> None:
    module = run([stage("a", ["vision", "projector", "lm"])], tmp_path)
    spared = {name for name, p in module.named_parameters() if name not in module.decayed}
    for name, parameter in module.named_parameters():
        last = name.rpartition(".")[2]
        special = parameter.ndim < 2 or last in ("A_log", "D", "dt_bias")
        assert (name in spared) == special, name
    assert any(name.endswith("A_log") for name in spared)


def test_bf16_mixed_training_gives_finite_fp32_weights(tmp_path: Path) -> None:
    module = run([stage("a", ["vision", "projector", "lm"])], tmp_path, precision="bf16-mixed")
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in module.parameters())


def test_a_batch_without_labels_costs_nothing_and_breaks_nothing() -> None:
    model = CobraVLM(small_vit, PROJECTORS["linear"], partial(MambaLM, 512, 16, 1))
    ids = torch.tensor([[1, 2, 3]])
    loss = model.loss(model(ids), torch.full_like(ids, -100))
    loss.backward()
    assert loss.item() == 0.0


def test_muon_of_a_part_that_is_not_trained_steps_nothing(tmp_path: Path) -> None:
    module = run([stage("a", ["projector"])], tmp_path, muon=["lm"])
    assert isinstance(module.trainer.optimizers[0], AdamW)


def test_muon_steps_hidden_matrices_alone(tmp_path: Path) -> None:
    module = run([stage("a", ["projector", "lm"])], tmp_path, muon=["lm"])
    names = {p: n.removeprefix("model.lm.layers.0.mixer.") for n, p in module.named_parameters()}
    groups = module.trainer.optimizers[0].param_groups
    steps = {names[p] for group in groups if group["muon"] for p in group["params"]}
    assert steps == {"in_proj.weight", "x_proj.weight", "dt_proj.weight", "out_proj.weight"}
    assert sum(len(group["params"]) for group in groups) == sum(p.requires_grad for p in names)


@pytest.mark.parametrize("lm", ["mamba", "llama"])
def test_time_scales_are_not_trained_in_bf16(lm: str, tmp_path: Path) -> None:
    model = partial(CobraVLM, small_vit, PROJECTORS["linear"], LMS[lm])
    if lm == "mamba":
        with pytest.raises(ModelError, match=r"bf16-true would lose .* lm\.layers\.0.* use bf16-mixed"):
            run([stage("a", ["lm"])], tmp_path, model=model, precision="bf16-true")
        trained = ["projector"]
    else:
        trained = ["projector", "lm"]
    module = run([stage("b", trained)], tmp_path, model=model, precision="bf16-true")
    assert {p.dtype for p in module.parameters()} == {torch.bfloat16}
