"""A part of the model may learn in part: modules in it, by name."""

from functools import partial
from pathlib import Path

import pytest
import torch

from cobra.models.vlm import CobraVLM
from cobra.train.module import ModelError
from cobra.train.selection import named_modules
from tests.models.builders import ENCODERS, LMS, PROJECTORS, small_vit
from tests.train.test_module import Watch, run, stage

TWO_BLOCKS = partial(CobraVLM, partial(small_vit, depth=3), PROJECTORS["linear"], LMS["mamba"])


def test_a_tower_learns_from_a_block_on_and_keeps_the_blocks_before(tmp_path: Path) -> None:
    watch = Watch()
    stages = [
        stage("a", ["projector"]),
        stage("b", ["vision.blocks.1-", "lm"], weight_decay=0.5, lr={"vision": 1e-2, "lm": 1e-4}),
        stage("c", ["lm.layers.0"]),
    ]
    module = run(stages, tmp_path, [watch], model=TWO_BLOCKS, limit_val_batches=0)
    moved = {
        name for name, before in watch.weights[1].items() if not torch.equal(before, watch.weights[3][name])
    }
    assert {name.split(".blocks.")[1][0] for name in moved if ".vision." in name} == {"1", "2"}
    assert {name.split(".")[1] for name in moved} == {"vision", "lm"}
    last = {
        name for name, before in watch.weights[3].items() if not torch.equal(before, watch.weights[5][name])
    }
    assert last
    assert all(name.startswith("model.lm.layers.0.") for name in last)
    # the modes follow, and the optimizer has no more than learns
    assert module.model is not None
    assert not module.model.vision.training
    trained = {p for group in module.trainer.optimizers[0].param_groups for p in group["params"]}
    names = {name for name, p in module.named_parameters() if p in trained and ".vision." in name}
    assert {name.split(".")[3] for name in names} == {"1", "2"}


@pytest.mark.parametrize(
    ("name", "count"),
    [("lm", 1), ("lm.layers", 1), ("lm.layers.0-", 2), ("lm.layers.1-1", 1), ("lm.layers.0-.mixer", 2),
     ("vision.encoders.1.tower.blocks.2-3", 2)],
)  # fmt: skip
def test_names_stand_for_modules(name: str, count: int) -> None:
    model = CobraVLM(ENCODERS["fused"], PROJECTORS["linear"], LMS["mamba"])
    assert len(named_modules(model, name)) == count


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("tower", "the model has no 'tower': it holds vision, projector, lm"),
        ("vision.block", "vision has no 'block': it holds stem, blocks, norm"),
        ("vision.blocks.3-", "vision.blocks has no '3-': it holds 0 to 2"),
        ("vision.norm.bias", "vision.norm has no 'bias': it holds nothing"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(name: str, remedy: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"stage 'a' trains '{name}', but {remedy}"):
        run([stage("a", [name])], tmp_path, model=TWO_BLOCKS)
