"""`cobra eval --check-invariance`: whether answers depend on what else is in their batch."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cobra.eval.answerer import Answer, Answerer, Asked
from cobra.eval.evaluate import in_batches, predicted, prepared
from cobra.eval.evaluated import is_export
from cobra.eval.opening import Settings, model_path, open_model
from cobra.eval.protocols.protocol import Ask, read_protocol
from cobra.eval.tasks import Task, read_tasks

# questions of a benchmark, unless a limit says otherwise
_SAMPLE = 64
# how batches are made: their size, and whether the questions come backwards
_WAYS = {"1": (1, False), "2": (2, False), "16": (16, False), "16 backwards": (16, True)}


def check_invariance(
    model: str,
    benchmarks: Sequence[str],
    protocols: Sequence[str],
    data: Path,
    *,
    settings: Settings,
    device: str = "cpu",
    limit: int | None = None,
    allow_missing: bool = False,
) -> int:
    """Print how many answers and scores differ from those at batch size 1; how many there are in all.

    Arguments as for `evaluate`.

    Raises:
        ValueError: where the model is an export, which has no batches.
    """
    if is_export(model):
        raise ValueError(f"--check-invariance: {model} is an export, which answers one question at a time")
    tasks = read_tasks(
        benchmarks, [read_protocol(name) for name in protocols], data, limit or _SAMPLE, allow_missing
    )
    opened, processor = open_model(model_path(model), settings, device)
    table = Table()
    for column in (
        "benchmark",
        "ask",
        "batch",
        "questions",
        "answers differ",
        "scores differ",
        "asked again",
    ):
        table.add_column(column, overflow="fold")
    total = 0
    for task in tasks:
        for ask in task.asks:
            answerer = Answerer(opened, processor, ask.max_new_tokens)
            alone = _answered(answerer, task, ask, *_WAYS["1"], allow_missing)
            for name, way in list(_WAYS.items())[1:]:
                again = answerer.again
                other = _answered(answerer, task, ask, *way, allow_missing)
                answers = _differing(alone, other, answerer.close)
                scores = _scores_differing(task, ask, alone, other)
                total += answers + scores
                counts = (len(alone), answers, scores, answerer.again - again)
                table.add_row(task.benchmark.name, ask.name, name, *map(str, counts))
    Console().print(table)
    return total


def _answered(
    answerer: Answerer, task: Task, ask: Ask, size: int, backwards: bool, allow_missing: bool
) -> list[tuple[Asked, Answer]]:
    """Questions and answers, in the order of the questions."""
    asked = [Asked.of(question, ask) for question in task.questions]
    batches = in_batches(asked[:: -1 if backwards else 1], size)
    found = {
        each.question.id: (each, answer)
        for batch, examples in prepared(answerer, batches[:: -1 if backwards else 1], allow_missing)
        for each, answer in zip(batch, answerer.answer(batch, examples), strict=True)
    }
    # without those whose pictures are damaged
    return [found[each.question.id] for each in asked if each.question.id in found]


def _differing(
    one: Sequence[tuple[Asked, Answer]], other: Sequence[tuple[Asked, Answer]], rounding: float
) -> int:
    """Answers whose text differs, or the likelihood of a choice by more than rounding."""
    return sum(
        mine.text != theirs.text
        or any(abs(score - theirs.scores[choice]) > rounding for choice, score in mine.scores.items())
        for (_, mine), (_, theirs) in zip(one, other, strict=True)
    )


def _scores_differing(
    task: Task, ask: Ask, one: Sequence[tuple[Asked, Answer]], other: Sequence[tuple[Asked, Answer]]
) -> int:
    """Metrics that differ by a hundredth of a point or more."""
    first, second = (
        task.benchmark.score([predicted(*pair, task.benchmark, ask, "") for pair in given])
        for given in (one, other)
    )
    return sum(abs(value - second[name]) >= 0.01 for name, value in first.items())
