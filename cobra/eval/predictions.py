"""Predictions: one JSON object a line, enough to score again without the model."""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cobra.config.limits import MAX_RECORD_TEXT
from cobra.data.record import Record

_TEXTS = ("split", "question_id", "kind", "question", "prediction", "benchmark", "ask", "model")


@dataclass
class Prediction:
    """What a model answered to one question, and all that a scorer needs to know of it.

    Attributes:
        split: name of the source, or the part of a benchmark, that the question comes from.
        question_id: its id there.
        kind: type of question, e.g. `count_color`; `all` where the source has none.
        question: the last user turn.
        prediction: the model's answer; where it chose, the likeliest choice.
        answers: the accepted answers.
        benchmark: its name; empty in what a training run wrote.
        ask: the way in which the benchmark asked, see `cobra.eval.protocols`.
        images: names of the pictures, for people.
        scores: log-likelihood of each choice, where it chose.
        truth: what else the scorer reads.
        model: fingerprint of the weights that answered.
    """

    split: str
    question_id: str
    kind: str
    question: str
    prediction: str
    answers: list[str] = field(default_factory=list)
    benchmark: str = ""
    ask: str = ""
    images: list[str] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)
    truth: dict[str, Any] = field(default_factory=dict)
    model: str = ""

    @classmethod
    def of(cls, record: Record, split: str, prediction: str) -> "Prediction":
        """The prediction for a record whose last turn is the true answer."""
        answers = [record.messages[-1].text] if record.messages[-1].role == "assistant" else []
        question = [m.text for m in record.messages if m.role == "user"][-1]
        return cls(split, record.id, record.meta.get("type", "all"), question, prediction, answers)

    @property
    def is_right(self) -> bool:
        """Whether it equals an accepted answer, letter for letter."""
        return self.prediction in self.answers


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """Write a JSON Lines file; an earlier one is replaced when the new one is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        for prediction in predictions:
            file.write(json.dumps(asdict(prediction), ensure_ascii=False) + "\n")
    os.replace(temporary, path)


def read_predictions(path: Path) -> Iterator[Prediction]:
    """The predictions of a JSON Lines file.

    Raises:
        OSError: where it is missing.
        ValueError: where a line is no prediction, or a value of another type; names the line.
    """
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_RECORD_TEXT), b""), 1):
            try:
                yield read_line(line)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: not a prediction ({error})") from error


def read_line(line: bytes) -> Prediction:
    """The prediction of a line.

    Raises:
        ValueError: where it is none, or a value is of another type than scorers rely on.
    """
    try:
        return _checked(Prediction(**json.loads(line.decode("utf-8"))))
    except (OverflowError, RecursionError, TypeError) as error:
        raise ValueError(str(error)) from error


def _checked(prediction: Prediction) -> Prediction:
    """The same, whose values are of their types, as scorers rely on."""
    for name in _TEXTS:
        _expect(name, str, getattr(prediction, name))
    for name in ("answers", "images"):
        _expect(name, list, getattr(prediction, name))
        for value in getattr(prediction, name):
            _expect(name, str, value)
    for name in ("scores", "truth"):
        _expect(name, dict, getattr(prediction, name))
    for value in prediction.scores.values():
        _expect("scores", (int, float), value)
        # too large a whole number is none
        float(value)
    return prediction


def _expect(name: str, kind: type | tuple[type, ...], value: object) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{name!r} has a {type(value).__name__}")


def accuracy(predictions: Iterable[Prediction]) -> dict[str, float]:
    """Exact-match accuracy of each type of question, in alphabetical order, and `macro`, their mean."""
    counts: dict[str, list[int]] = {}
    for prediction in predictions:
        right, total = counts.get(prediction.kind, [0, 0])
        counts[prediction.kind] = [right + prediction.is_right, total + 1]
    scores = {kind: right / total for kind, (right, total) in sorted(counts.items())}
    return {**scores, "macro": sum(scores.values()) / len(scores)} if scores else {}
