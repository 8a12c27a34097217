"""The folder of a run, as the command leaves it and finds it again."""

import re
from pathlib import Path

import pytest
import torch

from cobra.train.module import CobraModule
from cobra.train.run_folder import RunFolder
from tests.test_cli import ON_CPU, ROOT, fit_or_answer, instantiate

_LM = "--model.model.init_args.lm.init_args"
_STAGES = """[
{name: tower, train: [vision], data: {cells: 1}, steps: 2, batch_size: 2, lr: 1.0e-3, validate: false,
 objective: {class_path: cobra.train.objectives.cell_attributes.CellAttributes}},
{name: talk, train: [projector, lm], data: {captions: 1}, steps: 4, batch_size: 2, lr: 1.0e-3,
 validate: false}]
"""
TINY = [
    *("-c", str(ROOT / "configs/cobra_tiny.yaml"), *ON_CPU, "--stages", _STAGES),
    *(f"{_LM}.d_model", "32", f"{_LM}.head_dim", "16", f"{_LM}.n_groups", "1"),
    *(f"--data.train.{name}.init_args.size=4" for name in ("cells", "captions", "places", "questions")),
    *("--data.val.val.init_args.size", "8", "--trainer.log_every_n_steps", "1"),
    *("--data.test", "{test: {class_path: cobra.data.shapes.dataset.ShapesEval, init_args: {size: 8}}}"),
    *("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"),
]  # fmt: skip


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of a run that was stopped after 3 of its 6 steps; it has a model and answers as well."""
    monkeypatch.setenv("COBRA_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "run"
    fit_or_answer(
        monkeypatch, "fit", *TINY, "--trainer.default_root_dir", str(folder), "--trainer.max_steps", "3"
    )
    return folder


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_is_not_lost_to_another_and_goes_on_when_asked(
    stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = [*TINY, "--trainer.default_root_dir", str(stopped)]
    before = files(stopped)
    refusal = rf"^cobra fit: {re.escape(str(stopped))} holds a run .*--ckpt_path last .*--overwrite"
    with pytest.raises(SystemExit, match=refusal):
        fit_or_answer(monkeypatch, "fit", *here)
    elsewhere = stopped.parent / "other.ckpt"
    elsewhere.write_bytes((stopped / "checkpoints/last.ckpt").read_bytes())
    with pytest.raises(SystemExit, match=refusal):
        fit_or_answer(monkeypatch, "fit", *here, "--ckpt_path", str(elsewhere))
    for length in ("max_epochs", "overfit_batches"):
        with pytest.raises(SystemExit, match=rf"^cobra fit: trainer\.{length} 2: .*`steps`"):
            fit_or_answer(monkeypatch, "fit", *here, "--ckpt_path", "last", f"--trainer.{length}", "2")
    assert files(stopped) == before
    fit_or_answer(monkeypatch, "fit", *here, "--ckpt_path", "last")
    assert torch.load(stopped / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 6
    assert (stopped / "model/model.safetensors").is_file()
    # a finished stage's numbers end with it
    rows = [line.split(",") for line in (stopped / "logs/version_0/metrics.csv").read_text().splitlines()]
    accuracy = rows[0].index("cell_accuracy")
    assert [bool(row[accuracy]) for row in rows[1:]] == [True, True, False]


@pytest.mark.parametrize("setting", ["fast_dev_run=true", "limit_train_batches=0.5", "barebones=true"])
def test_a_trial_touches_no_file_of_a_run(
    setting: str, stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(stopped)
    here = [*TINY, "--trainer.default_root_dir", str(stopped), f"--trainer.{setting}"]
    # it asks for a logger
    monitor = ["--trainer.callbacks+=lightning.pytorch.callbacks.LearningRateMonitor"]
    fit_or_answer(monkeypatch, "fit", *here, *([] if setting == "barebones=true" else monitor))
    assert files(stopped) == before


def test_a_trial_of_answers_writes_none(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = [*TINY, "--trainer.default_root_dir", str(stopped), "--ckpt_path", "last"]
    before = files(stopped)
    state = torch.load(stopped / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    loaded: dict[str, torch.Tensor] = {}
    monkeypatch.setattr(CobraModule, "on_test_start", lambda self: loaded.update(self.state_dict()))
    fit_or_answer(
        monkeypatch, "test", *here, "--data.eval_batch_size", "4", "--trainer.limit_test_batches", "0.5"
    )
    assert files(stopped) == before
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


def test_overwriting_is_asked_for_once(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (stopped / "model").mkdir()
    (stopped / "model/config.json").write_text("of a run that is replaced")
    here = [*TINY, "--trainer.default_root_dir", str(stopped), "--trainer.max_steps", "1"]
    fit_or_answer(monkeypatch, "fit", *here, "--overwrite")
    assert torch.load(stopped / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 1
    assert not (stopped / "model").exists()
    with pytest.raises(SystemExit, match="holds a run"):
        fit_or_answer(monkeypatch, "fit", "-c", str(stopped / "logs/version_1/config.yaml"))


def test_a_run_that_overwrites_and_dies_early_does_not_go_on_with_the_one_before(
    stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = [*TINY, "--trainer.default_root_dir", str(stopped)]
    with monkeypatch.context() as patched:
        patched.setattr(CobraModule, "training_step", lambda *_: pytest.fail("died"))
        with pytest.raises(pytest.fail.Exception, match="died"):
            fit_or_answer(monkeypatch, "fit", *here, "--overwrite")
    with pytest.raises(SystemExit, match=r"there is no .*last\.ckpt"):
        fit_or_answer(monkeypatch, "fit", *here, "--ckpt_path", "last")


def test_what_a_killed_run_had_moved_aside_comes_back_to_the_run_of_that_folder(tmp_path: Path) -> None:
    """A sharded run's checkpoint is a folder, which cannot be replaced in one go."""
    aside = tmp_path / "a/checkpoints/.before-last.ckpt"
    aside.mkdir(parents=True)
    (tmp_path / "b").mkdir()
    b, a = RunFolder(tmp_path / "b"), RunFolder(tmp_path / "a")
    b.claim()
    with pytest.raises(FileNotFoundError, match="there is no"):
        b.check_start(str(a.last), fits=True)
    assert aside.is_dir()
    a.claim()
    with pytest.raises(ValueError, match="holds a run"):
        a.refuse_results(None)


