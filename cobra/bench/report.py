"""A speed report as JSON and as Markdown."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cobra.bench.crossing import crossings
from cobra.bench.published import published_table
from cobra.bench.rates import measured, spread
from cobra.bench.tables import e2e_table, length_table

Report = Mapping[str, Any]
_TITLES = {
    "e2e": "One picture, one question, 256 tokens",
    "decode": "Decoding after a context",
    "prefill": "Reading a prompt",
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
        raise ValueError(f"{path} is no report of `cobra bench e2e|decode|prefill`: {error}") from error
    if schema != 1 or kind not in _TITLES:
        raise ValueError(f"{path} has schema {schema} and kind {kind}: measure again with this version")
    return report


def markdown(report: Report) -> str:
    """The machine and how it was measured, the table, what follows from it, and what is missing."""
    kind = report["kind"]
    table = e2e_table(report) if kind == "e2e" else length_table(report)
    parts = [f"# {_TITLES[kind]}", _machine(report), table]
    if kind == "e2e":
        parts += ["## Published by others, on their hardware", published_table()]
    else:
        won = crossings(report)
        parts += ["## Constant state over growing cache", won] if won else []
    missing = [
        f"- {e['label']} at {e['length']}: {e['missing']}" for e in report["measurements"] if "missing" in e
    ]
    parts += ["## Missing", "\n".join(missing)] if missing else []
    return "\n\n".join(parts) + "\n"


def _machine(report: Report) -> str:
    machine, settings = report["machine"], report["settings"]
    load = " → ".join(f"{machine[key][0]:.1f}" for key in ("load_before", "load_after"))
    cores = f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} thread(s)"
    basis = "CPU time of the process" if report["basis"] == "cpu" else "wall time"
    together = {entry["batch"] for entry in measured(report)}
    groups = f"in {len(together)} groups that fit into memory, each in turn"
    turn = groups if len(together) > 1 else "all models in turn"
    versions = f"torch {machine['torch']}, transformers {machine['transformers']}"
    lines = [
        f"{machine.get('gpu') or cores}; {machine['when']}; load average before → after: {load}",
        f"{versions}, native library: level {machine['isa']}",
        "**Random weights of true size**: they show speed, not answers",
        f"activations {settings['dtype']}, batch 1, greedy",
        f"by {basis}; median (least – most) of {settings['repeats']} repeats, {turn}, after a warm-up",
    ]
    read = [value for entry in measured(report) for value in entry["bandwidth"][report["basis"]]]
    if read:
        found = spread([value / 1e9 for value in read])
        lines += [f"read bandwidth {found.median:.1f} ({found.least:.1f} – {found.most:.1f}) GB/s"]
    return "\n".join(f"- {line}" for line in lines)
