"""Rates behind a measurement's seconds: shares of the bandwidth, and their spread over repeats."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Entry = Mapping[str, Any]
STAGES = ("image", "vision", "prefill", "decode")


@dataclass(frozen=True)
class Spread:
    """A number over repeats.

    Attributes:
        median: the number.
        least: of any repeat.
        most: of any repeat.
    """

    median: float
    least: float
    most: float


def spread(values: Sequence[float]) -> Spread:
    """Median, least and most."""
    return Spread(statistics.median(values), min(values), max(values))


def basis_of(entry: Entry, basis: str) -> str:
    """The report's basis, but the clock where another program ran and its CPU time is unknown."""
    return "wall" if any(math.isnan(sample["cpu"]) for sample in entry["seconds"]) else basis


def seconds(entry: Entry, basis: str, stage: str = "") -> list[float]:
    """Seconds of each repeat, or of one stage of it; empty where it has no such stage."""
    basis = basis_of(entry, basis)
    if not stage:
        return [sample[basis] for sample in entry["seconds"]]
    index = ("cpu", "wall").index(basis)
    return [s["stages"][stage][index] for s in entry["seconds"] if stage in s["stages"]]


def first_token(entry: Entry, basis: str) -> list[float]:
    """Seconds from the picture's bytes to the first token, of each repeat."""
    parts = [part for stage in STAGES[:-1] if (part := seconds(entry, basis, stage))]
    return [sum(repeat) for repeat in zip(*parts, strict=True)]


def rate(entry: Entry, basis: str, stage: str = "") -> Spread:
    """Tokens a second, all or those of the prefill or decode stage; calls a second of an operator."""
    if stage == "prefill":
        return spread([entry["prompt_tokens"] / s for s in seconds(entry, basis, stage)])
    if stage == "decode":
        # the first of the new tokens comes from the prompt
        return spread([(entry["new_tokens"] - 1) / s for s in seconds(entry, basis, stage)])
    tokens = entry.get("new_tokens") or entry.get("tokens", 1)
    return spread([tokens / s for s in seconds(entry, basis)])


def bound(entry: Entry, basis: str) -> float:
    """What `rate` would be if a step took as long as reading its bytes, or an operator as its products.

    NaN where neither is known.
    """
    for amount, ceiling in (("step_bytes", "bandwidth"), ("step_flops", "product_rate")):
        if amount in entry and entry[ceiling]["wall"]:
            return statistics.median(entry[ceiling][basis_of(entry, basis)]) / entry[amount]
    return math.nan


def share(entry: Entry, basis: str) -> float:
    """Of the bound, in the median; NaN where that is."""
    return rate(entry, basis).median / bound(entry, basis)


def measured(report: Mapping[str, Any]) -> list[Entry]:
    """The entries that have numbers."""
    return [entry for entry in report["measurements"] if "missing" not in entry]


def activations(report: Mapping[str, Any]) -> str:
    """The dtype that PyTorch computed in; empty where nothing but mobile builds ran, which have their own."""
    is_torch = any("build" not in entry for entry in measured(report))
    return report["settings"].get("dtype", "") if is_torch else ""


def labels(report: Mapping[str, Any]) -> list[str]:
    """Engines with numbers, in the order they were asked for."""
    return list(dict.fromkeys(entry["label"] for entry in measured(report)))


def lengths(report: Mapping[str, Any]) -> list[int]:
    """Contexts or prompt lengths, ascending."""
    return sorted({entry["length"] for entry in report["measurements"]})


def operators(report: Mapping[str, Any]) -> dict[tuple[str, int], dict[str, Entry]]:
    """Entries with numbers by runner, for each operator at each length."""
    rows: dict[tuple[str, int], dict[str, Entry]] = {}
    for entry in measured(report):
        rows.setdefault((entry["op"], entry["length"]), {})[entry["runner"]] = entry
    return rows