def test_a_folder_that_cannot_be_written_to_is_told_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    with pytest.raises(OSError, match=r"cannot be written to .*: set trainer\.default_root_dir"):
        RunFolder(tmp_path).claim()


def test_a_home_in_a_yaml_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    trainer = instantiate(monkeypatch, "fit", *TINY, "--trainer.default_root_dir=~/run").trainer
    assert trainer.default_root_dir == str(tmp_path / "run")
    assert (tmp_path / "run/.lock").is_file()


def test_another_plan_is_refused_or_asked_for(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = [*TINY, "--trainer.default_root_dir", str(stopped), "--ckpt_path", "last"]
    here += ["--trainer.accumulate_grad_batches", "2"]
    refusal = r"^cobra fit: .*accumulate_grad_batches was 1 and is 2.*--change_plan"
    with pytest.raises(SystemExit, match=refusal):
        fit_or_answer(monkeypatch, "fit", *here)
    fit_or_answer(monkeypatch, "fit", *here, "--change_plan")
    assert torch.load(stopped / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 6
    assert "change_plan: false" in (stopped / "logs/version_2/config.yaml").read_text()


def test_auto_is_the_last_checkpoint_where_there_is_one(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.chosen("auto") is None
    folder.last.parent.mkdir()
    # as a kill in the middle of a save leaves it, before the first process mends it
    folder.last.with_name(".before-last.ckpt").touch()
    assert folder.chosen("auto") == "last"
    assert folder.chosen("other.ckpt") == "other.ckpt"


def test_a_model_folder_answers_as_the_checkpoint_that_it_was_written_from(
    stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = [*TINY, "--trainer.default_root_dir", str(stopped)]
    fit_or_answer(monkeypatch, "fit", *here, "--ckpt_path", "last")
    answers = stopped / "predictions-test.jsonl"
    fit_or_answer(monkeypatch, "predict", *here, "--ckpt_path", "last")
    expected = answers.read_bytes()
    answers.unlink()
    model = str(stopped / "model")
    fit_or_answer(monkeypatch, "predict", *here, "--ckpt_path", model)
    assert answers.read_bytes() == expected
    with pytest.raises(SystemExit, match="is no checkpoint"):
        fit_or_answer(monkeypatch, "fit", *here, "--ckpt_path", model)
