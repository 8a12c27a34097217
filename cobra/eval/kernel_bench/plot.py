"""A bench as one picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cobra.eval.kernel_bench.report import Report, operators, shown

_REACHED, _MISSED, _UNJUDGED = "#1a7f37", "#cf222e", "#8c959f"
_COLORS = ("#0969da", "#54aeff", "#b6e3ff", "#d4a72c")


def draw(report: Report, path: Path) -> None:
    """Write a PNG: numbers beside their targets on the left, speed over the reference on the right."""
    figure = Figure(figsize=(17, 11), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_numbers(report, left)
    _draw_operators(report, right)
    machine = report["machine"]
    figure.suptitle(
        f"{machine['cpu']}, {machine['threads']} thread(s), level {machine['isa']}, "
        f"torch {machine['torch']}, load {machine['load_before'][0]:.1f}"
        + (" (quick sizes)" if report["quick"] else "")
    )
    figure.savefig(path, dpi=90)


def _draw_numbers(report: Report, axes: Axes) -> None:
    numbers = [number for number in report["numbers"] if "value" in number]
    for row, number in enumerate(numbers):
        score = _score(number, number["value"])
        color = {True: _REACHED, False: _MISSED, None: _UNJUDGED}[number["reached"]]
        axes.barh(row, score, color=color, height=0.55)
        ends = sorted((_score(number, number["least"]), _score(number, number["most"])))
        axes.plot(ends, (row, row), color="black", linewidth=1)
        axes.text(max(score, ends[1]) + 0.03, row, shown(number, number["value"]), va="center", fontsize=9)
    axes.set_yticks(range(len(numbers)), [_wrapped(number) for number in numbers], fontsize=8)
    axes.axvline(1, color="black", linestyle="--", linewidth=1)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set(xlabel="1 = target; right is better (line: range over repeats)", title="numbers with a target")


def _score(number: Mapping[str, Any], value: float) -> float:
    return value / number["target"] if number["at_least"] else number["target"] / value


def _wrapped(number: Mapping[str, Any]) -> str:
    head, _, tail = number["name"].partition(", ")
    target = ("at least " if number["at_least"] else "at most ") + shown(number, number["target"])
    return "\n".join(part for part in (head, tail, target) if part)


def _draw_operators(report: Report, axes: Axes) -> None:
    basis = f"{report['basis']}_seconds"
    rows = [
        (name, entries)
        for name, entries in operators(report)
        if "missing" not in entries.get("reference", {"missing": ""})
    ]
    runners = [
        r for r in dict.fromkeys(runner for _, entries in rows for runner in entries) if r.startswith("cpu")
    ]
    height = 0.8 / max(1, len(runners))
    for index, runner in enumerate(runners):
        points = [
            (row + index * height, entries["reference"][basis]["median"] / entries[runner][basis]["median"])
            for row, (_, entries) in enumerate(rows)
            if "missing" not in entries.get(runner, {"missing": ""})
        ]
        label = f"cpu {report['machine']['isa']}" if runner == "cpu" else runner
        axes.barh(
            [row for row, _ in points],
            [speed for _, speed in points],
            height=height,
            color=_COLORS[index % len(_COLORS)],
            label=label,
        )
    middle = height * (len(runners) - 1) / 2
    axes.set_yticks([row + middle for row in range(len(rows))], [name for name, _ in rows], fontsize=8)
    axes.axvline(1, color="black", linestyle="--", linewidth=1)
    axes.set_xscale("log")
    axes.invert_yaxis()
    axes.set(xlabel="times as fast as the plain torch reference", title="operators")
    if rows:
        axes.legend(loc="lower right", fontsize=9)
