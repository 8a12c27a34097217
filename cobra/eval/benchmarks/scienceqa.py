"""ScienceQA: questions of school with options, half about a picture (Lu et al. 2022, arXiv 2209.09513)."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from string import ascii_uppercase
from typing import Any

from cobra.eval.benchmarks.base import Benchmark, Download, Question, Scores
from cobra.eval.benchmarks.json_lines import read_json, refuse_duplicates
from cobra.eval.predictions import Prediction

_QUESTIONS = 4241
_URL = "https://github.com/lupantech/ScienceQA"
_COLUMNS = {"question": str, "choices": list, "answer": int, "hint": str}


class ScienceQA(Benchmark):
    """Letters of options, of the test split.

    The prompts that are made of `problems.json` are those of LLaVA's `llava_test_CQM-A.json`.
    """

    name = "scienceqa"
    downloads = (
        Download("scienceqa/problems.json", _URL, note="all splits in one file, 21,208 problems"),
        Download("scienceqa/pid_splits.json", _URL),
        Download("scienceqa/images/test/", _URL, 2017, note="a folder with image.png for each problem"),
    )

    def questions(self) -> Iterator[Question]:
        """4,241 questions, 2,017 with a picture, whose kind is the subject; see the base class."""
        problems = read_json(self.root / "scienceqa/problems.json")
        path = self.root / "scienceqa/pid_splits.json"
        splits = read_json(path)
        ids = splits.get("test") if isinstance(splits, dict) else None
        if not isinstance(ids, list) or len(ids) != _QUESTIONS:
            raise ValueError(
                f"{path} has no test split of {_QUESTIONS} questions: fetch it again from {_URL}"
            )
        refuse_duplicates(path, ids)
        for each in ids:
            yield self._question(str(each), _problem(problems, str(each), self.root))

    def _question(self, name: str, problem: Mapping[str, Any]) -> Question:
        letters = list(ascii_uppercase[: len(problem["choices"])])
        lines = [f"{letter}. {text}" for letter, text in zip(letters, problem["choices"], strict=True)]
        picture = problem.get("image")
        return Question(
            id=name,
            fields={
                "question": problem["question"],
                "hint": problem["hint"],
                "options": "\n".join(lines),
                "letters": letters,
            },
            images=[self.root / "scienceqa/images/test" / name / picture] if picture else [],
            answers=[letters[problem["answer"]]],
            kind=problem.get("subject", "all"),
            truth={"letters": letters, "pictured": bool(picture)},
        )

    def credit(self, prediction: Prediction) -> float:
        """1 where LLaVA's script reads the true letter from it."""
        return float(read_letter(prediction) == prediction.answers[0])

    def score(self, predictions: Sequence[Prediction]) -> Scores:
        """Accuracy of all and of each subject; `img/accuracy`, of those with a picture, which papers print.

        `lmms-eval/...` reads letters as lmms-eval does; `unread` is the share of answers without a letter.
        """
        scores = super().score(predictions)
        if not scores:
            return {}
        pictured = [p for p in predictions if p.truth["pictured"]]
        return {
            **scores,
            **_accuracy("img/accuracy", pictured, self.credit),
            **_accuracy("lmms-eval/accuracy", predictions, _lmms_eval),
            **_accuracy("lmms-eval/img/accuracy", pictured, _lmms_eval),
            "unread": 100 * mean(read_letter(p) is None for p in predictions),
        }


def read_letter(prediction: Prediction) -> str | None:
    """The letter of an answer, as LLaVA's eval_science_qa.py reads it; None where it finds none.

    It is the whole answer, or begins it before a full stop and a space, or stands once in `The answer is B.`.
    """
    text = prediction.prediction.strip()
    if text in prediction.truth["letters"]:
        return text
    if text[1:3] == ". " and text[0] in ascii_uppercase[:5]:
        found = [text[0]]
    else:
        # any letter behind it stands for the full stop
        found = re.findall(r"The answer is ([A-Z]).", text)
    return found[0] if len(found) == 1 and found[0] in prediction.truth["letters"] else None


def _lmms_eval(prediction: Prediction) -> float:
    """lmms-eval's credit: the letter alone, be it small, or before a full stop."""
    text, true = prediction.prediction.strip(), prediction.answers[0]
    return float(text.upper() == true or text[:2] == f"{true}.")


def _accuracy(name: str, predictions: Sequence[Prediction], credit: Callable[[Prediction], float]) -> Scores:
    return {name: 100 * mean(map(credit, predictions))} if predictions else {}


def _problem(problems: Any, name: str, root: Path) -> Mapping[str, Any]:
    problem = problems.get(name) if isinstance(problems, dict) else None
    for column, kind in _COLUMNS.items():
        if not isinstance(problem, dict) or not isinstance(problem.get(column), kind):
            raise ValueError(
                f"{root / 'scienceqa/problems.json'} has no {column!r} of type {kind.__name__} for problem "
                f"{name!r}: it is another version than pid_splits.json; fetch both from {_URL}"
            )
    assert isinstance(problem, dict)
    if not 0 <= problem["answer"] < len(problem["choices"]) <= len(ascii_uppercase):
        raise ValueError(
            f"{root / 'scienceqa/problems.json'}: problem {name!r} has {len(problem['choices'])} choices and "
            f"the answer {problem['answer']}: fetch it again"
        )
    return problem
