"""Blocks that run again in the backward pass: the same gradients from less memory."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from cobra.models.lm.base import LanguageModel
from cobra.models.lm.mamba2 import Mamba2LM
from cobra.models.recompute import recompute
from cobra.models.vlm import IMAGE_ID, CobraVLM
from cobra.train.module import ModelError
from tests.models.builders import ENCODERS, LMS, PROJECTORS, small_vit
from tests.train.test_module import run, stage


def vlm(lm: Callable[[], LanguageModel] = LMS["mamba2"]) -> CobraVLM:
    torch.manual_seed(0)
    return CobraVLM(small_vit, PROJECTORS["linear"], lm)


def inputs() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    ids = torch.randint(1, 400, (2, 30))
    ids[:, :16] = IMAGE_ID
    return ids, torch.randn(2, 3, 32, 32)


def loss(model: CobraVLM) -> Tensor:
    ids, pixels = inputs()
    return model.loss(model(ids, pixels), ids.clamp(min=0))


def packed_loss(model: CobraVLM) -> Tensor:
    ids, pixels = inputs()
    seq_idx = (torch.arange(30) > 20).int().expand(2, -1)
    mask = torch.arange(30) < torch.tensor([[30], [25]])
    return model.loss(
        model.lm.prefill(model.splice(ids, pixels), mask=mask, seq_idx=seq_idx), ids.clamp(min=0)
    )


def gradients(model: CobraVLM, of: Callable[[CobraVLM], Tensor] = loss) -> list[Tensor]:
    return list(torch.autograd.grad(of(model), [p for p in model.parameters() if p.requires_grad]))


class Runs:
    """Counts how often blocks run."""

    def __init__(self, part: LanguageModel) -> None:
        self.count = 0
        for block in part.units():
            first = next(m for m in block.modules() if isinstance(m, nn.Linear))
            first.register_forward_hook(self)

    def __call__(self, *_: object) -> None:
        self.count += 1


@pytest.mark.parametrize("lm", sorted(LMS))
def test_gradients_are_the_same_bit_for_bit(lm: str) -> None:
    plain, again = vlm(LMS[lm]), vlm(LMS[lm])
    recompute(again, {"lm": 1, "vision": 1})
    runs = Runs(again.lm)
    for of in (loss, packed_loss):
        for first, second in zip(gradients(plain, of), gradients(again, of), strict=True):
            assert torch.equal(first, second)
    assert runs.count == 2 * 2 * len(again.lm.layouts())
    assert again.state_dict().keys() == plain.state_dict().keys()


def test_lora_under_autocast_and_a_frozen_part_have_the_same_gradients() -> None:
    models = vlm(), vlm()
    for model in models:
        torch.manual_seed(2)
        config = LoraConfig(r=2, target_modules=["in_proj"], init_lora_weights=False, lora_dropout=0.5)
        inject_adapter_in_model(config, model.lm)
        model.vision.requires_grad_(False)
    recompute(models[1], {"lm": 2, "vision": 1})
    found = []
    for model in models:
        torch.manual_seed(3)
        with torch.autocast("cpu", torch.bfloat16):
            found.append(gradients(model))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.slow
def test_a_compiled_model_recomputes_to_the_same_gradients() -> None:
    plain, again = vlm(), vlm()
    recompute(again, {"lm": 1})
    ids, _ = inputs()
    embeds = plain.lm.embed(ids.clamp(min=0)).detach()
    read = torch.compile(again.lm.prefill, backend="aot_eager", fullgraph=True)
    found = [
        torch.autograd.grad(
            hidden.square().sum(), [p for block in model.lm.units() for p in block.parameters()]
        )
        for model, hidden in ((plain, plain.lm.prefill(embeds)), (again, read(embeds)))
    ]
    torch.testing.assert_close(*found)


def saved_bytes(model: CobraVLM, loss: Callable[[CobraVLM], Tensor] = loss) -> int:
    """Of tensors that are kept for the backward pass, but for weights."""
    weights = {p.untyped_storage()._cdata for p in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss(model)
    return sum(kept.values())


def test_every_block_that_recomputes_keeps_less() -> None:
    def lm() -> Mamba2LM:
        return Mamba2LM(432, 32, 8, d_state=16, head_dim=16)

    kept = []
    for every in ({}, {"lm": 8}, {"lm": 2}, {"lm": 1}):
        model = vlm(lm)
        recompute(model, every)
        kept.append(saved_bytes(model))
    assert kept == sorted(kept, reverse=True)
    assert kept[3] < kept[0] / 3
    one, four = (kept[0] - kept[i] for i in (1, 2))
    assert four == pytest.approx(4 * one, rel=0.05)


def test_nothing_runs_twice_without_a_gradient_or_with_a_state() -> None:
    model = vlm()
    recompute(model, {"lm": 1})
    runs, (ids, _) = Runs(model.lm), inputs()
    with torch.no_grad():
        loss(model)
    assert runs.count == 2
    embeds = model.lm.embed(ids.clamp(min=0))
    state = model.lm.allocate_state(2)
    hidden = [model.lm.prefill(piece, state) for piece in embeds.split(15, 1)]
    whole = model.lm.prefill(embeds)
    torch.testing.assert_close(torch.cat(hidden, 1), whole)
    runs.count = 0
    torch.cat(hidden, 1).square().sum().backward()
    assert runs.count == 0


@pytest.mark.parametrize("encoder", sorted(set(ENCODERS) - {"tiled"}))
def test_every_encoder_names_blocks_that_it_applies(encoder: str) -> None:
    tower = ENCODERS[encoder]()
    assert len(tower.units()) == len(set(tower.units())) > 0
    assert {type(unit).__name__ for unit in tower.units()} <= {"AttentionBlock", "Block"}


def test_a_run_that_recomputes_learns_the_same(tmp_path: Path) -> None:
    stages = [stage("a", ["projector"]), stage("b", ["vision", "projector", "lm"], batch_size=4)]
    plain = run(stages, tmp_path)
    again = run(stages, tmp_path, recompute={"vision": 1, "lm": 1})
    states = plain.state_dict(), again.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


@pytest.mark.parametrize(
    ("every", "message"),
    [
        ({"projector": 1}, "recompute names 'projector', which has no blocks: name some of vision, lm"),
        ({"lm": 0}, "recompute lm: 0 must be 1, for all its blocks, or more"),
    ],
)
def test_what_cannot_recompute_is_refused(every: dict[str, int], message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        run([stage("a", ["lm"])], tmp_path, recompute=every)
