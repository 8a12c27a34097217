"""Prices of protocol differences: points by which prompts, likelihood, metrics and splits move a number."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cobra.eval.compare_answers import NothingInCommon, compare_files
from cobra.eval.papers.ask_difference import ask_difference
from cobra.eval.papers.finished import Finished, Scored
from cobra.eval.papers.paper import Paper, read_papers
from cobra.eval.protocols.protocol import Headline, Protocol

# of run.json: what changes no answer, what is a consequence of the rest, and what is too long to be shown
_NEVER = {"fingerprint", "device", "batch_size", "protocols", "threads", "versions", "asks", "data"}


@dataclass(frozen=True)
class Price:
    """What one difference is worth on one model's answers.

    Attributes:
        system: that answered.
        benchmark: that it answered.
        what: differs.
        paper: ask and metric as the paper has them.
        other: ask and metric that stand in their place, or another folder.
        points: other less paper.
        interval: 95 %, of the paired questions; None where the metric is no mean over questions.
        questions: that were answered the paper's way.
    """

    system: str
    benchmark: str
    what: str
    paper: str
    other: str
    points: float
    interval: tuple[float, float] | None
    questions: int


def prices(paper: Paper, runs: Sequence[Finished], protocols: Sequence[Protocol]) -> list[Price]:
    """What the answers that are there can price, from the paper's protocol to each of the others.

    First a change of the ask under the paper's metric, then of the metric or split under its ask, then what
    another folder of the same system differs by.
    """
    found: list[Price] = []
    priced: set[tuple[str, str]] = set()
    for run in runs:
        for benchmark in dict.fromkeys(name for name, _ in run.asks):
            own = paper.headline(benchmark)
            if own is None or run.ours(benchmark, own) is None or (run.system, benchmark) in priced:
                continue
            priced.add((run.system, benchmark))
            found += _of_asks(run, benchmark, own, protocols)
            found += _of_metrics(run, benchmark, own, protocols)
            found += _of_runs(run, benchmark, own, runs)
    return found


def _of_asks(run: Finished, benchmark: str, own: Headline, protocols: Sequence[Protocol]) -> Iterator[Price]:
    asks = {ask.name: ask for protocol in protocols for ask in protocol.asks.get(benchmark, ())}
    base = run.asks[benchmark, own.ask]
    for name, ask in asks.items():
        other = run.asks.get((benchmark, name))
        if name == own.ask or other is None or own.metric not in other.scores or own.ask not in asks:
            continue
        yield from _price(run.system, benchmark, ask_difference(asks[own.ask], ask), own, name, base, other)


def _of_metrics(
    run: Finished, benchmark: str, own: Headline, protocols: Sequence[Protocol]
) -> Iterator[Price]:
    printed = [headlines.get(benchmark) for headlines in (*(p.headlines for p in protocols), *_columns())]
    metrics = {headline.metric: "metric" for headline in printed if headline}
    base = run.asks[benchmark, own.ask]
    metrics |= {f"{split}/{own.metric}": "split" for split in base.splits}
    for metric, what in metrics.items():
        if metric != own.metric and metric in base.scores:
            points = base.scores[metric] - base.scores[own.metric]
            name = f"{own.ask} {own.metric}"
            yield Price(
                run.system, benchmark, what, name, f"{own.ask} {metric}", points, None, base.questions
            )


def _columns() -> list[dict[str, Headline]]:
    return [dict(paper.columns) for paper in read_papers()]


def _of_runs(run: Finished, benchmark: str, own: Headline, runs: Sequence[Finished]) -> Iterator[Price]:
    base = run.asks[benchmark, own.ask]
    for other in (each for each in runs if each.system == run.system and each is not run):
        answered = other.asks.get((benchmark, own.ask))
        if answered is not None and own.metric in answered.scores:
            what = f"run: {run_difference(run, other)}"
            yield from _price(run.system, benchmark, what, own, str(other.folder), base, answered)


def _price(
    system: str, benchmark: str, what: str, own: Headline, other: str, base: Scored, answered: Scored
) -> Iterator[Price]:
    """One, where they answer the same question at all."""
    points = answered.scores[own.metric] - base.scores[own.metric]
    try:
        paired = compare_files(base.path, answered.path, common=True)["all"]
    except NothingInCommon:
        return
    exact = abs(paired.difference - points) < 1e-6
    yield Price(
        system,
        benchmark,
        what,
        f"{own.ask} {own.metric}",
        f"{other} {own.metric}",
        points,
        (paired.low, paired.high) if exact else None,
        base.questions,
    )


def run_difference(run: Finished, other: Finished) -> str:
    """What may change answers between two runs, by their run.json, for people."""
    said = [
        f"{key} {run.about.get(key)} → {other.about.get(key)}"
        for key in dict.fromkeys([*run.about, *other.about])
        if key not in _NEVER and run.about.get(key) != other.about.get(key)
    ]
    return ", ".join(said) or "nothing that run.json tells"
