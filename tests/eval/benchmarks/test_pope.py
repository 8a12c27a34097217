from pathlib import Path

import pytest

from cobra.eval.benchmarks.pope import SPLITS, Pope
from cobra.eval.predictions import Prediction
from tests.eval.benchmarks.fixtures import fixture


def said(answer: str, true: str, split: str = "random") -> Prediction:
    return Prediction(split, "1", "all", "?", answer, [true], "pope")


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("Yes", "yes"),
        ("No", "no"),
        ("No, there is not.", "no"),
        ("There is not", "no"),
        ("", "yes"),
        ("maybe", "yes"),
        ("NO", "yes"),
        ("Nothing", "yes"),
        ("Yes. No", "yes"),
        ("no,", "no"),
    ],
)
def test_answers_are_read_as_the_reference_reads_them(answer: str, read: str) -> None:
    benchmark = Pope(Path())
    assert benchmark.credit(said(answer, read)) == 1
    assert benchmark.credit(said(answer, "no" if read == "yes" else "yes")) == 0


def test_the_published_files_hold_nine_thousand_balanced_questions(tmp_path: Path) -> None:
    (tmp_path / "pope").symlink_to(fixture("pope").resolve())
    questions = list(Pope(tmp_path).questions())
    assert len(questions) == 9000
    for split in SPLITS:
        assert [q.answers for q in questions if q.split == split].count(["yes"]) == 1500
