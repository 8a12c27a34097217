"""Two models' answers to the same questions, from files of predictions or whole evaluation folders."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from cobra.config.shown_text import harmless
from cobra.eval.answer_file import AnswerFile, question_key
from cobra.eval.evaluation_folder import named
from cobra.eval.paired import Paired, compare_credits
from cobra.eval.predictions import Prediction

# differences between question sets that are named
_NAMED = 3


class Unscored(ValueError):
    """Answers that a server or a judge scores."""


def compare_answers(
    a: Path, b: Path, common: bool = False, benchmark: str | None = None, out: Path | None = None
) -> None:
    """Print B against A for each benchmark, and for each kind or split.

    Args:
        a: file of predictions, or folder of `cobra eval`.
        b: the other.
        common: whether to take the questions that both have, where they are not the same.
        benchmark: name or Python file of the benchmark, where the predictions name none that is known.
        out: folder for comparison.json, .md and .png.
    """
    pairs, unpaired = _pairs(a, b)
    results, unscored = {}, ""
    for name, files in pairs.items():
        try:
            results[name] = compare_files(*files, common, benchmark)
        except Unscored as error:
            unscored += f"\nNot compared: {error}\n"
    of_a, of_b = named(a), named(b)
    text = f"A: {of_a}\n\nB: {of_b}\n\n{comparison_table(results)}{unscored}"
    for folder, names in unpaired.items():
        text += f"\nOnly in {folder}: {', '.join(names)}\n"
    print(harmless(text, sys.stdout))
    if out is not None:
        # matplotlib takes a second
        from cobra.eval.forest import draw_forest

        out.mkdir(parents=True, exist_ok=True)
        plain = {
            name: {kind: asdict(paired) for kind, paired in kinds.items()} for name, kinds in results.items()
        }
        report = {"a": of_a, "b": of_b, "results": plain}
        (out / "comparison.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        (out / "comparison.md").write_text(text, encoding="utf-8")
        draw_forest(results, of_a, of_b, out / "comparison.png")


class NothingInCommon(ValueError):
    """Two files of predictions answer no same question."""


def compare_files(a: Path, b: Path, common: bool = False, benchmark: str | None = None) -> dict[str, Paired]:
    """B against A over `all` questions, then for each kind, or split where all are of one kind.

    Raises:
        ValueError: where the two answer different benchmarks, different questions unless `common`, or one
            question with different true answers; NothingInCommon where they share none, Unscored where they
            are not scored here.
    """
    first, second = AnswerFile.read(a, benchmark), AnswerFile.read(b, benchmark)
    if first.benchmark.name != second.benchmark.name:
        raise ValueError(f"{a} answers {first.benchmark.name}, {b} answers {second.benchmark.name}")
    of_a = {question_key(p): p for p in first.predictions}
    of_b = {question_key(p): p for p in second.predictions}
    if not common:
        _refuse_different(a, b, of_a, of_b)
    both = [(p, of_b[key]) for key, p in of_a.items() if key in of_b]
    if not both:
        raise NothingInCommon(f"{a} and {b} have no question in common")
    _refuse_other_truths(a, b, both)
    judge = first.benchmark
    try:
        with first.scored():
            earned = np.array([[judge.credit(p), judge.credit(q)] for p, q in both], dtype=np.float64)
            units = [judge.unit(p) for p, _ in both]
    except ValueError as error:
        raise Unscored(str(error)) from error
    return {
        part: compare_credits(earned[places, 0], earned[places, 1], units=[units[place] for place in places])
        for part, places in _parts([p for p, _ in both]).items()
    }


def _parts(predictions: Sequence[Prediction]) -> dict[str, list[int]]:
    """Places of `all`, then of each kind, or split where all are of one kind."""
    names = [p.kind for p in predictions]
    if len(set(names)) == 1:
        names = [p.split for p in predictions]
    parts: dict[str, list[int]] = {name: [] for name in sorted(set(names))}
    for place, name in enumerate(names):
        parts[name].append(place)
    return {"all": list(range(len(predictions))), **(parts if len(parts) > 1 else {})}


def comparison_table(results: Mapping[str, Mapping[str, Paired]]) -> str:
    """Markdown: a benchmark a row, its kinds below it."""
    lines = [
        "| | questions | A | B | B − A | 95 % interval | both | only A | only B | neither | p |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, kinds in results.items():
        for kind, paired in kinds.items():
            title = f"**{name}**" if kind == "all" else kind
            p = "–" if paired.p is None else f"{paired.p:.2g}"
            lines.append(
                f"| {title} | {paired.questions:,} | {paired.a:.2f} | {paired.b:.2f} "
                f"| {paired.difference:+.2f} | {paired.low:+.2f} … {paired.high:+.2f} | {paired.both:,} "
                f"| {paired.only_a:,} | {paired.only_b:,} | {paired.neither:,} | {p} |"
            )
    return "\n".join([*lines, ""])


def _pairs(a: Path, b: Path) -> tuple[dict[str, tuple[Path, Path]], dict[Path, list[str]]]:
    """Files to compare by name, and the names that one folder alone has."""
    for path in (path for path in (a, b) if not path.exists()):
        raise FileNotFoundError(f"{path} is missing: name predictions, or a folder of `cobra eval`")
    if not a.is_dir() and not b.is_dir():
        return {b.stem if a.stem == b.stem else f"{a.stem}, {b.stem}": (a, b)}, {}
    if not (a.is_dir() and b.is_dir()):
        raise ValueError(f"{a} and {b}: compare two files or two folders")
    pairs = {name: (a / f"{name}.jsonl", b / f"{name}.jsonl") for name in shared_names(a, b)}
    rest = {folder: sorted(names_in(folder) - pairs.keys()) for folder in (a, b)}
    return pairs, {folder: names for folder, names in rest.items() if names}


def shared_names(*folders: Path) -> list[str]:
    """Of the files of predictions that all folders have.

    Raises:
        ValueError: where there is none, or one is no folder.
    """
    for path in (path for path in folders if not path.is_dir()):
        raise ValueError(f"{path} is no folder: of more than two, compare folders of `cobra eval`")
    shared = set.intersection(*map(names_in, folders))
    if not shared:
        raise ValueError(f"{' and '.join(map(str, folders))} have no file of predictions of one name")
    return sorted(shared)


def names_in(folder: Path) -> set[str]:
    """Of the files of predictions in a folder."""
    return {path.stem for path in folder.glob("*.jsonl")}


def _refuse_different(
    a: Path, b: Path, of_a: Mapping[tuple[str, str], Prediction], of_b: Mapping[tuple[str, str], Prediction]
) -> None:
    said = []
    for path, own, other in ((a, of_a, of_b), (b, of_b, of_a)):
        alone = [key for key in own if key not in other]
        if alone:
            first = ", ".join(" ".join(filter(None, key)) for key in alone[:_NAMED])
            said.append(f"{len(alone):,} only in {path} (first: {first})")
    if said:
        raise ValueError(f"not the same questions: {'; '.join(said)}: --common compares those of both")


def _refuse_other_truths(a: Path, b: Path, both: Sequence[tuple[Prediction, Prediction]]) -> None:
    for p, q in both:
        if (p.answers, p.truth) != (q.answers, q.truth):
            raise ValueError(
                f"question {p.question_id!r} has other true answers in {a} than in {b}: the benchmark's "
                "files were of different versions"
            )
