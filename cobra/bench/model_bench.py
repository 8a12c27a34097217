"""`cobra bench e2e|decode|prefill|train`: every engine at every point, as far as the memory allows."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cobra.bench.ceilings import bandwidth, product_rate
from cobra.bench.engines import SEEING, Engine, Point, Settings, engines, with_build
from cobra.bench.room import available, batches, needed
from cobra.bench.run import Plan, run
from cobra.bench.runtimes import BUILDS, OURS
from cobra.bench.subjects import Subject
from cobra.bench.timing.case import dtype_of
from cobra.bench.timing.interleave import Group


def bench_models(
    subjects: Sequence[Subject], points: Sequence[Point], settings: Settings, repeats: int, out: Path
) -> None:
    """Measure the subjects at points of one case, and write the reports to `out`, named after it."""
    case = points[0].case
    alone = [subject.name for subject in subjects if subject.vlm is None]
    if case in SEEING and alone:
        raise ValueError(
            f"{', '.join(alone)}: a language model alone sees no picture; name a config, or use `decode`"
        )
    if case not in SEEING:
        subjects = [replace(subject, vlm=None) for subject in subjects]
    chosen = [_ready(engine, case, settings) for engine in engines(subjects, settings)]
    groups, missing = _groups(chosen, points, settings)
    about = {
        "dtype": settings.dtype,
        "device": settings.device,
        "real_prefill": bool(points[0].arguments.get("real")),
        "new_tokens": points[0].arguments.get("new_tokens"),
        "batch": points[0].arguments.get("batch", 1),
    }
    run(Plan(case, groups, about, missing), settings.threads, repeats, out)


def _groups(
    chosen: Sequence[Engine], points: Sequence[Point], settings: Settings
) -> tuple[list[Group], list[Mapping[str, Any]]]:
    """Engines that fit into memory together, in turn at every point; entries of what cannot be measured."""
    room = available(settings.device) - settings.read_mebibytes * 2**20
    missing: list[Mapping[str, Any]] = []
    # each engine, where it is measured, and the most memory that takes
    fitting: list[tuple[Engine, list[Point], float]] = []
    for engine in chosen:
        sizes = {point.length: _size(engine, point, settings) for point in points}
        reasons = {p.length: engine.missing or _refusal(sizes[p.length], room) for p in points}
        missing += [
            {**engine.entry, "length": length, "missing": why} for length, why in reasons.items() if why
        ]
        left = [point for point in points if not reasons[point.length]]
        if left:
            fitting.append((engine, left, max(sizes[point.length] for point in left)))
    groups = [
        group
        for batch, members in enumerate(batches([size for *_, size in fitting], room))
        for group in _batch(batch, [fitting[member][:2] for member in members], points, settings)
    ]
    return groups, missing


def _batch(
    number: int, members: Sequence[tuple[Engine, list[Point]]], points: Sequence[Point], settings: Settings
) -> list[Group]:
    groups = []
    for point in points:
        parts = [engine.measurement(point, number) for engine, where in members if point in where]
        ends = [engine.runner for engine, _ in members] if point is points[-1] else []
        ceilings = {"bandwidth": bandwidth(settings.read_mebibytes, settings.device)}
        if point.case == "train":
            size = 2048 if settings.device == "cpu" else 8192
            ceilings = {"product_rate": product_rate(size, settings.device, settings.dtype)}
        groups.append(Group(f"{point.case} {point.length or ''}", parts, ceilings, ends))
    return groups


def _size(engine: Engine, point: Point, settings: Settings) -> float:
    size = needed(engine, point.length)
    # fp32 weights, gradients and AdamW's two states; activations are not foreseen
    return size * 16 / dtype_of(settings.dtype).itemsize if point.case == "train" else size


def _ready(engine: Engine, case: str, settings: Settings) -> Engine:
    """An engine with the build that it runs, or the reason why it cannot run here."""
    reason = ""
    if engine.runtime != OURS and case == "train":
        reason = "only our own models are trained here: leave --runtime at torch"
    elif engine.runtime in BUILDS and settings.device != "cpu":
        reason = f"{engine.runtime} is measured on the CPU: leave --device at cpu"
    return replace(engine, missing=reason) if reason else with_build(engine)


def _refusal(size: float, room: float) -> str:
    if size > room:
        return f"needs {size / 1e9:.1f} GB of memory, {max(room, 0) / 1e9:.1f} GB are free"
    return ""
