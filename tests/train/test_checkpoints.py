"""Checkpoints by steps and by time, the newest few and the best, through the real Trainer."""

import os
import shutil
import time
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from cobra.train.checkpoint_files import CheckpointFiles
from cobra.train.checkpoints import CheckpointPlan, Checkpoints, name
from cobra.train.save_result import SaveResult
from tests.train.test_module import run, stage


class Scores(L.Callback):
    """Says what validation measured, in its order."""

    def __init__(self, *values: float) -> None:
        self.values = list(values)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        pl_module.log("val/loss", self.values[trainer.global_step // 2 - 1])


def fit(tmp_path: Path, plan: CheckpointPlan, *before: L.Callback, steps: int = 8, **options: Any) -> Any:
    last = tmp_path / "checkpoints/last.ckpt"
    callbacks = [*before, Checkpoints(last, plan)]
    validation = (
        {"val_check_interval": 2, "check_val_every_n_epoch": None} if before else {"limit_val_batches": 0}
    )
    options = {"enable_checkpointing": True, **validation, **options}
    return run([stage("a", ["projector"], steps=steps)], tmp_path, callbacks, **options)


def kept(tmp_path: Path) -> dict[str, int]:
    """The files, and the steps that they are of."""
    paths = sorted((tmp_path / "checkpoints").iterdir())
    return {p.name: torch.load(p, weights_only=True)["global_step"] for p in paths}


def test_the_newest_few_are_kept_under_their_steps(tmp_path: Path) -> None:
    fit(tmp_path, CheckpointPlan(every=2, keep=3))
    assert kept(tmp_path) == {"last.ckpt": 8, "step-000004.ckpt": 4, "step-000006.ckpt": 6}


def test_minutes_count_from_the_checkpoint_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    now = 0.0

    class Tick(L.Callback):
        """A step takes a minute."""

        def on_train_batch_start(self, *_: Any) -> None:
            nonlocal now
            now += 60

    monkeypatch.setattr(time, "monotonic", lambda: now)
    fit(tmp_path, CheckpointPlan(every=4, minutes=3, keep=9), Tick(), limit_val_batches=0, steps=9)
    assert kept(tmp_path) == {
        "last.ckpt": 8,
        "step-000003.ckpt": 3,
        "step-000004.ckpt": 4,
        "step-000007.ckpt": 7,
    }


@pytest.mark.parametrize(("mode", "step"), [("min", 4), ("max", 6)])
def test_the_best_is_kept_also_of_a_run_that_is_resumed(mode: Any, step: int, tmp_path: Path) -> None:
    scores = (3.0, 1.0, 4.0, 2.0)
    plan = CheckpointPlan(every=5, best="val/loss", mode=mode)
    whole = fit(tmp_path / "whole", plan, Scores(*scores)).state_dict()
    assert kept(tmp_path / "whole")["best.ckpt"] == step
    fit(tmp_path / "cut", plan, Scores(*scores), max_steps=7)
    last = tmp_path / "cut/checkpoints/last.ckpt"
    resumed = fit(tmp_path / "cut", plan, Scores(*scores), resume=last).state_dict()
    assert kept(tmp_path / "cut")["best.ckpt"] == step
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


def test_a_run_goes_on_from_its_best_bit_for_bit(tmp_path: Path) -> None:
    plan, scores = CheckpointPlan(every=8, best="val/loss", mode="min"), Scores(3, 1, 4, 2)
    whole = fit(tmp_path, plan, scores).state_dict()
    resumed = fit(tmp_path, plan, scores, resume=tmp_path / "checkpoints/best.ckpt").state_dict()
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())
    assert kept(tmp_path) == {"best.ckpt": 4, "last.ckpt": 8}


def test_a_metric_that_is_none_is_refused_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"checkpoint\.best 'val/los' is not logged: name one of .*'val/loss'"
    ):
        fit(tmp_path, CheckpointPlan(best="val/los"), Scores(1, 1, 1, 1))


def test_a_run_that_replaces_another_keeps_none_of_its_checkpoints(tmp_path: Path) -> None:
    plan = CheckpointPlan(every=2, keep=3, best="val/loss")
    fit(tmp_path, plan, Scores(4, 3, 2, 1))
    assert "best.ckpt" in kept(tmp_path)
    (tmp_path / "checkpoints/step-notes.ckpt").mkdir()
    fit(tmp_path, CheckpointPlan(every=6), SaveResult(tmp_path / "checkpoints/last.ckpt", tmp_path / "model"))
    assert os.listdir(tmp_path / "checkpoints") in (
        ["last.ckpt", "step-notes.ckpt"],
        ["step-notes.ckpt", "last.ckpt"],
    )


def test_another_name_of_a_folder_outlives_it_and_takes_no_room(tmp_path: Path) -> None:
    """A sharded checkpoint is a folder."""
    last, best = tmp_path / "last.ckpt", tmp_path / "best.ckpt"
    for text in ("old", "new"):
        last.mkdir()
        (last / "meta.pt").write_text(text)
        name(last, best)
        assert (last / "meta.pt").stat().st_ino == (best / "meta.pt").stat().st_ino
        shutil.rmtree(last)
    assert (best / "meta.pt").read_text() == "new"
    assert os.listdir(tmp_path) == ["best.ckpt"]


def test_a_checkpoint_that_has_no_room_is_not_begun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files, last = CheckpointFiles(lambda: [tmp_path]), tmp_path / "last.ckpt"
    files.save_checkpoint({"a": torch.ones(1)}, last)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 3_000_000))
    tied = torch.zeros(500_000)
    files.save_checkpoint({"a": tied, "b": {"c": tied[:5]}}, last)
    message = r"it takes 0\.004 GB, and 0\.003 GB are free\): the one before is kept; make room"
    with pytest.raises(OSError, match=message):
        files.save_checkpoint({"a": torch.zeros(1_000_000)}, last)
    assert len(files.load_checkpoint(last)["a"]) == 500_000


def test_the_newest_are_those_of_the_last_steps_whatever_the_clock_says(tmp_path: Path) -> None:
    """It is set back while the run goes on, which once went further."""

    class SetBack(L.Callback):
        def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
            for path in (tmp_path / "checkpoints").glob("*.ckpt"):
                now = 1e9 - trainer.global_step
                os.utime(path, (now, now))

    plan = CheckpointPlan(every=1, keep=3)
    fit(tmp_path, plan, SetBack(), limit_val_batches=0)
    assert kept(tmp_path) == {"last.ckpt": 8, "step-000006.ckpt": 6, "step-000007.ckpt": 7}
    fit(tmp_path, plan, resume=tmp_path / "checkpoints/step-000006.ckpt", max_steps=7)
    assert kept(tmp_path) == {"last.ckpt": 7, "step-000006.ckpt": 6, "step-000007.ckpt": 7}
