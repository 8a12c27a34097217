"""Adapters of peft act in prefill and step alike, or are refused."""

from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before peft)

import peft  # isort: skip
import pytest
import torch
from torch import Tensor, nn

from cobra.models.lm.base import LanguageModel
from tests.models.builders import LMS


def adapted(name: str, config: Any) -> LanguageModel:
    torch.manual_seed(0)
    lm = LMS[name]()
    peft.inject_adapter_in_model(config, lm)
    return lm.eval()


@torch.no_grad()
def outputs(lm: LanguageModel) -> tuple[Tensor, Tensor]:
    """Logits of a prefill and of steps."""
    embeds, state = lm.embed(torch.arange(24).view(2, 12)), lm.allocate_state(2, 12)
    steps = [lm.step(embed, state) for embed in embeds.unbind(1)]
    return lm.head(lm.prefill(embeds)), lm.head(torch.stack(steps, 1))


def assert_close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", sorted(LMS))
def test_lora_acts_on_every_linear_in_prefill_and_step(name: str) -> None:
    linears = [path for path, module in LMS[name]().named_modules() if isinstance(module, nn.Linear)]
    lm = adapted(name, peft.LoraConfig(r=2, target_modules=linears, init_lora_weights=False))
    whole, steps = outputs(lm)
    assert_close(steps, whole)
    for path in linears:
        adapter: Any = lm.get_submodule(path)
        weight = adapter.lora_B["default"].weight.data
        kept, before = weight.clone(), steps
        weight.zero_()
        whole, steps = outputs(lm)
        assert (steps - before).abs().max() > 1e-3, path
        assert_close(steps, whole)
        weight.copy_(kept)
        steps = before


@pytest.mark.parametrize(
    ("name", "config", "wrapped"),
    [
        ("mamba", peft.LoraConfig(r=64, target_modules=["conv1d"]), "lora.layer.Conv1d"),
        ("mamba2", peft.LoraConfig(r=96, target_modules=["conv1d"]), "lora.layer.Conv1d"),
        ("mamba2", peft.LoraConfig(target_modules=["embedding"]), "lora.layer.Embedding"),
        ("mamba2", peft.LNTuningConfig(target_modules=["mixer.norm"]), "LNTuningLayer"),
        ("hybrid", peft.LNTuningConfig(target_modules=["norm2"]), "LNTuningLayer"),
        ("mobile_llm", peft.LNTuningConfig(target_modules=["input_layernorm"]), "LNTuningLayer"),
    ],
)
def test_what_would_not_act_is_refused_by_name(name: str, config: Any, wrapped: str) -> None:
    with pytest.raises(ValueError, match=f"{wrapped} has no .* would not act here: wrap linears only"):
        outputs(adapted(name, config))


@pytest.mark.parametrize(
    ("name", "config"),
    [
        (
            "mamba2",
            peft.LoraConfig(target_modules=["in_proj"], modules_to_save=["norm", "conv1d", "embedding"]),
        ),
        ("mamba", peft.LoraConfig(target_modules=["in_proj"], modules_to_save=["x_proj", "norm_f"])),
        ("mobile_llm", peft.LoraConfig(target_modules=["q_proj"], modules_to_save=["norm", "embed_tokens"])),
        ("llama", peft.LoraConfig(target_modules=["q_proj"], modules_to_save=["norm"])),
        ("phi", peft.LNTuningConfig(target_modules=["input_layernorm"])),
    ],
)
def test_whole_modules_may_be_trained_in_place_of_others(name: str, config: Any) -> None:
    lm = adapted(name, config)
    before, _ = outputs(lm)
    generator = torch.Generator().manual_seed(0)
    for path, parameter in lm.named_parameters():
        if "modules_to_save" in path or "ln_tuning" in path:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    whole, steps = outputs(lm)
    assert (whole - before).abs().max() > 1e-3
    assert_close(steps, whole)
