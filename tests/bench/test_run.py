"""The commands, from words to reports."""

import argparse
import statistics
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
import torch

from cobra.bench import ceilings, model_bench, op_bench, op_cases, subjects, torch_cases
from cobra.bench import run as running
from cobra.bench.arguments import add_benches
from cobra.bench.compare import comparison
from cobra.bench.rates import share
from cobra.bench.report import read_json
from cobra.bench.subjects import Subject
from cobra.bench.timing.machine import about
from cobra.bench.timing.sample import Measurement, Missing, Prepared, Runner, Sample
from cobra.bench.timing.worker import Worker


class InThisProcess:
    """Workers without processes, whose cases are the real ones."""

    def __init__(self, threads: int) -> None:
        self.worker = Worker({**ceilings.CASES, **torch_cases.CASES, **op_cases.CASES})

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
    add_benches(parser.add_subparsers())

    def run(*words: str) -> None:
        more = [] if words[0] == "kernels" else ["--dtype", "float32", "--read-mebibytes", "1"]
        options = parser.parse_args([*words, *more, "--repeats", "2"])
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
    monkeypatch.setattr(model_bench, "needed", lambda engine, length: 1e30 if length == 16 else 1.0)
    bench(case, "--models", "cobra_tiny", option, "4", "16", "--out", str(tmp_path))
    report = read_json(tmp_path / f"{case}.json")
    assert [(e["length"], "missing" in e) for e in report["measurements"]] == [(4, False), (16, True)]
    text = (tmp_path / f"{case}.md").read_text()
    assert "cobra_tiny, fp32 at 16: needs 1000000000000000000000.0 GB of memory" in text


def test_both_precisions_of_a_state_are_in_one_report(tmp_path: Path, bench: Any) -> None:
    words = ["--models", "cobra_tiny", "--contexts", "4", "--tokens", "2", "--state-dtype", "fp32", "bf16"]
    bench("decode", *words, "--out", str(tmp_path))
    wide, narrow = read_json(tmp_path / "decode.json")["measurements"]
    assert (wide["label"], narrow["label"]) == ("cobra_tiny, fp32", "cobra_tiny, fp32, bf16 state")
    assert narrow["state_bytes"] < 0.6 * wide["state_bytes"]


def test_a_language_model_alone_sees_no_picture(tmp_path: Path, bench: Any) -> None:
    for case in ("e2e", "train"):
        with pytest.raises(ValueError, match="mamba2-130m: a language model alone sees no picture"):
            bench(case, "--models", "mamba2-130m", "--out", str(tmp_path))


def test_training_is_measured_by_its_share_of_a_product(tmp_path: Path, bench: Any) -> None:
    words = ["--models", "cobra_tiny", "--lengths", "4", "--batch", "2", "--quant", "none", "int8"]
    bench("train", *words, "--out", str(tmp_path))
    plain, packed = read_json(tmp_path / "train.json")["measurements"]
    assert plain["tokens"] == 2 * (16 + 4)
    assert 0 < share(plain, "cpu") < 1
    assert "packed weights do not learn" in packed["missing"]
    assert "AdamW, batch 2" in (tmp_path / "train.md").read_text()


def test_operators_write_reports_that_can_be_compared(
    tmp_path: Path, bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # levels are processes of their own
    monkeypatch.setattr(op_bench.library, "levels", lambda: ["base"])
    bench("kernels", "--quick", "--no-peers", "--only", "conv1d D512 fp32 at", "--out", str(tmp_path))
    report = read_json(tmp_path / "kernels.json")
    name = "causal_conv1d D512 fp32"
    assert [(e["label"], e["length"]) for e in report["measurements"]] == [
        (f"{name}, cpu", 128), (f"{name}, reference", 128)
    ]  # fmt: skip
    text = (tmp_path / "kernels.md").read_text()
    assert "Quick sizes: the values mean nothing" in text
    assert f"| {name} | 128 |" in text
    assert "GFLOP/s" in text
    assert (tmp_path / "kernels.png").stat().st_size > 10_000
    assert f"| {name}, cpu at 128 |" in comparison(report, report)


def test_words_that_name_no_operator_are_answered_with_those_that_there_are(
    tmp_path: Path, bench: Any
) -> None:
    with pytest.raises(ValueError, match=r"no operator has nonsense.*ssd_chunk_scan.*linear_w4"):
        bench("kernels", "--quick", "--only", "nonsense", "--out", str(tmp_path))


def test_a_gpu_that_is_not_here_is_refused(tmp_path: Path, bench: Any) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(ValueError, match="--device cuda: torch sees no GPU"):
        bench("kernels", "--quick", "--device", "cuda", "--out", str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("words", [["kernels"], ["decode", "--models", "mamba2-130m"]])
def test_no_repeats_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_benches(parser.add_subparsers())
    with pytest.raises(SystemExit):
        parser.parse_args([*words, "--out", "x", "--repeats", "0"])
    assert "0 must be 1 to 10000000" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_transformers_is_timed_in_a_process_of_its_own(tmp_path: Path) -> None:
    """A tiny config through the command itself: real processes, every runtime that is here."""
    parser = argparse.ArgumentParser()
    add_benches(parser.add_subparsers())
    quick = ["--repeats", "1", "--read-mebibytes", "16", "--runtime", "torch", "transformers"]
    for words in (["e2e", "--new-tokens", "4"], ["decode", "--contexts", "8", "--tokens", "2"]):
        options = parser.parse_args([*words, "--models", "cobra_tiny", *quick, "--out", str(tmp_path)])
        options.bench(options)
        made = read_json(tmp_path / f"{words[0]}.json")["measurements"]
        assert [(e["label"], e.get("missing")) for e in made] == [
            (f"cobra_tiny, bf16{runtime}", None)
            for runtime in ("", ", transformers eager", ", transformers compiled")
        ]
        assert all(statistics.median(s["wall"] for s in e["seconds"]) > 0 for e in made)
