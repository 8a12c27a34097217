"""The same examples make the same step, in whatever batches and on however many devices they come."""

import csv
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor

from cobra.data.record import Record, assistant, user
from cobra.train.data import DataModule
from cobra.train.fully_sharded import FullySharded
from cobra.train.module import CobraModule
from cobra.train.sharding import gathered_state
from cobra.train.step_loss import StepLoss
from tests.train.test_module import Noise, stage
from tests.train.test_two_devices import MODEL, TOKENIZER, _single_thread, trainer_of  # noqa: F401
from tests.train.two_devices import on_two_devices


class Ragged(Noise):
    """Records with pictures or none, whose answers have 1 to 28 words."""

    def __getitem__(self, index: int) -> Record:
        record = super().__getitem__(index)
        seen = index % 2
        answer = assistant(" ".join(["seven"] * (index % 4 * 9 + 1)))
        return Record(str(index), [user("what digit?", images=seen), answer], record.images)


class Gathered(L.Callback):
    """Writes the weights that a run ends with."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        weights = gathered_state(pl_module) if pl_module.device_mesh else pl_module.state_dict()
        if trainer.is_global_zero:
            torch.save(weights, self.file)


def train(folder: Path, devices: int, accumulate: int, suffix: str = "", **options: Any) -> None:
    """Four examples a step, whatever the devices and batches."""
    size = 4 // devices // accumulate
    stages = [
        stage("a", ["projector"], batch_size=size, lr=1e-3),
        stage("b", ["vision", "projector", "lm"], batch_size=size, lr=1e-3, steps=3, weight_decay=0.1),
    ]
    data = DataModule(stages, TOKENIZER, train={"noise": Ragged})
    L.seed_everything(0)
    trainer = trainer_of(
        devices, folder, Gathered(folder / f"{devices}-{accumulate}{suffix}.pt"), limit_val_batches=0,
        accumulate_grad_batches=accumulate, gradient_clip_val=0.3, log_every_n_steps=1,
        **{"logger": CSVLogger(folder, version=f"{devices}-{accumulate}{suffix}"), **options},
    )  # fmt: skip
    trainer.fit(CobraModule(stages, MODEL), data)


def sharded(folder: Path, devices: int, accumulate: int) -> None:
    train(folder, devices, accumulate, "sharded", strategy=FullySharded(), precision="32-true")


def weights(file: Path) -> dict[str, Tensor]:
    return torch.load(file, weights_only=True)


def losses(folder: Path) -> list[float]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("precision", ["64-true", "32-true"])
def test_batches_and_devices_make_the_step_of_one_big_batch(precision: str, tmp_path: Path) -> None:
    ways = [(1, 1), (1, 4), (2, 2)] if precision == "64-true" else [(1, 1), (1, 4)]
    for devices, accumulate in ways:
        train(tmp_path, devices, accumulate, precision=precision)
    one, *others = (weights(tmp_path / f"{devices}-{accumulate}.pt") for devices, accumulate in ways)
    for other in others:
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-5)
    logged = [losses(tmp_path / f"lightning_logs/{devices}-{accumulate}") for devices, accumulate in ways]
    assert all(found == pytest.approx(logged[0], rel=1e-5) for found in logged[1:])


@pytest.mark.slow
def test_shares_on_two_devices_make_the_step_of_one_big_batch(tmp_path: Path) -> None:
    train(tmp_path, 1, 1, precision="32-true")
    on_two_devices(sharded, tmp_path, 2, 2, seconds=60)
    one, both = weights(tmp_path / "1-1.pt"), weights(tmp_path / "2-2sharded.pt")
    torch.testing.assert_close(both, {name: one[name] for name in both}, rtol=1e-5, atol=1e-5)
    assert losses(tmp_path / "lightning_logs/2-2sharded") == pytest.approx(
        losses(tmp_path / "lightning_logs/1-1")
    )


def test_one_batch_on_one_device_keeps_its_mean_and_gradients() -> None:
    step, gradient = StepLoss(1, 1, lambda sums: sums), torch.tensor([1 / 3])
    mean = torch.tensor(0.1)
    assert step.add(mean, 7) is mean
    assert step.finish([gradient, None]) == mean
    assert gradient == torch.tensor([1 / 3])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_of_any_precision_become_those_of_the_mean(dtype: torch.dtype) -> None:
    """Of 2 batches on each of 2 devices, the other of which has as much again."""
    weight = torch.ones(3, dtype=dtype, requires_grad=True)
    double = partial(torch.mul, other=2.0)
    step = StepLoss(2, 2, double)
    for tokens, mean in ((300, 2.0), (100, 6.0)):
        # by Lightning over the batches, by DDP over the devices: equal here
        (step.add((weight * mean).mean(), tokens) / 2).backward()
    loss = step.finish([weight.grad])
    assert loss.item() == pytest.approx(3.0)
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, torch.ones(3, dtype=dtype))


def test_a_step_without_an_answer_has_no_gradient() -> None:
    weight = torch.ones(1, requires_grad=True)
    step = StepLoss(2, 1, lambda sums: sums)
    for _ in range(2):
        step.add(weight.sum() * 0, 0).backward()
    assert step.finish([weight.grad]).item() == 0.0
    assert weight.grad == torch.zeros(1)
