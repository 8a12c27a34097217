"""A bench as one picture."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cobra.bench.kernels.report import Report, operators, shown

_REACHED, _MISSED, _UNJUDGED = "#1a7f37", "#cf222e", "#8c959f"
_COLORS = ("#0969da", "#54aeff", "#b6e3ff", "#d4a72c")


def draw(report: Report, path: Path) -> None:
    """Write a PNG: numbers beside their targets, then speed over the reference, as tall as they are many."""
    numbers = [number for number in report["numbers"] if "value" in number]
    rows = [(name, entries) for name, entries in operators(report) if _speeds(report, entries)]
    panels: list[tuple[Callable[[Report, Any, Axes], None], list[Any], float]] = [
        (_draw_numbers, numbers, 0.55 * len(numbers) + 1.0),
        (_draw_operators, rows, 0.5 * len(rows) + 1.0),
    ]
    panels = [panel for panel in panels if panel[1]]
    heights = [height for *_, height in panels] or [1.0]
    figure = Figure(figsize=(11, sum(heights) + 0.6), layout="constrained")
    grid = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)
    for axes, (draw_panel, content, _) in zip(grid[:, 0], panels, strict=False):
        draw_panel(report, content, axes)
    if not panels:
        grid[0, 0].set_axis_off()
        grid[0, 0].text(0.5, 0.5, "nothing was measured beside a target or the reference", ha="center")
    machine = report["machine"]
    figure.suptitle(
        f"{machine['cpu']}, {machine['threads']} thread(s), level {machine['isa']}, "
        f"torch {machine['torch']}, load {machine['load_before'][0]:.1f}"
        + (" (quick sizes)" if report["quick"] else "")
    )
    figure.savefig(path, dpi=90)


def _draw_numbers(report: Report, numbers: Sequence[Mapping[str, Any]], axes: Axes) -> None:
    for row, number in enumerate(numbers):
        score = _score(number, number["value"])
        color = {True: _REACHED, False: _MISSED, None: _UNJUDGED}[number["reached"]]
        axes.barh(row, score, color=color, height=0.55)
        ends = sorted((_score(number, number["least"]), _score(number, number["most"])))
        axes.plot(ends, (row, row), color="black", linewidth=1)
        axes.annotate(
            shown(number, number["value"]),
            (max(score, ends[1]), row),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    _label_rows(axes, [_wrapped(number) for number in numbers])
    axes.axvline(1, color="black", linestyle="--", linewidth=1)
    axes.margins(x=0.12)
    axes.set(xlabel="1 = target; right is better (line: range over repeats)", title="numbers with a target")


def _label_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names, fontsize=8)
    # half a row of air, however many there are; the first on top
    axes.set_ylim(len(names) - 0.5, -0.5)


def _score(number: Mapping[str, Any], value: float) -> float:
    return value / number["target"] if number["at_least"] else number["target"] / value


def _wrapped(number: Mapping[str, Any]) -> str:
    head, _, tail = number["name"].partition(", ")
    target = ("at least " if number["at_least"] else "at most ") + shown(number, number["target"])
    return "\n".join(part for part in (head, tail, target) if part)


def _draw_operators(
    report: Report, rows: Sequence[tuple[str, Mapping[str, Mapping[str, Any]]]], axes: Axes
) -> None:
    speeds = [_speeds(report, entries) for _, entries in rows]
    runners = list(dict.fromkeys(runner for speed in speeds for runner in speed))
    height = 0.8 / len(runners)
    for index, runner in enumerate(runners):
        offset = (index - (len(runners) - 1) / 2) * height
        points = [(row + offset, speed[runner]) for row, speed in enumerate(speeds) if runner in speed]
        axes.barh(
            [row for row, _ in points],
            [speed for _, speed in points],
            height=height,
            color=_COLORS[index % len(_COLORS)],
            label=f"cpu {report['machine']['isa']}" if runner == "cpu" else runner,
        )
    _label_rows(axes, [name for name, _ in rows])
    axes.axvline(1, color="black", linestyle="--", linewidth=1)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}×")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.set(xlabel="times as fast as the plain torch reference", title="operators")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=9)


def _speeds(report: Report, entries: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """How many times as fast as the reference each of our runners is; none where either is missing."""
    seconds = {
        runner: entry[f"{report['basis']}_seconds"]["median"]
        for runner, entry in entries.items()
        if "missing" not in entry
    }
    if "reference" not in seconds:
        return {}
    return {
        runner: seconds["reference"] / time for runner, time in seconds.items() if runner.startswith("cpu")
    }
