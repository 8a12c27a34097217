import argparse
import json
import math
import random
import statistics
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
import torch

from cobra.eval.speed import cases, llama_cases, subjects
from cobra.eval.speed import run as running
from cobra.eval.speed.arguments import add_speed_benches
from cobra.eval.speed.build import random_lm, random_vlm, weight_bytes
from cobra.eval.speed.compare import comparison, ratio_interval
from cobra.eval.speed.crossing import crossings
from cobra.eval.speed.plan import Settings, engines
from cobra.eval.speed.published import read_published
from cobra.eval.speed.rates import bound, first_token, rate, seconds
from cobra.eval.speed.report import read_json
from cobra.eval.speed.room import batches, needed
from cobra.eval.speed.subjects import Subject, read_subjects
from cobra.eval.systems.configs import read_systems
from cobra.eval.systems.contexts import rewind, state_at, state_bytes_of_step
from cobra.eval.timing.sample import Measurement, Missing, Prepared, Runner, Sample
from cobra.eval.timing.worker import Worker, about
from cobra.models.lm.mamba2 import Mamba2LM
from cobra.models.lm.transformer import TransformerLM
from cobra.pretrained import build_on_meta

CONFIGS = Path("configs")
LLAMA = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64, "head_dim": 8}
TINY = Subject(
    "tiny-llama",
    {
        "class_path": "cobra.models.lm.transformer.TransformerLM",
        "init_args": {"vocab_size": 512, "d_model": 32, "n_layers": 2, "options": LLAMA},
    },
)


@pytest.fixture(scope="module")
def demo() -> Subject:
    tree = read_systems(CONFIGS)["cobra_tiny"]
    return Subject("cobra_tiny", tree["init_args"]["lm"], tree)


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


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["transformer", "mamba2"])
def test_a_state_at_a_context_is_stepped_as_after_a_prompt(kind: str) -> None:
    """The same numbers in the buffers give the same logits, however they came there."""
    torch.manual_seed(0)
    lm: Any = (
        TransformerLM(64, 32, 2, options=LLAMA) if kind == "transformer" else Mamba2LM(64, 32, 2, head_dim=16)
    )
    lm.eval()
    real = lm.allocate_state(1, 9)
    lm.prefill(torch.randn(1, 5, 32), real)
    made = state_at(lm, 5, 4, torch.float32)
    copy_buffers(real, made)
    x = torch.randn(1, 32)
    expected = lm.step(x, real.clone())
    torch.testing.assert_close(lm.step(x, made), expected)
    rewind(made, 5)
    copy_buffers(real, made)
    torch.testing.assert_close(lm.step(x, made), expected)


def copy_buffers(source: Any, target: Any) -> None:
    if hasattr(source, "ssm"):
        target.conv.copy_(source.conv)
        target.ssm.copy_(source.ssm)
        return
    target.keys[..., :5, :] = source.keys[..., :5, :]
    target.values[..., :5, :] = source.values[..., :5, :]


def test_the_stages_of_a_question_add_up_and_the_second_one_reads_no_picture(demo: Subject) -> None:
    case = cases.e2e(demo.vlm or {}, "none", "float32", "cpu", 3)
    sample: Any = case.run()
    assert list(sample.stages) == ["image", "vision", "prefill", "decode", "second"]
    parts = [wall for stage, (_, wall) in sample.stages.items() if stage != "second"]
    assert sample.wall == pytest.approx(sum(parts))
    assert case.about["prompt_tokens"] == case.about["image_tokens"] + 21
    assert case.about["constant_state"]


def test_decoding_and_reading_are_timed_on_any_language_model() -> None:
    shared: dict[str, Any] = {"lm": TINY.lm, "quantisation": "none", "dtype": "float32", "device": "cpu"}
    decode = cases.decode(**shared, context=6, tokens=4)
    assert not decode.about["constant_state"]
    lm: Any = build_on_meta(TINY.lm)
    # without the embedding, of which a row is read; 2 layers × keys and values × 16 numbers a token
    weights = sum(p.numel() for p in lm.parameters()) - lm.vocab_size * lm.d_model
    assert decode.bytes == pytest.approx(4 * weights + 7 * 4 * 2 * 2 * 16, rel=0.01)
    for case in (
        decode,
        cases.decode(**shared, context=6, tokens=4, real=True),
        cases.prefill(**shared, length=5),
    ):
        sample: Any = case.run()
        assert sample.wall > 0


class InThisProcess:
    """Workers without processes, whose cases are the real ones."""

    def __init__(self, threads: int) -> None:
        self.worker = Worker(cases.CASES)

    def __enter__(self) -> "InThisProcess":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        return

    def about(self, runner: Runner) -> dict[str, Any]:
        return about()

    def prepare(self, measurement: Measurement) -> Prepared:
        answer = self.worker.answer(
            {
                "do": "prepare",
                "key": measurement.key,
                "case": measurement.case,
                "arguments": measurement.arguments,
            }
        )
        if "missing" in answer:
            raise Missing(answer["missing"])
        return Prepared(**answer)

    def time(self, measurement: Measurement) -> Sample:
        return self.worker.time(measurement.key)

    def forget(self, measurement: Measurement) -> None:
        return

    def stop(self, runner: Runner) -> None:
        return


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, demo: Subject) -> Any:
    monkeypatch.setattr(running, "Workers", InThisProcess)
    monkeypatch.setattr(subjects, "read_systems", lambda configs: {demo.name: demo.vlm})
    parser = argparse.ArgumentParser()
    add_speed_benches(parser.add_subparsers())

    def run(*words: str) -> None:
        options = parser.parse_args([*words, "--dtype", "float32", "--repeats", "2", "--read-mebibytes", "1"])
        options.bench(options)

    return run


