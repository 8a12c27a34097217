"""OCRBench: a thousand texts to read, of ten types (Liu et al. 2023, arXiv 2305.07895)."""

from collections.abc import Iterator, Sequence
from typing import Any

from cobra.eval.benchmarks.base import Benchmark, Download, Question, Scores
from cobra.eval.benchmarks.json_lines import Kind
from cobra.eval.benchmarks.published import published_rows
from cobra.eval.predictions import Prediction
from cobra.eval.protocols.protocol import Ask, Headline

_URL = "https://github.com/Yuliang-Liu/MultimodalOCR"
_FILE = "ocrbench/OCRBench.json"
# Formulas: of this data set spaces mean nothing, and case does.
_FORMULAS = "HME100k"
# letters of full width, and their space, to ASCII's
_NARROW = {0x3000: 0x20, **{wide: wide - 0xFEE0 for wide in range(0xFF01, 0xFF5F)}}
_RECOGNITION = (
    "Regular Text Recognition",
    "Irregular Text Recognition",
    "Artistic Text Recognition",
    "Handwriting Recognition",
    "Digit String Recognition",
    "Non-Semantic Text Recognition",
)


class OcrBench(Benchmark):
    """Right is what has a true answer in it, somewhere; `score` is how many of 1,000 are right."""

    name = "ocrbench"
    downloads = (
        Download(
            _FILE,
            f"{_URL}/tree/main/OCRBench/OCRBench",
            1000,
            sha256="df75957e75ea052e9f38f2c67a4f6676103998517345cf49ef7d03b62c835864",
        ),
        Download("ocrbench/OCRBench_Images/", _URL, note="its README links the pictures"),
    )

    asks = (Ask("question", "{{ question | trim }}"),)
    headline = Headline("question", "score")

    def questions(self) -> Iterator[Question]:
        """1,000 questions, whose ids are their rows, for theirs are not unique; see the base class."""
        columns: dict[str, Kind] = {
            "dataset_name": str,
            "image_path": str,
            "question": str,
            "type": str,
            "answers": str | list,
        }
        for number, row in enumerate(published_rows(self, _FILE, columns)):
            yield Question(
                id=str(number),
                fields={"question": row["question"]},
                images=[self.root / "ocrbench/OCRBench_Images" / row["image_path"]],
                answers=_listed(row["answers"]),
                kind=row["type"],
                truth={"dataset": row["dataset_name"]},
            )

    def credit(self, prediction: Prediction) -> float:
        """1 where the prediction contains an answer."""
        return _contains(prediction.prediction, prediction)

    def score(self, predictions: Sequence[Prediction]) -> Scores:
        """Besides the base class's: points, in all, of text recognition (six types) and of each type.

        `lmms-eval/score` is what lmms-eval 0.7.3 counts: letters of full width are those of ASCII to it, but
        in formulas.
        """
        kinds: dict[str, float] = {}
        for each in predictions:
            kinds[each.kind] = kinds.get(each.kind, 0) + self.credit(each)
        if not kinds:
            return {}
        return {
            **super().score(predictions),
            "score": sum(kinds.values()),
            "recognition/score": sum(kinds.get(kind, 0) for kind in _RECOGNITION),
            **{f"{kind}/score": points for kind, points in sorted(kinds.items())},
            "lmms-eval/score": sum(_contains(p.prediction, p, narrows=True) for p in predictions),
        }


def _listed(answers: str | list[Any]) -> list[str]:
    return [answers] if isinstance(answers, str) else [str(answer) for answer in answers]


def _contains(said: str, question: Prediction, narrows: bool = False) -> float:
    formulas = question.truth["dataset"] == _FORMULAS

    def read(text: str) -> str:
        line = (text.translate(_NARROW) if narrows and not formulas else text).strip().replace("\n", " ")
        return line.replace(" ", "") if formulas else line.lower()

    return float(any(read(answer) in read(said) for answer in question.answers))
