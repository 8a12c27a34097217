"""What the command gives a run beside its model and data."""

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from cobra.train.clock import TrainingClock
from cobra.train.save_result import SaveResult
from cobra.train.write_answers import WriteAnswers
from tests.test_cli import ON_CPU, ROOT, instantiate


def only(callbacks: list[Any], kind: type) -> Any:
    (found,) = [callback for callback in callbacks if type(callback) is kind]
    return found


def test_a_run_saves_logs_and_writes_into_its_own_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = [
        "-c",
        str(ROOT / "configs/cobra_tiny.yaml"),
        *ON_CPU,
        "--trainer.default_root_dir",
        str(tmp_path),
    ]
    cli = instantiate(monkeypatch, "fit", *words, "--checkpoint_every", "7")
    trainer, callbacks = cli.trainer, cli.trainer.callbacks
    checkpoint = only(callbacks, ModelCheckpoint)
    assert (checkpoint._every_n_train_steps, checkpoint.filename) == (7, "last")
    assert Path(checkpoint.dirpath) == tmp_path / "checkpoints"
    result = only(callbacks, SaveResult)
    assert (result.checkpoint, result.directory) == (tmp_path / "checkpoints/last.ckpt", tmp_path / "model")
    assert only(callbacks, WriteAnswers).directory == tmp_path
    assert only(callbacks, TrainingClock)
    assert isinstance(trainer.logger, CSVLogger)
    assert Path(trainer.logger.root_dir).parent == tmp_path


def test_answering_needs_no_clock_and_no_log_and_runs_nothing_in_a_checkpoint(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "a.ckpt").touch()
    monkeypatch.setattr("cobra.train.cli.check_checkpoint", lambda path: None)
    words = [
        "-c",
        str(ROOT / "configs/cobra_tiny.yaml"),
        *ON_CPU,
        "--trainer.default_root_dir",
        str(tmp_path),
    ]
    cli = instantiate(monkeypatch, "test", *words, "--ckpt_path", str(tmp_path / "a.ckpt"))
    assert not [callback for callback in cli.trainer.callbacks if isinstance(callback, TrainingClock)]
    assert cli.trainer.logger is None
    assert cli._prepare_subcommand_kwargs("test")["weights_only"] is True
