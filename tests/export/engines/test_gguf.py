"""GGUF exports in llama.cpp against PyTorch on the same weights."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from cobra.data.chat import Chat
from cobra.data.processor import Processor
from cobra.export import manifest
from cobra.export.engines.gguf import GGUFEngine, _threads_said
from cobra.export.laws import LAWS
from cobra.export.laws.check import check_laws, drawn_pictures
from cobra.export.laws.law import NONE, RED
from cobra.export.manifest import Contents, read_manifest, write_manifest
from cobra.export.random_lm import write_random_lm
from cobra.export.write import export_model
from cobra.inference.conversation import Conversation
from cobra.models.vision.pictures import Pictures
from tests.export.gguf.exported import NO_LLAMA, TOKENIZER, engine, export, model, unseeing
from tests.export.test_conform import MAMBA2
from tests.models.builders import VOCAB

pytestmark = [pytest.mark.export, pytest.mark.skipif(bool(NO_LLAMA), reason=NO_LLAMA)]

_SEEING = [
    *[("small_vit", projector) for projector in ("linear", "pixel_unshuffle", "mamba_scan")],
    *[("timm", projector) for projector in ("mlp", "ldp", "ldpv2", "mamba_mlp")],
    *[("fused", projector) for projector in ("fused_mlp", "cross_scan")],
]


def test_threads_are_those_of_the_outermost_level(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3,1")
    assert GGUFEngine(export(model(), tmp_path))._threads == 3


@pytest.mark.parametrize("said", ["-1", "513", "all"])
def test_a_number_of_threads_that_is_none_is_refused(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    with pytest.raises(ValueError, match=f"OMP_NUM_THREADS is {said}: set it to a number of threads up to"):
        _threads_said()


def test_an_export_for_another_runtime_is_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path, "executorch-cpu", "fp32", "model", Contents())
    with pytest.raises(ValueError, match="is an export for executorch-cpu, and this engine runs gguf"):
        GGUFEngine(tmp_path)


def rms(found: NDArray, expected: NDArray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize(
    "lm",
    ["mamba2", "mamba2_groups", "mamba", "llama", "qwen2", "phi", "phi3", "stablelm", "mobile_llm",
     "mobile_llm_shared"],
)  # fmt: skip
def test_logits_are_those_of_pytorch(lm: str, tmp_path: Path) -> None:
    made = model(lm)
    ids = torch.arange(5, 5 + 70)[None]
    with torch.inference_mode():
        embeds = made.lm.embed(ids)
        expected = made.lm.head(made.lm.prefill(embeds))[0, -1].numpy()
    opened = engine(made, tmp_path)
    # its GELU is a table in fp16
    rounding = 1e-3 if lm == "phi" else 1e-5
    assert rms(opened.prefill(ids[0].numpy()), expected) < rounding
    opened.reset()
    opened.prefill(embeds[0, :30].numpy())
    opened.prefill(ids[0, 30:-1].numpy())
    before = opened.snapshot()
    assert rms(opened.step(int(ids[0, -1])), expected) < rounding
    opened.prefill(np.array([7, 8, 9]))
    opened.restore(before)
    assert rms(opened.step(int(ids[0, -1])), expected) < rounding
    opened.close()


@pytest.mark.parametrize(("encoder", "projector"), _SEEING)
def test_pictures_are_read_as_pytorch_reads_them(encoder: str, projector: str, tmp_path: Path) -> None:
    made = model(encoder=encoder, projector=projector)
    noise = np.random.default_rng(0).integers(0, 255, (70, 90, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "picture.png")
    with torch.inference_mode():
        tiles = made.vision.transform(Image.fromarray(noise))
        expected = made.image_tokens(Pictures.stack([tiles])).numpy()
    opened = engine(made, tmp_path)
    (found,) = opened.read_pictures([tmp_path / "picture.png"])
    assert rms(found, expected) < 1e-5
    opened.close()


def test_a_projector_that_ggml_cannot_run_is_left_out_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = export(unseeing(monkeypatch), tmp_path)
    *_, pictures, stock = read_manifest(out).contents.missing
    assert pictures.startswith("the way of pictures: ggml's operations here have no aten.tanh")
    assert stock.startswith("mmproj.gguf, for pictures in llama.cpp's own programs: ")
    assert not any((out / name).exists() for name in ("pictures.gguf", "mmproj.gguf"))


@pytest.mark.parametrize(("lm", "part"), [("hybrid", "StackedLM"), ("phi3_longrope", "rope_type 'longrope'")])
def test_a_language_model_that_llama_cpp_lacks_is_refused(lm: str, part: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=part):
        export(model(lm), tmp_path)
    assert not (tmp_path / "out").exists()


def test_more_tokens_than_a_piece_are_read(tmp_path: Path) -> None:
    made = model()
    ids = torch.randint(5, VOCAB, (1, 1100), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = made.lm.head(made.lm.prefill(made.lm.embed(ids)))[0, -1].numpy()
    # twice as long as the context that it was opened with, which only a transformer fills
    assert rms(engine(made, tmp_path).prefill(ids[0].numpy()), expected) < 1e-5


def test_a_transformer_whose_context_is_full_says_how_long_it_is(tmp_path: Path) -> None:
    opened = engine(model("llama"), tmp_path)
    with pytest.raises(ValueError, match="context of 512 tokens is full, start anew or with less text"):
        opened.prefill(np.full(600, 5))
    opened.close()


@pytest.mark.parametrize("quant", ["f32", "q8_0", "q4_k_m"])
def test_the_laws_are_kept(quant: str, tmp_path: Path) -> None:
    made = model()
    with torch.no_grad():
        for name, weight in made.lm.named_parameters():
            # a picture is remembered so well that it is more than what products in 8 bits round off
            if name.endswith("A_log"):
                weight.fill_(-5)
            if name.endswith("dt_bias"):
                weight.fill_(1)
    opened = engine(made, tmp_path, quant)
    with drawn_pictures() as pictures:
        found = check_laws(opened, LAWS.values(), pictures)
    assert [f for f in found if f.status == RED] == []
    nothing = {"f32": {"dequantised"}}.get(quant, {"oracle", "pictures-oracle"})
    padding = {"padding-left", "padding-right", "padding-middle"}
    assert {f.law for f in found if f.status == NONE} == nothing | padding


def test_a_language_model_without_a_tokenizer_keeps_the_laws_of_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "lm").mkdir()
    write_random_lm(MAMBA2, tmp_path / "lm")
    export_model(tmp_path / "lm", "gguf", "f32", tmp_path / "out")
    opened = GGUFEngine(tmp_path / "out", threads=1)
    found = check_laws(opened, LAWS.values(), [])
    opened.close()
    assert [f for f in found if f.status == RED] == []
    unended = {f.law for f in found if f.reason == "without a tokenizer no token ends a text"}
    assert unended == {"end-of-text", "ended-row"}


def test_a_run_answers_as_the_model_and_imports_no_torch(tmp_path: Path) -> None:
    made = model()
    noise = np.random.default_rng(0).integers(0, 255, (70, 90, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "picture.png")
    out = export(made, tmp_path)
    processor = Processor.of(made, Chat(TOKENIZER))
    conversation = Conversation(made, processor, max_new_tokens=8)
    questions = ["how many circles?", "and <|endoftext|> squares?"]
    expected = [
        "".join(conversation.ask(question, [] if number else [tmp_path / "picture.png"]))
        for number, question in enumerate(questions)
    ]
    code = "import sys; from cobra.cli import main; main()\n"
    code += "assert not {'torch', 'transformers'} & sys.modules.keys(), 'imported'"
    command = ["export", "run", str(out), "--image", str(tmp_path / "picture.png"), "--prompt", *questions]
    ended = subprocess.run(
        [sys.executable, "-c", code, *command, "--max-new-tokens", "8"], capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "".join(f"{answer}\n" for answer in expected)
    # it takes 68; PyTorch alone 200
    peak = re.search(r"peak RSS (\d+) MB", ended.stderr)
    assert peak is not None
    assert int(peak[1]) < 150


def mapped(path: Path) -> bool:
    return str(path) in Path("/proc/self/maps").read_text()


def test_reading_in_turns_holds_one_file_and_forgets_nothing(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (70, 90, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "picture.png")
    out = export(model(), tmp_path)
    both, lean = (GGUFEngine(out, context=512, threads=1) for _ in range(2))
    assert not mapped(out / "lm.gguf"), "nothing is opened before it is needed"
    logits = []
    for opened in (lean, both):
        if opened is lean:
            opened.turn_to(pictures=False)
        opened.prefill(np.array([5, 6, 7]))
        if opened is lean:
            # again after a picture that could not be read
            opened.turn_to(pictures=True)
            opened.turn_to(pictures=True)
            assert not mapped(out / "lm.gguf")
        (tokens,) = opened.read_pictures([tmp_path / "picture.png"])
        if opened is lean:
            opened.turn_to(pictures=False)
            assert opened._pictures is None
        opened.prefill(tokens)
        logits.append(opened.step(8))
    np.testing.assert_array_equal(logits[0], logits[1])
    lean.turn_to(pictures=True)
    lean.reset()
    both.reset()
    np.testing.assert_array_equal(lean.step(9), both.step(9))
    lean.close()
    both.close()
    assert not mapped(out / "lm.gguf")


@pytest.mark.parametrize(("encoder", "projector"), [("small_vit", "mlp"), ("timm", "ldpv2")])
def test_an_encoder_in_8_bits_reads_pictures_nearly_as_well(
    encoder: str, projector: str, tmp_path: Path
) -> None:
    made = model(encoder=encoder, projector=projector)
    out = export(made, tmp_path, "q8_0")
    # rows of 16 values among them, filled up to 32
    assert 1e-4 < read_manifest(out).contents.parity["image_tokens"] < 2e-2


@pytest.mark.parametrize("name", ["lm.gguf", "pictures.gguf"])
def test_a_file_that_is_cut_or_damaged_is_refused_in_a_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # as of a large file, whose hash is not looked at
    monkeypatch.setattr(manifest, "_SMALL", 0)
    file = export(model(), tmp_path) / name
    whole = file.read_bytes()
    # its header: what is wrong with values alone, hashes tell
    file.write_bytes(whole[:40] + bytes(2000) + whole[2040:])
    opened = GGUFEngine(file.parent, context=512, threads=1)
    with pytest.raises(OSError, match=rf"{name}.*export the model again") as raised:
        opened.turn_to(pictures=name == "pictures.gguf")
    assert "\n" not in str(raised.value)
    opened.close()
    file.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=f"{name} has .* bytes, not the .* that were written"):
        GGUFEngine(file.parent)
