"""LoRA as LLaVA, TinyLLaVA, MobileVLM and Imp publish it: peft's adapter, and the projector beside it."""

import json
from pathlib import Path
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before peft)

import peft  # isort: skip
import pytest
import torch
from torch import Tensor, nn

from cobra.convert.run import convert
from cobra.models.vlm import CobraVLM
from cobra.pretrained import from_pretrained
from tests.convert import test_llava_family
from tests.convert.test_convert import TOKENIZER
from tests.convert.test_llava_family import llava_model, originally, write

tiny_clip = test_llava_family.tiny_clip
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def publish(folder: Path, prefix: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A base and an adapter of it; the weights of the whole before and after peft has merged them."""
    model = llava_model()
    before = {name: tensor.clone() for name, tensor in originally(model.state_dict()).items()}
    said = {**model.config.text_config.to_dict(), "model_type": "llava"}
    # what the base is depends on the project: a language model alone, or all
    write(folder / "base", before, said)
    torch.manual_seed(1)
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=LINEARS, init_lora_weights=False)
    lm: Any = model.model.language_model
    adapted = peft.get_peft_model(lm, config)
    for parameter in model.model.multi_modal_projector.parameters():
        nn.init.normal_(parameter, std=0.1)
    held = {
        name.replace("base_model.model.", "base_model.model.model.", 1): tensor
        for name, tensor in peft.get_peft_model_state_dict(adapted).items()
    }
    (folder / "lora").mkdir()
    torch.save(held, folder / "lora/adapter_model.bin")
    described = {**config.to_dict(), "target_modules": LINEARS, "base_model_name_or_path": "lmsys/vicuna"}
    (folder / "lora/adapter_config.json").write_text(json.dumps(described, default=str))
    (folder / "lora/config.json").write_text(json.dumps(said))
    adapted.merge_and_unload()
    after = {name: tensor.clone() for name, tensor in originally(model.state_dict()).items()}
    trained = {f"{prefix}{n}": t for n, t in after.items() if "mm_projector" in n}
    torch.save(trained, folder / "lora/non_lora_trainables.bin")
    return before, after


def converted(source: Path, out: Path, **options: Any) -> CobraVLM:
    convert(str(source), out, tokenizer=TOKENIZER, **options)
    return from_pretrained(out)[0]


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")
@pytest.mark.parametrize("prefix", ["base_model.model.", ""])
def test_an_adapter_and_its_base_become_what_peft_merges(
    prefix: str, tmp_path: Path, tiny_clip: None
) -> None:
    before, after = publish(tmp_path, prefix)
    write(tmp_path / "merged", after, json.loads((tmp_path / "lora/config.json").read_text()))
    expected = converted(tmp_path / "merged", tmp_path / "theirs").state_dict()
    ours = converted(tmp_path / "lora", tmp_path / "ours", base=str(tmp_path / "base")).state_dict()
    for name, tensor in expected.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-5, atol=1e-6)
    plain = converted(tmp_path / "base", tmp_path / "plain").state_dict()
    assert sum(not torch.equal(plain[name], tensor) for name, tensor in ours.items()) == 2 * 7 + 4
    with pytest.raises(ValueError, match=r"is an adapter of lmsys/vicuna \(LoRA\), not a model"):
        convert(str(tmp_path / "lora"), tmp_path / "alone")
    torch.save({n: t for n, t in before.items() if "layers.1" not in n}, tmp_path / "base/pytorch_model.bin")
    with pytest.raises(ValueError, match=r"adapts model\.layers\.1\..* has not: name another --base"):
        convert(str(tmp_path / "lora"), tmp_path / "other", base=str(tmp_path / "base"))


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")
def test_a_base_may_be_a_language_model_alone(tmp_path: Path, tiny_clip: None) -> None:
    """LLaVA-1.5's is Vicuna: the projector is the adapter's, the tower CLIP's."""
    before, _ = publish(tmp_path, "base_model.model.")
    tower = {n.removeprefix("model.vision_tower.vision_tower."): t for n, t in before.items() if "tower" in n}
    (tmp_path / "tower").mkdir()
    torch.save(tower, tmp_path / "tower/pytorch_model.bin")
    whole = converted(tmp_path / "lora", tmp_path / "whole", base=str(tmp_path / "base")).state_dict()
    lm = {name: t for name, t in before.items() if "tower" not in name and "projector" not in name}
    torch.save(lm, tmp_path / "base/pytorch_model.bin")
    said = json.loads((tmp_path / "lora/config.json").read_text())
    said |= {"mm_vision_tower": "openai/clip-vit-large-patch14-336"}
    (tmp_path / "lora/config.json").write_text(json.dumps(said))
    (tmp_path / "base/config.json").write_text(json.dumps({**said, "model_type": "llama"}))
    ours = converted(
        tmp_path / "lora", tmp_path / "ours", base=str(tmp_path / "base"), towers=[tmp_path / "tower"]
    ).state_dict()
    assert all(torch.equal(t, ours[name]) for name, t in whole.items() if not name.startswith("vision."))
