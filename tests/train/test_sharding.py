"""Two devices with half of each weight train and answer as one that has all of them."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from cobra.eval.predictions import read_predictions
from cobra.models.lm.mamba2 import Mamba2LM
from cobra.models.quantize import quantize_
from cobra.models.recompute import recompute
from cobra.models.vlm import IMAGE_ID, CobraVLM
from cobra.pretrained import from_pretrained
from cobra.train.answer_samples import AnswerSamples
from cobra.train.checkpoint_files import protect_checkpoints
from cobra.train.checkpoints import CheckpointPlan, Checkpoints
from cobra.train.data import DataModule
from cobra.train.divergence import check_state
from cobra.train.fully_sharded import FullySharded
from cobra.train.module import CobraModule, ModelError
from cobra.train.muon_adamw import MuonAdamW
from cobra.train.save_result import SaveResult
from cobra.train.sharding import is_sharded, shard, whole, zero
from cobra.train.write_answers import WriteAnswers
from tests.models.builders import LMS, PROJECTORS, VOCAB, small_vit
from tests.train.test_learning import StayClose
from tests.train.test_module import Noise, stage
from tests.train.two_devices import on_two_devices, one_of_two_devices

TOKENIZER = "cobra:data/shapes/tokenizer"


def vlm(lm: str) -> CobraVLM:
    return CobraVLM(small_vit, PROJECTORS["linear"], LMS[lm])


class Seven(Noise):
    """Two batches of questions for one device, one for the other."""

    def __len__(self) -> int:
        return 7


class NoteLosses(L.Callback):
    """Writes the losses that each device logs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, *rest: Any) -> None:
        self.losses.append(trainer.callback_metrics["loss"].item())
        path = self.folder / f"losses-{trainer.global_rank}.json"
        path.write_text(json.dumps(self.losses))


def trainer(folder: Path, devices: int, *callbacks: L.Callback) -> L.Trainer:
    made = L.Trainer(
        default_root_dir=folder, max_epochs=1, accelerator="cpu", devices=devices,
        strategy=FullySharded() if devices > 1 else "auto", gradient_clip_val=1.0,
        enable_progress_bar=False, enable_model_summary=False, logger=False, use_distributed_sampler=False,
        num_sanity_val_steps=1, val_check_interval=4, check_val_every_n_epoch=None,
        callbacks=[*callbacks, WriteAnswers(folder), NoteLosses(folder)],
    )  # fmt: skip
    protect_checkpoints(made)
    return made


def train_and_test(lm: str, folder: Path, devices: int, resume: Path | None = None) -> None:
    """Fit on pictures that one device alone may see in a step, save, and answer from the checkpoint."""
    size = 2 // devices
    stages = [
        stage("a", ["projector"], batch_size=size, lr=1e-3),
        stage("b", ["vision", "lm"], batch_size=size, lr=1e-3, steps=4),
        stage("c", ["projector"], batch_size=size, lr=1e-3, objective=StayClose),
    ]

    def parts() -> tuple[CobraModule, DataModule]:
        L.seed_everything(0)
        data = DataModule(
            stages, TOKENIZER, train={"noise": Noise}, val={"seven": Seven}, held_out={"seven": Seven},
            test={"seven": Seven}, eval_batch_size=3,
        )  # fmt: skip
        again = {"lm": 1} if devices > 1 else {}
        return CobraModule(stages, partial(vlm, lm), recompute=again, max_new_tokens=4), data

    last = folder / "checkpoints/last.ckpt"
    steps = Checkpoints(last, CheckpointPlan(every=2, keep=9, best="val/macro"))
    samples = AnswerSamples(every=3, count=2)
    fit = trainer(folder, devices, steps, samples, SaveResult(last, folder / "model"))
    fit.fit(*parts(), ckpt_path=resume)
    (folder / "held_out.txt").write_text(str(float(fit.callback_metrics["held_out/seven"])))
    trainer(folder, devices).test(*parts(), ckpt_path=last)


@pytest.mark.slow
@pytest.mark.parametrize("lm", ["mamba2", "qwen2"])
def test_sharded_training_saves_and_answers_as_one_device_does(lm: str, tmp_path: Path) -> None:
    alone, both, resumed = (tmp_path / name for name in ("alone", "both", "resumed"))
    for folder in (alone, both, resumed):
        folder.mkdir()
    train_and_test(lm, alone, 1)
    on_two_devices(train_and_test, lm, both, 2)
    expected, first, second = (json.loads(path.read_text()) for path in losses_of(alone, both))
    assert first == second == pytest.approx(expected, rel=1e-5)

    held_out = [float((folder / "held_out.txt").read_text()) for folder in (alone, both)]
    assert held_out[0] == pytest.approx(held_out[1], rel=1e-5)

    torch.testing.assert_close(weights_of(both), weights_of(alone), rtol=1e-4, atol=1e-4)
    model, _ = from_pretrained(both / "model")
    assert not is_sharded(model)
    answers = [
        sorted(read_predictions(folder / "predictions-seven.jsonl"), key=lambda answer: answer.question_id)
        for folder in (alone, both)
    ]
    assert answers[0] == answers[1]
    assert len(answers[0]) == 7
    assert sorted(path.name for path in (both / "samples").iterdir()) == [
        "step-000003.png",
        "step-000006.png",
    ]
    assert (both / "checkpoints/best.ckpt/meta.pt").is_file()

    # there the stage begins whose parts have no moments yet
    on_two_devices(train_and_test, lm, resumed, 2, both / "checkpoints/step-000002.ckpt")
    torch.testing.assert_close(weights_of(resumed), weights_of(both), rtol=0, atol=0)


