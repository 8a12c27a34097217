"""VQAv2: questions about COCO's pictures, ten answers each (Goyal et al. 2017, arXiv 1612.00837)."""

from collections.abc import Iterator, Sequence
from statistics import mean

from cobra.eval.benchmarks.base import Benchmark, Download, Question, Scores
from cobra.eval.benchmarks.published import answers_of_people, published_rows
from cobra.eval.benchmarks.secret import SecretBenchmark
from cobra.eval.predictions import Prediction
from cobra.eval.scorers.vqa_accuracy import (
    agreement,
    evalai_answer,
    official_answer,
    soft_accuracy,
    without_punctuation,
)

_URL = "https://visualqa.org/download.html"
_QUESTIONS = "vqav2/v2_OpenEnded_mscoco_val2014_questions.json"
_ANNOTATIONS = "vqav2/v2_mscoco_val2014_annotations.json"
_ASKED = "vqav2/v2_OpenEnded_mscoco_test-dev2015_questions.json"
# What the server wants answers to, whichever phase it scores.
_ALL = "vqav2/v2_OpenEnded_mscoco_test2015_questions.json"
_COLUMNS = {"question_id": int, "image_id": int, "question": str}


class VqaV2(Benchmark):
    """The validation set, which Cobra, ML-Mamba and prismatic report."""

    name = "vqav2"
    downloads = (
        Download(_QUESTIONS, _URL, 214354),
        Download(_ANNOTATIONS, _URL, 214354),
        Download("coco/val2014/", "http://images.cocodataset.org/zips/val2014.zip", 40504),
    )

    def questions(self) -> Iterator[Question]:
        """214,354 questions; see the base class."""
        rows = published_rows(self, _QUESTIONS, _COLUMNS, key="questions", id_column="question_id")
        columns = {"question_id": int, "answer_type": str, "answers": list}
        annotations = published_rows(self, _ANNOTATIONS, columns, key="annotations", id_column="question_id")
        by_id = {row["question_id"]: row for row in annotations}
        for row in rows:
            annotation = by_id.get(row["question_id"])
            if annotation is None:
                raise ValueError(
                    f"{self.root / _ANNOTATIONS} has no answers to question {row['question_id']}: it is of "
                    f"another version; fetch both from {_URL}"
                )
            yield Question(
                id=str(row["question_id"]),
                fields={"question": row["question"]},
                images=[self.root / f"coco/val2014/COCO_val2014_{row['image_id']:012}.jpg"],
                answers=answers_of_people(annotation, _ANNOTATIONS),
                kind=annotation["answer_type"],
            )

    def credit(self, prediction: Prediction) -> float:
        """Soft accuracy as EvalAI computes it."""
        return soft_accuracy(prediction.prediction, prediction.answers, official=False)

    def score(self, predictions: Sequence[Prediction]) -> Scores:
        """Besides the base class's: how the scripts score.

        `official`: VQAv2's, of the answers as they are. `uploaded`: the same of normalised answers, which
        LLaVA uploads. `lmms-eval` (0.7.3): all are normalised by the script's steps, also where people agree.
        `prismatic`: people's answers lose only their punctuation.
        """
        if not predictions:
            return {}
        given = [(p.prediction, p.answers) for p in predictions]
        official = (soft_accuracy(said, people, official=True) for said, people in given)
        uploaded = (soft_accuracy(evalai_answer(said), people, official=True) for said, people in given)
        lmms = (
            agreement(official_answer(said), [official_answer(answer) for answer in people])
            for said, people in given
        )
        prismatic = (
            agreement(official_answer(said), [without_punctuation(answer) for answer in people])
            for said, people in given
        )
        return {
            **super().score(predictions),
            "official/accuracy": 100 * mean(official),
            "uploaded/accuracy": 100 * mean(uploaded),
            "lmms-eval/accuracy": 100 * mean(lmms),
            "prismatic/accuracy": 100 * mean(prismatic),
        }


class VqaV2Test(SecretBenchmark):
    """Test-dev, which LLaVA-1.5, Imp and TinyLLaVA report: its server has the answers."""

    name = "vqav2_test"
    submission = "vqav2"
    downloads = (
        Download(_ASKED, _URL, note="in the archive of the test questions"),
        Download(_ALL, _URL, 447793, note="to submit, in the same archive", optional=True),
        Download("coco/test2015/", "http://images.cocodataset.org/zips/test2015.zip"),
    )

    def questions(self) -> Iterator[Question]:
        """The questions of test-dev; see the base class."""
        return self._read(_ASKED)

    def submitted(self) -> Iterator[Question]:
        """All 447,793 test questions: the server wants them, whichever of them it scores."""
        return self._read(_ALL)

    def _read(self, path: str) -> Iterator[Question]:
        for row in published_rows(self, path, _COLUMNS, key="questions", id_column="question_id"):
            image = self.root / f"coco/test2015/COCO_test2015_{row['image_id']:012}.jpg"
            yield Question(str(row["question_id"]), {"question": row["question"]}, [image], split="test")
