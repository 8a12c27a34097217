"""Photos: a few dozen questions about one's own pictures, open ones and yes-or-no ones as in POPE."""

import re
from collections.abc import Iterator, Sequence
from statistics import mean

from cobra.eval.benchmarks.base import Benchmark, Download, Question, Scores
from cobra.eval.benchmarks.json_lines import read_json_lines, refuse_duplicates
from cobra.eval.benchmarks.pope import read_answer
from cobra.eval.predictions import Prediction
from cobra.eval.scorers.yes_no import areas, two_class_scores

_NOTE = "one's own: a line of JSON each, {question_id, image, "


class PhotosVqa(Benchmark):
    """Answers in words to questions about the pictures of a folder."""

    name = "photos_vqa"
    downloads = (Download("photos/photo_vqa.jsonl", "", note=_NOTE + "question, answers}"),)

    def questions(self) -> Iterator[Question]:
        """A question a line; pictures lie beside the file."""
        path = self.root / self.downloads[0].path
        rows = read_json_lines(path, {"question_id": int, "image": str, "question": str, "answers": list})
        refuse_duplicates(path, (row["question_id"] for row in rows))
        for row in rows:
            yield Question(
                id=str(row["question_id"]),
                fields={"question": row["question"]},
                images=[path.parent / row["image"]],
                answers=[str(answer) for answer in row["answers"]],
            )

    def credit(self, prediction: Prediction) -> float:
        """1 where an accepted answer is in it, word for word."""
        said = _words(prediction.prediction)
        return float(any(f" {_words(answer)} " in f" {said} " for answer in prediction.answers))

    def score(self, predictions: Sequence[Prediction]) -> Scores:
        """`accuracy`, and `exact`, where the answer says nothing else."""
        if not predictions:
            return {}
        exact = [_words(p.prediction) in map(_words, p.answers) for p in predictions]
        return {**super().score(predictions), "exact": 100 * mean(exact)}


class PhotosPope(Benchmark):
    """Yes or no about objects in the pictures of a folder."""

    name = "photos_pope"
    downloads = (Download("photos/photo_pope.jsonl", "", note=_NOTE + "text, label: yes or no}"),)

    def questions(self) -> Iterator[Question]:
        """A question a line; pictures lie beside the file."""
        path = self.root / self.downloads[0].path
        rows = read_json_lines(path, {"question_id": int, "image": str, "text": str, "label": str})
        refuse_duplicates(path, (row["question_id"] for row in rows))
        for row in rows:
            if row["label"] not in ("yes", "no"):
                raise ValueError(f"{path}: the label {row['label']!r} is neither yes nor no: mend it")
            yield Question(
                id=str(row["question_id"]),
                fields={"question": row["text"]},
                images=[path.parent / row["image"]],
                answers=[row["label"]],
            )

    def credit(self, prediction: Prediction) -> float:
        """1 where POPE's script reads the true answer from it."""
        return float(read_answer(prediction) == prediction.answers[0])

    def score(self, predictions: Sequence[Prediction]) -> Scores:
        """`accuracy`, `precision`, `recall`, `f1`, `yes_ratio`; of choices `auroc` and `aupr`, too."""
        if not predictions:
            return {}
        true = [p.answers[0] == "yes" for p in predictions]
        said = [read_answer(p) == "yes" for p in predictions]
        return {**two_class_scores(said, true), **areas(predictions, true, "yes", "no")}


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
