"""Rows of the page: a question each, with what one or two models answered to it."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cobra.eval.answer_file import UNFIT
from cobra.eval.benchmarks.base import Benchmark, Box
from cobra.eval.benchmarks.find import benchmark_names, find_benchmark
from cobra.eval.predictions import Prediction, read_predictions

# What a page holds of one text, in characters, and of one list; files of predictions come from anywhere.
MAX_TEXT = 1000
_MAX_LIST = 50

# Benchmark, way of asking, split, id and how often it came before.
_Key = tuple[str, str, str, str, int]


@dataclass
class Side:
    """Answers that are shown in one column.

    Attributes:
        name: files or folders that they come from.
        answers: by question.
    """

    name: str
    answers: dict[_Key, Prediction]


@dataclass
class Judges:
    """Benchmarks that judge answers.

    Args:
        own: Python files that define one benchmark each. None is ever run because predictions name it.
        root: folder of all benchmarks.
    """

    own: Sequence[str]
    root: Path
    _made: dict[str, Benchmark | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for file in self.own:
            made = find_benchmark(file)
            self._made[made.name] = made(self.root)

    def benchmark(self, name: str) -> Benchmark | None:
        """The benchmark of that name; None where there is none."""
        if name not in self._made:
            known = name in benchmark_names()
            self._made[name] = find_benchmark(name)(self.root) if known else None
        return self._made[name]

    @property
    def notes(self) -> list[str]:
        """For people: which benchmarks nobody here knows."""
        unknown = [name for name, benchmark in self._made.items() if name and benchmark is None]
        return [
            f"{_cut(name)} is no benchmark that is known: name its file with --benchmark" for name in unknown
        ]

    def credit(self, prediction: Prediction) -> float | None:
        """What an answer earns, 0 to 1; None where nobody can say, as for secret answers."""
        if not prediction.benchmark:
            return float(prediction.is_right) if prediction.answers else None
        benchmark = self.benchmark(prediction.benchmark)
        if benchmark is None or not (prediction.answers or prediction.truth):
            return None
        try:
            credit = float(benchmark.credit(prediction))
        except (*UNFIT, ValueError):
            return None
        return credit if math.isfinite(credit) else None

    def boxes(self, prediction: Prediction) -> tuple[Box | None, Box | None]:
        """The true box and the one that an answer names; None where there is none."""
        benchmark = self.benchmark(prediction.benchmark)
        if benchmark is None or not prediction.truth:
            return None, None
        try:
            true, said = benchmark.boxes(prediction)
            return _finite(true), _finite(said)
        except (*UNFIT, ValueError):
            return None, None


def _finite(box: Box | None) -> Box | None:
    return box if box is not None and all(map(math.isfinite, box)) else None


def read_sides(paths: Sequence[Path]) -> list[Side]:
    """One column, or two where files answer the same questions.

    Args:
        paths: files of predictions, or folders with them.

    Raises:
        OSError: where one is missing.
        ValueError: where a file holds no predictions, or a third answers the same questions.
    """
    read = {path: [p for file in _files(path) for p in read_predictions(file)] for path in paths}
    # two ways to ask are beside each other, unless one argument has both
    apart = any(_several_asks(predictions) for predictions in read.values())
    sides: list[Side] = []
    for path, predictions in read.items():
        answers = _by_question(predictions, apart)
        side = next((side for side in sides if side.answers.keys().isdisjoint(answers)), None)
        if side is None:
            sides.append(Side(str(path), answers))
        else:
            side.answers |= answers
            side.name += f", {path}"
    if len(sides) > 2:
        raise ValueError(f"{len(sides)} of these answer the same questions: show two of them at a time")
    return sides


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(path.glob("*.jsonl"))
    if not files:
        raise ValueError(f"{path} has no predictions (*.jsonl): name what `cobra eval` or `cobra test` wrote")
    return files


def _several_asks(predictions: Iterable[Prediction]) -> bool:
    asks = {(p.benchmark, p.ask) for p in predictions}
    return len(asks) > len({benchmark for benchmark, _ in asks})


def _by_question(predictions: Iterable[Prediction], apart: bool) -> dict[_Key, Prediction]:
    seen: Counter[tuple[str, str, str, str]] = Counter()
    answers: dict[_Key, Prediction] = {}
    for p in predictions:
        question = (p.benchmark, p.ask if apart else "", p.split, p.question_id)
        key: _Key = (*question, seen[question])
        answers[key] = p
        seen[question] += 1
    return answers


def pair(sides: Sequence[Side]) -> list[tuple[Prediction | None, ...]]:
    """The answers to each question, one a side; first in the order of the first side, then of the other."""
    keys = dict.fromkeys(key for side in sides for key in side.answers)
    return [tuple(side.answers.get(key) for side in sides) for key in keys]


def row(answers: Sequence[Prediction | None], judges: Judges) -> dict[str, Any]:
    """What the page's script reads of a question; all texts are cut to what a page can hold."""
    first = next(p for p in answers if p is not None)
    return {
        "benchmark": _cut(first.benchmark),
        "ask": asks(answers),
        "split": _cut(first.split),
        "kind": _cut(first.kind),
        "id": _cut(first.question_id),
        "question": _cut(first.question),
        "answers": [_cut(answer) for answer in first.answers[:_MAX_LIST]],
        "names": [_cut(name) for name in first.images[:_MAX_LIST]],
        "box": judges.boxes(first)[0],
        "said": [None if p is None else _said(p, judges) for p in answers],
    }


def asks(answers: Sequence[Prediction | None]) -> str:
    """The ways in which a question was asked, where the sides differ in it both."""
    return _cut(" / ".join(dict.fromkeys(p.ask for p in answers if p is not None and p.ask)))


def _said(prediction: Prediction, judges: Judges) -> dict[str, Any]:
    best = sorted(prediction.scores.items(), key=lambda item: -item[1])[:_MAX_LIST]
    return {
        "text": _cut(prediction.prediction),
        "credit": judges.credit(prediction),
        "box": judges.boxes(prediction)[1],
        "scores": [[_cut(choice), score if math.isfinite(score) else None] for choice, score in best],
    }


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]} … ({len(text):,} characters)"
