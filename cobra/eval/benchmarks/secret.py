"""Benchmarks whose answers a server or a judge keeps: they are answered here, and scored there."""

from abc import ABC
from collections.abc import Sequence
from typing import ClassVar

from cobra.eval.benchmarks.base import Benchmark, Scores
from cobra.eval.predictions import Prediction


class SecretBenchmark(Benchmark, ABC):
    """Answers of such a benchmark become a file for whoever scores it: its score here is n/a.

    Attributes:
        submission: the word of `cobra eval submit` that writes the file.
    """

    submission: ClassVar[str]

    def credit(self, prediction: Prediction) -> float:
        """Always a ValueError that says how to have it scored."""
        raise ValueError(
            f"{self.name} is not scored here: `cobra eval submit {self.submission} FILE --out FILE` writes "
            "what its server or judge scores"
        )

    def score(self, predictions: Sequence[Prediction]) -> Scores:
        """Nothing: the score is n/a."""
        return {}
