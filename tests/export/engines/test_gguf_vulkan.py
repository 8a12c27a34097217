"""GGUF exports on a GPU, which may be one in software, against the CPU on the same weights."""

import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from cobra.export.engine import Engine
from cobra.export.engines.gguf import GGUFEngine
from cobra.export.engines.gguf_vulkan import GGUFVulkanApart
from cobra.export.gguf.llama import bindings, built_folder
from cobra.export.laws import LAWS
from cobra.export.laws.check import check_laws, drawn_pictures
from cobra.export.laws.law import GREEN
from cobra.export.manifest import read_manifest
from cobra.export.targets import open_engine
from cobra.models.lm.mamba2 import Mamba2LM
from cobra.models.vlm import CobraVLM
from tests.export.gguf.exported import NO_LLAMA, export, model
from tests.models.builders import PROJECTORS, VOCAB, small_vit

_NOT_BUILT = (
    "" if (built_folder("vulkan") / "lib").is_dir() else "cobra export llama --variant vulkan builds it"
)
pytestmark = [
    pytest.mark.export,
    pytest.mark.skipif(bool(NO_LLAMA or _NOT_BUILT), reason=NO_LLAMA or _NOT_BUILT),
]
# a state as Vulkan scans it, and heads that share what is written to it
_LM = partial(Mamba2LM, VOCAB, 64, 2, d_state=128, head_dim=64, n_groups=2, chunk_size=8)
_PROMPT = np.arange(5, 5 + 40)


@pytest.fixture(autouse=True)
def _exact_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GGML_VK_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("GGML_VK_DISABLE_F16", "1")
    monkeypatch.setenv("GGML_VK_DISABLE_INTEGER_DOT_PRODUCT", "1")


def exported(folder: Path, quant: str) -> Path:
    torch.manual_seed(0)
    made = CobraVLM(small_vit, PROJECTORS["mlp"], _LM).eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.1)
    return export(made, folder, quant)


def written(engine: Engine, steps: int) -> tuple[list[int], NDArray[np.float32]]:
    """Greedy tokens, and the logits that each was taken from."""
    logits = [engine.prefill(_PROMPT)]
    for _ in range(steps - 1):
        logits.append(engine.step(int(logits[-1].argmax())))
    return [int(row.argmax()) for row in logits], np.stack(logits)


@pytest.mark.parametrize("quant", ["f32", "f16", "q8_0", "q4_0"])
def test_a_gpu_says_what_the_cpu_says_with_unpacked_weights(quant: str, tmp_path: Path) -> None:
    out = exported(tmp_path, quant)
    packed = GGUFEngine(out, threads=1)
    cpu = packed if quant == "f32" else type(packed).dequantised(packed)
    gpu = open_engine("gguf-vulkan", out)
    assert isinstance(gpu, GGUFVulkanApart)
    (tokens, expected), (said, found) = written(cpu, 64), written(gpu, 64)
    assert said == tokens
    assert len(set(tokens)) > 3
    assert np.linalg.norm(found - expected) < 1e-5 * np.linalg.norm(expected)
    for ids in (_PROMPT, _PROMPT[:1]):
        placed = dict(gpu.placement(ids))
        assert placed.pop("Vulkan0").items() >= {"SSM_SCAN": 2, "SSM_CONV": 2, "MUL_MAT": 5}.items()
        # the rows of the embedding alone are taken where the file is
        assert [(place, set(kinds)) for place, kinds in placed.items()] == [("Vulkan_Host", {"GET_ROWS"})]
    assert set(packed.placement(_PROMPT)) == {"CPU"}
    for engine in (gpu, cpu, packed):
        engine.close()


def test_attention_runs_on_a_gpu(tmp_path: Path) -> None:
    out = export(model("llama"), tmp_path)
    cpu, gpu = GGUFEngine(out, threads=1), open_engine("gguf-vulkan", out)
    assert isinstance(gpu, GGUFVulkanApart)
    expected, found = cpu.prefill(_PROMPT), gpu.prefill(_PROMPT)
    assert np.linalg.norm(found - expected) < gpu.rounding * np.linalg.norm(expected)
    assert gpu.rounding == 1e-3
    placed = gpu.placement(_PROMPT)
    assert "SOFT_MAX" in placed["Vulkan0"]
    assert set(placed["Vulkan_Host"]) == {"GET_ROWS"}
    assert len(placed) == 2
    for engine in (gpu, cpu):
        engine.close()


def test_laws_are_kept(tmp_path: Path) -> None:
    """Those that read few tokens: each takes milliseconds on a GPU in software (all: `cobra conform`)."""
    names = ("restore", "reset", "batch", "packed", "dequantised")
    engine = open_engine("gguf-vulkan", exported(tmp_path, "q8_0"))
    with drawn_pictures() as pictures:
        found = check_laws(engine, [LAWS[name] for name in names], pictures)
    engine.close()
    assert {f.status for f in found} == {GREEN}


@pytest.mark.parametrize(("lm", "sizes"), [("mamba", (16, 1)), ("mamba2", (16, 16))])
def test_a_model_that_it_cannot_scan_is_refused_and_said_in_the_manifest(
    lm: str, sizes: tuple[int, int], tmp_path: Path
) -> None:
    out = export(model(lm), tmp_path)
    said = r"has no scan of a {} with a state of {} and heads of {}, .*: run it with --device cpu"
    with pytest.raises(OSError, match=said.format(lm, *sizes)):
        open_engine("gguf-vulkan", out)
    missing = read_manifest(out).contents.missing
    assert any(said.startswith("a GPU build: llama.cpp's Vulkan backend scans Mamba-2") for said in missing)


def test_a_machine_without_a_gpu_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = exported(tmp_path, "q8_0")
    monkeypatch.delenv("GGML_VK_VISIBLE_DEVICES")
    # no driver at all
    monkeypatch.setenv("VK_ICD_FILENAMES", str(tmp_path / "none.json"))
    with pytest.raises(OSError, match=r"finds no device Vulkan0: .* set GGML_VK_VISIBLE_DEVICES=0"):
        open_engine("gguf-vulkan", out)


def test_a_process_has_one_llama_cpp() -> None:
    bindings()
    with pytest.raises(ValueError, match=r"this process runs llama\.cpp of cpu"):
        bindings("vulkan")


def cobra(*words: str | Path) -> str:
    command: Sequence[str] = [sys.executable, "-m", "cobra", *map(str, words)]
    return subprocess.run(command, check=True, text=True, capture_output=True).stdout


def test_a_picture_is_asked_about_on_either_device(tmp_path: Path) -> None:
    out = exported(tmp_path, "f16")
    noise = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    Image.fromarray(noise).save(picture := tmp_path / "p.png")
    asked = (
        "export",
        "run",
        out,
        "--image",
        picture,
        "--prompt",
        "how many?",
        "why?",
        "--max-new-tokens",
        "8",
    )
    said = [cobra(*asked, "--device", device) for device in ("cpu", "vulkan")]
    assert said[0] == said[1]
    assert said[0].strip()
    # the CPU's engine beside the GPU's, in one process
    cobra("conform", "--engine", f"gguf-vulkan={out}", f"gguf={out}", "--law", "reset")
