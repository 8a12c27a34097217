from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score

from cobra.eval.benchmarks.vizwiz import VizWiz, VizWizTest
from cobra.eval.predictions import Prediction
from tests.eval.benchmarks.predictions import answered
from tests.eval.benchmarks.small_files import allow_any_size, write_small

PEOPLE = [
    ("unanswerable", 0, ["unanswerable"] * 9 + ["basil"]),
    ("other", 1, ["basil leaves"] * 3 + ["Basil"] * 7),
    ("yes/no", 1, ["no"] * 6 + ["unanswerable"] * 4),
]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    allow_any_size(monkeypatch, VizWiz, VizWizTest)
    rows = [
        {
            "image": f"VizWiz_val_{n:08}.jpg",
            "question": "What is this?",
            "answers": [{"answer": text, "answer_confidence": "yes"} for text in said],
            "answer_type": kind,
            "answerable": answerable,
        }
        for n, (kind, answerable, said) in enumerate(PEOPLE)
    ]
    write_small(tmp_path, "vizwiz/val.json", rows)
    write_small(tmp_path, "vizwiz/test.json", [{"image": "VizWiz_test_00000000.jpg", "question": "?"}])
    return tmp_path


def test_the_id_is_the_picture(root: Path) -> None:
    first, *_ = VizWiz(root).questions()
    assert first.id == "VizWiz_val_00000000.jpg"
    assert first.images == [root / "vizwiz/val/VizWiz_val_00000000.jpg"]
    assert (first.kind, first.truth) == ("unanswerable", {"answerable": 0})


def test_scores_of_three_questions(root: Path) -> None:
    scores = VizWiz(root).score(answered(VizWiz(root), ["Unanswerable.", "basil", "Unanswerable"]))
    assert scores["accuracy"] == 100
    assert scores["answerable/accuracy"] == scores["unanswerable/accuracy"] == 100
    # `basil` is not `Basil`, as people's answers are not normalised.
    assert scores["prismatic/accuracy"] == pytest.approx(100 * 2 / 3)
    # Two said to be without an answer, one of them rightly: precision 1/2, recall 1.
    assert scores["unanswerable/average_precision"] == pytest.approx(50)
    assert scores["unanswerable/f1"] == pytest.approx(100 * 2 / 3)
    assert VizWiz(root).score([]) == {}


@pytest.mark.parametrize("seed", range(5))
def test_detection_equals_sklearn(root: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 2, 50)
    said = rng.integers(0, 2, 50) if seed else np.zeros(50, int)
    words = np.array(["cat", "unanswerable"])
    predictions = [
        Prediction("", str(n), "other", "?", word, ["cat"] * 10, "vizwiz", truth={"answerable": int(1 - t)})
        for n, (word, t) in enumerate(zip(words[said], true, strict=True))
    ]
    scores = VizWiz(root).score(predictions)
    expected = 100 * average_precision_score(true, said)
    assert scores["unanswerable/average_precision"] == pytest.approx(expected)
    assert scores["unanswerable/f1"] == pytest.approx(100 * f1_score(true, said, zero_division=0))


def test_the_test_set_has_no_answers(root: Path) -> None:
    (question,) = VizWizTest(root).questions()
    assert question.images == [root / "vizwiz/test/VizWiz_test_00000000.jpg"]
    assert question.answers == []
