"""A finished file of predictions: one benchmark, one ask, one model, each question once."""

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cobra.eval.benchmarks.base import Benchmark, Question, Scores
from cobra.eval.benchmarks.find import benchmark_names, find_benchmark
from cobra.eval.predictions import Prediction, read_line

# More broken lines than these are counted, not named.
_NAMED = 5


# A benchmark may rely on what a line of a file lacks, in ways of its own.
UNFIT = (ArithmeticError, AttributeError, LookupError, TypeError)


class UnknownBenchmark(ValueError):
    """Predictions name a benchmark of somebody's own, whose file is not given."""


@dataclass(frozen=True)
class AnswerFile:
    """The predictions of a file, and what they have in common.

    Attributes:
        path: where they were read.
        predictions: in the order of the file.
        benchmark: that scores them.
        ask: how it was asked.
        model: fingerprint of the weights that answered.
    """

    path: Path
    predictions: list[Prediction]
    benchmark: Benchmark
    ask: str
    model: str

    @classmethod
    def read(cls, path: Path, benchmark: str | None = None) -> "AnswerFile":
        """The file of that path.

        Args:
            path: JSON Lines, as `cobra eval` and `cobra test` write them.
            benchmark: name, or Python file of one's own, where the predictions name none that is known.

        Raises:
            OSError: where it cannot be read.
            ValueError: where lines are broken, questions come twice, or benchmarks, asks or models are mixed;
                UnknownBenchmark where nobody knows the one that they name.
        """
        predictions = _read(path)
        names = {what: _only(path, predictions, what) for what in ("benchmark", "ask", "model")}
        twice = [key for key, count in Counter(map(question_key, predictions)).items() if count > 1]
        if twice:
            raise ValueError(
                f"{path} answers {_question(twice[0])} more than once ({len(twice)} such): keep one answer"
            )
        scorer = _benchmark(path, names["benchmark"], benchmark)
        return cls(path, predictions, scorer, names["ask"], names["model"])

    @property
    def scores(self) -> Scores:
        """All metrics of its benchmark.

        Raises:
            ValueError: where predictions lack what it scores by, such as the true answers.
        """
        with self.scored():
            return self.benchmark.score(self.predictions)

    @contextmanager
    def scored(self) -> Iterator[None]:
        """Within it, what a benchmark misses in predictions is a ValueError."""
        try:
            yield
        except UNFIT as error:
            raise ValueError(
                f"{self.path}: a line lacks what {self.benchmark.name} is scored by "
                f"({type(error).__name__}: {error}): take the file as `cobra eval` wrote it"
            ) from error


class ExactMatch(Benchmark):
    """Answers that must equal an accepted one letter for letter, as `cobra test` counts them."""

    name = "exact match"

    def questions(self) -> Iterator[Question]:
        """None: it only scores."""
        return iter(())

    def credit(self, prediction: Prediction) -> float:
        """1 where it is right."""
        return float(prediction.is_right)


def question_key(prediction: Prediction) -> tuple[str, str]:
    """What tells a question from the others of its benchmark."""
    return prediction.split, prediction.question_id


def _read(path: Path) -> list[Prediction]:
    found, broken = [], []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                found.append(_finite(read_line(line)))
            except ValueError as error:
                broken.append(f"line {number} ({error})")
    if broken:
        more = f" and {len(broken) - _NAMED} more" if len(broken) > _NAMED else ""
        raise ValueError(
            f"{path}: no predictions in {', '.join(broken[:_NAMED])}{more}: remove or repair them"
        )
    if not found:
        raise ValueError(f"{path} holds no predictions")
    return found


def _finite(prediction: Prediction) -> Prediction:
    for choice, score in prediction.scores.items():
        if not math.isfinite(score):
            raise ValueError(f"the score of {choice!r} is {score}, no log-likelihood")
    return prediction


def _only(path: Path, predictions: list[Prediction], what: str) -> str:
    found = Counter(getattr(prediction, what) for prediction in predictions)
    if len(found) > 1:
        each = ", ".join(f"{name!r} ({count} lines)" for name, count in found.most_common())
        raise ValueError(f"{path} mixes predictions of more than one {what}: {each}; score one a file")
    return next(iter(found))


def _benchmark(path: Path, named: str, given: str | None) -> Benchmark:
    """The benchmark that predictions name, else the one that is given, else exact match."""
    if named in benchmark_names():
        return find_benchmark(named)(Path())
    if given is None and named:
        raise UnknownBenchmark(
            f"{path}: there is no benchmark {named!r}: name its Python file with --benchmark"
        )
    found = find_benchmark(given) if given else ExactMatch
    if named and found.name != named:
        raise ValueError(f"{path} answers {named!r}, and {given} is {found.name!r}")
    return found(Path())


def _question(key: tuple[str, str]) -> str:
    split, name = key
    return f"question {name!r} of {split}" if split else f"question {name!r}"
