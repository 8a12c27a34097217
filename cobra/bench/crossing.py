"""Where a state of constant size beats a cache that grows: from which length on, and by how much."""

from collections.abc import Mapping
from typing import Any

from cobra.bench.plan import OURS
from cobra.bench.rates import labels, lengths, measured, rate


def crossings(report: Mapping[str, Any]) -> str:
    """A line for each pair of our engine's models at one precision; empty where there is none."""
    basis = report["basis"]
    rates: dict[str, dict[int, float]] = {label: {} for label in labels(report)}
    constant: dict[str, bool] = {}
    precision: dict[str, str] = {}
    for entry in measured(report):
        if entry["runtime"] == OURS:
            rates[entry["label"]][entry["length"]] = rate(entry, basis).median
            constant[entry["label"]] = entry["constant_state"]
            precision[entry["label"]] = entry["precision"]
    pairs = [
        (a, b)
        for a in constant
        for b in constant
        if constant[a] and not constant[b] and precision[a] == precision[b]
    ]
    return "\n".join(f"- {a} over {b}: {_ratios(rates[a], rates[b], lengths(report))}" for a, b in pairs)


def _ratios(ours: Mapping[int, float], theirs: Mapping[int, float], at: list[int]) -> str:
    both = [length for length in at if length in ours and length in theirs]
    ratios = {length: ours[length] / theirs[length] for length in both}
    # a win counts if nothing longer is lost again
    won = [length for length in both if all(ratios[longer] > 1 for longer in both if longer >= length)]
    text = ", ".join(f"{ratio:.2f}× at {length:,}" for length, ratio in ratios.items())
    return f"{text}; " + (f"faster from {won[0]:,} on" if won else "not faster at the longest")
