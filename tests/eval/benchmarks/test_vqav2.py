from pathlib import Path
from typing import Any

import pytest

from cobra.eval.benchmarks.vqav2 import VqaV2, VqaV2Test
from tests.eval.benchmarks.predictions import answered
from tests.eval.benchmarks.small_files import allow_any_size, write_small

QUESTIONS = "vqav2/v2_OpenEnded_mscoco_val2014_questions.json"
ANNOTATIONS = "vqav2/v2_mscoco_val2014_annotations.json"
PEOPLE = {
    42000: ("yes/no", ["yes"] * 10),
    42001: ("number", ["none"] * 4 + ["0"] * 6),
    42002: ("other", ["a cat", "cat"] + ["dog"] * 8),
}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    allow_any_size(monkeypatch, VqaV2, VqaV2Test)
    questions = [{"question_id": i, "image_id": 42, "question": f"What is {i}?"} for i in PEOPLE]
    annotations: list[dict[str, Any]] = [
        {
            "question_id": i,
            "image_id": 42,
            "question_type": "what is",
            "answer_type": kind,
            "multiple_choice_answer": said[-1],
            "answers": [
                {"answer": text, "answer_confidence": "yes", "answer_id": n} for n, text in enumerate(said, 1)
            ],
        }
        for i, (kind, said) in reversed(PEOPLE.items())
    ]
    write_small(tmp_path, QUESTIONS, {"info": {}, "task_type": "Open-Ended", "questions": questions})
    write_small(tmp_path, ANNOTATIONS, {"info": {}, "annotations": annotations})
    return tmp_path


def test_a_question_has_the_answers_of_its_id_and_a_picture_of_val(root: Path) -> None:
    first, second, third = VqaV2(root).questions()
    assert (first.id, first.kind, first.answers) == ("42000", "yes/no", ["yes"] * 10)
    assert second.answers == PEOPLE[42001][1]
    assert third.images == [root / "coco/val2014/COCO_val2014_000000000042.jpg"]


def test_each_convention_scores_the_same_answers_differently(root: Path) -> None:
    scores = VqaV2(root).score(answered(VqaV2(root), ["Yes.", "None", "the cat"]))
    # Always normalised: 1, 1 and, of two cats of ten, 8 people's 2/3 and 2 people's 1/3.
    assert scores["accuracy"] == pytest.approx(100 * (1 + 1 + 0.6) / 3)
    # All say yes, and `Yes.` is not that.
    assert scores["official/accuracy"] == pytest.approx(100 * (0 + 1 + 0.6) / 3)
    assert scores["uploaded/accuracy"] == pytest.approx(100 * (1 + 1 + 0.6) / 3)
    # `None` is 0, which six said; of `a cat` and `cat` the second is one of ten.
    assert scores["prismatic/accuracy"] == pytest.approx(100 * (1 + 1 + 0.3) / 3)
    assert scores["number/accuracy"] == 100
    assert scores["other/accuracy"] == pytest.approx(60)
    assert VqaV2(root).score([]) == {}


def test_a_question_without_answers_names_both_files_source(root: Path) -> None:
    write_small(root, ANNOTATIONS, {"annotations": []})
    with pytest.raises(ValueError, match="no answers to question 42000: it is of another version"):
        list(VqaV2(root).questions())


def test_an_answer_without_text_is_a_damaged_file(root: Path) -> None:
    row = {"question_id": 42000, "answer_type": "other", "answers": [{"answr": "yes"}]}
    write_small(root, ANNOTATIONS, {"annotations": [row]})
    with pytest.raises(ValueError, match="an answer has no text"):
        list(VqaV2(root).questions())


def test_the_test_set_is_asked_and_not_scored(root: Path) -> None:
    asked = [{"question_id": 1, "image_id": 7, "question": "?"}]
    write_small(root, "vqav2/v2_OpenEnded_mscoco_test-dev2015_questions.json", {"questions": asked})
    benchmark = VqaV2Test(root)
    (question,) = benchmark.questions()
    assert question.images == [root / "coco/test2015/COCO_test2015_000000000007.jpg"]
    (prediction,) = answered(benchmark, ["yes"])
    assert benchmark.score([prediction]) == {}
    with pytest.raises(ValueError, match="cobra eval submit vqav2 FILE --out FILE"):
        benchmark.credit(prediction)
