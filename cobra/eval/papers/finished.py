"""Finished evaluations of a paper's systems: folders of `cobra eval`, scored again, or of another harness."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cobra.config.shown_text import harmless
from cobra.eval.answer_file import AnswerFile, UnknownBenchmark
from cobra.eval.benchmarks.base import Scores
from cobra.eval.benchmarks.json_lines import read_json
from cobra.eval.evaluation_folder import RUN, read_run, read_written
from cobra.eval.papers.paper import Paper
from cobra.eval.protocols.protocol import Headline
from cobra.eval.published import read_numbers


@dataclass(frozen=True)
class Scored:
    """What one ask of a benchmark came to.

    Attributes:
        scores: all of its metrics.
        questions: that were answered.
        path: the predictions; of lm-evaluation-harness its results.
        splits: of the questions, where there are several.
        model: fingerprint of the weights, where it is known.
        total: questions of the benchmark; 0 where nobody says.
        stopped: whether the run ended before it had scored them.
    """

    scores: Scores
    questions: int
    path: Path
    splits: tuple[str, ...] = ()
    model: str = ""
    total: int = 0
    stopped: bool = False

    @property
    def partial(self) -> bool:
        """Whether questions were left out, or may have been."""
        return self.stopped or self.questions < self.total


@dataclass(frozen=True)
class Finished:
    """One folder.

    Attributes:
        system: of the paper.
        folder: of `cobra eval --out`, or lm-evaluation-harness' `--output_path`.
        about: its run.json; empty where it has none.
        asks: what was asked, by benchmark and ask.
    """

    system: str
    folder: Path
    about: Mapping[str, Any]
    asks: Mapping[tuple[str, str], Scored]

    @classmethod
    def read(cls, said: str, paper: Paper) -> "Finished":
        """The folder that `[SYSTEM=]FOLDER` says.

        Raises:
            ValueError: where it holds no answers, or those of several models, or whose they are is not said.
        """
        name, _, path = said.rpartition("=")
        folder = Path(path)
        about = read_run(folder)
        asks = _harness(folder, paper.tasks) if paper.tasks else _answers(folder)
        if not asks:
            raise ValueError(
                f"{folder} has no {'results_*.json' if paper.tasks else 'predictions (*.jsonl)'}"
            )
        return cls(_system(name, folder, about, paper), folder, about, asks)

    def ours(self, benchmark: str, headline: Headline | None) -> float | None:
        """The value of a metric; None where that was not asked, or cannot be scored here."""
        scored = self.asks.get((benchmark, headline.ask)) if headline else None
        return scored.scores.get(headline.metric) if headline and scored else None

    def partial(self, benchmark: str, headline: Headline | None) -> bool:
        """Whether that value is of a part of the questions."""
        scored = self.asks.get((benchmark, headline.ask)) if headline else None
        return scored is not None and scored.partial


def _system(name: str, folder: Path, about: Mapping[str, Any], paper: Paper) -> str:
    printed = {number.system for number in read_numbers() if number.table in paper.tables}
    known = list(dict.fromkeys([*paper.systems, *sorted(printed)]))
    if not name:
        of_weights = {system.weights: each for each, system in paper.systems.items() if system.weights}
        only = next(iter(paper.systems)) if len(paper.systems) == 1 else ""
        name = only or of_weights.get(about.get("model", ""), "")
    if name not in known:
        raise ValueError(
            f"{folder}: which system of {paper.name} is it? Write SYSTEM={folder} with one of "
            f"{'; '.join(known)}"
        )
    return name


def _answers(folder: Path) -> dict[tuple[str, str], Scored]:
    files = list(_known(folder))
    models = {file.model for file in files}
    if len(models) > 1:
        raise ValueError(f"{folder} has answers of {len(models)} models: {', '.join(sorted(models))}")
    written = folder / "scores.json"
    totals = (
        {(e["benchmark"], e["ask"]): e["questions"] for e in read_written(written)}
        if written.is_file()
        else {}
    )
    return {
        (file.benchmark.name, file.ask): Scored(
            file.scores,
            len(file.predictions),
            file.path,
            tuple(dict.fromkeys(p.split for p in file.predictions if p.split)),
            file.model,
            totals.get((file.benchmark.name, file.ask), 0),
            # `cobra eval` writes run.json before the first answer and scores.json behind the last
            (folder / RUN).is_file() and (file.benchmark.name, file.ask) not in totals,
        )
        for file in files
    }


def _known(folder: Path) -> Iterator[AnswerFile]:
    """Its files of predictions, but for those of benchmarks of one's own: no paper has them."""
    for path in sorted(folder.glob("*.jsonl")):
        try:
            yield AnswerFile.read(path)
        except UnknownBenchmark:
            print(harmless(f"left out: {path} is of no benchmark of a paper", sys.stderr), file=sys.stderr)


def _harness(folder: Path, group: str) -> dict[tuple[str, str], Scored]:
    written = sorted(folder.rglob("results_*.json"), key=lambda path: path.stat().st_mtime)
    made = {}
    for path in written:  # of a task that was run again the newest
        report = read_json(path)
        if not isinstance(report, dict) or not isinstance(report.get("results"), dict):
            raise ValueError(f"{path} has no `results`: it is none of lm-evaluation-harness; remove it")
        counts = report.get("n-samples", {})
        for task, metrics in report["results"].items():
            scores = {
                name.partition(",")[0]: 100 * value
                for name, value in metrics.items()
                if isinstance(value, int | float) and name.split(",")[0].startswith("acc")
                if not name.split(",")[0].endswith("_stderr")
            }
            # a group has no counts of its own: it is of all tasks in the file
            of_task = counts.values() if task == group else [counts.get(task, {})]
            asked, total = (sum(each.get(of, 0) for each in of_task) for of in ("effective", "original"))
            if scores:
                made["average" if task == group else task, ""] = Scored(scores, asked, path, total=total)
    return made
