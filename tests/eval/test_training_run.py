"""A run's folder: what was begun one way is not finished another."""

import signal
import sys
from pathlib import Path

import pytest

from cobra.eval.training_run import Run, _run


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "run" / "model").mkdir(parents=True)
    # a run that has ended: nothing is launched
    (tmp_path / "run" / "model" / "config.json").touch()
    (tmp_path / "a.yaml").write_text("lr: 1")
    return tmp_path / "a.yaml"


def test_a_folder_remembers_its_precision(config: Path) -> None:
    folder = config.parent / "run"
    assert Run.precision_of(folder) is None
    Run([config], folder, seed=0, precision="bf16-mixed").train()
    assert Run.precision_of(folder) == "bf16-mixed"


@pytest.mark.parametrize("change", [{"seed": 1}, {"precision": "32-true"}, {}])
def test_a_folder_of_another_run_is_refused(config: Path, change: dict) -> None:
    folder = config.parent / "run"
    Run([config], folder, seed=0).train()
    if not change:
        config.write_text("lr: 2")
    with pytest.raises(ValueError, match="another seed, precision or recipe: name another --out"):
        Run([config], folder, **{"seed": 0, **change}).train()


def test_a_folder_of_another_version_is_refused_not_misread(config: Path) -> None:
    folder = config.parent / "run"
    (folder / "recipe.json").write_text('["seed 0", "lr: 1"]')
    assert Run.precision_of(folder) is None
    with pytest.raises(ValueError, match="another seed, precision or recipe"):
        Run([config], folder, seed=0).train()


def launching(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setattr("cobra.eval.training_run._run", lambda command: status)


@pytest.mark.parametrize("status", [1, 143])
def test_nothing_goes_on_after_training_that_fails_or_is_terminated(
    status: int, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (config.parent / "run/model/config.json").unlink()
    launching(monkeypatch, status)
    with pytest.raises(SystemExit) as stopped:
        Run([config], config.parent / "run", seed=0).train()
    assert stopped.value.code == status


def test_nothing_goes_on_after_training_that_leaves_no_model(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (config.parent / "run/model/config.json").unlink()
    launching(monkeypatch, 0)
    with pytest.raises(ValueError, match=r"training ended before .*run/model was written"):
        Run([config], config.parent / "run", seed=0).train()


def test_a_command_is_terminated_with_the_one_that_runs_it() -> None:
    code = "import os, signal, time; os.kill(os.getppid(), signal.SIGTERM); time.sleep(60)"
    assert _run([sys.executable, "-c", code]) == 128 + signal.SIGTERM
    assert _run([sys.executable, "-c", "raise SystemExit(3)"]) == 3
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_training_may_stop_before_its_end_and_leaves_no_model_then(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (config.parent / "run/model/config.json").unlink()
    ran: list[str] = []

    def run(command: list[str]) -> int:
        ran.extend(command)
        return 0

    monkeypatch.setattr("cobra.eval.training_run._run", run)
    Run([config], config.parent / "run", seed=0).train(until=3)
    assert ran[-2:] == ["--trainer.max_steps", "3"]
