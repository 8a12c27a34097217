import json
import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from cobra.bench.kernels import run as running
from cobra.bench.kernels.cases import CASES, ssd_flops
from cobra.bench.kernels.plan import plan
from cobra.bench.kernels.plot import draw
from cobra.bench.kernels.report import markdown
from cobra.bench.kernels.runners import OURS, REFERENCE, TRANSFORMERS
from cobra.bench.kernels.sizes import quick_sizes
from cobra.bench.timing.group import Group, Number
from cobra.bench.timing.interleave import Result
from cobra.bench.timing.sample import Measurement, Missing, Prepared, Sample
from cobra.bench.timing.worker import Worker
from cobra.bench.timing.workers import Workers
from cobra.cli import main
from cobra.kernels import cpu
from cobra.kernels.step_graph import StepGraph


def groups() -> list[Group]:
    return plan(quick_sizes(), ["base", "avx2", "avx512"])


def test_every_number_says_what_it_is_and_has_its_own_name() -> None:
    names = [number.name for group in groups() for number in group.numbers]
    assert len(names) == len(set(names)) == 13


def test_every_part_of_the_plan_is_a_known_case() -> None:
    parts = [part for group in groups() for part in group.parts.values()]
    assert {part.case for part in parts if part.runner is not TRANSFORMERS} == set(CASES)


def test_the_table_repeats_no_measurement() -> None:
    keys = [group.parts["ours"].key for group in groups() if "ours" in group.parts]
    assert len(keys) == len(set(keys))


@pytest.mark.skipif(cpu.unavailable() is not None, reason=str(cpu.unavailable()))
@pytest.mark.parametrize(
    ("case", "sizes"),
    [
        *(
            ("linear_cycle", {"op": op, "rows": 64, "width": 128, "mebibytes": 1})
            for op in ("linear_bf16", "linear_w8", "linear_w4")
        ),
        *((name, {"d_model": 128, "layers": 2, "vocabulary": 96}) for name in ("decode", "decode_linears")),
    ],
)
def test_what_decodes_runs_without_python(
    case: str, sizes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StepGraph, "_give_up", lambda self, obstacle, result: pytest.fail(obstacle))
    timed = CASES[case](**sizes, dtype="bfloat16")
    for _ in range(3):
        timed.run()


def test_the_flops_of_a_scan_follow_its_length() -> None:
    assert ssd_flops(128, 256, 128) == 2 * ssd_flops(64, 256, 128)
    # one chunk by hand: C B^T, half of the scores times x, states, outputs, one passing
    expected = 2 * 64 * 64 * 128 + 64 * 64 * 256 + 4 * 64 * 128 * 256 + 2 * 256 * 128
    assert ssd_flops(64, 256, 128) == expected


@pytest.mark.parametrize("case", ["ssd_chunk_scan", "selective_scan", "causal_conv1d", "rms_norm_gated"])
def test_a_case_runs_with_gradients(case: str) -> None:
    shapes: dict[str, dict[str, Any]] = {
        "ssd_chunk_scan": {"heads": 2, "head_dim": 4, "d_state": 8},
        "selective_scan": {"channels": 8, "d_state": 4},
        "causal_conv1d": {"channels": 8},
        "rms_norm_gated": {"width": 8},
    }
    for dtype in ("float32", "bfloat16"):
        CASES[case](length=5, dtype=dtype, backward=True, **shapes[case]).run()


def test_a_worker_answers_with_seconds_and_memory() -> None:
    worker = Worker(CASES)
    request = {"key": "k", "case": "gemm", "arguments": {"size": 64, "dtype": "float32"}}
    prepared = worker.answer({"do": "prepare", **request})
    assert prepared["flops"] == 2 * 64**3
    assert worker.answer({"do": "time", "key": "k"})["cpu"] > 0
    assert worker.answer({"do": "forget", "key": "k"}) == {}
    json.dumps(prepared)


