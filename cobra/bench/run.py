"""Measures what was asked and writes JSON, Markdown and a plot."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown

from cobra.bench.plan import BANDWIDTH, LLAMA, Engine, Settings, bandwidth, engines
from cobra.bench.plot import draw
from cobra.bench.report import markdown, write_json
from cobra.bench.room import available, batches, needed
from cobra.bench.subjects import Subject
from cobra.bench.tables import summary
from cobra.bench.timing.group import Group
from cobra.bench.timing.interleave import Result, measure, with_progress
from cobra.bench.timing.machine import machine
from cobra.bench.timing.workers import Workers

SCHEMA = 1


@dataclass(frozen=True)
class Point:
    """What every engine is measured at.

    Attributes:
        case: e2e, decode or prefill.
        length: tokens before the first that is timed; of a prompt, its tokens.
        arguments: of the case.
    """

    case: str
    length: int
    arguments: Mapping[str, Any]


def run(
    subjects: Sequence[Subject], points: Sequence[Point], settings: Settings, repeats: int, out: Path
) -> None:
    """Measure every engine at every point, and write the reports to `out`, named after the case."""
    case = points[0].case
    if case == "e2e" and any(subject.vlm is None for subject in subjects):
        alone = ", ".join(subject.name for subject in subjects if subject.vlm is None)
        raise ValueError(f"{alone}: a language model alone sees no picture; name a config, or use `decode`")
    if case != "e2e":
        subjects = [replace(subject, vlm=None) for subject in subjects]
    out.mkdir(parents=True, exist_ok=True)
    console = Console()
    load = os.getloadavg()
    with Workers(settings.threads) as workers:
        about = {**machine(), **workers.about(bandwidth(settings).runner)}
        if settings.device == "cpu":
            about["gpu"] = None
        found = _Run(workers, engines(subjects, settings), points, settings, repeats, console).entries()
    report = {
        "schema": SCHEMA,
        "kind": case,
        "machine": {**about, "load_before": load, "load_after": os.getloadavg()},
        "settings": {
            "dtype": settings.dtype,
            "device": settings.device,
            "repeats": repeats,
            **_choices(points),
        },
        # one thread is judged by its own time, which the load hardly changes
        "basis": "cpu" if settings.threads == 1 and settings.device == "cpu" else "wall",
        "weights": "random",
        "measurements": found,
    }
    write_json(report, out / f"{case}.json")
    (out / f"{case}.md").write_text(markdown(report), encoding="utf-8")
    draw(report, out / f"{case}.png")
    console.print(Markdown(summary(report)))
    console.print(f"written: {out / case}.json, .md, .png")


@dataclass(frozen=True)
class _Run:
    """Engines, points, and the processes to measure them in."""

    workers: Workers
    engines: Sequence[Engine]
    points: Sequence[Point]
    settings: Settings
    repeats: int
    console: Console

    def entries(self) -> list[dict[str, Any]]:
        """A JSON object for each engine at each point."""
        room = available(self.settings.device) - self.settings.read_mebibytes * 2**20
        refused: list[dict[str, Any]] = []
        # what is measured of each engine, and the most memory that takes
        fitting: list[tuple[Engine, set[int], float]] = []
        for engine in self.engines:
            sizes = {point.length: needed(engine, point.length) for point in self.points}
            reasons = {
                p.length: engine.missing or _refusal(engine, p, sizes[p.length], room) for p in self.points
            }
            refused += [
                {**_named(engine), "length": length, "missing": why} for length, why in reasons.items() if why
            ]
            left = {length for length, why in reasons.items() if not why}
            if left:
                fitting.append((engine, left, max(sizes[length] for length in left)))
        found = []
        for number, members in enumerate(batches([size for *_, size in fitting], room)):
            found += self._batch(number, [fitting[member][:2] for member in members])
        return found + refused

    def _batch(self, number: int, members: Sequence[tuple[Engine, set[int]]]) -> list[dict[str, Any]]:
        """Engines that fit into memory together, in turn at every point."""
        groups = []
        for point in self.points:
            present = [engine for engine, lengths in members if point.length in lengths]
            parts = {engine.label: engine.measurement(point.case, point.arguments) for engine in present}
            parts[BANDWIDTH] = bandwidth(self.settings)
            groups.append(Group(f"{point.case} {point.length or ''}", parts))
        found = []
        for point, (group, bar) in zip(self.points, with_progress(groups, self.console), strict=True):
            result = measure(group, self.workers, self.repeats, bar)
            found += [
                {**_named(engine), "length": point.length, "batch": number, **_measured(engine, result)}
                for engine, _ in members
                if engine.label in group.parts
            ]
        for engine, _ in members:
            self.workers.stop(engine.measurement(self.points[0].case, {}).runner)
        return found


def _refusal(engine: Engine, point: Point, size: float, room: float) -> str:
    if engine.runtime == LLAMA and point.case == "e2e":
        return "llama-bench measures language models alone: use `decode` and `prefill`"
    if size > room:
        return f"needs {size / 1e9:.1f} GB of memory, {max(room, 0) / 1e9:.1f} GB are free"
    return ""


def _choices(points: Sequence[Point]) -> dict[str, Any]:
    """What the points share."""
    return {
        "real_prefill": bool(points[0].arguments.get("real")),
        "new_tokens": points[0].arguments.get("new_tokens"),
    }


def _named(engine: Engine) -> dict[str, Any]:
    return {
        "label": engine.label,
        "model": engine.subject.name,
        "runtime": engine.runtime,
        "mode": engine.mode,
        "precision": engine.precision,
    }


def _measured(engine: Engine, result: Result) -> dict[str, Any]:
    if engine.label in result.missing:
        return {"missing": result.missing[engine.label]}
    prepared, samples = result.prepared[engine.label], result.samples[engine.label]
    read = result.samples.get(BANDWIDTH, [])
    size = result.prepared[BANDWIDTH].bytes if read else 0.0
    return {
        **prepared.about,
        "peak_bytes": prepared.resident_bytes,
        "seconds": [asdict(sample) for sample in samples],
        "bandwidth": {
            "cpu": [size / sample.cpu for sample in read],
            "wall": [size / sample.wall for sample in read],
        },
    }
