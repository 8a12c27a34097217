"""A report as one picture."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from cobra.bench.rates import (
    STAGES,
    Entry,
    activations,
    bound,
    labels,
    lengths,
    measured,
    operators,
    rate,
    seconds,
)
from cobra.bench.tables import operator_head, ours_of, short

Report = Mapping[str, Any]
_STAGE_COLORS = ("#8c959f", "#d4a72c", "#54aeff", "#0969da")
_COLORS = ("#0969da", "#cf222e", "#1a7f37", "#bf8700", "#8250df", "#57606a", "#bc4c00", "#1b7c83")
_LEVEL_COLORS = ("#0969da", "#54aeff", "#b6e3ff")
# the first of them that was measured is what others are compared with
_PLAIN = ("reference", "torch backend", "torch")
_PEER_COLORS = ("#d4a72c", "#bc4c00", "#8250df")


def draw(report: Report, path: Path) -> None:
    """Write a PNG: bars for stages of e2e, for operators and for speed at a single length, else lines.

    Dashed is what the bandwidth allows that was measured: that of torch's sum.
    """
    if not labels(report):
        height, content = 2.6, _draw_nothing
    elif report["kind"] == "kernels":
        height, content = 1.6 + 0.45 * len(operators(report)), _draw_operators
    elif report["kind"] == "e2e":
        height, content = 1.6 + 0.5 * len(labels(report)), _draw_stages
    elif len(lengths(report)) == 1:
        height, content = 1.6 + 0.5 * len(labels(report)), _draw_one_length
    else:
        height, content = 5.5, _draw_lengths
    figure = Figure(figsize=(11, max(height, 2.6)), layout="constrained")
    content(report, figure.subplots())
    figure.suptitle(_heading(report), fontsize=10)
    figure.savefig(path, dpi=90)


def _heading(report: Report) -> str:
    machine, settings = report["machine"], report["settings"]
    parts = [
        machine.get("gpu") or f"{machine['cpu']}, {machine['threads']} thread(s)",
        f"level {machine.get('isa')}" if report["kind"] == "kernels" else activations(report),
        "CPU time" if report["basis"] == "cpu" else "wall time",
        f"load {machine['load_before'][0]:.1f}",
    ]
    note = "quick sizes: the values mean nothing" if settings.get("quick") else ""
    note = "random weights" if report["kind"] != "kernels" else note
    return ", ".join(filter(None, parts)) + (f"; {note}" if note else "")


def _draw_nothing(report: Report, axes: Axes) -> None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, "nothing could be measured", ha="center")


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Names of rows of bars, the first on top, with half a row of air."""
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)


def _say(axes: Axes, text: str, x: float, row: float) -> None:
    """A text at the right end of a bar."""
    axes.annotate(text, (x, row), xytext=(5, 0), textcoords="offset points", va="center", fontsize=9)


def _legend(axes: Axes) -> None:
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=9)


def _draw_stages(report: Report, axes: Axes) -> None:
    entries = measured(report)
    for row, entry in enumerate(entries):
        left = 0.0
        for stage, color in zip(STAGES, _STAGE_COLORS, strict=True):
            # what reads a picture's file by itself does not tell the image from vision
            width = statistics.median(seconds(entry, report["basis"], stage) or [0.0])
            axes.barh(row, width, left=left, color=color, height=0.6, label=stage if row == 0 else None)
            left += width
        _say(axes, f"{left:.3g} s, {short(rate(entry, report['basis']).median)} tok/s", left, row)
    _name_rows(axes, [entry["label"] for entry in entries])
    axes.margins(x=0.25)
    new = entries[0]["new_tokens"]
    axes.set(xlabel="seconds", title=f"one picture, one question, {new} new tokens")
    _legend(axes)


def _draw_one_length(report: Report, axes: Axes) -> None:
    entries, basis = measured(report), report["basis"]
    for row, entry in enumerate(entries):
        speed = rate(entry, basis)
        around = [[speed.median - speed.least], [speed.most - speed.median]]
        axes.barh(row, speed.median, xerr=around, color=_COLORS[0], ecolor="#8c959f", capsize=3, height=0.6)
        if "step_bytes" in entry:
            axes.vlines(
                bound(entry, basis), row - 0.4, row + 0.4, color=_COLORS[1], linestyle="--", linewidth=1
            )
        _say(axes, short(speed.median), speed.most, row)
    _name_rows(axes, [entry["label"] for entry in entries])
    axes.margins(x=0.22)
    axes.set_xlim(left=0)
    axes.set(xlabel=f"tokens a second, at {lengths(report)[0]:,} tokens", title=_title(report))


def _title(report: Report) -> str:
    if report["kind"] == "decode":
        return "decoding after a context (dashed: reading at the rate of torch's sum)"
    return "a step of training" if report["kind"] == "train" else "reading a prompt"


def _draw_operators(report: Report, axes: Axes) -> None:
    found = operators(report)
    speeds = {row: _speeds(entries, report["basis"]) for row, entries in found.items()}
    speeds = {row: speed for row, speed in speeds.items() if speed}
    peers = {name: entry["peer"] for entries in found.values() for name, entry in entries.items()}
    levels, others = ([name for name in peers if peers[name] is peer] for peer in (False, True))
    colors = dict([*zip(levels, _LEVEL_COLORS, strict=False), *zip(others, _PEER_COLORS, strict=False)])
    named: set[str] = set()
    for number, speed in enumerate(speeds.values()):
        height = 0.8 / len(speed)
        for place, name in enumerate(name for name in colors if name in speed):
            y, label = number - 0.4 + height * (place + 0.5), operator_head(report, name)
            label = "_" if name in named else label
            axes.barh(y, speed[name] - 1, left=1, height=height, color=colors[name], label=label)
            named.add(name)
            if name == ours_of(report):
                _say(axes, f"{speed[name]:.3g}×", max(speed[name], 1), y)
    _name_rows(axes, [f"{op} at {length:,}" for op, length in speeds])
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.margins(x=0.12)
    axes.set(
        xlabel="times as fast as plain torch: the reference, backend torch, or torch's own linear",
        title="operators",
    )
    _legend(axes)


def _speeds(entries: Mapping[str, Entry], basis: str) -> dict[str, float]:
    """How many times as fast as plain torch everyone else is; empty where that is missing."""
    times = {name: statistics.median(seconds(entry, basis)) for name, entry in entries.items()}
    plain = next((times.pop(name) for name in _PLAIN if name in times), None)
    return {name: plain / time for name, time in times.items()} if plain else {}


def _draw_lengths(report: Report, axes: Axes) -> None:
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
    axes.set_xticks(lengths(report), [_kilo(length) for length in lengths(report)])
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.set(
        xlabel={"decode": "tokens of context", "train": "tokens of text"}.get(
            report["kind"], "tokens of the prompt"
        ),
        ylabel="tokens a second",
        title=_title(report),
    )
    _legend(axes)


def _widen(axes: Axes) -> None:
    """Show a factor of four at least, or a few percent would look like a slope."""
    low, high = axes.get_ylim()
    margin = max(1.0, 2 / (high / low) ** 0.5)
    axes.set_ylim(low / margin, high * margin)


def _kilo(length: int) -> str:
    return f"{length // 1024}k" if length >= 1024 and length % 1024 == 0 else str(length)
