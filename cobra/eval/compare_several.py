"""Several models, or exports of one, beside a first: what each loses, and what it weighs, in one table."""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cobra.config.shown_text import harmless
from cobra.eval.answer_file import question_key
from cobra.eval.compare_answers import Unscored, compare_files, names_in, shared_names
from cobra.eval.evaluation_folder import named, read_run
from cobra.eval.paired import Paired
from cobra.eval.predictions import read_predictions
from cobra.eval.results import read_results, read_rows

_HEAD = (
    "| | MB | logits | image tokens | {metric} | lost | all questions | 95 % interval | other answers |\n"
    "|---|---:|---:|---:|---:|---:|---:|---:|---:|\n"
)


@dataclass(frozen=True)
class Beside:
    """A folder of answers beside that of A.

    Attributes:
        folder: of `cobra eval`.
        paired: its credits against A's.
        differing: questions that it gave other words for.
    """

    folder: Path
    paired: Paired
    differing: int

    @classmethod
    def of(cls, a: Path, b: Path, name: str, benchmark: str | None) -> "Beside":
        """B beside A by the files of predictions of that name."""
        first, second = (folder / f"{name}.jsonl" for folder in (a, b))
        paired = compare_files(first, second, benchmark=benchmark)["all"]
        of_a, of_b = _texts(first), _texts(second)
        return cls(b, paired, sum(of_b[key] != text for key, text in of_a.items()))


def compare_several(
    a: Path, others: Sequence[Path], benchmark: str | None = None, out: Path | None = None
) -> str:
    """A table for each ask that all have answered; printed, and returned.

    Args:
        a: folder of `cobra eval`.
        others: others.
        benchmark: name or Python file of the benchmark, where the predictions name none that is known.
        out: folder for comparison.json and .md.

    Raises:
        ValueError: where they have no ask in common, or answered different questions.
    """
    names, found, left = shared_names(a, *others), dict[str, list[Beside]](), list[str]()
    for name in names:
        try:
            found[name] = [Beside.of(a, b, name, benchmark) for b in others]
        except Unscored as error:
            left.append(f"Not compared: {error}\n")
    for folder in (a, *others):
        if alone := sorted(names_in(folder) - set(names)):
            left.append(f"Not in all, but in {folder}: {', '.join(alone)}\n")
    tables = (_table(a, name, beside) for name, beside in found.items())
    text = "\n".join([f"A: {named(a)}\n", *tables, *left])
    print(harmless(text, sys.stdout))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        report = {name: [asdict(each) for each in beside] for name, beside in found.items()}
        written = json.dumps({"a": str(a), "results": report}, indent=2, default=str)
        (out / "comparison.json").write_text(written + "\n", encoding="utf-8")
        (out / "comparison.md").write_text(text, encoding="utf-8")
    return text


def _texts(file: Path) -> dict[tuple[str, str], str]:
    return {question_key(p): p.prediction for p in read_predictions(file)}


def _table(a: Path, name: str, beside: Sequence[Beside]) -> str:
    folders = (a, *(each.folder for each in beside))
    called, metric = _names(*folders), _metric(folders, name)
    # of protocols that print different metrics of one ask, folders may have different ones
    scores = {folder: _score(folder, name, metric) for folder in folders}
    first = f"| {called[a]} | {_costs(a)} | {_number(scores[a])} | | {beside[0].paired.a:.2f} | | |\n"
    lines = [_line(called[each.folder], scores[a], scores[each.folder], each) for each in beside]
    return "".join([f"**{name}**\n\n", _HEAD.format(metric=metric), first, *lines])


def _line(called: str, of_a: float | None, own: float | None, beside: Beside) -> str:
    paired = beside.paired
    lost = "" if of_a is None or own is None else f"{of_a - own:.2f}"
    return (
        f"| {called} | {_costs(beside.folder)} | {_number(own)} | {lost} "
        f"| {paired.difference:+.2f} | {paired.low:+.2f} … {paired.high:+.2f} "
        f"| {beside.differing:,} of {paired.questions:,} |\n"
    )


def _metric(folders: Sequence[Path], name: str) -> str:
    """What papers print of an ask, or its first number, as the first folder with scores has it."""
    rows = (row for folder in folders for row in read_rows(folder))
    return next((row.metric for row in rows if f"{row.benchmark}-{row.ask}" == name), "score")


def _score(folder: Path, name: str, metric: str) -> float | None:
    """A metric of an ask; None where the folder has no scores."""
    scores = (each.scores for each in read_results(folder) if f"{each.benchmark}-{each.ask}" == name)
    return next((found.get(metric) for found in scores), None)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _names(*folders: Path) -> dict[Path, str]:
    """What each is called: an export by its build, with its folder where another is called that too."""
    runs = {folder: read_run(folder) for folder in folders}
    called = {f: f"{run['target']} {run['quant']}" if "target" in run else f.name for f, run in runs.items()}
    times = Counter(called.values())
    return {f: name if times[name] == 1 else f"{name} ({f})" for f, name in called.items()}


def _costs(folder: Path) -> str:
    """Megabytes, relative RMS of logits and of image tokens: three cells, empty for what is no export."""
    said = read_run(folder)
    parity: dict[str, float] = said.get("parity", {})
    logits = max((value for name, value in parity.items() if "logits" in name), default=None)
    shown = [f"{said['bytes'] / 1e6:.2f}" if "bytes" in said else ""]
    shown += ["" if value is None else f"{value:.1e}" for value in (logits, parity.get("image_tokens"))]
    return " | ".join(shown)
