"""What the seconds mean, and reports beside each other."""

import math
import random
from pathlib import Path
from typing import Any

import pytest

from cobra.bench.compare import comparison, ratio_interval
from cobra.bench.published import read_published
from cobra.bench.rates import activations, bound, first_token, rate, seconds, share
from cobra.bench.report import crossings, read_json
from cobra.bench.tables import memory_table, operator_table, summary


def entry(label: str, length: int, wall: float, **more: Any) -> dict[str, Any]:
    sample = {"cpu": wall / 2, "wall": wall, "stages": {}}
    named = {
        "label": label,
        "model": label,
        "length": length,
        "runtime": "torch",
        "precision": "int4",
        "mode": "",
        "tokens": 10,
    }
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
    # a token of the second takes 1 s and one more every 2,048, one of the first always 2 s
    ratios = "0.50× at 0, 1.00× at 2,048, 2.50× at 8,192; faster from 8,192 on"
    expected = f"- mamba over llama (the faster setting at each length): {ratios}"
    assert crossings(report()) == f"{expected}, level at about 2,048"
    assert crossings(report(lengths=(0, 8192))).endswith("faster from 8,192 on, level at about 2,048")
    assert crossings(report(factor=9.0)).endswith("not faster at the longest")


def test_of_a_model_with_a_cache_the_fastest_setting_counts() -> None:
    made = report()
    flash = entry("llama flash", 8192, 4.0, model="llama", constant_state=False)
    other = entry("llama 8", 0, 1.0, precision="int8", constant_state=False)
    made["measurements"] += [flash, other]
    assert "0.50× at 0, 1.00× at 2,048, 2.00× at 8,192" in crossings(made)
    assert len(crossings(made).splitlines()) == 1


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


def operator(runner: str, wall: float, **more: Any) -> dict[str, Any]:
    op = {"op": "scan D8", "runner": runner, "peer": runner not in ("cpu", "cpu avx2"), "backward": True}
    made = entry(f"scan D8, {runner}", 1024, wall, extra_bytes=2e6, product_rate={"wall": [2e9]}, **op)
    return {**{key: made[key] for key in made if key not in ("tokens", "step_bytes")}, **more}


def test_an_operator_is_shown_beside_the_others_and_its_bound() -> None:
    made: dict[str, Any] = {
        "kind": "kernels",
        "basis": "wall",
        "machine": {"isa": "avx512"},
        "settings": {},
        "measurements": [
            operator("cpu", 0.002, step_flops=2e6),
            operator("transformers", 0.05),
            operator("reference", 0.01),
            operator("cpu avx2", 0.003, backward=False),
            {"op": "scan D8", "runner": "torch", "missing": "why", "label": "x", "length": 1024},
        ],
    }
    # 2 MFLOP at 2 GFLOP/s take 1 ms
    assert share(made["measurements"][0], "wall") == pytest.approx(0.5)
    lines = operator_table(made).splitlines()
    assert lines[0] == "| operator | tokens | cpu avx512 | transformers | reference | cpu avx2 |"
    assert lines[2] == (
        "| scan D8 | 1,024 | 2 (2 – 2) ms, 50 % | 50 (50 – 50) ms, 25× | 10 (10 – 10) ms, 5× "
        "| 3 (3 – 3) ms, 1.5× |"
    )
    assert summary(made).splitlines()[2] == "| scan D8 | 1,024 | 2 ms, 50 % | 10 ms, 5× | reference |"
    assert memory_table(made).splitlines()[-1] == "| scan D8 | 1,024 | 2.0 | 2.0 | 2.0 |"
    assert memory_table({**made, "measurements": made["measurements"][3:]}) == ""


def test_published_rows_add_up_or_say_that_they_do_not() -> None:
    rows = read_published()
    assert len(rows) == 15
    for row in rows:
        half = 0.5 if isinstance(row.tokens_per_second, int) else 0.005
        # 256 tokens over seconds, both as they were rounded
        least, most = (256 / (row.tokens_per_second + sign * half) for sign in (1, -1))
        adds_up = least - 0.005 <= row.total_seconds <= most + 0.005
        assert adds_up != bool(row.note), row


def test_mobile_builds_alone_have_no_dtype_of_pytorch() -> None:
    made = {**report(), "settings": {"dtype": "bfloat16"}}
    assert activations(made) == "bfloat16"
    for measured in made["measurements"]:
        measured["build"] = "llama.cpp"
    assert activations(made) == ""


def test_a_report_of_another_kind_is_refused(tmp_path: Path) -> None:
    for content in ("{", "[]", '{"schema": 1, "kind": "numbers"}', '{"schema": 2, "kind": "e2e"}'):
        path = tmp_path / "report.json"
        path.write_text(content)
        with pytest.raises(ValueError, match=r"report\.json"):
            read_json(path)
