"""`cobra data check -c CONFIG`: what a run would meet in its data, found before it."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import get_args

import numpy as np
from rich.console import Console
from rich.table import Table

from cobra.config.shown_text import harmless
from cobra.data.bad_sample import BadSample
from cobra.data.picture_checks import PictureChecks
from cobra.data.source import Source
from cobra.data.token_counts import TokenCounts
from cobra.train.length_plot import plot_lengths
from cobra.train.run_data import RunData, read_run_data
from cobra.train.schedule import Supply, drawn_stream, steps_of
from cobra.train.stages import Batching, Stage

# bad records of a source that are named, and batches by which padding is estimated
_NAMED, _BATCHES = 20, 200
# of a file or a pager, whose lines may be long
_WIDTH = 150


@dataclass
class SourceReport:
    """What was found in a source.

    Attributes:
        records: that there are.
        dropped: records that its importer left out, by the reason.
        mended: records that it changed, by what was wrong.
        unreadable: records that cannot be encoded.
        missing: records of which a picture is not there.
        broken: records of which a picture cannot be decoded.
        cut_pictures: records of which max_length cuts a picture, which a run cannot use.
        nothing_to_learn: records without an answer, or of which max_length leaves none, where a stage learns
            answers from them.
        over_long: records that max_length cuts.
        duplicates: records that say what another says of the same pictures.
        pictures: of all records.
        picture_bytes: on disk, of each picture once.
        lacking_bytes: that the missing ones would take, were they as large as the others.
        tokens: in a pass, after the cut; image tokens included.
        learned: labels in a pass, before it.
        bad: records that a run cannot use or learns nothing from, those that were dropped included.
    """

    records: int
    dropped: Mapping[str, int]
    mended: Mapping[str, int]
    unreadable: int
    missing: int
    broken: int
    cut_pictures: int
    nothing_to_learn: int
    over_long: int
    duplicates: int
    pictures: int
    picture_bytes: int
    lacking_bytes: int
    tokens: int
    learned: int
    bad: list[BadSample] = field(repr=False, default_factory=list)


@dataclass
class StageReport:
    """How a stage goes through its data.

    Attributes:
        batching: how examples come together.
        steps: optimizer steps.
        records: in a pass.
        tokens: in a pass.
        tokens_a_step: on all devices, without padding.
        padding: the share of batches that is filled with nothing, by how examples could come together.
    """

    batching: str
    steps: int
    records: int
    tokens: int
    tokens_a_step: float
    padding: dict[str, float]


def check_data(
    configs: Sequence[Path],
    names: Sequence[str] = (),
    devices: int | None = None,
    report: Path | None = None,
    plot: Path | None = None,
) -> None:
    """Look at all records and pictures that a run's stages use, and print what there is.

    What was found is kept in the cache folder: a second call looks only at what was bad, and a run need not
    count tokens again.

    Args:
        configs: yamls of the run.
        names: of the stages; all when empty.
        devices: of the run; those of the yamls when left out.
        report: JSON to write.
        plot: picture of the lengths to write.

    Raises:
        ValueError: where there are records that the run cannot use, or that teach nothing.
    """
    run = read_run_data(configs, names, devices)
    counts = {name: TokenCounts.of(source, name, run.processor) for name, source in run.sources.items()}
    sources = {
        name: look_at(
            source,
            name,
            counts[name],
            PictureChecks.of(source, name),
            run.data.max_length,
            name in run.answering,
        )
        for name, source in run.sources.items()
    }
    stages = dict(_stages(run, counts, sources))
    _print(run, sources, stages)
    if plot is not None:
        plot_lengths({name: count.tokens for name, count in counts.items()}, run.data.max_length, plot)
    wrong = sum(len(found.bad) for found in sources.values())
    if report is not None:
        told = {"wrong": wrong, "devices": run.devices, "max_length": run.data.max_length}
        parts = {
            part: {name: asdict(found) for name, found in reports.items()}
            for part, reports in (("sources", sources), ("stages", stages))
        }
        report.write_text(json.dumps({**told, **parts}, indent=2, default=dict) + "\n", encoding="utf-8")
    if wrong:
        records = sum(found.records + sum(found.dropped.values()) for found in sources.values())
        raise ValueError(
            f"{wrong} of {records} records cannot be used or teach nothing: fetch, mend or remove them, or a "
            "run skips them"
        )


def look_at(
    source: Source, name: str, counts: TokenCounts, pictures: PictureChecks, max_length: int, answers: bool
) -> SourceReport:
    """What there is to say of a source; `answers`: whether a stage learns answers from it."""
    tokens, readable = counts.tokens, counts.tokens > 0
    good, lacking = ~(pictures.missing | pictures.broken), int(pictures.missing.sum())
    cut = counts.seen > max_length
    mute = readable & good & ~cut & (counts.answer >= np.minimum(tokens, max_length)) & answers
    with_pictures = good & (counts.pictures > 0)
    mean = float(pictures.size[with_pictures].mean()) if with_pictures.any() else 0.0
    contents = counts.content[readable]
    return SourceReport(
        records=len(source),
        dropped=dict(source.dropped),
        mended=dict(source.mended),
        unreadable=len(counts.problems),
        missing=lacking,
        broken=int(pictures.broken.sum()),
        cut_pictures=int(cut.sum()),
        nothing_to_learn=int(mute.sum()),
        over_long=int((tokens > max_length).sum()),
        duplicates=len(contents) - len(np.unique(contents)),
        pictures=int(counts.pictures.sum()),
        picture_bytes=pictures.disk,
        lacking_bytes=round(lacking * mean),
        tokens=int(np.minimum(tokens, max_length).sum()),
        learned=int(counts.learned.sum()),
        bad=[
            BadSample(name, record, reason)
            for record, reason in _bad(source, counts, pictures, cut, mute, max_length)
        ],
    )


def _bad(
    source: Source,
    counts: TokenCounts,
    pictures: PictureChecks,
    cut: np.ndarray,
    mute: np.ndarray,
    max_length: int,
) -> Iterator[tuple[str, str]]:
    """Records that a run cannot use or learns nothing from, with the reason."""
    for index, reason in counts.problems.items():
        yield f"number {index}", reason
    for index, told in pictures.reasons.items():
        if index not in counts.problems:
            yield told
    for index in np.flatnonzero(cut).tolist():
        if index not in pictures.reasons:
            yield (
                _id(source, index),
                f"max_length {max_length} cuts a picture, which ends at {counts.seen[index]}",
            )
    for index in np.flatnonzero(mute).tolist():
        yield (
            _id(source, index),
            f"no answer to learn from among its first {max_length} of {counts.tokens[index]} tokens",
        )
    for sample in source.bad_records():
        yield sample.id, sample.reason


def _id(source: Source, index: int) -> str:
    try:
        return source[index].id
    # gone since it was looked at
    except (ValueError, OSError):
        return f"number {index}"


def _stages(
    run: RunData, counts: Mapping[str, TokenCounts], sources: Mapping[str, SourceReport]
) -> Iterator[tuple[str, StageReport]]:
    """How each stage goes through its data."""
    data = run.data
    supply = Supply(run.sources, run.devices, data.seed, data.max_length, data.row_length, counts)
    for number, stage in run.stages.items():
        taken = {
            batching: _batch_lengths(replace(stage, batching=batching), number, supply, run.accumulate)
            for batching in get_args(Batching)
        }
        own = taken[stage.batching]
        yield (
            stage.name,
            StageReport(
                batching=stage.batching,
                steps=steps_of(stage, number, supply, run.accumulate),
                records=sum(sources[name].records for name in stage.data),
                tokens=sum(sources[name].tokens for name in stage.data),
                tokens_a_step=sum(map(sum, own)) / len(own) * run.devices * run.accumulate,
                padding={
                    batching: 1 - sum(map(sum, rows)) / max(1, sum(max(batch) * len(batch) for batch in rows))
                    for batching, rows in taken.items()
                },
            ),
        )


def _batch_lengths(stage: Stage, number: int, supply: Supply, accumulate: int) -> list[list[int]]:
    """Tokens of each row of a stage's first batches on one device."""
    streams = supply.streams(stage, number)
    taken, lengths = [0] * len(streams), []
    for batch in range(min(_BATCHES, steps_of(stage, number, supply, accumulate) * accumulate)):
        drawn = drawn_stream(stage, supply.seed, batch)
        rows = streams[drawn].rows(taken[drawn], 0)
        taken[drawn] += 1
        lengths.append([sum(supply.tokens(pick) for pick in row) for row in rows])
    return lengths


