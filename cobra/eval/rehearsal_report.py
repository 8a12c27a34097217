"""The outcome of a rehearsal: a table, a plot, and whether all ways reach what the demo does."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

from matplotlib.figure import Figure
from rich.console import Console
from rich.markdown import Markdown

from cobra.eval.learning_curve import read_metrics
from cobra.eval.predictions import accuracy, read_predictions
from cobra.eval.training_run import Run

# the way that all others are held to, and how far below it one may be
DEMO, MARGIN = "embedded", 0.02


@dataclass
class Outcome:
    """What came of one training.

    Attributes:
        way: how it was trained.
        seed: of weights and order.
        macro: accuracy on held-out questions, the mean of their types.
        relation: on those about relations.
        new_pairs: `macro` on pairs of color and shape that training never shows.
        seconds: of `cobra fit`, start and validation included; of the demo with its earlier stages.
        cpu_seconds: that its process trained for.
        tokens_per_second: without padding, while it trained.
        padding: share of a batch that is none; None where it was not asked.
        curve: steps of the last stage and `macro` in validation.
    """

    way: str
    seed: int
    macro: float
    relation: float
    new_pairs: float
    seconds: float
    cpu_seconds: float
    tokens_per_second: float
    padding: float | None
    curve: list[tuple[float, float]]

    @classmethod
    def of(cls, way: str, seed: int, run: Run, data: Path | None = None) -> "Outcome":
        """That of a run that was trained and tested; `data` is what `cobra data check` found for it."""
        scores, new = (
            accuracy(read_predictions(run.folder / f"predictions-{split}.jsonl"))
            for split in ("test", "composition")
        )
        rows = read_metrics(run.folder / "logs")
        last = max(row["stage"] for row in rows if "stage" in row)
        own = [row for row in rows if row.get("stage") == last and "tokens_per_second" in row]
        start = max([row["step"] for row in rows if row.get("stage", last) < last], default=0)
        curve = [(row["step"] - start, row["val/macro"]) for row in rows if "val/macro" in row]
        return cls(
            way, seed, scores["macro"], scores["relation"], new["macro"], run.seconds("fit"),
            rows_end(rows, "cpu_seconds"), mean(row["tokens_per_second"] for row in own), _padding(data),
            [point for point in curve if point[0] > 0],
        )  # fmt: skip


def rows_end(rows: list[dict[str, float]], column: str) -> float:
    """The last value of a column of a log."""
    return [row[column] for row in rows if column in row][-1]


def _padding(data: Path | None) -> float | None:
    """Of the last stage, as it is batched."""
    if data is None:
        return None
    stage = list(json.loads(data.read_text(encoding="utf-8"))["stages"].values())[-1]
    padding: float = stage["padding"][stage["batching"]]
    return padding


def report(outcomes: list[Outcome], out: Path, judges: bool = True) -> None:
    """Print a table; write it, the numbers and a plot under `out`.

    Raises:
        ValueError: where a way is too far below the demo, in the mean over the seeds, if this `judges`.
    """
    (out / "rehearsal.md").write_text(table(outcomes), encoding="utf-8")
    told = json.dumps([asdict(outcome) for outcome in outcomes], indent=2)
    (out / "rehearsal.json").write_text(told + "\n", encoding="utf-8")
    draw(outcomes, out / "rehearsal.png")
    Console().print(Markdown(table(outcomes)))
    means = _means(outcomes)
    low = {way: macro for way, macro in means.items() if macro < means[DEMO] - MARGIN}
    if judges and low:
        said = ", ".join(f"{way} {macro:.1%}" for way, macro in low.items())
        raise ValueError(f"{said}: more than {100 * MARGIN:.0f} points below the demo's {means[DEMO]:.1%}")


def _means(outcomes: list[Outcome]) -> dict[str, float]:
    """Accuracy of each way over the seeds, the demo's first."""
    ways = dict.fromkeys(outcome.way for outcome in outcomes)
    return {way: mean(o.macro for o in outcomes if o.way == way) for way in ways}


def table(outcomes: list[Outcome]) -> str:
    """The outcomes as Markdown, one row a training."""
    lines = [
        "| way | seed | macro | relation | new pairs | seconds | CPU s | tokens/s | padding |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for o in outcomes:
        shares = " | ".join(f"{100 * share:.1f} %" for share in (o.macro, o.relation, o.new_pairs))
        padding = "–" if o.padding is None else f"{100 * o.padding:.1f} %"
        lines.append(
            f"| {o.way} | {o.seed} | {shares} | {o.seconds:.0f} | {o.cpu_seconds:.0f} "
            f"| {o.tokens_per_second:,.0f} | {padding} |"
        )
    return "\n".join([*lines, ""])


def draw(outcomes: list[Outcome], path: Path) -> None:
    """Write a PNG: `macro` in validation by steps of the last stage, and in the test, with the margin."""
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    curves, tests = figure.subplots(1, 2, width_ratios=[3, 2])
    means = _means(outcomes)
    colors = {way: f"C{number}" for number, way in enumerate(means)}
    for number, o in enumerate(outcomes):
        label = o.way if o.way not in [before.way for before in outcomes[:number]] else None
        steps, macros = zip(*o.curve, strict=True)
        shares = [100 * macro for macro in macros]
        curves.plot(steps, shares, color=colors[o.way], marker="o", markersize=3, linewidth=1, label=label)
        tests.plot(list(means).index(o.way), 100 * o.macro, "o", color=colors[o.way], alpha=0.7)
    for place, (way, macro) in enumerate(means.items()):
        tests.hlines(100 * macro, place - 0.25, place + 0.25, color=colors[way])
        tests.annotate(f"{100 * macro:.1f} %", (place + 0.28, 100 * macro), va="center", fontsize=9)
    tests.axhline(100 * (means[DEMO] - MARGIN), color="#57606a", linestyle=":", linewidth=1)
    tests.set(title="test, macro; dotted: two points below the demo", xlim=(-0.5, len(means) - 0.2))
    tests.set_xticks(range(len(means)), list(means))
    tests.set_ylabel("%")
    curves.set(
        ylim=(0, 102), xlabel="optimizer step of the last stage", title="validation, macro", ylabel="%"
    )
    figure.legend(loc="outside lower center", ncols=len(means), frameon=False)
    for axes in (curves, tests):
        axes.grid(axis="y", color="#d0d7de", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
