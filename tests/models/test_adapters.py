"""Adapters of our yaml: peft's own, on the linears that are meant, merged to what they computed."""

import cobra.torchvision_shim  # noqa: F401  (before peft)

import peft  # isort: skip
import pytest
import torch
from torch import nn

from cobra.models.adapters import Lora, adapt, is_adapter, merged
from cobra.models.quantize import quantize_
from cobra.models.vlm import CobraVLM
from cobra.weights.tensors import Stored
from tests.models.builders import LMS, PROJECTORS, small_vit
from tests.models.lm.test_lora import assert_close, outputs

# LLaVA's rule on each, and what Mamba's users adapt
TARGETS = {
    "mamba": {"in_proj", "x_proj", "out_proj"},
    "mamba2": {"in_proj", "out_proj"},
    "llama": {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
    "phi": {"q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"},
    "phi3": {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"},
    "mobile_llm": {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
    "hybrid": {
        "in_proj", "out_proj", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    },
}  # fmt: skip


def vlm(name: str) -> CobraVLM:
    torch.manual_seed(0)
    return CobraVLM(small_vit, PROJECTORS["pixel_unshuffle"], LMS[name])


def adapted(name: str, *, learnt: bool = True, **options: object) -> CobraVLM:
    model = vlm(name)
    adapt(model, {"lm": Lora(**{"r": 4, "alpha": 6.0, **options})})  # type: ignore[arg-type]
    for parameter_name, parameter in model.named_parameters():
        if learnt and ".lora_B." in parameter_name:
            nn.init.normal_(parameter, std=0.1)
    return model


def stored(model: nn.Module) -> dict[str, Stored]:
    return {n: Stored(t.shape, t.dtype, t.detach().clone) for n, t in model.state_dict().items()}


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_by_default_the_linears_of_the_blocks_are_adapted(name: str) -> None:
    model = adapted(name)
    names = [name for name, parameter in model.named_parameters() if is_adapter(name)]
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in names} == TARGETS[name]
    assert all(name.startswith("lm.") for name in names)
    learning = {name for name, parameter in model.lm.named_parameters() if parameter.requires_grad}
    assert learning == {name.removeprefix("lm.") for name in names}


@pytest.mark.parametrize("name", sorted(LMS))
def test_they_act_as_pefts_in_prefill_and_step_and_merge_to_what_they_computed(name: str) -> None:
    model = adapted(name, dropout=0.3).eval()
    whole, steps = outputs(model.lm)
    assert_close(steps, whole)
    assert (whole - outputs(vlm(name).eval().lm)[0]).abs().max() > 1e-3
    # peft's own layers around a model of their own, and its own merging
    theirs = vlm(name).lm
    targets = {n.split(".lora_")[0] for n, _ in model.lm.named_parameters() if is_adapter(n)}
    peft.inject_adapter_in_model(peft.LoraConfig(r=4, lora_alpha=6, target_modules=sorted(targets)), theirs)
    theirs.load_state_dict(model.lm.state_dict())
    torch.testing.assert_close(outputs(theirs.eval())[0], whole, rtol=0, atol=0)
    plain = vlm(name).eval()
    plain.load_state_dict({n: s.read() for n, s in merged(stored(model), model.adapters).items()})
    for layer in theirs.modules():
        if isinstance(layer, peft.tuners.lora.LoraLayer):
            layer.merge()
    for mine, oracle in zip(outputs(plain.lm), outputs(theirs), strict=True):
        torch.testing.assert_close(mine, oracle, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(mine, whole, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", ["mamba", "mamba2", "llama"])
def test_only_adapters_get_gradients_and_what_is_asked_for(name: str) -> None:
    model = adapted(name, also=["A_log", "conv1d", "norm_f"] if name != "llama" else ["norm"])
    ids = torch.arange(24).view(2, 12)
    model.loss(model(ids), ids).backward()
    got = {name for name, parameter in model.lm.named_parameters() if parameter.grad is not None}
    assert got == {name for name, p in model.lm.named_parameters() if p.requires_grad}
    others = {name for name in got if not is_adapter(name)}
    assert {name.split(".")[-2 if name.endswith(("weight", "bias")) else -1] for name in others} == (
        {"A_log", "conv1d", "norm_f"} if name != "llama" else {"norm"}
    )


def test_generation_replays_no_step_without_them() -> None:
    """Kernels of a step are recorded and repeated where nothing else computes: adapters do."""
    for name in ("mamba", "mamba2", "llama"):
        model, plain = adapted(name).eval(), vlm(name).eval()
        ids = torch.arange(20).view(2, 10)
        before = plain.generate(ids, max_new_tokens=12)
        plain.load_state_dict({n: s.read() for n, s in merged(stored(model), model.adapters).items()})
        answers = model.generate(ids, max_new_tokens=12)
        assert torch.equal(answers, plain.generate(ids, max_new_tokens=12))
        assert not torch.equal(answers, before)


def test_packed_sequences_are_read_apart_with_adapters() -> None:
    for name in ("mamba", "mamba2", "llama"):
        lm = adapted(name).eval().lm
        embeds = lm.embed(torch.arange(12).view(1, 12))
        seq_idx = torch.tensor([[0] * 5 + [1] * 7], dtype=torch.int32)
        packed = lm.prefill(embeds, seq_idx=seq_idx)
        assert_close(packed[:, 5:], lm.prefill(embeds[:, 5:]))


def test_quantized_bases_keep_their_adapters() -> None:
    """Packed before or behind: adapters themselves are not packed, and act on both."""
    for name in ("mamba", "mamba2", "llama"):
        first, last = vlm(name), adapted(name)
        quantize_(first.lm, "int4")
        adapt(first, last.adapters)
        quantize_(last.lm, "int4")
        assert {n for n in first.state_dict() if is_adapter(n)} == {
            n for n in last.state_dict() if is_adapter(n)
        }
        first.load_state_dict(last.state_dict())
        for mine, other in zip(outputs(first.eval().lm), outputs(last.eval().lm), strict=True):
            torch.testing.assert_close(mine, other)
        steps, whole = outputs(first.lm)
        torch.testing.assert_close(steps, whole, rtol=1e-2, atol=1e-2)
        assert all(p.dtype == torch.float32 for n, p in first.named_parameters() if is_adapter(n))


@pytest.mark.parametrize(
    ("adapters", "message"),
    [
        ({"llm": Lora(4, 4)}, "unknown part 'llm': name one of vision, projector, lm"),
        ({"lm": Lora(4, 4, targets=["q_proj"])}, r"'q_proj' is no linear in it: name some of .*in_proj"),
        ({"lm": Lora(4, 4, targets=["embedding"])}, "'embedding' is no linear in it"),
        ({"vision": Lora(4, 4)}, "adapters of vision: name its `targets`"),
        ({"lm": Lora(4, 4, also=["q_norm"])}, "'q_norm' is the name of no parameter"),
    ],
)
def test_what_is_not_there_is_refused_by_name(adapters: dict[str, Lora], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adapt(vlm("mamba"), adapters)


def test_a_tied_head_is_no_target() -> None:
    with pytest.raises(ValueError, match=r"embed_tokens\.weight.*are one weight"):
        adapt(vlm("qwen2"), {"lm": Lora(4, 4, targets=["lm_head"])})
    adapt(vlm("phi"), {"lm": Lora(4, 4, targets=["lm_head"])})


def test_numbers_that_make_no_adapter_are_refused() -> None:
    for wrong in ((0, 1.0, 0.0), (1, 0.0, 0.0), (1, 1.0, 1.0)):
        with pytest.raises(ValueError, match="must be"):
            Lora(*wrong)
