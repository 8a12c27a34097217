"""Predictions made up for benchmarks of real files."""

from collections.abc import Iterable
from typing import Any

from cobra.eval.benchmarks.base import Benchmark, Question
from cobra.eval.predictions import Prediction


def predict(benchmark: Benchmark, question: Question, said: str, **more: Any) -> Prediction:
    """What a run writes of a question that was answered so."""
    return Prediction(
        question.split, question.id, question.kind, str(question.fields), said, question.answers,
        benchmark.name, truth=question.truth, **more,
    )  # fmt: skip


def answered(benchmark: Benchmark, said: Iterable[str]) -> list[Prediction]:
    """The answers to all of its questions, in order."""
    return [
        predict(benchmark, question, text) for question, text in zip(benchmark.questions(), said, strict=True)
    ]
