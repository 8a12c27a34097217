"""What is timed: stages, steps after a context, and the bytes that bound them."""

import copy
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from cobra.bench import op_cases, torch_cases
from cobra.bench.op_bench import OURS, gpu_plan, plan
from cobra.bench.question import Question
from cobra.bench.subjects import Subject
from cobra.bench.systems.contexts import state_at
from cobra.bench.systems.measure import CONTEXTS, measure
from cobra.bench.timing.interleave import Group
from cobra.bench.training import training_flops
from cobra.config.build import build_on_meta
from cobra.kernels import cpu
from cobra.kernels.cpu.replay import Replay
from cobra.kernels.step_graph import StepGraph
from cobra.models.lm.mamba2 import Mamba2LM
from cobra.models.lm.transformer import TransformerLM
from tests.bench.tiny_subject import LLAMA, TINY
from tests.models.builders import HYBRID

MAMBA2: dict[str, Any] = {
    "class_path": "cobra.models.lm.mamba2.Mamba2LM",
    "init_args": {"vocab_size": 512, "d_model": 32, "n_layers": 2, "d_state": 16, "head_dim": 8},
}


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
    assert torch.equal(made.lengths, real.lengths)
    for mine, theirs in zip(made.layers, real.layers, strict=True):
        for name, buffer in theirs.items():
            mine[name].copy_(buffer)
    x = torch.randn(1, 32)
    torch.testing.assert_close(lm.step(x, made), lm.step(x, real))


def test_the_stages_of_a_question_add_up_and_the_second_one_reads_no_picture(demo: Subject) -> None:
    case = torch_cases.e2e(demo.vlm or {}, "none", "float32", "cpu", 3)
    sample: Any = case.run()
    assert list(sample.stages) == ["image", "vision", "prefill", "decode", "second"]
    parts = [wall for stage, (_, wall) in sample.stages.items() if stage != "second"]
    assert sample.wall == pytest.approx(sum(parts))
    assert case.about["prompt_tokens"] == case.about["image_tokens"] + 21
    assert case.about["constant_state"]


def test_decoding_and_reading_are_timed_on_any_language_model() -> None:
    shared: dict[str, Any] = {"lm": TINY.lm, "quantization": "none", "dtype": "float32", "device": "cpu"}
    decode = torch_cases.decode(**shared, context=6, tokens=4)
    assert not decode.about["constant_state"]
    lm: Any = build_on_meta(TINY.lm)
    # without the embedding, of which a row is read; 2 layers × keys and values × 16 numbers a token
    weights = sum(p.numel() for p in lm.parameters()) - lm.vocab_size * lm.d_model
    assert decode.about["step_bytes"] == pytest.approx(4 * weights + 7 * 4 * 2 * 2 * 16, rel=0.01)
    for case in (
        decode,
        torch_cases.decode(**shared, context=6, tokens=4, real=True),
        torch_cases.prefill(**shared, length=5),
    ):
        sample: Any = case.run()
        assert sample.wall > 0


def test_a_hybrid_is_timed_as_every_model(demo: Subject) -> None:
    shared: dict[str, Any] = {"quantization": "int8", "dtype": "float32", "device": "cpu"}
    wide, narrow = (
        torch_cases.decode(HYBRID, **shared, context=6, tokens=4, state_dtype=name)
        for name in ("fp32", "bf16")
    )
    # two of three mixers have a recurrent state, 4 heads × 16 × 16 numbers, read and written
    assert wide.about["step_bytes"] - narrow.about["step_bytes"] == 2 * 2 * 2 * 4 * 16 * 16
    assert not wide.about["constant_state"]
    vlm: Any = copy.deepcopy(demo.vlm)
    vlm["init_args"]["lm"] = HYBRID
    for case in (
        narrow,
        torch_cases.prefill(HYBRID, **shared, length=5),
        torch_cases.e2e(vlm, **shared, new_tokens=3),
    ):
        sample: Any = case.run()
        assert sample.wall > 0