def test_one_question_writes_its_reports(tmp_path: Path, bench: Any) -> None:
    words = ["--models", "cobra_tiny", "--new-tokens", "3", "--quant", "none", "int8"]
    bench("e2e", *words, "--out", str(tmp_path))
    report = read_json(tmp_path / "e2e.json")
    assert [entry["label"] for entry in report["measurements"]] == ["cobra_tiny, fp32", "cobra_tiny, int8"]
    assert all(len(entry["seconds"]) == 2 for entry in report["measurements"])
    text = (tmp_path / "e2e.md").read_text()
    assert "Random weights" in text
    assert "| Cobra-3.5B | Mamba 2.8B | 729 | 166.47 | 1.54 | NVIDIA A100 PCIe 80 GB |" in text
    assert (tmp_path / "e2e.png").stat().st_size > 10_000


@pytest.mark.parametrize("case", ["decode", "prefill"])
def test_lengths_that_do_not_fit_are_missing_with_the_reason(
    case: str, tmp_path: Path, bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    option = {"decode": "--contexts", "prefill": "--lengths"}[case]
    monkeypatch.setattr(running, "needed", lambda engine, length: 1e30 if length == 16 else 1.0)
    bench(case, "--models", "cobra_tiny", option, "4", "16", "--out", str(tmp_path))
    report = read_json(tmp_path / f"{case}.json")
    assert [(e["length"], "missing" in e) for e in report["measurements"]] == [(4, False), (16, True)]
    text = (tmp_path / f"{case}.md").read_text()
    assert "cobra_tiny, fp32 at 16: needs 1000000000000000000000.0 GB of memory" in text


def test_a_language_model_alone_sees_no_picture(tmp_path: Path, bench: Any) -> None:
    with pytest.raises(ValueError, match="mamba2-130m: a language model alone sees no picture"):
        bench("e2e", "--models", "mamba2-130m", "--out", str(tmp_path))


def test_every_engine_has_a_name_of_its_own() -> None:
    chosen = engines([TINY], Settings(("none", "bf16", "int8", "int4"), runtimes=("torch", "transformers")))
    labels = [engine.label for engine in chosen]
    assert len(labels) == len(set(labels)) == 6


def test_llama_cpp_is_missing_with_the_reason_until_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    absent = engines([TINY], Settings(runtimes=["llama.cpp"]))
    assert {engine.missing for engine in absent} == {
        "no llama-bench on PATH: build llama.cpp and name it with --llama-bench"
    }
    file = tmp_path / "tiny-Q4_K_M.gguf"
    found = engines([TINY], Settings(runtimes=["llama.cpp"], llama_bench="x", gguf={"tiny-llama": file}))
    assert [engine.label for engine in found] == [
        "tiny-llama, Q4_K_M, llama.cpp",
        "tiny-llama, Q4_K_M, llama.cpp flash attention",
    ]


def test_llama_bench_is_asked_for_the_same_steps(tmp_path: Path) -> None:
    answer = {"avg_ns": 2_500_000_000, "model_size": 7, "build_commit": "abc", "model_type": "mamba2"}
    program = tmp_path / "llama-bench"
    program.write_text(f"#!/bin/sh\necho \"$@\" > {tmp_path}/asked\necho '{json.dumps([answer])}'\n")
    program.chmod(0o755)
    sample: Any = llama_cases.decode(str(program), "m.gguf", 2, 8192, 16, True).run()
    assert (sample.wall, math.isnan(sample.cpu)) == (2.5, True)
    assert (tmp_path / "asked").read_text().strip() == "-m m.gguf -t 2 -fa 1 -r 1 -o json -p 0 -n 16 -d 8192"
    program.write_text("#!/bin/sh\necho 'failed to load' >&2\nexit 1\n")
    with pytest.raises(RuntimeError, match="ended with 1: failed to load"):
        llama_cases.prefill(str(program), "m.gguf", 2, 512, False)


def entry(label: str, length: int, wall: float, **more: Any) -> dict[str, Any]:
    sample = {"cpu": wall / 2, "wall": wall, "stages": {}}
    named = {"label": label, "length": length, "runtime": "torch", "precision": "int4", "tokens": 10}
    read = {"cpu": [2e9], "wall": [1e9]}
    return {**named, "seconds": [sample] * 5, "step_bytes": 1e8, "bandwidth": read, **more}


def test_rates_are_tokens_over_seconds_and_their_bound_is_bandwidth_over_bytes() -> None:
    made = entry("a", 0, 2.0)
    assert (rate(made, "wall").median, rate(made, "cpu").median) == (5.0, 10.0)
    assert (bound(made, "wall"), bound(made, "cpu")) == (10.0, 20.0)
    foreign = {**made, "seconds": [{"cpu": math.nan, "wall": 2.0, "stages": {}}]}
    assert rate(foreign, "cpu").median == 5.0
    stages = {"image": (1, 2), "vision": (3, 4), "prefill": (5, 6), "decode": (8, 10)}
    asked = {**made, "new_tokens": 6, "seconds": [{"cpu": 17.0, "wall": 22.0, "stages": stages}]}
    assert first_token(asked, "wall") == [12]
    # the first of six comes from the prompt
    assert rate(asked, "wall", "decode").median == 0.5
    assert rate(asked, "wall").median == pytest.approx(6 / 22)
    assert seconds(asked, "cpu", "second") == []


def report(
    kind: str = "decode", factor: float = 1.0, lengths: tuple[int, ...] = (0, 2048, 8192)
) -> dict[str, Any]:
    constant = [entry("mamba", length, 2.0 * factor, constant_state=True) for length in lengths]
    growing = [entry("llama", length, 1.0 + length / 2048, constant_state=False) for length in lengths]
    machine = {"cpu": "a"}
    return {
        "kind": kind,
        "basis": "wall",
        "machine": machine,
        "settings": {},
        "measurements": constant + growing,
    }


def test_the_crossing_is_where_nothing_longer_is_lost_again() -> None:
    expected = "- mamba over llama: 0.50× at 0, 1.00× at 2,048, 2.50× at 8,192; faster from 8,192 on"
    assert crossings(report()) == expected
    assert crossings(report(factor=9.0)).endswith("not faster at the longest")


def test_a_comparison_tells_a_difference_from_none() -> None:
    lines = comparison(report(), report(factor=0.5)).splitlines()
    assert lines[2] == "| mamba at 0 | 2 | 1 | 2.00 | 2.00 – 2.00 | faster |"
    assert "| llama at 8,192 | 5 | 5 | 1.00 | 1.00 – 1.00 | no difference shown |" in lines
    changed = {**report(lengths=(0,)), "machine": {"cpu": "b"}}
    text = comparison(report(), changed)
    assert "**cpu differs**: a and b" in text
    assert "llama at 2,048 is only in the first" in text
    with pytest.raises(ValueError, match="decode cannot be compared with one on prefill"):
        comparison(report(), report("prefill"))


def test_an_interval_of_noise_covers_no_change_and_narrows_with_repeats() -> None:
    noise = random.Random(1)
    few, many = ([1 + 0.1 * noise.random() for _ in range(n)] for n in (5, 200))
    widths = []
    for samples in (few, many):
        ratio, low, high = ratio_interval(samples, list(reversed(samples)), random.Random(0))
        assert low <= ratio == 1.0 <= high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_published_rows_add_up_or_say_that_they_do_not() -> None:
    rows = read_published()
    assert len(rows) == 15
    for row in rows:
        half = 0.5 if isinstance(row.tokens_per_second, int) else 0.005
        # 256 tokens over seconds, both as they were rounded
        least, most = (256 / (row.tokens_per_second + sign * half) for sign in (1, -1))
        adds_up = least - 0.005 <= row.total_seconds <= most + 0.005
        assert adds_up != bool(row.note), row


def test_a_cobra_in_four_bits_needs_what_its_parts_take() -> None:
    (cobra,) = read_subjects(["cobra_2.8b"], CONFIGS)
    (four, full) = engines([cobra], Settings(quantisations=["int4", "none"]))
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


def test_a_report_of_another_kind_is_refused(tmp_path: Path) -> None:
    for content in ("{", "[]", '{"schema": 1, "kind": "kernels"}', '{"schema": 2, "kind": "e2e"}'):
        path = tmp_path / "report.json"
        path.write_text(content)
        with pytest.raises(ValueError, match=r"report\.json"):
            read_json(path)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_transformers_is_timed_in_a_process_of_its_own(tmp_path: Path) -> None:
    """A tiny config through the command itself: real processes, every runtime that is here."""
    parser = argparse.ArgumentParser()
    add_speed_benches(parser.add_subparsers())
    quick = [
        "--repeats",
        "1",
        "--read-mebibytes",
        "16",
        "--out",
        str(tmp_path),
        "--runtime",
        "torch",
        "transformers",
    ]
    for words in (["e2e", "--new-tokens", "4"], ["decode", "--contexts", "8", "--tokens", "2"]):
        options = parser.parse_args([*words, "--models", "cobra_tiny", *quick, "--out", str(tmp_path)])
        options.bench(options)
        made = read_json(tmp_path / f"{words[0]}.json")["measurements"]
        assert [(e["label"], e.get("missing")) for e in made] == [
            (f"cobra_tiny, bf16{runtime}", None)
            for runtime in ("", ", transformers eager", ", transformers compiled")
        ]
        assert all(statistics.median(s["wall"] for s in e["seconds"]) > 0 for e in made)
