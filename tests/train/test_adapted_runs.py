"""Runs that train adapters: what they leave, and how they go on."""

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from cobra.convert.run import convert
from cobra.data.chat import Chat
from cobra.models.adapters import Lora, without_adapters
from cobra.models.lm.mamba import MambaLM
from cobra.models.quantize import Quantization, quantize_
from cobra.models.vlm import CobraVLM
from cobra.pretrained import from_pretrained, save_pretrained
from cobra.train import start as start_of_training
from cobra.train.module import CobraModule, ModelError
from cobra.train.save_result import SaveResult
from tests.models.builders import PROJECTORS, small_vit
from tests.train.test_learning import ADAPTERS, Kill, Killed, Name, checkpoints, resume
from tests.train.test_module import run, stage
from tests.train.test_recompute import vlm

STAGES = [stage("a", ["projector"]), stage("b", ["projector", "lm"], lr={"projector": 0.001, "lm": 0.01})]


def logits(model: CobraVLM) -> torch.Tensor:
    with torch.no_grad():
        return model.lm.head(model.eval()(torch.arange(10)[None]))


def test_a_run_leaves_its_adapter_the_whole_model_and_a_checkpoint_that_answers(tmp_path: Path) -> None:
    last = tmp_path / "checkpoints/last.ckpt"
    save = SaveResult(last, tmp_path / "model")
    module = run(STAGES, tmp_path, [save], adapters=ADAPTERS, limit_val_batches=0)
    assert module.model is not None
    expected = logits(module.model)
    whole, _ = from_pretrained(tmp_path / "model")
    assert not whole.adapters
    torch.testing.assert_close(logits(whole), expected, rtol=1e-4, atol=1e-5)
    unmerged, _ = from_pretrained(last)
    assert unmerged.adapters == ADAPTERS
    torch.testing.assert_close(logits(unmerged), expected)
    packed, _ = from_pretrained(last, quantization="int8")
    assert (logits(packed) - expected).abs().max() < 0.1
    convert(str(last), tmp_path / "converted")
    assert torch.equal(logits(from_pretrained(tmp_path / "converted")[0]), logits(whole))
    # beside the model as it started, which is that of an earlier run
    assert {path.name for path in (tmp_path / "adapter").iterdir()} > {"adapter_config.json", "config.json"}


@pytest.mark.parametrize("quantization", ["none", "int4"])
def test_a_run_with_adapters_is_resumed_bit_for_bit(quantization: Quantization, tmp_path: Path) -> None:
    options: dict = {"adapters": ADAPTERS, "quantization": quantization, "limit_val_batches": 0}
    whole = run(STAGES, tmp_path / "whole", **options)
    callbacks = [checkpoints(tmp_path), Kill()]
    with pytest.raises(Killed):
        run(STAGES, tmp_path, callbacks, enable_checkpointing=True, **options)
    resumed = resume(STAGES, tmp_path, [Name("origin")], **options)
    for (name, expected), found in zip(
        whole.state_dict().items(), resumed.state_dict().values(), strict=True
    ):
        assert torch.equal(expected, found), name


def test_a_packed_base_is_read_without_the_whole_and_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = CobraVLM(small_vit, PROJECTORS["pixel_unshuffle"], partial(MambaLM, 512, 16, 1))
    save_pretrained(model, Chat("cobra:data/shapes/tokenizer"), tmp_path / "base")
    packed = copy.deepcopy(model.lm)
    quantize_(packed, "int8")
    seen: list[torch.device] = []
    load = start_of_training.load_parts

    def watch(model: CobraVLM, *rest: Any) -> Any:
        seen.append(model.lm.get_parameter("layers.0.mixer.in_proj.weight").device)
        return load(model, *rest)

    monkeypatch.setattr(start_of_training, "load_parts", watch)
    start = Name("weights", dict.fromkeys(("vision", "lm"), str(tmp_path / "base")))
    save = SaveResult(tmp_path / "last.ckpt", tmp_path / "model")
    options: dict = {"adapters": ADAPTERS, "quantization": "int8", "limit_val_batches": 0}
    module = run(STAGES, tmp_path, [start, save], **options)
    assert seen == [torch.device("meta")]
    assert module.model is not None
    state = {without_adapters(name): tensor for name, tensor in module.model.lm.state_dict().items()}
    assert all(torch.equal(tensor, state[name]) for name, tensor in packed.state_dict().items())
    for folder in ("last.ckpt", "model"):
        answering, _ = from_pretrained(tmp_path / folder)
        assert answering.lm.quantized == {"quantization": "int8", "group_size": 32}
        torch.testing.assert_close(logits(answering), logits(module.model))
    # and merged into the base that was not packed
    convert(str(tmp_path / "adapter"), tmp_path / "merged", base=str(tmp_path / "base"))
    merged, _ = from_pretrained(tmp_path / "merged")
    away = [(logits(merged) - logits(other)).abs().mean() for other in (module.model, model)]
    assert away[0] < 0.5 * away[1]


def test_an_adapter_holds_what_was_trained_of_a_part_in_part(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_pretrained(vlm(), Chat("cobra:data/shapes/tokenizer"), tmp_path / "base")
    start = Name("weights", dict.fromkeys(("vision", "projector", "lm"), str(tmp_path / "base")))
    save = SaveResult(tmp_path / "last.ckpt", tmp_path / "model")
    stages = [stage("a", ["vision.blocks.0-", "lm"])]
    run(stages, tmp_path, [start, save], model=vlm, adapters=ADAPTERS, limit_val_batches=0)
    convert(str(tmp_path / "adapter"), tmp_path / "merged")
    base, whole, merged = (
        from_pretrained(tmp_path / folder)[0].state_dict() for folder in ("base", "model", "merged")
    )
    torch.testing.assert_close(merged, whole)
    assert not torch.equal(merged["vision.blocks.0.norm1.weight"], base["vision.blocks.0.norm1.weight"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adapters": {"llm": Lora(2, 2)}}, "adapters name an unknown part 'llm'"),
        (
            {"quantization": "int4"},
            r"stage 'b' trains the lm, whose weights are packed \(int4\)",
        ),
        (
            {"adapters": {"lm": Lora(2, 2), "vision": Lora(4, 2, targets=["qkv"])}},
            "adapters: lm and vision must have the same r and alpha",
        ),
        ({"adapters": {"lm": Lora(2, 2)}, "muon": ["lm"]}, r"muon steps \['lm'\], which have adapters"),
    ],
)
def test_settings_that_do_not_fit_are_refused(options: dict, message: str) -> None:
    module = CobraModule(STAGES, vlm, **options)
    with pytest.raises(ModelError, match=message):
        module.configure_model()