@pytest.mark.parametrize("real", [False, True])
def test_a_state_in_bf16_halves_what_a_step_moves_of_it(real: bool) -> None:
    shared: dict[str, Any] = {"lm": MAMBA2, "quantization": "none", "dtype": "float32", "device": "cpu"}
    wide, narrow = (
        torch_cases.decode(**shared, context=6, tokens=4, real=real, state_dtype=name)
        for name in ("fp32", "bf16")
    )
    # 2 layers × 8 heads × 8 × 16 numbers, 2 bytes less each, read and written
    assert wide.about["step_bytes"] - narrow.about["step_bytes"] == 2 * 2 * 2 * 8 * 8 * 16
    sample: Any = narrow.run()
    assert sample.wall > 0


@pytest.mark.skipif(cpu.unavailable() is not None, reason=str(cpu.unavailable()))
@pytest.mark.parametrize("op", ["linear_bf16", "linear_w8", "linear_w4", "decode"])
def test_what_decodes_runs_without_python(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StepGraph, "_give_up", lambda self, obstacle, result: pytest.fail(obstacle))
    replayed = []
    run = Replay.run

    def noted(self: Replay) -> torch.Tensor:
        replayed.append(self)
        return run(self)

    monkeypatch.setattr(Replay, "run", noted)
    if op == "decode":
        case = torch_cases.decode(MAMBA2, "bf16", "bfloat16", "cpu", 0, 3)
    else:
        case = op_cases.linear_cycle(1, op, rows=64, width=128, mebibytes=1, dtype="bfloat16")
    for _ in range(3):
        case.run()
    assert replayed


def test_the_flops_of_a_scan_follow_its_length() -> None:
    assert op_cases.ssd_flops(128, 256, 128) == 2 * op_cases.ssd_flops(64, 256, 128)
    # one chunk by hand: C B^T, half of the scores times x, states, outputs, one passing
    expected = 2 * 64 * 64 * 128 + 64 * 64 * 256 + 4 * 64 * 128 * 256 + 2 * 256 * 128
    assert op_cases.ssd_flops(64, 256, 128) == expected


@pytest.mark.parametrize("groups", [plan(True, []), gpu_plan(True)], ids=["cpu", "cuda"])
def test_every_operator_runs_at_its_sizes_with_every_pass(groups: list[Group]) -> None:
    parts = [part for group in groups for part in group.parts if part.runner.cases == OURS.runner.cases]
    assert {part.case for part in parts} == set(op_cases.CASES)
    for part in parts:
        shorter = {"length": 5, "mebibytes": 1, "rows": 64, "width": 128}
        small = {name: value for name, value in shorter.items() if name in part.arguments}
        op_cases.CASES[part.case](**{**part.arguments, **small}).run()


def test_gradients_are_those_of_every_input() -> None:
    case = op_cases.rms_norm(3, 8, "bfloat16", backward=True)
    result: Any = case.run()
    assert [tuple(gradient.shape) for gradient in result] == [(3, 8), (8,)]


def test_a_step_of_training_costs_what_torch_counts(demo: Subject) -> None:
    """Matrix products of forward and backward, on a transformer, whose mixing torch counts, too."""
    tree = copy.deepcopy(demo.vlm)
    assert tree is not None
    tree["init_args"]["lm"] = TINY.lm
    model: Any = build_on_meta(tree).train()
    model.vision.requires_grad_(False)
    question = Question(model.vision.transform, model.num_image_tokens, "meta")
    length, head = 2000, 2 * 512 * 32
    ids = torch.cat([question.ids[:, : question.image_tokens], question.ids[:, -1:].expand(1, length)], 1)
    # labels that are looked up are not on the meta device: all, but for the last
    targets = torch.zeros(length - 1, dtype=torch.long, device="meta")

    def step() -> None:
        hidden = model(ids, question.pictures())[0, -length:-1]
        torch.nn.functional.cross_entropy(model.lm.head(hidden), targets).backward()

    with FlopCounterMode(display=False) as counter:
        step()
    system = measure("", tree)
    # the formula's attention is that of the context that it was measured at
    extra = 3 * (system.image_tokens + length) * 2 * 4 * (question.image_tokens + length - CONTEXTS[0]) * 32
    assert training_flops(system, length, head) + extra == pytest.approx(counter.get_total_flops(), rel=0.05)
