"""Checkpoints are replaced whole, and a path that one names is not followed."""

import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from cobra.data.chat import Chat
from cobra.train.checkpoint_files import CheckpointFiles, protect_checkpoints
from cobra.train.dead_workers import workers_told
from cobra.train.save_result import SaveResult
from tests.train.test_module import run, stage
from tests.train.test_sharding import vlm


@contextmanager
def full_disk() -> Iterator[None]:
    """No file can grow beyond some kilobytes, which fails in the same places."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 15, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_checkpoint_needs_no_other_place_than_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    files = CheckpointFiles(lambda: [tmp_path])
    for value in (1, 2):
        files.save_checkpoint({"a": torch.tensor(value)}, tmp_path / "checkpoints/last.ckpt")
        assert files.load_checkpoint(tmp_path / "checkpoints/last.ckpt")["a"] == value
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    files, last = CheckpointFiles(lambda: [tmp_path]), tmp_path / "last.ckpt"
    with full_disk(), pytest.raises(OSError, match=r"last\.ckpt cannot be written \(.*\): make room, or set"):
        files.save_checkpoint({"a": torch.zeros(100_000)}, last)
    files.save_checkpoint({"a": torch.ones(1)}, last)
    with full_disk(), pytest.raises(OSError, match=r"too large.*the one before is kept"):
        files.save_checkpoint({"a": torch.zeros(100_000)}, last)
    assert files.load_checkpoint(last)["a"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_worker_that_dies_in_a_save_is_no_fault_of_the_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def stumble(*_: Any) -> None:
        # as torch: its handler of signals raises in its writer, which then cannot be closed
        try:
            raise RuntimeError("DataLoader worker (pid 45) is killed by signal: Killed.")
        finally:
            raise RuntimeError("unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", stumble)
    with pytest.raises(ChildProcessError, match="a process that prepares batches is gone"), workers_told():
        CheckpointFiles(lambda: [tmp_path]).save_checkpoint({"a": torch.ones(1)}, tmp_path / "last.ckpt")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_at_the_end_says_how_to_get_the_model(tmp_path: Path) -> None:
    result = SaveResult(tmp_path / "last.ckpt", tmp_path / "model")
    model = vlm("mamba2")
    remedy = r"model cannot be written \(.*\): the run is whole .*last\.ckpt; make room, .*--ckpt_path last"
    with full_disk(), pytest.raises(OSError, match=remedy):
        result._write(model, Chat("cobra:data/shapes/tokenizer"), model.state_dict())
    assert not list((tmp_path / "model").iterdir())


class Protect(L.Callback):
    """What the command does when it has made the trainer."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        protect_checkpoints(trainer)


def test_checkpoints_beside_a_logger_are_removed_when_better_ones_come(tmp_path: Path) -> None:
    """The callback has its folder from the logger, and only when the run is set up."""
    options: dict[str, Any] = {"enable_checkpointing": True, "limit_val_batches": 0}
    callbacks = [Protect(), ModelCheckpoint(filename="{step}", every_n_train_steps=1)]
    logger = CSVLogger(tmp_path / "elsewhere")
    run([stage("a", ["projector"], steps=3)], tmp_path / "run", callbacks, logger=logger, **options)
    assert [path.name for path in tmp_path.rglob("*.ckpt")] == ["step=3.ckpt"]


class CopyLast(L.Callback):
    """Keeps the checkpoint of the second step."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_start(self, trainer: L.Trainer, *_: object) -> None:
        if trainer.global_step == 2 and not self.path.exists():
            shutil.copy(Path(trainer.default_root_dir) / "checkpoints/last.ckpt", self.path)


@pytest.mark.parametrize("field", ["best_model_path", "last_model_path"])
def test_a_prepared_checkpoint_removes_no_file(field: str, tmp_path: Path) -> None:
    """Lightning removes what a checkpoint calls the best one before, and `..` leads out of its folder."""
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("mine")
    root, second = tmp_path / "run", tmp_path / "second.ckpt"

    def fit(resume: Path | None = None) -> None:
        saves = ModelCheckpoint(root / "checkpoints", "{step}", every_n_train_steps=1, save_last=True)
        options: dict[str, Any] = {"enable_checkpointing": True, "limit_val_batches": 0, "resume": resume}
        callbacks = [saves, Protect(), CopyLast(second)]
        run([stage("a", ["projector"], steps=4)], root, callbacks, **options)

    fit()
    assert sorted(os.listdir(root / "checkpoints")) == ["last.ckpt", "step=4.ckpt"]
    prepared = torch.load(second, weights_only=True)
    (state,) = (state for name, state in prepared["callbacks"].items() if "ModelCheckpoint" in name)
    away = root / "checkpoints/../../mine"
    state[field] = str(away if field == "last_model_path" else away / "thesis.txt")
    torch.save(prepared, second)
    fit(second)
    assert (mine / "thesis.txt").read_text() == "mine"


def test_only_checkpoints_in_the_runs_folders_are_removed(tmp_path: Path) -> None:
    files = CheckpointFiles(lambda: [tmp_path / "run"])
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    (tmp_path / "run/link").symlink_to(tmp_path)
    paths = ["run/checkpoints/a.ckpt", "run/checkpoints/a.txt", "a.ckpt"]
    for path in paths:
        (tmp_path / path).touch()
    for path in ("run/checkpoints/a.txt", "run/../a.ckpt", "run/link/a.ckpt", "run/checkpoints", "run/.."):
        with pytest.warns(UserWarning, match="is not removed"):
            files.remove_checkpoint(str(tmp_path / path))
    assert all((tmp_path / path).exists() for path in paths)
    files.remove_checkpoint(str(tmp_path / paths[0]))
    assert not (tmp_path / paths[0]).exists()
