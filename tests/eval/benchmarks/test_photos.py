from pathlib import Path

import pytest

from cobra.eval.benchmarks.photos import PhotosPope, PhotosVqa
from cobra.eval.predictions import Prediction
from tests.eval.benchmarks.fixtures import fixture
from tests.eval.benchmarks.predictions import answered


@pytest.mark.parametrize(
    ("said", "answers", "credit"),
    [
        ("apple", ["apple"], 1),
        ("An Apple.", ["apple"], 1),
        ("pineapple", ["apple"], 0),
        ("the wooden pier", ["dock", "wooden pier"], 1),
        ("3", ["3"], 1),
        ("13", ["3"], 0),
        ("region based segmentation", ["region-based segmentation"], 1),
        ("", ["3"], 0),
    ],
)
def test_an_accepted_answer_counts_as_words(said: str, answers: list[str], credit: float) -> None:
    assert PhotosVqa(Path()).credit(Prediction("", "1", "all", "?", said, answers)) == credit


@pytest.mark.parametrize(("kind", "number"), [(PhotosVqa, 37), (PhotosPope, 30)])
def test_the_photos_are_there_and_an_oracle_is_right(
    kind: type[PhotosVqa] | type[PhotosPope], number: int
) -> None:
    benchmark = kind(fixture("photos").parent)
    questions = list(benchmark.questions())
    assert len(questions) == number
    assert all(Path(str(image)).is_file() for q in questions for image in q.images)
    scores = benchmark.score(answered(benchmark, [q.answers[0] for q in questions]))
    assert scores["accuracy"] == 100
    assert benchmark.score([]) == {}


def test_yes_to_all_is_half_right() -> None:
    benchmark = PhotosPope(fixture("photos").parent)
    scores = benchmark.score(answered(benchmark, ["Yes"] * 30))
    assert (scores["accuracy"], scores["yes_ratio"], scores["recall"]) == (50, 100, 100)


def test_a_label_of_neither_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/photo_pope.jsonl").write_text(
        '{"question_id": 1, "image": "a", "text": "?", "label": "Yes"}'
    )
    with pytest.raises(ValueError, match="'Yes' is neither yes nor no"):
        list(PhotosPope(tmp_path).questions())