@pytest.mark.parametrize("name", ["nonsense", "__import__"])
def test_a_worker_runs_nothing_but_its_cases(name: str) -> None:
    answer = Worker(CASES).answer({"do": "prepare", "key": "k", "case": name, "arguments": {}})
    assert f"no case is called {name}" in answer["missing"]


def test_a_case_that_fails_is_missing_with_its_reason() -> None:
    with Workers(threads=1) as workers, pytest.raises(Missing, match="no case is called absent"):
        workers.prepare(Measurement(REFERENCE, "absent"))


def result(*cpu: float) -> Result:
    number = Number("speed", lambda outcomes: outcomes["theirs"].seconds / outcomes["ours"].seconds, 2.0)
    parts = {"ours": Measurement(OURS, "gemm"), "theirs": Measurement(TRANSFORMERS, "gemm")}
    made = Result(Group("group", parts, [number]))
    made.prepared = {label: Prepared(1.0, 1.0, math.nan) for label in parts}
    made.samples = {"ours": [Sample(1.0, 1.0) for _ in cpu], "theirs": [Sample(s, 9.0) for s in cpu]}
    return made


def test_a_number_is_the_median_over_repeats() -> None:
    (number,) = result(1.0, 3.0, 4.0).numbers(threads=1, quick=False)
    assert (number["value"], number["least"], number["most"], number["reached"]) == (3.0, 1.0, 4.0, True)
    assert result(1.0, 1.5, 4.0).numbers(threads=1, quick=False)[0]["reached"] is False
    assert result(1.0).numbers(threads=2, quick=True)[0] == {**number, "reached": None} | {
        "value": 9.0,
        "least": 9.0,
        "most": 9.0,
    }


def test_a_number_without_its_parts_is_missing_with_the_reason() -> None:
    broken = result(1.0)
    del broken.samples["theirs"]
    broken.missing = {"theirs": "no transformers here"}
    (number,) = broken.numbers(threads=1, quick=False)
    assert number["missing"] == "no transformers here"
    assert "value" not in number


def test_the_command_writes_its_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--quick", "--no-peers", "--repeats", "1", "--only", "SSD forward and"]
    monkeypatch.setattr(sys, "argv", ["cobra", "bench", "kernels", "--out", str(tmp_path), *options])
    # each level is a process that imports torch
    monkeypatch.setattr(running, "plan", lambda sizes, levels, peers: plan(sizes, levels[-1:], peers))
    main()
    report = json.loads((tmp_path / "bench.json").read_text())
    assert report["schema"] == 1
    assert all(number.get("missing") for number in report["numbers"])  # no peers to compare with
    assert any("cpu_seconds" in entry for entry in report["measurements"])
    assert (tmp_path / "bench.md").read_text() == markdown(report)
    assert (tmp_path / "bench.png").stat().st_size > 10_000


def test_a_sample_survives_the_channel() -> None:
    assert Sample(**json.loads(json.dumps(asdict(Sample(0.1, 0.2))))) == Sample(0.1, 0.2)


@pytest.mark.parametrize("numbers", [0, 1, 3])
def test_the_picture_is_as_tall_as_its_rows_are_many(tmp_path: Path, numbers: int) -> None:
    def height(count: int) -> int:
        (number,) = result(3.0).numbers(threads=1, quick=False)
        report = {
            "machine": {"cpu": "", "threads": 1, "isa": "base", "torch": "", "load_before": [0.0]},
            **{"quick": True, "basis": "cpu", "measurements": [], "numbers": [number] * count},
        }
        draw(report, tmp_path / "bench.png")
        return int.from_bytes((tmp_path / "bench.png").read_bytes()[20:24], "big")  # IHDR

    # half an inch a row at 90 dots an inch
    assert 40 <= height(numbers + 2) - height(numbers + 1) <= 60
    assert height(numbers) < 60 * (numbers + 3)
