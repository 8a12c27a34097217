"""Cases in processes: prepared, timed in turn, missing with their reason."""

import json
import math
from typing import Any

import pytest
from rich.progress import Progress

from cobra.bench.ceilings import CASES, product_rate
from cobra.bench.op_bench import OURS, REFERENCE
from cobra.bench.timing.interleave import Group, measure
from cobra.bench.timing.sample import Measurement, Missing, Prepared, Sample
from cobra.bench.timing.worker import Worker, clock
from cobra.bench.timing.workers import Workers


def test_a_call_that_times_itself_is_made_once() -> None:
    times = iter([Sample(0.5, 0.25)])
    assert clock(lambda: next(times), calls=10**6) == Sample(0.5, 0.25)


def test_a_worker_answers_with_seconds_and_memory() -> None:
    worker = Worker(CASES)
    request = {
        "do": "prepare",
        "key": "k",
        "case": "gemm",
        "arguments": {"size": 64, "device": "cpu", "dtype": "float32"},
    }
    prepared = worker.answer(request)
    assert prepared["about"]["amount"] == 2 * 64**3
    assert json.loads(json.dumps(prepared)) == worker.answer(request), "it is prepared once"
    assert worker.answer({"do": "time", "key": "k"})["cpu"] > 0
    assert worker.answer({"do": "forget", "key": "k"}) == {}
    assert "KeyError" in worker.answer({"do": "time", "key": "k"})["missing"]


@pytest.mark.parametrize("name", ["nonsense", "__import__"])
def test_a_worker_runs_nothing_but_its_cases(name: str) -> None:
    answer = Worker(CASES).answer({"do": "prepare", "key": "k", "case": name, "arguments": {}})
    assert f"no case is called {name}" in answer["missing"]


def test_a_case_that_fails_is_missing_with_its_reason() -> None:
    with Workers(threads=1) as workers, pytest.raises(Missing, match="no case is called absent"):
        workers.prepare(Measurement(REFERENCE.runner, "absent"))


class Clock:
    """Workers whose calls take as many seconds as calls were made, and which lose one process."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def prepare(self, measurement: Measurement) -> Prepared:
        return Prepared(1, 2, {"amount": 6.0, "case": measurement.case})

    def time(self, measurement: Measurement) -> Sample:
        self.calls.append(measurement.case)
        if measurement.case == "dies" and self.calls.count("dies") == 2:
            raise Missing("it died")
        return Sample(len(self.calls), math.nan)

    def forget(self, measurement: Measurement) -> None:
        self.calls.append(f"forget {measurement.case}")


def test_parts_take_turns_and_share_their_ceilings() -> None:
    workers: Any = Clock()
    parts = [Measurement(OURS.runner, case, entry={"label": case}) for case in ("stays", "dies")]
    group = Group("both", parts, {"product_rate": product_rate(8)})
    stays, dies = measure(group, workers, 3, Progress())
    assert workers.calls[:8] == ["stays", "dies", "gemm", "stays", "dies", "gemm", "stays", "gemm"]
    # what it costs to prepare a ceiling is paid once
    assert workers.calls[8:] == ["forget stays", "forget dies"]
    assert dies == {"label": "dies", "missing": "it died"}
    assert [sample["cpu"] for sample in stays["seconds"]] == [1, 4, 7]
    assert (stays["case"], stays["extra_bytes"], stays["peak_bytes"]) == ("stays", 1, 2)
    assert stays["product_rate"]["cpu"] == [6 / 3, 6 / 6, 6 / 8]
