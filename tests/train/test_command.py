"""What the command gives a run beside its model and data."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from cobra.pretrained import from_pretrained
from cobra.train.checkpoints import CheckpointPlan, Checkpoints
from cobra.train.clock import TrainingClock
from cobra.train.save_result import SaveResult
from cobra.train.throughput import Throughput
from cobra.train.write_answers import WriteAnswers
from tests.test_cli import ON_CPU, ROOT, instantiate
from tests.train.test_module import run, stage


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
    plan = ["--checkpoint", "{minutes: 30, keep: 2, best: val/macro}", "--checkpoint_every", "7"]
    cli = instantiate(monkeypatch, "fit", *words, *plan)
    trainer, callbacks = cli.trainer, cli.trainer.callbacks
    checkpoints = only(callbacks, Checkpoints)
    assert checkpoints.last == tmp_path / "checkpoints/last.ckpt"
    # the older name of `every`
    assert checkpoints.plan == CheckpointPlan(every=7, minutes=30, keep=2, best="val/macro")
    result = only(callbacks, SaveResult)
    assert (result.checkpoint, result.directory) == (tmp_path / "checkpoints/last.ckpt", tmp_path / "model")
    assert only(callbacks, WriteAnswers).directory == tmp_path
    only(callbacks, TrainingClock)
    only(callbacks, Throughput)
    assert isinstance(trainer.logger, CSVLogger)
    assert Path(trainer.logger.root_dir).parent == tmp_path


def test_the_end_of_a_run_leaves_its_last_checkpoint_and_its_model(tmp_path: Path) -> None:
    callback = SaveResult(tmp_path / "last.ckpt", tmp_path / "model")
    module = run([stage("a", ["projector", "lm"], steps=3)], tmp_path, [callback])
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 3
    assert module.model is not None
    state, (model, processor) = module.model.state_dict(), from_pretrained(tmp_path / "model")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name]), name
        assert torch.equal(tensor, saved["state_dict"][f"model.{name}"]), name
    assert len(processor.chat) == len(module.trainer.datamodule.chat)


def test_answering_needs_no_clock_and_no_log_and_runs_nothing_in_a_checkpoint(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "a.ckpt").touch()
    monkeypatch.setattr("cobra.train.run_folder.check_checkpoint", lambda path, goes_on: None)
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
