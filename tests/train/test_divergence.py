"""A run whose numbers are no longer finite stops at that step and keeps its last good checkpoint."""

import resource
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from cobra.train.divergence import LossCheck, check_state
from tests.train.test_module import run, stage


class FullDisk(L.Callback):
    """From a step on no file may be larger than 4 kilobytes."""

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *rest: object) -> None:
        if trainer.global_step == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@pytest.mark.faults
def test_a_disk_that_fills_while_saving_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(OSError, match="File too large"):
            run(
                [stage("a", ["lm"], steps=8)],
                tmp_path,
                [FullDisk(), checkpoints(tmp_path, 2)],
                enable_checkpointing=True,
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert saved_step(tmp_path) == 2
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]


class Poison(L.Callback):
    """Makes one weight NaN after a step, as an overflow in an update does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *rest: object) -> None:
        if trainer.global_step == self.step:
            weight = next(p for p in pl_module.parameters() if p.requires_grad)
            weight.data.view(-1)[0] = float("nan")


def checkpoints(tmp_path: Path, every: int) -> ModelCheckpoint:
    return ModelCheckpoint(
        tmp_path / "checkpoints", "last", every_n_train_steps=every, enable_version_counter=False
    )


def saved_step(tmp_path: Path) -> int:
    """Where the checkpoint is from; its weights must be finite."""
    saved = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    assert all(tensor.isfinite().all() for tensor in saved["state_dict"].values())
    return saved["global_step"]


@pytest.mark.parametrize(("every", "kept"), [(2, 2), (1, 3)])
def test_a_run_that_diverges_stops_and_keeps_the_last_good_checkpoint(
    every: int, kept: int, tmp_path: Path
) -> None:
    """With a checkpoint at every step the bad weights would be saved before any loss shows them."""
    callbacks = [Poison(3 if every == 2 else 4), checkpoints(tmp_path, every)]
    message = (
        r"(loss is nan|not finite) at step \d, in stage 'a'.*: .*last\.ckpt is kept as it was; lower .* lr"
    )
    with pytest.raises(ValueError, match=message):
        run([stage("a", ["lm"], steps=8)], tmp_path, callbacks, enable_checkpointing=True)
    assert saved_step(tmp_path) == kept


def test_a_learning_rate_that_explodes_is_named_with_its_step(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"loss is (nan|inf) at step [1-9], in stage 'a', of records .*: no checkpoint had been",
    ):
        run([stage("a", ["lm", "projector"], steps=8, lr=1e30)], tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_every_kind_of_value_that_is_not_finite_is_found_wherever_it_stands(value: float) -> None:
    def states() -> Iterator[dict[str, torch.Tensor]]:
        for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
            for place in (0, 500, 999):
                tensor = torch.linspace(-1, 1, 1000, dtype=dtype)
                tensor[place] = value
                yield {"good": torch.ones(3), "empty": torch.ones(0), "count": torch.tensor(3), "bad": tensor}

    for state in states():
        with pytest.raises(
            ValueError, match=r"1 weights, e\.g\. bad, are not finite at step 7.*last\.ckpt is kept"
        ):
            check_state(state, "a", 7, "last.ckpt")
        check_state({**state, "bad": torch.full((4,), 6e4, dtype=torch.float16)}, "a", 7, None)


class LateEvent:
    """Comes after it has been asked for a few times, or when it is waited for."""

    def __init__(self, questions: int) -> None:
        self.questions, self.waits = questions, 0

    def query(self) -> bool:
        self.questions -= 1
        return self.questions < 0

    def synchronize(self) -> None:
        self.waits += self.questions >= 0


class Late:
    """As `OnItsWay`, of a loss."""

    def __init__(self, event: LateEvent, loss: torch.Tensor) -> None:
        self.event, self.loss = event, loss
        self.are_there = event.query

    def arrived(self) -> list[torch.Tensor]:
        self.event.synchronize()
        return [self.loss]


def test_a_gpus_losses_are_read_in_order_when_they_have_come(monkeypatch: pytest.MonkeyPatch) -> None:
    event = LateEvent(2)
    monkeypatch.setattr("cobra.train.divergence.OnItsWay", partial(Late, event))
    check = LossCheck(lambda: "last.ckpt")
    check.add(torch.tensor(1.0), "a", 0)
    check.add(torch.tensor(float("nan")), "a", 1)
    with pytest.raises(ValueError, match=r"loss is nan at step 1, in stage 'a': last\.ckpt is kept"):
        check.add(torch.tensor(2.0), "b", 2)
    assert event.waits == 0


def test_a_gpu_is_waited_for_where_it_is_many_steps_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    event = LateEvent(1000)
    monkeypatch.setattr("cobra.train.divergence.OnItsWay", partial(Late, event))
    check = LossCheck(lambda: None)
    for step in range(8):
        check.add(torch.tensor(float("inf")), "a", step)
    assert event.waits == 0
    with pytest.raises(ValueError, match="loss is inf at step 0, in stage 'a': no checkpoint"):
        check.add(torch.tensor(1.0), "a", 8)
    assert event.waits == 1


def test_the_records_of_a_loss_that_is_none_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker process may have made them, and another step may be computed meanwhile."""
    monkeypatch.setattr("cobra.kernels.on_its_way.OnItsWay.are_there", lambda self: False)
    seen: list[list[str]] = []

    class Poisoned(L.Callback):
        def on_train_batch_start(
            self, trainer: L.Trainer, module: L.LightningModule, batch: Any, n: int
        ) -> None:
            seen.append(list(batch.names))
            if n == 2:
                batch.pictures = batch.pictures.map(lambda pixels: pixels * float("nan"))

    with pytest.raises(ValueError, match=r"^the loss is nan at step 2, in stage 'a', of records ") as error:
        run([stage("a", ["projector"], steps=12, batch_size=4)], tmp_path, [Poisoned()])
    named = str(error.value).partition("of records ")[2].partition(":")[0]
    assert named == ", ".join(map(repr, seen[2]))
    assert len(seen) == 11
    check = LossCheck(lambda: None)
    for _ in range(8):
        check.add(torch.tensor(torch.nan), "a", 0, [str(n) for n in range(40)])
    with pytest.raises(ValueError, match=r"'31' and 8 more: no checkpoint"):
        check.add(torch.tensor(torch.nan), "a", 0)
