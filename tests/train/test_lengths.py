"""How long a run is: its stages say so; what stops it earlier leaves a run that is unfinished."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from cobra.train.lengths import check_lengths, trial
from cobra.train.module import CobraModule
from cobra.train.save_result import SaveResult
from cobra.train.stages import Stage
from tests.train.test_module import run, stage

DEFAULTS = {
    "max_epochs": 1, "overfit_batches": 0.0, "fast_dev_run": False, "barebones": False,
    "limit_train_batches": None, "limit_val_batches": None, "limit_test_batches": None,
    "limit_predict_batches": None,
}  # fmt: skip
LAST = "checkpoints/last.ckpt"


class Stop(L.Callback):
    """Asks for the end of a run after some batches, as a timer does."""

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *rest: Any) -> None:
        trainer.should_stop = rest[-1] + 1 == self.batches


class ChangePlan(L.Callback):
    """What the command's --change_plan sets."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        assert isinstance(pl_module, CobraModule)
        pl_module.change_plan = True


def fit(folder: Path, stages: list[Stage], *callbacks: L.Callback, **options: Any) -> CobraModule:
    """A run that leaves what a run from the command leaves."""
    result = SaveResult(folder / LAST, folder / "model")
    options = {"logger": CSVLogger(folder, name="logs"), "log_every_n_steps": 1, **options}
    return run(stages, folder, [*callbacks, result], **options)


def go_on(folder: Path, stages: list[Stage], *callbacks: L.Callback, **options: Any) -> CobraModule:
    return fit(folder, stages, *callbacks, resume=folder / LAST, **options)


def rates(folder: Path) -> list[tuple[str, str, str]]:
    """Step, stage and rate of all that was logged in any launch."""
    rows: list[Mapping[str, str]] = []
    for file in sorted(folder.glob("logs/version_*/metrics.csv")):
        with file.open(newline="") as lines:
            rows += csv.DictReader(lines)
    return [(row["step"], row["stage"], row["lr"]) for row in rows if row.get("lr")]


def plan(steps: int = 4) -> list[Stage]:
    return [
        stage("a", ["projector"], batch_size=1),
        stage("b", ["projector", "lm"], batch_size=1, steps=steps, hold=0.0, decay="linear"),
    ]


@pytest.mark.parametrize("stop", ["max_steps", "within a step", "at the end of a stage", "within the first"])
def test_a_run_that_is_stopped_is_unfinished_and_goes_on_as_if_it_had_not_been(
    stop: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options: dict[str, Any] = {"accumulate_grad_batches": 2, "val_check_interval": 4}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    expected = fit(whole, plan(), **options).state_dict()
    if stop == "max_steps":
        fit(cut, plan(), max_steps=3, **options)
    else:
        fit(
            cut,
            plan(),
            Stop({"within a step": 7, "at the end of a stage": 4, "within the first": 1}[stop]),
            **options,
        )
    done = {"at the end of a stage": 2, "within the first": 0}.get(stop, 3)
    assert f"stopped at step {done} of 6; --ckpt_path last goes on" in caplog.text
    assert torch.load(cut / LAST, weights_only=True)["global_step"] == done
    assert not (cut / "model").exists()
    for name, tensor in go_on(cut, plan(), **options).state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    assert rates(cut) == rates(whole)
    files = [folder / "model/model.safetensors" for folder in (whole, cut)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_finished_run_goes_on_with_more_steps_or_refuses_them(tmp_path: Path) -> None:
    short, long = ([stage("a", ["projector"], steps=steps)] for steps in (2, 5))
    expected = fit(tmp_path / "long", long).state_dict()
    folder = tmp_path / "short"
    fit(folder, short)
    model = (folder / "model/model.safetensors").read_bytes()
    assert go_on(folder, short).global_step == 2
    assert (folder / "model/model.safetensors").read_bytes() == model
    with pytest.raises(ValueError, match=r"last\.ckpt is of .* stages\.0\.steps was 2 and is 5.*change_plan"):
        go_on(folder, long)
    module = go_on(folder, long, ChangePlan())
    assert module.global_step == 5
    assert all(torch.equal(tensor, expected[name]) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize("muon", [None, ["projector"]])
def test_a_changed_plan_trains_the_same_weights(muon: list[str] | None, tmp_path: Path) -> None:
    fit(tmp_path, [stage("a", ["projector"])], muon=muon)
    refusal = r"last\.ckpt has the optimizer's state of other weights \(of projector\).*\(of lm, projector\)"
    with pytest.raises(ValueError, match=refusal):
        go_on(tmp_path, [stage("a", ["projector", "lm"], steps=3)], ChangePlan(), muon=muon)
    with pytest.raises(ValueError, match=r"has the optimizer's state of other weights"):
        go_on(tmp_path, [stage("a", ["projector"])], muon=[] if muon else ["projector"])


@pytest.mark.parametrize("name", ["max_epochs", "overfit_batches"])
@pytest.mark.parametrize("value", [-1, 2, None, 0.5])
def test_epochs_of_lightning_are_refused_with_what_to_use(name: str, value: Any) -> None:
    check_lengths(DEFAULTS)
    if name == "overfit_batches" and value is None:
        return
    with pytest.raises(ValueError, match=rf"^trainer\.{name} {value}: .*`steps`"):
        check_lengths({**DEFAULTS, name: value})


@pytest.mark.parametrize(
    ("changes", "verb", "setting"),
    [
        ({}, "fit", None),
        ({"fast_dev_run": 0}, "fit", None),
        ({"limit_train_batches": 1.0, "limit_val_batches": 3}, "fit", None),
        ({"limit_train_batches": 3}, "test", None),
        ({"limit_train_batches": 1}, "fit", "trainer.limit_train_batches 1"),
        ({"limit_train_batches": 0}, "fit", "trainer.limit_train_batches 0"),
        ({"limit_train_batches": 0.5}, "fit", "trainer.limit_train_batches 0.5"),
        ({"limit_test_batches": 2}, "test", "trainer.limit_test_batches 2"),
        ({"fast_dev_run": 3}, "predict", "trainer.fast_dev_run 3"),
        ({"barebones": True}, "validate", "trainer.barebones True"),
    ],
)
def test_a_part_of_a_run_is_a_trial(changes: dict, verb: str, setting: str | None) -> None:
    assert trial({**DEFAULTS, **changes}, verb) == setting
