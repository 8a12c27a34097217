"""SIGTERM ends a run after a whole step, with a checkpoint from which it goes on as if nothing had been."""

import csv
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException

from cobra.train.stop_when_terminated import StopWhenTerminated
from tests.train.test_module import run, stage


@pytest.fixture(autouse=True)
def _same_handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    assert signal.getsignal(signal.SIGTERM) == before


class Terminate(L.Callback):
    """Sends SIGTERM when a batch has been taken, in training or validation."""

    def __init__(self, batch: int, validating: bool = False, number: int = signal.SIGTERM) -> None:
        self.batch, self.validating, self.number = batch, validating, number

    def on_train_batch_start(
        self, trainer: L.Trainer, module: L.LightningModule, batch: object, n: int
    ) -> None:
        if n == self.batch and not self.validating:
            os.kill(os.getpid(), self.number)

    def on_validation_batch_start(self, trainer: L.Trainer, *_: object) -> None:
        if self.validating:
            os.kill(os.getpid(), self.number)


def stages() -> list:
    return [stage("a", ["projector"], steps=3), stage("b", ["lm"], steps=3)]


@pytest.mark.parametrize(("accumulate", "batch", "step"), [(1, 1, 2), (1, 2, 3), (3, 9, 4), (3, 11, 4)])
def test_a_terminated_run_goes_on_bit_for_bit(accumulate: int, batch: int, step: int, tmp_path: Path) -> None:
    options: dict[str, Any] = {"accumulate_grad_batches": accumulate, "limit_val_batches": 0}
    whole = run(stages(), tmp_path, **options).state_dict()
    last = tmp_path / "last.ckpt"
    with pytest.raises(SIGTERMException, match=f"terminated after step {step}"):
        run(stages(), tmp_path, [Terminate(batch), StopWhenTerminated(last)], **options)
    assert torch.load(last, weights_only=True)["global_step"] == step
    resumed = run(stages(), tmp_path, [StopWhenTerminated(last)], resume=last, **options).state_dict()
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


def test_validation_is_not_finished_first(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "val_check_interval": 2,
        "check_val_every_n_epoch": None,
        "log_every_n_steps": 1,
    }
    whole = run(stages(), tmp_path, logger=CSVLogger(tmp_path, "whole"), **options).state_dict()
    last = tmp_path / "last.ckpt"
    callbacks = [Terminate(0, validating=True), StopWhenTerminated(last)]
    with pytest.raises(SIGTERMException, match="terminated after step 2"):
        run(stages(), tmp_path, callbacks, logger=CSVLogger(tmp_path, "cut"), **options)
    assert torch.load(last, weights_only=True)["global_step"] == 2
    resumed = run(stages(), tmp_path, resume=last, logger=CSVLogger(tmp_path, "cut"), **options).state_dict()
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())
    assert steps(tmp_path / "cut") == steps(tmp_path / "whole")


def steps(folder: Path) -> list[str]:
    """The steps whose rate was logged in any launch."""
    files = sorted(folder.glob("version_*/metrics.csv"))
    return [row["step"] for file in files for row in csv.DictReader(file.open()) if row["lr"]]


def test_the_last_step_before_the_end_is_logged(tmp_path: Path) -> None:
    logger, callbacks = CSVLogger(tmp_path, "cut"), [Terminate(2), StopWhenTerminated(tmp_path / "last.ckpt")]
    with pytest.raises(SIGTERMException, match="terminated after step 3"):
        run(stages(), tmp_path, callbacks, logger=logger, log_every_n_steps=1, limit_val_batches=0)
    assert steps(tmp_path / "cut") == ["0", "1", "2"]


def test_a_run_that_is_terminated_in_its_last_step_is_not_called_finished(tmp_path: Path) -> None:
    with pytest.raises(SIGTERMException, match="terminated after step 6"):
        run(stages(), tmp_path, [Terminate(5), StopWhenTerminated(tmp_path / "last.ckpt")])


class Gpus(StopWhenTerminated):
    """As on two GPUs, which ask each other as one CPU asks itself."""

    def __init__(self, checkpoint: Path) -> None:
        super().__init__(checkpoint)
        self.asked: list[int] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *rest: Any) -> None:
        def ask(decision: bool, all: bool = True) -> bool:
            self.asked.append(trainer.global_step)
            return decision

        strategy = SimpleNamespace(root_device=torch.device("cuda"), reduce_boolean_decision=ask)
        seen = SimpleNamespace(
            world_size=2,
            strategy=strategy,
            global_step=trainer.global_step,
            save_checkpoint=trainer.save_checkpoint,
            _logger_connector=trainer._logger_connector,
        )
        super().on_train_batch_end(seen, pl_module, *rest)


def test_gpus_ask_each_other_every_fourth_step_and_in_the_last(tmp_path: Path) -> None:
    callback = Gpus(tmp_path / "last.ckpt")
    run(stages(), tmp_path, [callback])
    assert callback.asked == [4, 6]
    with pytest.raises(SIGTERMException, match="terminated after step 4"):
        run(stages(), tmp_path, [Terminate(1), Gpus(tmp_path / "last.ckpt")])


@pytest.mark.parametrize(("code", "said"), [(0, ""), (1, "job 7_3 was not requeued .*submit it again")])
def test_before_its_time_limit_a_slurm_job_is_put_back_into_the_queue(
    code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\nexit {code}\n')
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name, value in {"JOB_ID": "9", "ARRAY_JOB_ID": "7", "ARRAY_TASK_ID": "3"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    callbacks = [Terminate(1, number=signal.SIGUSR1), StopWhenTerminated(tmp_path / "last.ckpt")]
    with pytest.raises(SIGTERMException, match="terminated after step 2"):
        run(stages(), tmp_path, callbacks, limit_val_batches=0)
    assert (tmp_path / "asked").read_text() == "requeue 7_3\n"
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 2
    assert re.search(said, caplog.text)
