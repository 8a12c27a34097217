"""TextVQA: questions that need the text in the picture read (Singh et al. 2019, arXiv 1904.08920)."""

from collections.abc import Iterator
from typing import Any

from cobra.eval.benchmarks.base import Benchmark, Download, Question
from cobra.eval.benchmarks.json_lines import read_json_lines
from cobra.eval.benchmarks.published import published_rows
from cobra.eval.predictions import Prediction
from cobra.eval.scorers.vqa_accuracy import soft_accuracy

_URL = "https://dl.fbaipublicfiles.com/textvqa"
_FILE = "textvqa/TextVQA_0.5.1_val.json"
_ROSETTA = "textvqa/TextVQA_Rosetta_OCR_v0.2_val.json"
_LLAVA = "textvqa/llava_textvqa_val_v051_ocr.jsonl"
_TOKENS = "Reference OCR token: "


class TextVqa(Benchmark):
    """The validation set: asked with the tokens that Rosetta read in the picture, as LLaVA does, or without.

    The two ways differ by some 12 points for LLaVA-1.5, so that a number says nothing without its ask. The
    field `ocr_tokens` is there only where one of the two files with tokens is. Where LLaVA's is, questions
    are spelled as in it, for so they were asked: they begin with a capital, which TextVQA's do not.
    """

    name = "textvqa"
    downloads = (
        Download(_FILE, f"{_URL}/data/TextVQA_0.5.1_val.json", 5000),
        Download(
            _LLAVA,
            "",
            5000,
            note="in LLaVA's archive of evaluation files: its questions with Rosetta's tokens, taken first",
            optional=True,
        ),
        Download(
            _ROSETTA,
            "https://textvqa.org/dataset",
            note="Rosetta's tokens, v0.2; with these alone, questions begin with a small letter",
            optional=True,
        ),
        Download(
            "textvqa/train_images/", f"{_URL}/images/train_val_images.zip", note="3,166 are asked about"
        ),
    )

    def questions(self) -> Iterator[Question]:
        """5,000 questions; see the base class."""
        columns = {"question_id": int, "image_id": str, "question": str, "answers": list}
        rows = published_rows(self, _FILE, columns, key="data", id_column="question_id")
        fields = self._fields(rows)
        for row in rows:
            key = (row["image_id"], row["question"].lower())
            if fields and key not in fields:
                raise ValueError(
                    f"no OCR tokens for {key} below {self.root / 'textvqa'}: fetch their file again"
                )
            yield Question(
                id=str(row["question_id"]),
                fields=fields[key] if fields else {"question": row["question"]},
                images=[self.root / "textvqa/train_images" / f"{row['image_id']}.jpg"],
                answers=[str(answer) for answer in row["answers"]],
            )

    def credit(self, prediction: Prediction) -> float:
        """Soft accuracy as M4C's evaluator computes it, which is EvalAI's."""
        return soft_accuracy(prediction.prediction, prediction.answers, official=False)

    def _fields(self, rows: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
        """By picture and question: LLaVA's file has pictures' ids for the questions' own."""
        if (path := self.root / _LLAVA).is_file():
            asked = [
                (row["question_id"], _asked(row["text"]), _listed(row["text"]))
                for row in read_json_lines(path, {"question_id": str, "text": str})
            ]
        elif (self.root / _ROSETTA).is_file():
            read = published_rows(self, _ROSETTA, {"image_id": str, "ocr_tokens": list}, key="data")
            tokens = {row["image_id"]: row["ocr_tokens"] for row in read}
            asked = [(row["image_id"], row["question"], tokens.get(row["image_id"], [])) for row in rows]
        else:
            return {}
        return {
            (image, question.lower()): {"question": question, "ocr_tokens": found}
            for image, question, found in asked
        }


def _asked(text: str) -> str:
    return text.split("\n" + _TOKENS.rstrip())[0]


def _listed(text: str) -> list[str]:
    tokens = text.partition(_TOKENS)[2].split("\n")[0]
    return tokens.split(", ") if tokens else []
