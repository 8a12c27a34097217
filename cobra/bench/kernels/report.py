"""A bench as JSON and as Markdown."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Report = Mapping[str, Any]
_UNITS = {"ms": 1e3, "µs": 1e6}


def write_json(report: Report, path: Path) -> None:
    """Everything that was measured, every sample included."""
    path.write_text(json.dumps(report, indent=1, allow_nan=True) + "\n", encoding="utf-8")


def markdown(report: Report) -> str:
    """The machine, the numbers with a target, the table of operators and what is missing."""
    parts = [_machine(report), "## Numbers", numbers_table(report), "## Operators", _operators(report)]
    missing = _missing(report)
    return "\n\n".join(parts + (["## Missing", missing] if missing else [])) + "\n"


def shown(number: Mapping[str, Any], value: float) -> str:
    """A number in its unit."""
    return f"{value * 100:.0f} %" if number["unit"] == "%" else f"{value:.2f}×"


def operators(report: Report) -> list[tuple[str, dict[str, Mapping[str, Any]]]]:
    """Each op, shape, dtype and pass, with its measurements by runner."""
    rows: dict[str, dict[str, Mapping[str, Any]]] = {}
    for entry in report["measurements"]:
        if "chunk_size" in entry["arguments"] or entry["group"].startswith("cost per token"):
            continue
        rows.setdefault(describe(entry), {}).setdefault(entry["runner"], entry)
    return list(rows.items())


def describe(entry: Mapping[str, Any]) -> str:
    """An op, what it ran on and which pass, in a line."""
    arguments = dict(entry["arguments"])
    backward, dtype = arguments.pop("backward", False), arguments.pop("dtype", "")
    name = arguments.pop("op", entry["case"])
    shape = " ".join(f"{_SHORT.get(key, key)}{value}" for key, value in arguments.items())
    dtype = {"float32": "fp32", "bfloat16": "bf16"}.get(dtype, dtype)
    return " ".join(part for part in (name, shape, dtype, "forward+backward" if backward else "") if part)


_SHORT = {
    "batch": "B",
    "length": "L",
    "heads": "H",
    "head_dim": "P",
    "d_state": "N",
    "channels": "D",
    "width": "D",
    "dt_rank": "R",
    "d_model": "D",
    "layers": "layers ",
    "vocabulary": "V",
    "mebibytes": "MiB ",
    "size": "",
    "rows": "rows ",
    "group": "g",
}


def _machine(report: Report) -> str:
    machine = report["machine"]
    load = " → ".join(f"{machine[key][0]:.1f}" for key in ("load_before", "load_after"))
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} thread(s); {machine['when']}",
        f"load average of the last minute, before → after: {load}",
        f"torch {machine['torch']}, transformers {machine['transformers']}; native library: "
        f"{machine['native_library']}, level {machine['isa']} of {', '.join(machine['isa_levels'])}",
        f"{'CPU time' if report['basis'] == 'cpu' else 'Wall time'}, {report['repeats']} interleaved repeats"
        + (". **Quick sizes: the values mean nothing.**" if report["quick"] else "."),
    ]
    return "\n".join(f"- {line}" for line in lines)


def numbers_table(report: Report) -> str:
    """The numbers that have a target, as a Markdown table."""
    rows = ["| what | value | over repeats | target | reached |", "|---|---:|---:|---:|---|"]
    for number in report["numbers"]:
        name = number["name"] + (f" ({number['note']})" if number.get("note") else "")
        target = ("≥ " if number["at_least"] else "≤ ") + shown(number, number["target"])
        if "missing" in number:
            rows.append(f"| {name} | – | – | {target} | not measured |")
            continue
        reached = {True: "yes", False: "**no**", None: "not judged"}[number["reached"]]
        spread = f"{shown(number, number['least'])} – {shown(number, number['most'])}"
        rows.append(f"| {name} | {shown(number, number['value'])} | {spread} | {target} | {reached} |")
    return "\n".join(rows)


def _operators(report: Report) -> str:
    runners = list(dict.fromkeys(runner for _, entries in operators(report) for runner in entries))
    level = report["machine"]["isa"]
    heads = [f"cpu {level}" if runner == "cpu" else runner for runner in runners]
    rows = ["Best / median of a call.", "", f"| op | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads)]
    for name, entries in operators(report):
        cells = [_cell(entries.get(runner), report["basis"]) for runner in runners]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _cell(entry: Mapping[str, Any] | None, basis: str) -> str:
    if entry is None:
        return ""
    if "missing" in entry:
        return "–"
    seconds = entry[f"{basis}_seconds"]
    unit = "ms" if seconds["best"] >= 1e-3 else "µs"
    return f"{seconds['best'] * _UNITS[unit]:.3g} / {seconds['median'] * _UNITS[unit]:.3g} {unit}"


def _missing(report: Report) -> str:
    reasons = {
        f"{describe(e)} on {e['runner']}": e["missing"] for e in report["measurements"] if "missing" in e
    }
    reasons |= {n["name"]: n["missing"] for n in report["numbers"] if "missing" in n}
    return "\n".join(f"- {what}: {why}" for what, why in reasons.items())
