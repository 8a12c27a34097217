"""MMBench: questions with options, asked in every rotation of these (Liu et al. 2023, arXiv 2307.06281)."""

import os
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from string import ascii_uppercase
from typing import ClassVar

from cobra.data.tsv_rows import LONGEST_INDEX, decode_pictures, read_rows
from cobra.eval.benchmarks.base import Benchmark, Download, Question, Scores
from cobra.eval.predictions import Prediction
from cobra.eval.scorers.letters import read_letter

# A copy with rotated options has its question's index and a multiple of this.
_COPY = 1_000_000
_OPENMMLAB = "https://download.openmmlab.com/mmclassification/datasets/mmbench"


class MMBench(Benchmark):
    """Letters of options, of a table in VLMEvalKit's layout; all of its questions are in one file.

    A table without copies of its questions, whose options are rotated, gets them here: as many as there are
    options, so that all letters are asked to be right once.
    """

    name = "mmbench"
    downloads: ClassVar[Sequence[Download]] = (
        Download(
            "mmbench/mmbench_dev_20230712.tsv",
            f"{_OPENMMLAB}/mmbench_dev_20230712.tsv",
            4377,
            note="LLaVA's and Imp's; MobileVLM asks mmbench_dev_en_20231003.tsv, put here under this name",
        ),
    )
    rotates: ClassVar[bool] = True

    def questions(self) -> Iterator[Question]:
        """All rows, whose kind is the l2-category; copies that are made here follow their question."""
        path = self.root / self.downloads[0].path
        has_copies = any(_index(row, path) >= _COPY for row in read_rows(path))
        _refuse_cut_short(path)
        pictures: dict[str, list[bytes]] = {}
        for row in read_rows(path):
            index = _index(row, path)
            if row["index"] in pictures:
                raise ValueError(f"{path} has the index {index} twice: fetch it again")
            pictures[row["index"]] = _pictures(row, pictures, path)
            question = _question(row, index, pictures[row["index"]], path)
            yield question
            if self.rotates and not has_copies:
                yield from (_rotated(question, turns) for turns in range(1, len(question.fields["letters"])))

    def credit(self, prediction: Prediction) -> float:
        """1 where it names the letter or the text of the true option alone.

        Raises:
            ValueError: where the answer is secret: it is no wrong answer.
        """
        if not prediction.answers:
            raise ValueError(
                f"the answer to row {prediction.question_id} of {self.name} is secret: `cobra eval submit "
                "mmbench FILE --out FILE` writes what its server scores"
            )
        return float(read_letter(prediction.prediction, prediction.truth["options"]) in prediction.answers)

    def unit(self, prediction: Prediction) -> Hashable:
        """The question that it is a rotation of."""
        return int(prediction.question_id) % _COPY

    def score(self, predictions: Sequence[Prediction]) -> Scores:
        """`vanilla`, `circular`, and those of each l2-category; `unread`, answers without a letter.

        Vanilla accuracy is that of the questions alone; circular accuracy that of questions whose rotations
        are all right, of those that were asked in all. `vlmevalkit/...` reads letters as VLMEvalKit does
        without its judge. Rows whose answers are secret are left out.
        """
        known = [p for p in predictions if p.answers]
        if not known:
            return {}
        english = partial(_credit, english=True)
        kinds = sorted({p.kind for p in known})
        of_kinds = {
            f"{kind}/{name}": value
            for kind in kinds
            if len(kinds) > 1
            for name, value in _accuracies([p for p in known if p.kind == kind], self.credit).items()
        }
        unread = [read_letter(p.prediction, p.truth["options"]) is None for p in known]
        strict = {f"vlmevalkit/{name}": value for name, value in _accuracies(known, english).items()}
        return {**_accuracies(known, self.credit), "unread": 100 * mean(unread), **strict, **of_kinds}


class MMBenchCN(MMBench):
    """MMBench in Chinese."""

    name = "mmbench_cn"
    downloads = (
        Download(
            "mmbench_cn/mmbench_dev_cn_20231003.tsv",
            f"{_OPENMMLAB}/mmbench_dev_cn_20231003.tsv",
            note="LLaVA's documentation links to the English table under this name",
        ),
    )


class CCBench(MMBench):
    """Questions in Chinese about China; their options are not rotated."""

    name = "ccbench"
    downloads = (
        Download("ccbench/CCBench.tsv", "https://opencompass.openxlab.space/utils/VLMEval/CCBench.tsv", 510),
    )
    rotates = False


