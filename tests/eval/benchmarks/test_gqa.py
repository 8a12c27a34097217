from pathlib import Path
from typing import Any

import pytest

from cobra.eval.benchmarks.gqa import Gqa, gqa_answer
from tests.eval.benchmarks.predictions import answered
from tests.eval.benchmarks.small_files import allow_any_size, write_small

# id: answer, structural type, semantic type, group
QUESTIONS = {
    "201307251": ("no", "verify", "obj", None),
    "201640614": ("left", "choose", "rel", "side"),
    "201640615": ("right", "query", "rel", "side"),
    "202225914": ("t-shirt", "query", "obj", "clothes"),
}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    allow_any_size(monkeypatch, Gqa)
    rows: dict[str, Any] = {
        name: {
            "imageId": "n161313",
            "question": "Is it?",
            "answer": answer,
            "fullAnswer": f"It is {answer}.",
            "isBalanced": True,
            "groups": {"global": group, "local": "1"},
            "entailed": [],
            "equivalent": [name],
            "types": {"structural": structural, "semantic": semantic, "detailed": "existC"},
        }
        for name, (answer, structural, semantic, group) in QUESTIONS.items()
    }
    write_small(tmp_path, "gqa/testdev_balanced_questions.json", rows)
    return tmp_path


def test_questions_have_their_types_and_picture(root: Path) -> None:
    first, *_ = Gqa(root).questions()
    assert (first.id, first.kind, first.answers) == ("201307251", "verify", ["no"])
    assert first.images == [root / "gqa/images/n161313.jpg"]


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("No.", "no"),
        ("no...", "no"),
        (" Left\n", "left"),
        ("t-shirt", "t-shirt"),
        ("no .", "no "),
        ("3.5 m.", "3.5 m"),
        ("", ""),
    ],
)
def test_answers_are_prepared_as_llava_does(said: str, answer: str) -> None:
    assert gqa_answer(said) == answer


def test_scores_by_type_and_convention(root: Path) -> None:
    scores = Gqa(root).score(answered(Gqa(root), ["No.", "Left", "left!", "T-shirt."]))
    assert scores["accuracy"] == 75
    assert scores["query/accuracy"] == scores["open/accuracy"] == 50
    assert scores["binary/accuracy"] == scores["verify/accuracy"] == 100
    assert scores["rel/accuracy"] == 50
    # `tshirt` is only the answer where that loses its hyphen, too.
    assert scores["prismatic/accuracy"] == 50
    assert scores["lmms-eval/accuracy"] == 75
    # Of `side`: left 1 of 1, right 0 of 1, so (0 + 1) of a group of 2; `clothes` fits. (2 + 0) / 3 / 100.
    assert scores["distribution"] == pytest.approx(2 / 3 / 100)
    assert Gqa(root).score([]) == {}
