"""What a benchmark is: published files become questions, predictions become scores."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any, ClassVar

from cobra.data.record import ImageSource
from cobra.eval.predictions import Prediction
from cobra.eval.protocols.protocol import Ask, Headline

# Values as papers print them: per cent, or points where a benchmark counts points. A part's metric is named
# `part/metric`, e.g. `adversarial/f1`.
Scores = dict[str, float]
# Left, top, right and bottom in shares of a picture's sides.
Box = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Question:
    """One question of a benchmark.

    Attributes:
        id: unique within the benchmark.
        fields: what prompt templates may name, such as `question`, `hint`, `options`, `ocr_tokens`.
        images: its pictures; files need not be there before it is asked.
        answers: the accepted answers, or what people answered; empty where they are secret.
        split: part of the benchmark that is scored apart, e.g. POPE's `random`.
        kind: type of question, for tables by type.
        truth: what else the scorer reads, of JSON's types: a box, a size, a category.
        group: of those that are counted together, such as rotations of one; empty where it counts alone.
    """

    id: str
    fields: dict[str, Any]
    images: list[ImageSource] = field(repr=False)
    answers: list[str] = field(default_factory=list)
    split: str = ""
    kind: str = "all"
    truth: dict[str, Any] = field(default_factory=dict)
    group: str = ""


@dataclass(frozen=True)
class Download:
    """A file or a folder of pictures that a benchmark reads.

    Attributes:
        path: below the root of all benchmarks, which share pictures; a folder ends in a slash.
        url: where people find it.
        entries: questions in the file, or pictures in the folder; 0 where nobody says.
        sha256: of the file, where it is known.
        note: what to do with it: which archive to unpack, which version is wrong.
        optional: whether the benchmark runs without it.
    """

    path: str
    url: str
    entries: int = 0
    sha256: str = ""
    note: str = ""
    optional: bool = False


class Benchmark(ABC):
    """A benchmark as it is published.

    Args:
        root: folder of all benchmarks; `downloads` says what is where in it.

    Attributes:
        name: on the command line, and of its folder below the root.
        downloads: what it reads.
        asks: how it is asked, where the protocol has no stanza of it.
        headline: its number then.
    """

    name: ClassVar[str]
    downloads: ClassVar[Sequence[Download]] = ()
    asks: ClassVar[Sequence[Ask]] = ()
    headline: ClassVar[Headline | None] = None

    def __init__(self, root: Path) -> None:
        self.root = root

    @abstractmethod
    def questions(self) -> Iterator[Question]:
        """All questions, in the order of the files.

        Raises:
            OSError: where a file is missing.
            ValueError: where a file is another version, damaged, or has an id twice; names what to do.
        """

    def submitted(self) -> Iterator[Question]:
        """What its server wants answers to: the questions, unless a benchmark says otherwise."""
        return self.questions()

    @abstractmethod
    def credit(self, prediction: Prediction) -> float:
        """What a prediction earns, 0 to 1."""

    def unit(self, prediction: Prediction) -> Hashable:
        """What is drawn as a whole for an interval: its question, unless some belong together."""
        return prediction.split, prediction.question_id

    def boxes(self, prediction: Prediction) -> tuple[Box | None, Box | None]:
        """The true box and the one that an answer names, for people; None where there is none."""
        return None, None

    def score(self, predictions: Sequence[Prediction]) -> Scores:
        """All metrics of the predictions of one ask, in every convention that papers use; a pure function.

        Unless a benchmark says otherwise: `accuracy`, the mean credit in per cent, that of each kind as
        `kind/accuracy`, and of several kinds their mean, `macro`.
        """
        credits: dict[str, list[float]] = {}
        for prediction in predictions:
            credits.setdefault(prediction.kind, []).append(self.credit(prediction))
        kinds = {f"{kind}/accuracy": 100 * mean(values) for kind, values in sorted(credits.items())}
        if not kinds:
            return {}
        total = 100 * mean(value for values in credits.values() for value in values)
        if len(kinds) == 1:
            return {"accuracy": total}
        return {"accuracy": total, "macro": mean(kinds.values()), **kinds}
