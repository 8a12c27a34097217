"""Answers on disk and their scores."""

from pathlib import Path

import pytest

from cobra.data.record import Record, assistant, user
from cobra.eval.predictions import Prediction, accuracy, read_predictions, write_predictions


def prediction(kind: str, said: str, truth: str) -> Prediction:
    record = Record("1", [user("is it é?"), assistant(truth)], meta={"type": kind})
    return Prediction.of(record, "test", said)


ANSWERS = [prediction("a", "yes", "yes"), prediction("a", "no", "yes"), prediction("b", "two", "two")]


def test_macro_accuracy_weighs_types_alike() -> None:
    assert accuracy(ANSWERS) == {"a": 0.5, "b": 1.0, "macro": 0.75}
    assert accuracy([]) == {}


def test_only_the_exact_answer_counts() -> None:
    assert not prediction("a", "yes it is", "yes").is_right
    assert not prediction("a", "", "yes").is_right


def test_predictions_survive_the_disk(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.jsonl", ANSWERS)
    assert list(read_predictions(tmp_path / "p.jsonl")) == ANSWERS


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.jsonl", ANSWERS)
    with (tmp_path / "p.jsonl").open("a") as file:
        file.write('{"split": "x"}\n')
    with pytest.raises(ValueError, match="line 4"):
        list(read_predictions(tmp_path / "p.jsonl"))


@pytest.mark.parametrize("line", [b"\xff\xfe\n", b"[" * 100_000, b"5\n"])
def test_what_is_no_text_or_no_object_is_named(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "p.jsonl").write_bytes(line)
    with pytest.raises(ValueError, match="line 1: not a prediction"):
        list(read_predictions(tmp_path / "p.jsonl"))
