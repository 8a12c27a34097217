"""Adapters on disk: read by peft and by us, merged with their base, refused beside another."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before peft)

import peft  # isort: skip
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import MambaForCausalLM

from cobra.convert.checkpoint import open_checkpoint
from cobra.convert.run import convert
from cobra.data.chat import Chat
from cobra.models.quantize import quantize_
from cobra.models.vlm import CobraVLM
from cobra.pretrained import from_pretrained, save_adapter, save_pretrained
from tests.models.lm.test_lora import outputs
from tests.models.test_adapters import adapted, vlm
from tests.test_pretrained import TOKENIZER


def save(model: CobraVLM, folder: Path, trained: tuple[str, ...] = ("projector", "lm")) -> None:
    """A run's result: the base that it started from, its adapter, and the model."""
    name = "mamba" if "Mamba" in type(model.lm).__name__ else "llama"
    save_pretrained(vlm(name), Chat(TOKENIZER), folder / "base")
    torch.nn.init.normal_(next(model.projector.parameters()))
    sources = {"lm": str(folder / "base"), "vision": str(folder / "base")}
    save_adapter(model, Chat(TOKENIZER), folder / "adapter", trained, sources)
    save_pretrained(model, Chat(TOKENIZER), folder / "model")


def assert_same(one: CobraVLM, other: CobraVLM, tolerance: float = 1e-5) -> None:
    for mine, theirs in zip(outputs(one.lm), outputs(other.lm), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=10 * tolerance)
    for name, tensor in other.projector.state_dict().items():
        assert torch.equal(tensor, one.projector.state_dict()[name])


@pytest.mark.parametrize("name", ["mamba", "llama"])
def test_an_adapter_is_merged_with_what_the_run_read_or_computes_beside_it(name: str, tmp_path: Path) -> None:
    model = adapted(name, also=["norm_f"] if name == "mamba" else ["model.norm"])
    save(model, tmp_path)
    model.eval()
    whole, _ = from_pretrained(tmp_path / "model")
    assert_same(whole, model)
    beside, processor = from_pretrained(tmp_path / "base", adapter=tmp_path / "adapter")
    assert set(beside.adapters) == {"lm"}
    assert_same(beside, model, 1e-6)
    assert len(processor.chat) == len(Chat(TOKENIZER))
    for number, base in enumerate([None, str(tmp_path / "base")]):
        convert(str(tmp_path / "adapter"), tmp_path / f"merged{number}", base=base)
        merged, again = load_file(tmp_path / f"merged{number}/model.safetensors"), whole.state_dict()
        assert all(torch.equal(tensor, again[name]) for name, tensor in merged.items())
    # training may go on from it
    assert set(open_checkpoint(str(tmp_path / "adapter")).parts) == {"vision", "projector", "lm"}


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")
@pytest.mark.parametrize("name", ["mamba", "llama"])
def test_peft_reads_it_beside_transformers_model(name: str, tmp_path: Path) -> None:
    # peft refuses out_proj there: transformers' kernels would pass it by
    model = adapted(name, targets=["in_proj", "x_proj"] if name == "mamba" else [])
    save(model, tmp_path)
    theirs: Any = getattr(vlm(name).lm, "causal_lm", None)
    if theirs is None:
        convert(str(tmp_path / "base"), tmp_path / "hf", to="hf")
        theirs = MambaForCausalLM.from_pretrained(tmp_path / "hf")
    read: Any = peft.PeftModel.from_pretrained(theirs, str(tmp_path / "adapter")).eval()
    ids = torch.arange(24).view(2, 12)
    with torch.no_grad():
        expected = model.eval().lm.head(model.lm.prefill(model.lm.embed(ids)))
        torch.testing.assert_close(read(ids).logits, expected, rtol=1e-4, atol=1e-4)
    # and the way back: what peft writes
    read.save_pretrained(str(tmp_path / "theirs"), save_embedding_layers=False)
    beside, _ = from_pretrained(tmp_path / "base", adapter=tmp_path / "theirs")
    assert torch.equal(outputs(beside.lm)[0], outputs(model.lm)[0])


def test_an_adapter_computes_beside_a_base_that_is_packed(tmp_path: Path) -> None:
    model = adapted("mamba")
    save(model, tmp_path)
    quantize_(model.lm, "int8")
    model.eval()
    beside, _ = from_pretrained(tmp_path / "base", quantization="int8", adapter=tmp_path / "adapter")
    assert_same(beside, model, 1e-6)


def edit(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "adapter/adapter_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return change


def other_base(folder: Path) -> None:
    other = vlm("mamba")
    torch.nn.init.normal_(other.lm.get_parameter("layers.1.mixer.in_proj.weight"))
    save_pretrained(other, Chat(TOKENIZER), folder / "base")


def rename(folder: Path) -> None:
    file = folder / "adapter/adapter_model.safetensors"
    save_file({name.replace("in_proj", "q_proj"): t for name, t in load_file(file).items()}, file)


def retype(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    def each(folder: Path) -> None:
        file = folder / "adapter/adapter_model.safetensors"
        save_file({name: change(tensor) for name, tensor in load_file(file).items()}, file)

    return each


def empty(folder: Path) -> None:
    save_file({}, folder / "adapter/adapter_model.safetensors")


def lose(folder: Path) -> None:
    file = folder / "adapter/adapter_model.safetensors"
    save_file({name: t for name, t in load_file(file).items() if ".1.mixer.in_proj.lora_A" not in name}, file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edit(use_dora=True), "use_dora True cannot be read, only False"),
        (edit(modules_to_save=["embedding"]), "modules_to_save .* cannot be read"),
        (edit(r=8), r"has .*not A and B of rank 8"),
        (edit(lora_alpha="much"), "lora_alpha 'much' must be positive"),
        (other_base, r"belongs to other weights: lm\.layers\.1\.mixer\.in_proj\.weight differs"),
        (rename, "adapts backbone.layers.0.mixer.q_proj, which the model has not"),
        (edit(lora_alpha=10**400), "lora_alpha 1000.* must be positive numbers"),
        (empty, "holds no adapter"),
        (retype(torch.Tensor.int), "not A and B of rank"),
        (retype(lambda tensor: tensor.mean()), "not A and B of rank"),
        (retype(lambda tensor: tensor / 0), "not finite"),
        (lose, "in_proj has .*'B'.*not A and B of rank"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    change: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    save(adapted("mamba"), tmp_path)
    change(tmp_path)
    with pytest.raises(ValueError, match=message):
        from_pretrained(tmp_path / "base", adapter=tmp_path / "adapter")
    with pytest.raises(ValueError, match=message):
        convert(str(tmp_path / "adapter"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_adapter_is_no_whole_model(tmp_path: Path) -> None:
    save(adapted("mamba"), tmp_path)
    with pytest.raises(ValueError, match=r"is an adapter, not a whole model: .*cobra merge"):
        from_pretrained(tmp_path / "adapter")
    with pytest.raises(ValueError, match="is no folder of an adapter: leave its --base out"):
        convert(str(tmp_path / "base"), tmp_path / "out", base="somewhere")
    with pytest.raises(FileNotFoundError, match="holds no adapter"):
        from_pretrained(tmp_path / "base", adapter=tmp_path / "model")
