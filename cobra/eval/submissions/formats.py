"""Formats of servers and judges, one function each: questions and what was said become a file."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cobra.eval.benchmarks.base import Question
from cobra.eval.benchmarks.gqa import gqa_answer
from cobra.eval.scorers.vqa_accuracy import evalai_answer

# A question, and the prediction for it.
Answered = tuple[Question, str]


def write_vqav2(path: Path, answered: Sequence[Answered]) -> None:
    """VQAv2's results, for EvalAI: normalised, as LLaVA uploads them, for the server may not do it."""
    _write([{"question_id": int(q.id), "answer": evalai_answer(said)} for q, said in answered], path)


def write_gqa(path: Path, answered: Sequence[Answered]) -> None:
    """GQA's predictions, for its eval.py: lower case, without a period at the end."""
    _write([{"questionId": q.id, "prediction": gqa_answer(said)} for q, said in answered], path)


def write_vizwiz(path: Path, answered: Sequence[Answered]) -> None:
    """VizWiz's results, for EvalAI: normalised, as LLaVA uploads them."""
    _write([{"image": q.id, "answer": evalai_answer(said)} for q, said in answered], path)


def write_mmvet(path: Path, answered: Sequence[Answered]) -> None:
    """MM-Vet's results, for mm-vet_evaluator and its judge: the answers as they are."""
    _write({q.id: said for q, said in answered}, path)


def write_mmbench(path: Path, answered: Sequence[Answered]) -> None:
    """MMBench's table, an Excel file with the columns that LLaVA uploads: a row for each row that was asked.

    Raises:
        ValueError: where openpyxl is missing.
    """
    try:
        from openpyxl import Workbook
        from openpyxl.cell import WriteOnlyCell
        from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE
    except ImportError as error:
        raise ValueError("MMBench's server takes an Excel file: pip install openpyxl") from error
    workbook = Workbook(write_only=True)
    sheet = workbook.create_sheet()
    for row in _mmbench_rows(answered):
        cells = []
        for value in row:
            cell = WriteOnlyCell(
                sheet, ILLEGAL_CHARACTERS_RE.sub("", value) if isinstance(value, str) else value
            )
            if isinstance(value, str):
                # an answer such as `=A1` is no formula
                cell.data_type = "s"
            cells.append(cell)
        sheet.append(cells)
    workbook.save(path)


def _mmbench_rows(answered: Sequence[Answered]) -> list[list[str | int | None]]:
    letters = sorted({letter for question, _ in answered for letter in question.truth["options"]})
    has_answers = any(question.answers for question, _ in answered)
    rows: list[list[str | int | None]] = [
        ["index", "question", *letters, "prediction", *(["answer"] if has_answers else []), "split"]
    ]
    for question, said in answered:
        options = [question.truth["options"].get(letter) for letter in letters]
        answer = [question.answers[0] if question.answers else None] if has_answers else []
        rows.append([int(question.id), question.fields["question"], *options, said, *answer, question.split])
    return rows


def _write(value: Any, path: Path) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
