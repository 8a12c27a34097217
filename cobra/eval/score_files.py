"""Scores of finished files of predictions, without the model."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cobra.config.shown_text import harmless
from cobra.eval.answer_file import AnswerFile
from cobra.eval.benchmarks.find import find_benchmark


def score_files(paths: Sequence[Path], benchmark: str | None = None, report: Path | None = None) -> None:
    """Print all metrics of each file, files of one benchmark beside each other.

    Args:
        paths: files of predictions.
        benchmark: name or Python file of the benchmark, where the predictions name none that is known.
        report: JSON file to write the scores to.

    Raises:
        ValueError: where a path is a folder, or no file is of the benchmark that is given.
    """
    for path in filter(Path.is_dir, paths):
        raise ValueError(f"{path} is a folder: name the files of predictions in it, {path / '*.jsonl'}")
    files = [AnswerFile.read(path, benchmark) for path in paths]
    if benchmark and find_benchmark(benchmark).name not in {file.benchmark.name for file in files}:
        named = ", ".join(dict.fromkeys(file.benchmark.name for file in files))
        raise ValueError(f"--benchmark {benchmark}: the predictions are of {named}: leave it out")
    scored = [
        {
            "file": str(file.path),
            "benchmark": file.benchmark.name,
            "ask": file.ask,
            "model": file.model,
            "questions": len(file.predictions),
            "scores": file.scores,
        }
        for file in files
    ]
    if report is not None:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(json.dumps(scored, indent=2) + "\n", encoding="utf-8")
    for name in dict.fromkeys(each["benchmark"] for each in scored):
        table = scores_table([each for each in scored if each["benchmark"] == name])
        print(harmless(table, sys.stdout))


def scores_table(scored: Sequence[dict[str, Any]]) -> str:
    """Markdown: a metric a row, a file of the one benchmark a column."""
    named = [Path(each["file"]).stem for each in scored]
    # files of one name lie in different folders
    titles = named if len(set(named)) == len(named) else [each["file"] for each in scored]
    metrics = list(dict.fromkeys(metric for each in scored for metric in each["scores"]))
    values = [[each["scores"].get(metric) for each in scored] for metric in metrics]
    rows = [["–" if value is None else f"{value:.2f}" for value in row] for row in values]
    counts = [f"{each['questions']:,}" for each in scored]
    lines = [
        f"| {scored[0]['benchmark']} | {' | '.join(titles)} |",
        "|---|" + "---:|" * len(scored),
        f"| questions | {' | '.join(counts)} |",
        *(f"| {metric} | {' | '.join(row)} |" for metric, row in zip(metrics, rows, strict=True)),
    ]
    return "\n".join([*lines, ""])
