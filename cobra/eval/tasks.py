"""Tasks of an evaluation: benchmarks whose files are there, and which of their questions are asked."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import UnionType

from cobra.config.shown_text import harmless
from cobra.eval.asks import asks_of
from cobra.eval.benchmarks.base import Benchmark, Question
from cobra.eval.benchmarks.find import find_benchmark
from cobra.eval.missing import missing_files, missing_pictures, told
from cobra.eval.processes import this_rank
from cobra.eval.protocols.protocol import Ask, Protocol

# of a question, as a line of its answer has them
_TYPES: dict[str, type | UnionType] = {
    "id": str,
    "fields": dict,
    "images": list | tuple,
    "answers": list | tuple,
    "split": str,
    "kind": str,
    "truth": dict,
}


@dataclass(frozen=True, eq=False)
class Task:
    """A benchmark that is to be answered.

    Attributes:
        benchmark: it.
        asks: how.
        questions: those that are asked.
        ids: of all questions that it has.
    """

    benchmark: Benchmark
    asks: Sequence[Ask]
    questions: Sequence[Question]
    ids: frozenset[str]

    @property
    def total(self) -> int:
        """Questions that it has."""
        return len(self.ids)


def read_tasks(
    names: Sequence[str], protocols: Sequence[Protocol], data: Path, limit: int | None, allow_missing: bool
) -> list[Task]:
    """The benchmarks with their questions, all of whose files and pictures are there.

    Raises:
        FileNotFoundError: where something is missing and may not be; all of it is printed.
        ValueError: where a file is damaged, a benchmark is named twice, has no questions, two of one id, or
            one with a value of another type than its answer's line has.
    """
    kinds = [find_benchmark(name) for name in dict.fromkeys(names)]
    _refuse_twice(kinds)
    asks = [asks_of(kind, protocols) for kind in kinds]
    tasks, lacks = [], []
    for kind, given in zip(kinds, asks, strict=True):
        benchmark = kind(data)
        if files := missing_files(benchmark):
            lacks.append(told(kind.name, "files", files))
            continue
        questions = list(benchmark.questions())
        _refuse_unasked(benchmark, questions)
        chosen = drawn(questions, limit)
        if pictures := missing_pictures(chosen):
            lacks.append(told(kind.name, "pictures", pictures))
            gone = {str(picture) for picture in pictures}
            chosen = [q for q in chosen if gone.isdisjoint(map(str, picture_paths(q)))]
        tasks.append(Task(benchmark, given, chosen, frozenset(q.id for q in questions)))
    if lacks and this_rank() == 0:
        print(harmless("\n".join(lacks), sys.stderr), file=sys.stderr)
    if lacks and not allow_missing:
        raise FileNotFoundError(
            "files or pictures of benchmarks are missing, as listed above: get them, or go on without with "
            "--allow-missing"
        )
    return tasks


def drawn(questions: Sequence[Question], limit: int | None) -> list[Question]:
    """About `limit` of them in their order, drawn by lot, always the same; a larger limit draws them, too.

    Every tenth one would not do: files have an order, in POPE's yes and no take turns. Questions of a group
    come together.
    """
    if limit is None or limit >= len(questions):
        return list(questions)
    groups: dict[str, list[int]] = {}
    for number, question in enumerate(questions):
        groups.setdefault(question.group or f"alone {number}", []).append(number)
    lots = list(groups.values())
    Random(0).shuffle(lots)
    taken: list[int] = []
    for lot in lots:
        if len(taken) >= limit:
            break
        taken += lot
    return [questions[number] for number in sorted(taken)]


def _refuse_twice(kinds: Sequence[type[Benchmark]]) -> None:
    """Raise a ValueError where two files of one's own would share their files of answers."""
    for name, count in Counter(kind.name for kind in kinds).items():
        if count > 1:
            raise ValueError(f"{count} of --benchmarks are called {name!r}: leave out all but one")


def _refuse_unasked(benchmark: Benchmark, questions: Sequence[Question]) -> None:
    """Raise a ValueError where answers could not be told apart or read again, or there will be none."""
    if not questions:
        raise ValueError(
            f"{benchmark.name} has no questions: are its files below {benchmark.root} empty? `cobra eval "
            f"data {benchmark.name}` says where to get them"
        )
    for question in questions:
        _refuse_mistyped(benchmark, question)
    for name, count in Counter(question.id for question in questions).items():
        if count > 1:
            raise ValueError(
                f"{benchmark.name} has {count} questions of the id {name!r}: let each have its own"
            )


def _refuse_mistyped(benchmark: Benchmark, question: Question) -> None:
    """Raise a ValueError where a value would make a line of answers that cannot be read again."""
    values = [(name, getattr(question, name), kind) for name, kind in _TYPES.items()]
    if isinstance(question.answers, list | tuple):
        values += [("answers", answer, str) for answer in question.answers]
    for name, value, kind in values:
        if not isinstance(value, kind):
            raise ValueError(
                f"{benchmark.name}: `{name}` of question {question.id!r} has the value {value!r}, which is "
                f"no {getattr(kind, '__name__', kind)}: make it one"
            )


def picture_paths(question: Question) -> list[str | Path]:
    """Those pictures of a question that are files."""
    return [image for image in question.images if isinstance(image, (str, Path))]