def _print(run: RunData, sources: Mapping[str, SourceReport], stages: Mapping[str, StageReport]) -> None:
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, _WIDTH)
    for name, found in sources.items():
        for sample in found.bad[:_NAMED]:
            print(harmless(str(sample), sys.stdout))
        if len(found.bad) > _NAMED:
            print(f"and {len(found.bad) - _NAMED} more of {name}; --json FILE names all")
        for what, reasons in (("dropped", found.dropped), ("mended", found.mended)):
            for reason, count in reasons.items():
                print(harmless(f"{count} records of {name} {what}: {reason}", sys.stdout))
    console.print(_source_table(sources, run.data.max_length))
    console.print(_stage_table(run, stages))


def _source_table(sources: Mapping[str, SourceReport], max_length: int) -> Table:
    """Columns are sources: there are more things to say than sources."""
    table = Table(title=f"records, of at most {max_length} tokens", title_justify="left")
    table.add_column("")
    for name in sources:
        table.add_column(name, justify="right")
    found = list(sources.values())
    rows = {
        "records": [f"{each.records:,}" for each in found],
        "dropped by the importer": [f"{sum(each.dropped.values()):,}" for each in found],
        "mended by it": [f"{sum(each.mended.values()):,}" for each in found],
        "cannot be encoded": [f"{each.unreadable:,}" for each in found],
        "a picture is missing": [f"{each.missing:,}" for each in found],
        "a picture is broken": [f"{each.broken:,}" for each in found],
        "a picture is cut": [f"{each.cut_pictures:,}" for each in found],
        "nothing to learn": [f"{each.nothing_to_learn:,}" for each in found],
        "over-long, cut": [f"{each.over_long:,}" for each in found],
        "duplicates": [f"{each.duplicates:,}" for each in found],
        "pictures": [f"{each.pictures:,}" for each in found],
        "on disk": [_size(each.picture_bytes) for each in found],
        "more for missing ones": [_size(each.lacking_bytes) for each in found],
        "tokens a pass": [f"{each.tokens:,}" for each in found],
        "of them learned": [f"{each.learned:,}" for each in found],
    }
    for row, values in rows.items():
        table.add_row(row, *values)
    return table


def _stage_table(run: RunData, stages: Mapping[str, StageReport]) -> Table:
    many = "device" if run.devices == 1 else "devices"
    table = Table(title=f"stages on {run.devices} {many}, * as configured", title_justify="left")
    table.add_column("stage")
    for column in ("steps", "records a pass", "tokens a pass", "tokens a step"):
        table.add_column(column, justify="right")
    for batching in get_args(Batching):
        table.add_column(f"padding, {batching}", justify="right")
    for name, stage in stages.items():
        numbers = (stage.steps, stage.records, stage.tokens, round(stage.tokens_a_step))
        padding = (f"{share:.1%}{'*' * (way == stage.batching)}" for way, share in stage.padding.items())
        table.add_row(name, *(f"{number:,}" for number in numbers), *padding)
    return table


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
