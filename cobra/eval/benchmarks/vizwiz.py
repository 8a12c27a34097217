"""VizWiz-VQA: what blind people asked about their photographs (Gurari et al. 2018, arXiv 1802.08218)."""

from collections.abc import Iterable, Iterator, Sequence
from statistics import mean

from cobra.eval.benchmarks.base import Benchmark, Download, Question, Scores
from cobra.eval.benchmarks.published import answers_of_people, published_rows
from cobra.eval.benchmarks.secret import SecretBenchmark
from cobra.eval.predictions import Prediction
from cobra.eval.scorers.vqa_accuracy import agreement, official_answer, soft_accuracy

_URL = "https://vizwiz.cs.colorado.edu/VizWiz_final"
_ANNOTATIONS = f"{_URL}/vqa_data/Annotations.zip"


class VizWiz(Benchmark):
    """The validation set, which Cobra, ML-Mamba and prismatic report."""

    name = "vizwiz"
    downloads = (
        Download("vizwiz/val.json", _ANNOTATIONS, 4319),
        Download("vizwiz/val/", f"{_URL}/images/val.zip", 4319),
    )

    def questions(self) -> Iterator[Question]:
        """4,319 questions, each with a picture of its own, whose name is its id; see the base class."""
        columns = {"image": str, "question": str, "answers": list, "answer_type": str, "answerable": int}
        for row in published_rows(self, "vizwiz/val.json", columns, id_column="image"):
            yield Question(
                id=row["image"],
                fields={"question": row["question"]},
                images=[self.root / "vizwiz/val" / row["image"]],
                answers=answers_of_people(row, "vizwiz/val.json"),
                kind=row["answer_type"],
                truth={"answerable": row["answerable"]},
            )

    def credit(self, prediction: Prediction) -> float:
        """Soft accuracy as EvalAI computes it."""
        return soft_accuracy(prediction.prediction, prediction.answers, official=False)

    def score(self, predictions: Sequence[Prediction]) -> Scores:
        """Besides the base class's: of questions with an answer and without, and how well these are told.

        `unanswerable/average_precision` and `/f1` take the answer `unanswerable` for a certain verdict: the
        server's own task asks for a confidence, which answers in words have not. `prismatic/accuracy` is of
        VizWiz's script, which normalises the prediction and compares it with people's answers as they are.
        """
        if not predictions:
            return {}
        parts = {
            "answerable": [p for p in predictions if p.truth["answerable"]],
            "unanswerable": [p for p in predictions if not p.truth["answerable"]],
        }
        script = (agreement(official_answer(p.prediction), p.answers) for p in predictions)
        return {
            # The type `unanswerable` of the base class's parts gives way to the label of the same name.
            **super().score(predictions),
            **{
                f"{name}/accuracy": 100 * mean(map(self.credit, part)) for name, part in parts.items() if part
            },
            **_detection(predictions),
            "prismatic/accuracy": 100 * mean(script),
        }


class VizWizTest(SecretBenchmark):
    """The test set, which LLaVA-1.5 and Imp report: its server has the answers."""

    name = "vizwiz_test"
    submission = "vizwiz"
    downloads = (
        Download("vizwiz/test.json", _ANNOTATIONS, 8000),
        Download("vizwiz/test/", f"{_URL}/images/test.zip", 8000),
    )

    def questions(self) -> Iterator[Question]:
        """8,000 questions, each with a picture of its own, whose name is its id; see the base class."""
        for row in published_rows(
            self, "vizwiz/test.json", {"image": str, "question": str}, id_column="image"
        ):
            image = self.root / "vizwiz/test" / row["image"]
            yield Question(row["image"], {"question": row["question"]}, [image], split="test")


def _detection(predictions: Iterable[Prediction]) -> Scores:
    """How well questions without an answer are told: the curve of a verdict of 0 or 1 has two points."""
    pairs = [
        (official_answer(p.prediction) == "unanswerable", not p.truth["answerable"]) for p in predictions
    ]
    share = mean(true for _, true in pairs)
    hits = sum(said and true for said, true in pairs)
    precision = hits / (sum(said for said, _ in pairs) or 1)
    recall = hits / (sum(true for _, true in pairs) or 1)
    average_precision = recall * precision + (1 - recall) * share
    return {
        "unanswerable/average_precision": 100 * average_precision,
        "unanswerable/f1": 100 * 2 * precision * recall / ((precision + recall) or 1),
    }
