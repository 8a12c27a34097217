"""Loading: in the dtype and packing that is asked for, within its memory; what is not written or read."""

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before peft)

import peft  # isort: skip
import pytest
import torch
from torch import Tensor

from cobra.convert.run import convert
from cobra.data.chat import Chat
from cobra.models.lm.mamba2 import Mamba2LM
from cobra.models.quantize import Quantization, quantize_
from cobra.models.vlm import CobraVLM
from cobra.pretrained import from_pretrained, save_pretrained
from tests.models.builders import ENCODERS, LMS, PROJECTORS, VOCAB
from tests.test_pretrained import TOKENIZER, tiny

CHAT = Chat(TOKENIZER)
QUANTIZATIONS: list[Quantization] = ["bf16", "int8", "int4"]
IDS = torch.randint(VOCAB, (2, 9), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def logits(model: CobraVLM) -> Tensor:
    return model.lm.head(model.lm.prefill(model.lm.embed(IDS)))


@pytest.mark.parametrize("lm", ["mamba", "mamba2", "qwen2", "phi", "hybrid"])
@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_a_quantized_model_is_saved_and_comes_back_bit_for_bit(
    lm: str, quantization: Quantization, tmp_path: Path
) -> None:
    model = tiny(lm).eval()
    save_pretrained(model, CHAT, tmp_path / "plain")
    quantize_(model.lm, quantization, 64)
    save_pretrained(model, CHAT, tmp_path / "packed")
    for loaded in (
        from_pretrained(tmp_path / "packed")[0],
        # packed while it is read
        from_pretrained(str(tmp_path / "plain"), quantization=quantization, group_size=64)[0],
    ):
        assert loaded.lm.quantized == {"quantization": quantization, "group_size": 64}
        for (name, one), (other_name, other) in zip(
            model.state_dict().items(), loaded.state_dict().items(), strict=True
        ):
            assert name == other_name
            assert torch.equal(one, other), name
        assert torch.equal(logits(loaded), logits(model))
        assert not any(tensor.is_meta for tensor in [*loaded.parameters(), *loaded.buffers()])


@pytest.mark.parametrize("quantization", ["none", *QUANTIZATIONS])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("lm", ["mamba", "qwen2"])
def test_a_model_is_loaded_in_a_dtype(
    lm: str, dtype: torch.dtype, quantization: Quantization, tmp_path: Path
) -> None:
    model = tiny(lm).eval()
    save_pretrained(model, CHAT, tmp_path)
    loaded, _ = from_pretrained(tmp_path, dtype=dtype, quantization=quantization)
    wide = {n.rpartition(".")[2] for n, p in model.named_parameters() if hasattr(p, "_no_weight_decay")}
    for name, parameter in loaded.named_parameters():
        marked = hasattr(parameter, "_no_weight_decay")
        assert marked == hasattr(model.state_dict(keep_vars=True)[name], "_no_weight_decay"), name
        packed = parameter.dtype == torch.bfloat16 and quantization != "none"
        assert packed or parameter.dtype == (torch.float32 if marked else dtype), name
    assert wide == ({"A_log", "D", "bias"} if lm == "mamba" else set())
    assert logits(loaded).dtype == dtype
    expected = logits(model)
    bound = 0.2 if quantization == "int4" else 0.05
    assert (logits(loaded).float() - expected).abs().max() <= bound * expected.abs().max()


def test_a_tied_head_stays_tied(tmp_path: Path) -> None:
    save_pretrained(tiny("qwen2"), CHAT, tmp_path)
    lm: Any = from_pretrained(tmp_path)[0].lm
    assert lm.causal_lm.get_input_embeddings().weight is lm.causal_lm.get_output_embeddings().weight


def resident(kind: str) -> int:
    """Bytes of this process: now (VmRSS), or at most since that was reset (VmHWM)."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(kind))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 170 MB, whose largest tensor has 8."""
    folder = tmp_path_factory.mktemp("large")
    lm = partial(Mamba2LM, 4096, 512, 24)
    save_pretrained(CobraVLM(ENCODERS["small_vit"], PROJECTORS["linear"], lm), CHAT, folder)
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's account of a process")
@pytest.mark.parametrize(
    ("dtype", "quantization"),
    [(torch.float32, "none"), (torch.bfloat16, "none"), (torch.bfloat16, "int8"), (torch.bfloat16, "int4")],
)
def test_loading_takes_the_memory_of_the_model_and_of_one_tensor(
    dtype: torch.dtype, quantization: Quantization, large: Path
) -> None:
    mebi = 2**20
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    loaded, _ = from_pretrained(large, dtype=dtype, quantization=quantization)
    taken = resident("VmHWM") - before
    held = sum(tensor.nbytes for tensor in [*loaded.parameters(), *loaded.buffers()])
    # the tensor, the tokenizer, code that was not run yet, and blocks that are being packed
    assert taken <= held + (64 if quantization != "none" else 32) * mebi, f"{taken / mebi:.0f} MiB"


@pytest.mark.parametrize("second", QUANTIZATIONS)
def test_weights_are_not_rounded_a_second_time(second: Quantization, tmp_path: Path) -> None:
    model = tiny()
    quantize_(model.lm, "int8")
    quantize_(model.lm, "none")
    with pytest.raises(ValueError, match=rf"in int8 already, and {second} would round them a second time"):
        quantize_(model.lm, second)
    save_pretrained(model, CHAT, tmp_path)
    with pytest.raises(ValueError, match="in int8 already"):
        from_pretrained(tmp_path, quantization=second)


def test_a_model_of_a_users_own_parts_is_saved_without_leave_and_read_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = CobraVLM(ENCODERS["tiled"], PROJECTORS["linear"], LMS["mamba2"])
    save_pretrained(model, CHAT, tmp_path)
    with pytest.raises(ValueError, match="COBRA_ALLOW"):
        from_pretrained(tmp_path)
    monkeypatch.setenv("COBRA_ALLOW", "tests")
    assert from_pretrained(tmp_path)[0].config() == model.config()


def with_lora(model: CobraVLM) -> None:
    peft.inject_adapter_in_model(peft.LoraConfig(r=2, target_modules=["in_proj"]), model.lm)


def with_another_part(model: CobraVLM) -> None:
    model.lm.register_module("extra", torch.nn.Linear(2, 2))


def without_a_part(model: CobraVLM) -> None:
    del model.projector.projector[2]  # type: ignore[operator, union-attr]


@pytest.mark.parametrize(
    ("change", "named"),
    [(with_lora, "lora_A"), (with_another_part, r"lm\.extra"), (without_a_part, "missing")],
)
def test_what_could_not_be_read_back_is_not_written(
    change: Callable[[CobraVLM], None], named: str, tmp_path: Path
) -> None:
    model = CobraVLM(ENCODERS["small_vit"], PROJECTORS["mlp"], LMS["mamba2"])
    change(model)
    with pytest.raises(ValueError, match=rf"cannot be saved: .*adapters .* have to be merged .*{named}"):
        save_pretrained(model, CHAT, tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ([], "quantized"),
        ({"quantization": "int4"}, "quantized"),
        ({"quantization": "int3", "group_size": 32}, "'int3' but must be one of"),
        ({"quantization": "int4", "group_size": 7}, "group is 7"),
        ({"quantization": "int4", "group_size": 32, "make": "evil.evil"}, "quantized"),
        # of another packing than the weights
        ({"quantization": "int8", "group_size": 32}, r"mis-shaped .*packed"),
        (None, r"unexpected .*matrix"),
    ],
)
def test_a_packing_that_does_not_fit_is_refused(said: object, message: str, tmp_path: Path) -> None:
    model = tiny()
    quantize_(model.lm, "int4")
    save_pretrained(model, CHAT, tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "quantized": said}))
    with pytest.raises(ValueError, match=message):
        from_pretrained(tmp_path)


def test_packed_weights_are_not_converted(tmp_path: Path) -> None:
    model = tiny()
    quantize_(model.lm, "int4")
    save_pretrained(model, CHAT, tmp_path / "packed")
    with pytest.raises(ValueError, match=r"packed holds packed weights .*'int4'.* that they were made from"):
        convert(str(tmp_path / "packed"), tmp_path / "out")
