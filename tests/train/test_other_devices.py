"""A checkpoint of some devices is gone on from on others: whole or in shares, by a sharded run."""

from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from safetensors.torch import load_file

from cobra.train.checkpoint_files import protect_checkpoints
from cobra.train.data import DataModule
from cobra.train.fully_sharded import FullySharded
from cobra.train.module import CobraModule
from cobra.train.save_result import SaveResult
from tests.train.test_module import Noise, stage
from tests.train.test_sharding import TOKENIZER, vlm
from tests.train.two_devices import on_two_devices


def train(folder: Path, devices: int, start: Path | None = None) -> None:
    """Six examples a step, whatever the devices."""
    size = 6 // devices
    stages = [
        stage("a", ["projector"], batch_size=size, lr=1e-3),
        stage("b", ["projector", "lm"], batch_size=size, lr=1e-3, steps=4),
    ]
    data = DataModule(stages, TOKENIZER, train={"noise": Noise})
    L.seed_everything(0 if start is None else 1)
    module = CobraModule(stages, lambda: vlm("mamba2"))
    module.change_plan = start is not None
    saves = ModelCheckpoint(folder, "at{step}", every_n_train_steps=3, save_top_k=-1)
    trainer = L.Trainer(
        default_root_dir=folder, max_epochs=1, accelerator="cpu", devices=devices, gradient_clip_val=1.0,
        strategy=FullySharded() if devices > 1 else "auto", enable_progress_bar=False,
        enable_model_summary=False, logger=False, use_distributed_sampler=False, num_sanity_val_steps=0,
        callbacks=[saves, SaveResult(folder / "last.ckpt", folder / "model")], limit_val_batches=0,
    )  # fmt: skip
    protect_checkpoints(trainer)
    trainer.fit(module, data, ckpt_path=start, weights_only=True)


@pytest.mark.slow
def test_whole_weights_are_shared_out_and_shares_are_dealt_anew(tmp_path: Path) -> None:
    alone, both, three = (tmp_path / name for name in ("alone", "both", "three"))
    train(alone, 1)
    on_two_devices(train, both, 2, alone / "atstep=3.ckpt", seconds=60)
    on_two_devices(train, three, 3, both / "atstep=6.ckpt", devices=3, seconds=60)
    expected = load_file(alone / "model/model.safetensors")
    for folder in (both, three):
        torch.testing.assert_close(
            load_file(folder / "model/model.safetensors"), expected, rtol=1e-4, atol=1e-4
        )
