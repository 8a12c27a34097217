"""`cobra bench compare`: what changed from one report to another, with intervals."""

import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown

from cobra.bench.rates import basis_of, measured, seconds
from cobra.bench.report import read_json

_RESAMPLES = 2000


def compare(before: Path, after: Path) -> None:
    """Print how many times as fast everything is in `after` that both have."""
    Console().print(Markdown(comparison(read_json(before), read_json(after))))


def comparison(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """A Markdown table: seconds of both, and how many times as fast the second is, with 95 % of a bootstrap.

    Raises:
        ValueError: where the two are reports of different things.
    """
    if before["kind"] != after["kind"]:
        raise ValueError(f"a report on {before['kind']} cannot be compared with one on {after['kind']}")
    old = {(entry["label"], entry["length"]): entry for entry in measured(before)}
    lines = ["| what | before s | after s | times as fast | 95 % | |", "|---|---:|---:|---:|---:|---|"]
    for entry in measured(after):
        key = entry["label"], entry["length"]
        if key in old:
            lines.append(_line(key, old[key], entry, before["basis"], after["basis"]))
    notes = [*_differences(before, after), *_only_one(before, after)]
    how = f"Intervals: {_RESAMPLES} bootstrap resamples of the repeats, ratio of medians."
    return "\n".join([*lines, "", how, *(f"- {note}" for note in notes)])


def ratio_interval(
    before: Sequence[float], after: Sequence[float], generator: random.Random
) -> tuple[float, float, float]:
    """Median of `before` over that of `after`, and the 2.5 and 97.5 percentiles over resamples."""
    middle: Callable[[Sequence[float]], float] = statistics.median
    ratios = sorted(
        middle(generator.choices(before, k=len(before))) / middle(generator.choices(after, k=len(after)))
        for _ in range(_RESAMPLES)
    )
    edge = _RESAMPLES // 40
    return middle(before) / middle(after), ratios[edge], ratios[-edge - 1]


def _line(key: tuple[str, int], old: Any, new: Any, old_basis: str, new_basis: str) -> str:
    a, b = seconds(old, old_basis), seconds(new, new_basis)
    ratio, low, high = ratio_interval(a, b, random.Random(0))
    verdict = "faster" if low > 1 else "slower" if high < 1 else "no difference shown"
    if min(len(a), len(b)) < 5:
        verdict += f", of {min(len(a), len(b))} repeats only"
    if basis_of(old, old_basis) != basis_of(new, new_basis):
        verdict += ", by different clocks"
    name = f"{key[0]} at {key[1]:,}"
    return (
        f"| {name} | {statistics.median(a):.3g} | {statistics.median(b):.3g} | {ratio:.2f} | "
        f"{low:.2f} – {high:.2f} | {verdict} |"
    )


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What else differs between the runs and could explain a difference."""
    pairs = [(name, before["machine"].get(name), after["machine"].get(name)) for name in
             ("cpu", "gpu", "threads", "torch", "transformers", "isa")]  # fmt: skip
    pairs += [
        (name, before["settings"].get(name), after["settings"].get(name))
        for name in ("dtype", "device", "quick")
    ]
    return [f"**{name} differs**: {a} and {b}" for name, a, b in pairs if a != b]


def _only_one(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    keys = [{(e["label"], e["length"]) for e in measured(report)} for report in (before, after)]
    return [
        f"{label} at {length:,} is only in the {'first' if (label, length) in keys[0] else 'second'}"
        for label, length in sorted(keys[0] ^ keys[1])
    ]