class MMBenchSamples(MMBench):
    """Twenty questions of MMBench that its repository shows, as a table."""

    name = "mmbench_samples"
    downloads = (
        Download(
            "mmbench_samples/MMBench_EN.tsv",
            "https://github.com/open-compass/MMBench/tree/main/samples",
            20,
            note="made of its README.md and pictures",
        ),
    )


def _credit(prediction: Prediction, english: bool) -> float:
    return float(
        read_letter(prediction.prediction, prediction.truth["options"], english) in prediction.answers
    )


def _accuracies(predictions: Sequence[Prediction], credit: Callable[[Prediction], float]) -> Scores:
    rotations: dict[int, dict[int, float]] = {}
    for prediction in predictions:
        turns, index = divmod(int(prediction.question_id), _COPY)
        rotations.setdefault(index, {})[turns] = credit(prediction)
    options = {int(p.question_id) % _COPY: len(p.truth["options"]) for p in predictions}
    first = [credits[0] for credits in rotations.values() if 0 in credits]
    whole = [min(credits.values()) for index, credits in rotations.items() if len(credits) == options[index]]
    scores = {"vanilla": first, "circular": whole}
    return {name: 100 * mean(credits) for name, credits in scores.items() if credits}


def _question(row: Mapping[str, str], index: int, images: list[bytes], path: Path) -> Question:
    options: dict[str, str] = {}
    for letter in ascii_uppercase:
        if not _is_given(row.get(letter)):
            break
        options[letter] = row[letter]
    answer = row.get("answer") or ""
    if len(options) < 2 or (answer and answer not in options):
        raise ValueError(
            f"{path}: the row of index {index} has the options {list(options)} and the answer {answer!r}: it "
            "may be cut short, or no table of MMBench's kind; fetch it again"
        )
    return Question(
        id=str(index),
        fields=_fields(row["question"], row["hint"] if _is_given(row.get("hint")) else "", options),
        images=list(images),
        answers=[answer] if answer else [],
        split=row.get("split") or "",
        kind=row.get("l2-category") or row.get("category") or "all",
        truth={"options": options},
        group=str(index % _COPY),
    )


def _fields(question: str, hint: str, options: Mapping[str, str]) -> dict[str, object]:
    lines = "\n".join(f"{letter}. {text}" for letter, text in options.items())
    return {"question": question, "hint": hint, "options": lines, "letters": list(options)}


def _rotated(question: Question, turns: int) -> Question:
    """The copy whose options stand so many places further up, the first ones last."""
    letters, texts = zip(*question.truth["options"].items(), strict=True)
    options = dict(zip(letters, texts[turns:] + texts[:turns], strict=True))
    places = [letters[letters.index(answer) - turns] for answer in question.answers]
    return Question(
        id=str(int(question.id) + turns * _COPY),
        fields=_fields(question.fields["question"], question.fields["hint"], options),
        images=question.images,
        answers=places,
        split=question.split,
        kind=question.kind,
        truth={"options": options},
        group=question.group,
    )


def _refuse_cut_short(path: Path) -> None:
    """Raise a ValueError where the last line has no end: half a picture is base64, too."""
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) not in (b"\n", b"\r"):
            raise ValueError(f"{path} ends in the middle of a line: it is cut short; fetch it again")


def _index(row: Mapping[str, str], path: Path) -> int:
    if None in row.values():
        raise ValueError(f"{path}: the row of index {row.get('index')} is cut short: fetch it again")
    if not row.get("index", "").isdecimal():
        raise ValueError(f"{path} has a row whose index is {row.get('index')!r}, no number: fetch it again")
    return int(row["index"])


def _pictures(row: Mapping[str, str], earlier: Mapping[str, list[bytes]], path: Path) -> list[bytes]:
    """The bytes of a row's pictures, which may be those of an earlier row, whose index it has instead."""
    cell = row["image"]
    if not cell:
        raise ValueError(f"{path}: the row of index {row['index']} has no picture: fetch it again")
    if cell in earlier:
        return earlier[cell]
    if len(cell) <= LONGEST_INDEX and cell.isdecimal():
        raise ValueError(
            f"{path}: the picture of the row of index {row['index']} is that of {cell}, which is not there, "
            "or later: fetch it again"
        )
    try:
        return decode_pictures(cell)
    except ValueError as error:
        raise ValueError(
            f"{path}: the picture of the row of index {row['index']} is no base64 ({error}): fetch it again"
        ) from error


def _is_given(cell: str | None) -> bool:
    """Whether a cell has a value; pandas, which LLaVA and VLMEvalKit read with, writes `nan` for none."""
    return (cell or "").lower() not in ("", "nan", "none")