def losses_of(*folders: Path) -> list[Path]:
    return [path for folder in folders for path in sorted(folder.glob("losses-*.json"))]


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model/model.safetensors")


def answer_and_train(lm: str) -> None:
    """One device asks three times, the other never; then both train."""
    if not dist.is_initialized():
        dist.init_process_group("gloo")
    torch.manual_seed(0)
    plain = vlm(lm)
    model = vlm(lm)
    model.load_state_dict(plain.state_dict())
    recompute(model, {"lm": 1})
    shard(model, init_device_mesh("cpu", (2,)))
    ids = torch.randint(1, 400, (2, 20))
    ids[:, :16] = IMAGE_ID
    pixels, labels = torch.randn(2, 3, 32, 32), ids.clamp(min=0)
    expected = plain.generate(ids, pixels, max_new_tokens=6)
    # as Lightning evaluates
    with torch.inference_mode():
        assert torch.equal(model.generate(ids, pixels, max_new_tokens=6), expected)
    assert has_shares_only(model)
    with whole(model, model):
        for tokens in [3, 6, 2] if dist.get_rank() == 0 else []:
            assert torch.equal(model.generate(ids, pixels, max_new_tokens=tokens), expected[:, :tokens])
    assert has_shares_only(model)
    plain.loss(plain(ids, pixels), labels).backward()
    hidden = model(ids, pixels)
    assert is_sharded(model), "a block is whole only while it runs"
    model.loss(hidden, labels).backward()
    for (name, one), other in zip(plain.named_parameters(), model.parameters(), strict=True):
        assert one.grad is not None, name
        assert isinstance(other.grad, DTensor), name
        torch.testing.assert_close(other.grad.full_tensor(), one.grad)


def has_shares_only(model: CobraVLM) -> bool:
    return all(isinstance(parameter, DTensor) for parameter in model.parameters())


def answer_and_train_all() -> None:
    for lm in LMS:
        answer_and_train(lm)


def test_every_sharded_model_answers_at_any_length_and_trains() -> None:
    on_two_devices(answer_and_train_all)


def answer_and_train_on_a_frozen_base() -> None:
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    ids, pixels = torch.randint(1, 400, (2, 20)), torch.randn(2, 3, 32, 32)
    ids[:, :16] = IMAGE_ID
    half, packed = (
        CobraVLM(small_vit, PROJECTORS["linear"], partial(Mamba2LM, VOCAB, 64, 2)) for _ in (0, 1)
    )
    for block in half.lm.units():
        block.get_submodule("mixer.in_proj").requires_grad_(False).bfloat16()
    quantize_(packed.lm, "int8")
    packed.lm.requires_grad_(False)
    expected = packed.generate(ids, pixels, max_new_tokens=3)
    for model in (half, packed):
        shard(model, init_device_mesh("cpu", (2,)))
    assert torch.equal(packed.generate(ids, pixels, max_new_tokens=3), expected)
    with torch.autocast("cpu", torch.bfloat16):
        half.loss(half(ids, pixels), ids.clamp(min=0)).backward()
    assert all((p.grad is not None) is p.requires_grad for p in half.lm.parameters())


@pytest.mark.slow
def test_a_frozen_base_may_be_of_another_dtype_or_packed() -> None:
    on_two_devices(answer_and_train_on_a_frozen_base, seconds=60)


def test_nothing_gathered_that_learns_is_no_hindrance() -> None:
    """As where LoRA adapts the blocks of a language model alone."""
    assert zero(nn.Linear(2, 2).requires_grad_(False)) == 0


def test_muon_refuses_a_share_of_a_matrix() -> None:
    with one_of_two_devices(2) as mesh:
        share = nn.Parameter(distribute_tensor(torch.ones(8, 4), mesh, [Shard(0)]))
        with pytest.raises(ValueError, match=r"8 rows, got a share of a parameter of shape \(8, 4\)"):
            MuonAdamW([{"params": [share], "muon": (8,)}], 1.0, (0.9, 0.99))


def test_a_share_that_is_not_finite_stops_every_device() -> None:
    with one_of_two_devices(2) as mesh:
        state = {"a": DTensor.from_local(torch.tensor([1.0, float("nan")]), mesh, [Shard(0)])}
        with pytest.raises(ValueError, match=r"1 weights, e\.g\. a, are not finite"):
            check_state(state, "stage", 3, None)
        state["a"].to_local().fill_(1.0)
        check_state(state, "stage", 3, None)
        with pytest.raises(ValueError, match="weights on another device are not finite at step 3"):
            check_state(state, "stage", 3, None, lambda here: True)


def test_tensor_parallel_devices_are_refused_with_the_remedy() -> None:
    module = CobraModule([], partial(vlm, "mamba2"))
    remedy = r"data_parallel_size to 2, the number of devices, and tensor_parallel_size to 1"
    with one_of_two_devices(1, 2) as module._device_mesh, pytest.raises(ModelError, match=remedy):
        module.configure_model()
