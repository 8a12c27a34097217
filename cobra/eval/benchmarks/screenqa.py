"""ScreenQA: questions about screenshots of Android apps (Hsiao et al. 2022, arXiv 2209.08199)."""

from collections.abc import Iterator, Sequence
from statistics import mean
from typing import Any, ClassVar

from cobra.eval.benchmarks.base import Benchmark, Download, Question, Scores
from cobra.eval.benchmarks.published import published_rows
from cobra.eval.predictions import Prediction
from cobra.eval.protocols.protocol import Ask, Headline
from cobra.eval.scorers.answer_overlap import character_f1, list_f1, list_ndcg, short_answer

_URL = "https://github.com/google-research-datasets/screen_qa"
_IMAGES = Download("screenqa/images/", "http://www.interactionmining.org/rico.html", note="Rico's, as ID.jpg")
_SHORT = "screenqa/short_answers/test.json"
_COMPLEX = "screenqa/complex_qa/data.json"
_FULL = "screenqa/answers_and_bboxes/test.json"


class ScreenQa(Benchmark):
    """Short: the answer is a phrase, and people gave several.

    No family of papers here reports it: it is asked like their other short answers.
    """

    name = "screenqa"
    file: ClassVar[str] = _SHORT
    downloads: ClassVar[Sequence[Download]] = (Download(_SHORT, _URL, 8419), _IMAGES)
    asks = (Ask("short", "{{ question }}\nAnswer the question using a single word or phrase."),)
    headline = Headline("short", "f1")

    def questions(self) -> Iterator[Question]:
        """All questions, whose ids are the screen's and the row, for they have none; see the base class."""
        columns = {"image_id": int, "question": str, "ground_truth": list}
        for number, row in enumerate(published_rows(self, self.file, columns)):
            yield Question(
                id=f"{row['image_id']}-{number}",
                fields={"question": row["question"]},
                images=[self.root / "screenqa/images" / f"{row['image_id']}.jpg"],
                **self._answers(row["ground_truth"]),
            )

    def credit(self, prediction: Prediction) -> float:
        """F1 of its words with those of the answer that is most like it."""
        return short_answer(prediction.prediction, prediction.answers)[1]

    def score(self, predictions: Sequence[Prediction]) -> Scores:
        """`exact_match` and `f1` of the published metrics; `mobilevlm-ui/f1` is XiaoMi's, of characters."""
        if not predictions:
            return {}
        pairs = [short_answer(p.prediction, p.answers) for p in predictions]
        return {
            "exact_match": 100 * mean(exact for exact, _ in pairs),
            "f1": 100 * mean(f1 for _, f1 in pairs),
            "mobilevlm-ui/f1": 100 * mean(character_f1(p.prediction, p.answers) for p in predictions),
        }

    def _answers(self, truth: list[Any]) -> dict[str, Any]:
        return {"answers": [str(answer) for answer in truth]}


class ScreenQaComplex(ScreenQa):
    """ComplexQA: counting, arithmetic and comparison over a screen, one short answer each."""

    name = "screenqa_complex"
    file = _COMPLEX
    downloads = (Download(_COMPLEX, _URL), _IMAGES)


class ScreenQaFull(ScreenQa):
    """The full set: the answer is a list of texts on the screen, one a line; people chose several lists."""

    name = "screenqa_full"
    file = _FULL
    downloads = (Download(_FULL, _URL, note="of the folder answers_and_bboxes"), _IMAGES)
    asks = (
        Ask("lines", "{{ question }}\nList the texts on the screen that answer the question, one a line."),
    )
    headline = Headline("lines", "f1")

    def credit(self, prediction: Prediction) -> float:
        """F1 of its lines with the list that is most like it."""
        return list_f1(_lines(prediction.prediction), prediction.truth["elements"])

    def score(self, predictions: Sequence[Prediction]) -> Scores:
        """`exact_match` and `f1` of lists, as in the published metrics; `ndcg`, whose right lines gain 1.

        The paper's first version reports an nDCG; how it cuts off lists is not known here, and ours does not:
        it compares models of this project only.
        """
        if not predictions:
            return {}
        pairs = [(_lines(p.prediction), p.truth["elements"]) for p in predictions]
        return {
            "exact_match": 100 * mean(lines in elements for lines, elements in pairs),
            "f1": 100 * mean(list_f1(lines, elements) for lines, elements in pairs),
            "ndcg": 100 * mean(list_ndcg(lines, elements) for lines, elements in pairs),
        }

    def _answers(self, truth: list[Any]) -> dict[str, Any]:
        try:
            elements = [[str(part["text"]) for part in person["ui_elements"]] for person in truth]
            return {
                "answers": [person["full_answer"] for person in truth],
                "truth": {"elements": elements},
            }
        except (KeyError, TypeError) as error:
            raise ValueError(f"{self.root / self.file}: a row is not of the full set ({error})") from error


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]
