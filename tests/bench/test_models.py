"""What is measured: names, random models, engines, and which fit into memory together."""

from pathlib import Path
from typing import Any

import pytest
import torch

from cobra.bench.build import random_lm, random_vlm, weight_bytes
from cobra.bench.engines import Settings, engines, with_build
from cobra.bench.room import batches, needed
from cobra.bench.subjects import Subject, read_subjects
from cobra.bench.systems.contexts import state_bytes_of_step
from cobra.config.build import build_on_meta
from tests.bench.tiny_subject import LLAMA, TINY
from tests.models.builders import HYBRID

CONFIGS = Path("configs")


def on_meta(name: str) -> Any:
    (subject,) = read_subjects([name], CONFIGS)
    return build_on_meta(subject.lm)


def test_named_language_models_have_the_published_sizes() -> None:
    """MobileVLM (arXiv 2312.16886) by its dimensions; Mamba-2 as tests/models/lm/test_sizes.py."""
    published = {
        "mobilellama-1.4b": 1_364_297_728,
        "mobilellama-2.7b": 2_701_560_320,
        "mamba2-1.3b": 1_343_757_312,
        "mamba2-2.7b": 2_702_599_680,
        "mamba-2.8b": 2_768_345_600,
    }
    assert {name: sum(p.numel() for p in on_meta(name).parameters()) for name in published} == published


def test_an_unknown_name_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"'mamba3'.*cobra_2\.8b/ldpv2.*mamba2-1\.3b"):
        read_subjects(["mamba3"], CONFIGS)


def test_a_step_moves_the_bytes_that_were_computed_from_the_papers() -> None:
    # 64 layers × 80 heads × 64 × 128 in fp32 are 0.168 GB, read and written, and a little convolution
    assert state_bytes_of_step(on_meta("mamba2-2.7b"), 5, torch.bfloat16) == pytest.approx(0.341e9, rel=0.02)
    # 320 KiB a token
    moved = state_bytes_of_step(on_meta("mobilellama-2.7b"), 1023, torch.bfloat16)
    assert moved == 1024 * 320 * 1024


def test_random_models_are_made_in_their_target_precision(demo: Subject) -> None:
    assert demo.vlm is not None
    vlm = random_vlm(demo.vlm, "int4", torch.bfloat16, "cpu")
    assert not any(tensor.is_meta for tensor in [*vlm.parameters(), *vlm.buffers()])
    assert {p.dtype for p in vlm.vision.parameters()} == {torch.bfloat16}
    wide = random_vlm(demo.vlm, "none", torch.bfloat16, "cpu")
    assert weight_bytes(vlm.lm) < 0.5 * weight_bytes(wide.lm)


def test_a_tied_head_is_weighed_once() -> None:
    init_args = {**TINY.lm["init_args"], "options": {**LLAMA, "tie_word_embeddings": True}}
    lm = random_lm({**TINY.lm, "init_args": init_args}, "none", torch.bfloat16, "cpu")
    untied = random_lm(TINY.lm, "none", torch.bfloat16, "cpu")
    assert weight_bytes(untied) - weight_bytes(lm) == 2 * 512 * 32


def test_every_engine_has_a_name_of_its_own() -> None:
    chosen = engines([TINY], Settings(("none", "bf16", "int8", "int4"), runtimes=("torch", "transformers")))
    labels = [engine.label for engine in chosen]
    assert len(labels) == len(set(labels)) == 6


def test_only_a_recurrent_state_is_measured_in_two_precisions() -> None:
    subjects = [TINY, *read_subjects(["mamba2-130m"], CONFIGS), Subject("hybrid", HYBRID)]
    chosen = engines(subjects, Settings(state_dtypes=("fp32", "bf16")))
    assert [engine.label for engine in chosen] == [
        "tiny-llama, bf16", "mamba2-130m, bf16", "mamba2-130m, bf16, bf16 state", "hybrid, bf16",
        "hybrid, bf16, bf16 state",
    ]  # fmt: skip
    wide, narrow = (needed(engine, 0) for engine in chosen[1:3])
    # 24 layers × 24 heads × 64 × 128 numbers, 2 bytes less each; read and written
    assert wide - narrow == 2 * 2 * 24 * 24 * 64 * 128


def test_each_runtime_takes_the_quantizations_that_it_knows() -> None:
    subjects = [TINY, *read_subjects(["mamba2-130m"], CONFIGS)]
    chosen = engines(subjects, Settings(("int4", "q8_0"), runtimes=("torch", "gguf")))
    # attention runs in two ways, of which the faster is the baseline
    assert [engine.label for engine in chosen] == [
        "tiny-llama, int4", "tiny-llama, q8_0, gguf", "tiny-llama, q8_0, gguf flash attention",
        "mamba2-130m, int4", "mamba2-130m, q8_0, gguf",
    ]  # fmt: skip
    defaults = engines([TINY], Settings(runtimes=("torch", "executorch")))
    assert [engine.label for engine in defaults] == ["tiny-llama, bf16", "tiny-llama, fp32, executorch"]


@pytest.mark.parametrize(
    ("runtimes", "quants", "message"),
    [
        (["torch", "gguf"], ["q4_k_m"], "--runtime torch knows no --quant q4_k_m: name one of none, bf16"),
        (
            ["gguf"],
            ["q4_0", "8da4w"],
            "--quant 8da4w is known to none of the runtimes: gguf knows q4_k_m, q4_0",
        ),
        (["executorch"], ["q4_0"], "--quant q4_0 is known to none"),
    ],
)
def test_a_quantization_that_a_runtime_does_not_know_is_refused(
    runtimes: list[str], quants: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        engines([TINY], Settings(quants, runtimes=runtimes))


def test_what_a_mobile_build_lacks_is_the_reason_why_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COBRA_CACHE", str(tmp_path))
    (engine,) = engines([Subject("hybrid", HYBRID)], Settings(runtimes=["gguf"]))
    assert "no architecture for a StackedLM" in with_build(engine).missing
    assert list((tmp_path / "exports").iterdir()) == []


def test_a_cobra_in_four_bits_needs_what_its_parts_take() -> None:
    (cobra,) = read_subjects(["cobra_2.8b"], CONFIGS)
    (four, full) = engines([cobra], Settings(quantizations=["int4", "none"]))
    # 2.77 billion weights, of which a few are not in matrices, of 4.5 or 16 bits; 0.78 billion of 16
    assert needed(four, 0) == pytest.approx(2.77e9 * 4.5 / 8 + 0.78e9 * 2 + 1.2e9, rel=0.02)
    assert needed(full, 0) == pytest.approx(3.55e9 * 2 + 1.2e9, rel=0.02)


@pytest.mark.parametrize("room", [0.0, 5.0, 8.0, 100.0])
def test_batches_fit_and_leave_out_only_what_cannot(room: float) -> None:
    sizes = [3.0, 7.0, 2.0, 5.0, 4.0]
    found = batches(sizes, room)
    assert all(sum(sizes[i] for i in batch) <= room for batch in found)
    assert sorted(i for batch in found for i in batch) == [i for i, size in enumerate(sizes) if size <= room]
    if room == 100.0:
        assert len(found) == 1
