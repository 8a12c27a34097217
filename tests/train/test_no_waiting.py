"""A training step asks a device for nothing that it would have to be waited for."""

from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers import CSVLogger
from torch.utils._python_dispatch import TorchDispatchMode

from cobra.models.vlm import CobraVLM
from tests.test_cli import ROOT, instantiate
from tests.train.test_divergence import Late, LateEvent
from tests.train.test_module import run, stage

# results whose size or value the host has to know
WAITS = ("nonzero", "masked_select", "masked_scatter", "local_scalar", "unique", "index_put")


class Operators(TorchDispatchMode):
    """Notes what is called of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


class Watch(L.Callback):
    """Notes the operators from a batch to its gradients."""

    def __init__(self) -> None:
        self.operators = Operators()

    def on_train_batch_start(self, *_: Any) -> None:
        self.operators.__enter__()

    def on_before_optimizer_step(self, *_: Any) -> None:
        self.operators.__exit__(None, None, None)


def test_a_step_has_no_operator_whose_result_the_host_waits_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # as on a GPU, where these do not read what is on it
    monkeypatch.setattr("cobra.train.divergence.OnItsWay", partial(Late, LateEvent(100)))
    monkeypatch.setattr(CobraVLM, "_check", lambda *_: None)
    monkeypatch.setattr("cobra.models.vlm._LOGITS", 2000)
    watch, stages = Watch(), [stage("a", ["projector"]), stage("b", ["vision", "projector", "lm"])]
    options: dict[str, Any] = {"logger": CSVLogger(tmp_path), "log_every_n_steps": 1, "limit_val_batches": 0}
    run(stages, tmp_path, [watch], recompute={"lm": 1}, precision="bf16-mixed", **options)
    assert len(watch.operators.names) > 100
    assert [name for name in watch.operators.names if any(word in name for word in WAITS)] == []


@pytest.mark.parametrize("asked", [[], ["--trainer.enable_progress_bar", "false"]])
def test_a_gpus_progress_is_drawn_every_tenth_batch(
    asked: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for package in ("fabric", "pytorch"):
        monkeypatch.setattr(f"lightning.{package}.accelerators.cuda.num_cuda_devices", lambda: 1)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    config = ["-c", str(ROOT / "configs/cobra_tiny.yaml"), "--trainer.default_root_dir", str(tmp_path)]
    trainer = instantiate(monkeypatch, "fit", *config, "--trainer.accelerator", "gpu", *asked).trainer
    bars = [callback for callback in trainer.callbacks if isinstance(callback, RichProgressBar)]
    assert [bar.refresh_rate for bar in bars] == ([] if asked else [10])
