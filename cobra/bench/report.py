"""A report as JSON and as Markdown."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cobra.bench.published import published_table
from cobra.bench.rates import activations, measured, rate, spread
from cobra.bench.tables import e2e_table, length_table, memory_table, operator_table

Report = Mapping[str, Any]
SCHEMA = 1
_TITLES = {
    "e2e": "One picture, one question, {new_tokens} new tokens",
    "decode": "Decoding after a context",
    "prefill": "Reading a prompt",
    "train": "A step of training",
    "kernels": "Operators",
}


def write_json(report: Report, path: Path) -> None:
    """Everything that was measured, every repeat included."""
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def read_json(path: Path) -> Report:
    """A report that `write_json` wrote.

    Raises:
        ValueError: where the file holds none, or one of another version.
    """
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        schema, kind = report["schema"], report["kind"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no report of `cobra bench {'|'.join(_TITLES)}`: {error}") from error
    if schema != SCHEMA or kind not in _TITLES:
        raise ValueError(f"{path} has schema {schema} and kind {kind}: measure again with this version")
    return report


def markdown(report: Report) -> str:
    """The machine and how it was measured, the tables, what follows from them, and what is missing."""
    kind = report["kind"]
    parts = [f"# {_TITLES[kind].format_map(report['settings'])}", _machine(report)]
    if kind == "e2e":
        parts += [e2e_table(report), "## Published by others, on their hardware", published_table()]
    elif kind == "kernels":
        parts += [operator_table(report), memory_table(report)]
    else:
        won = crossings(report)
        parts += [length_table(report), *(["## Constant state over growing cache", won] if won else [])]
    missing = [
        f"- {e['label']} at {e['length']}: {e['missing']}" for e in report["measurements"] if "missing" in e
    ]
    parts += ["## Missing", "\n".join(missing)] if missing else []
    return "\n\n".join(filter(None, parts)) + "\n"


def _machine(report: Report) -> str:
    machine, settings = report["machine"], report["settings"]
    load = " → ".join(f"{machine[key][0]:.1f}" for key in ("load_before", "load_after"))
    cores = f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} thread(s)"
    basis = "CPU time of the process" if report["basis"] == "cpu" else "wall time"
    versions = f"torch {machine['torch']}, transformers {machine['transformers']}"
    level = f"native library: level {machine['isa'] or 'none, ' + machine['native_library']}"
    if settings["device"] != "cpu":
        level = f"triton {machine['triton']}"
    lines = [
        f"{machine.get('gpu') or cores}; {machine['when']}; load average before → after: {load}",
        f"{versions}, {level}",
        *_what(report),
        f"by {basis}; median (least – most) of {settings['repeats']} repeats, {_turn(report)}, "
        "after a warm-up",
    ]
    for ceiling, name, unit in (
        ("bandwidth", "read bandwidth", "GB"),
        ("product_rate", "matrix product", "GFLOP"),
    ):
        values = [
            value / 1e9 for e in measured(report) for value in e.get(ceiling, {}).get(report["basis"], [])
        ]
        if values:
            found = spread(values)
            lines += [f"{name} {found.median:.1f} ({found.least:.1f} – {found.most:.1f}) {unit}/s"]
    return "\n".join(f"- {line}" for line in lines)


def _what(report: Report) -> list[str]:
    settings = report["settings"]
    if report["kind"] == "kernels":
        return ["**Quick sizes: the values mean nothing**"] if settings["quick"] else []
    true = "**Random weights of true size**: they show speed, not answers"
    if report["kind"] == "train":
        return [true, f"autocast {settings['dtype']} over fp32 weights, AdamW, batch {settings['batch']}"]
    builds = sorted({entry["build"] for entry in measured(report) if "build" in entry})
    how = "batch 1, greedy"
    if dtype := activations(report):
        how = f"activations {dtype}{' (torch, transformers)' if builds else ''}, {how}"
    return [true, *builds, how]


def _turn(report: Report) -> str:
    if report["kind"] == "kernels":
        return "all in a row of the table in turn"
    together = {entry["batch"] for entry in measured(report)}
    groups = f"in {len(together)} groups that fit into memory, each in turn"
    return groups if len(together) > 1 else "all models in turn"


def crossings(report: Report) -> str:
    """Where a state of constant size beats a cache that grows: from which length on, and by how much.

    A line for each pair of models in one runtime and precision; empty where there is none. Of a model with a
    cache the fastest setting counts, at each length.
    """
    basis = report["basis"]
    constant: dict[tuple[str, str, str], dict[int, float]] = {}
    growing: dict[tuple[str, str, str], dict[int, float]] = {}
    names: dict[tuple[str, str, str], str] = {}
    for entry in measured(report):
        if "constant_state" not in entry:
            continue
        is_constant = entry["constant_state"]
        key = entry["runtime"], entry["precision"], entry["label" if is_constant else "model"]
        names.setdefault(key, entry["label"] if is_constant else _at_its_fastest(entry))
        rates = (constant if is_constant else growing).setdefault(key, {})
        length, found = entry["length"], rate(entry, basis).median
        rates[length] = max(found, rates.get(length, 0.0))
    return "\n".join(
        f"- {names[a]} over {names[b]}: {_ratios(ours, theirs)}"
        for a, ours in constant.items()
        for b, theirs in growing.items()
        if a[:2] == b[:2]
    )


def _at_its_fastest(entry: Mapping[str, Any]) -> str:
    return f"{entry['label'].removesuffix(entry['mode']).rstrip()} (the faster setting at each length)"


def _ratios(ours: Mapping[int, float], theirs: Mapping[int, float]) -> str:
    both = sorted(set(ours) & set(theirs))
    ratios = {length: ours[length] / theirs[length] for length in both}
    # a win counts if nothing longer is lost again
    won = [length for length in both if all(ratios[longer] > 1 for longer in both if longer >= length)]
    text = ", ".join(f"{ratio:.2f}× at {length:,}" for length, ratio in ratios.items())
    if not won:
        return f"{text}; not faster at the longest"
    before = [length for length in both if length < won[0]]
    level = f", level at about {_level(ours, theirs, before[-1], won[0]):,.0f}" if before else ""
    return f"{text}; faster from {won[0]:,} on{level}"


def _level(ours: Mapping[int, float], theirs: Mapping[int, float], low: int, high: int) -> float:
    """The length at which both need as long a token, on straight lines from one length to another."""
    lead, lag = (1 / theirs[length] - 1 / ours[length] for length in (high, low))
    return low + (high - low) * lag / (lag - lead)
