"""A speed report as one picture."""

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from cobra.bench.rates import STAGES, bound, labels, lengths, measured, rate, seconds

_STAGE_COLORS = ("#8c959f", "#d4a72c", "#54aeff", "#0969da")
_COLORS = ("#0969da", "#cf222e", "#1a7f37", "#bf8700", "#8250df", "#57606a", "#bc4c00", "#1b7c83")


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Write a PNG: bars of stages for e2e and of speed at a single length, else lines of speed over length.

    Dashed is what the bandwidth allows that was measured: that of torch's sum.
    """
    bars = report["kind"] == "e2e" or len(lengths(report)) == 1
    height = 1.6 + 0.5 * len(labels(report)) if bars else 5.5
    figure = Figure(figsize=(10, max(height, 2.6)), layout="constrained")
    axes = figure.subplots()
    if not labels(report):
        axes.set_axis_off()
        axes.text(0.5, 0.5, "nothing could be measured", ha="center")
    elif report["kind"] == "e2e":
        _draw_stages(report, axes)
    elif bars:
        _draw_one_length(report, axes)
    else:
        _draw_lengths(report, axes)
    machine = report["machine"]
    where = machine.get("gpu") or f"{machine['cpu']}, {machine['threads']} thread(s)"
    basis = "CPU time" if report["basis"] == "cpu" else "wall time"
    load = machine["load_before"][0]
    title = f"{where}, {report['settings']['dtype']}, {basis}, load {load:.1f}; random weights"
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=90)


def _name_rows(axes: Axes, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.margins(x=0.22)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)


def _draw_stages(report: Mapping[str, Any], axes: Axes) -> None:
    entries = measured(report)
    for row, entry in enumerate(entries):
        left = 0.0
        for stage, color in zip(STAGES, _STAGE_COLORS, strict=True):
            width = statistics.median(seconds(entry, report["basis"], stage))
            axes.barh(row, width, left=left, color=color, height=0.6, label=stage if row == 0 else None)
            left += width
        text = f"{left:.3g} s, {rate(entry, report['basis']).median:.3g} tok/s"
        axes.annotate(text, (left, row), xytext=(5, 0), textcoords="offset points", va="center", fontsize=9)
    _name_rows(axes, [entry["label"] for entry in entries])
    new = entries[0]["new_tokens"]
    axes.set(xlabel="seconds", title=f"one picture, one question, {new} new tokens")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=9)


def _draw_one_length(report: Mapping[str, Any], axes: Axes) -> None:
    entries, basis = measured(report), report["basis"]
    for row, entry in enumerate(entries):
        speed = rate(entry, basis)
        around = [[speed.median - speed.least], [speed.most - speed.median]]
        axes.barh(row, speed.median, xerr=around, color=_COLORS[0], ecolor="#8c959f", capsize=3, height=0.6)
        if "step_bytes" in entry:
            axes.vlines(
                bound(entry, basis), row - 0.4, row + 0.4, color=_COLORS[1], linestyle="--", linewidth=1
            )
        text, at = f"{speed.median:.3g}", (speed.most, row)
        axes.annotate(text, at, xytext=(5, 0), textcoords="offset points", va="center", fontsize=9)
    _name_rows(axes, [entry["label"] for entry in entries])
    axes.set_xlim(left=0)
    axes.set(xlabel=f"tokens a second, at {lengths(report)[0]:,} tokens", title=_title(report))


def _title(report: Mapping[str, Any]) -> str:
    if report["kind"] == "decode":
        return "decoding after a context (dashed: reading at the rate of torch's sum)"
    return "reading a prompt"


def _draw_lengths(report: Mapping[str, Any], axes: Axes) -> None:
    basis = report["basis"]
    for number, label in enumerate(labels(report)):
        entries = sorted((e for e in measured(report) if e["label"] == label), key=lambda e: e["length"])
        x, color = [entry["length"] for entry in entries], _COLORS[number % len(_COLORS)]
        rates = [rate(entry, basis) for entry in entries]
        around = [[r.median - r.least for r in rates], [r.most - r.median for r in rates]]
        y = [r.median for r in rates]
        axes.errorbar(x, y, around, color=color, marker="o", markersize=4, capsize=2, label=label)
        if "step_bytes" in entries[0]:
            axes.plot(x, [bound(entry, basis) for entry in entries], color=color, linestyle="--", linewidth=1)
    positive = [length for length in lengths(report) if length] or [1]
    # a context of nothing has a place on the axis, too
    axes.set_xscale("symlog", base=2, linthresh=positive[0], linscale=0.6)
    axes.set_yscale("log")
    _widen(axes)
    axes.set_xticks(lengths(report), [_short(length) for length in lengths(report)])
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.set(
        xlabel="tokens of context" if report["kind"] == "decode" else "tokens of the prompt",
        ylabel="tokens a second",
        title=_title(report),
    )
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=9)


def _widen(axes: Axes) -> None:
    """Show a factor of four at least, or a few percent would look like a slope."""
    low, high = axes.get_ylim()
    margin = max(1.0, 2 / (high / low) ** 0.5)
    axes.set_ylim(low / margin, high * margin)


def _short(length: int) -> str:
    return f"{length // 1024}k" if length >= 1024 and length % 1024 == 0 else str(length)
