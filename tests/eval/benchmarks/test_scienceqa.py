import json
from pathlib import Path

import pytest

from cobra.eval.benchmarks import scienceqa
from cobra.eval.benchmarks.scienceqa import ScienceQA
from cobra.eval.predictions import Prediction
from cobra.eval.protocols.protocol import read_protocol
from tests.eval.benchmarks.predictions import answered

# the format of the published file; three of its problems
PROBLEMS = {
    "4": {
        "question": "Which figure of speech is used in this text?\nSing, O goddess.",
        "choices": ["chiasmus", "apostrophe"],
        "answer": 1, "hint": "", "image": None, "subject": "language science", "split": "test",
    },
    "11": {
        "question": "What is the name of the colony shown?",
        "choices": ["Maryland", "New Hampshire", "Rhode Island", "Vermont"],
        "answer": 1, "hint": "", "image": "image.png", "subject": "social science", "split": "test",
    },
    "46": {
        "question": "Which property do these three objects have in common?",
        "choices": ["shiny", "slippery", "opaque"],
        "answer": 2, "hint": "Select the best answer.", "image": "image.png", "subject": "natural science",
        "split": "test",
    },
}  # fmt: skip


@pytest.fixture
def benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScienceQA:
    monkeypatch.setattr(scienceqa, "_QUESTIONS", 3)
    (tmp_path / "scienceqa").mkdir()
    (tmp_path / "scienceqa/problems.json").write_text(json.dumps(PROBLEMS))
    (tmp_path / "scienceqa/pid_splits.json").write_text(
        json.dumps({"train": ["1"], "test": ["4", "11", "46"]})
    )
    return ScienceQA(tmp_path)


@pytest.mark.parametrize(
    ("answer", "letter", "lmms"),
    [
        ("B", "B", "B"),
        ("B. apostrophe", "B", "B"),
        ("The answer is B.", "B", None),
        # any character does for the full stop, but there must be one
        ("The answer is B", None, None),
        ("The answer is B,", "B", None),
        ("Because of this.\nThe answer is B. So it is.", "B", None),
        ("The answer is A. The answer is B.", None, None),
        ("the answer is B.", None, None),
        ("The answer is (B).", None, None),
        ("B.", None, "B"),
        ("B.apostrophe", None, "B"),
        ("B) apostrophe", None, None),
        ("(B)", None, None),
        ("b", None, "B"),
        (" B\n", "B", "B"),
        ("B B", None, None),
        ("", None, None),
        # of no option
        ("D", None, None),
        ("D. none", None, None),
        ("The answer is D.", None, None),
        ("F. The answer is B.", "B", None),
        # it begins with a letter of no option, and is read no further
        ("E. The answer is B.", None, None),
        ("apostrophe", None, None),
        ("A. B. C", "A", "A"),
    ],
)
def test_letters_are_read_as_llava_and_as_lmms_eval_read_them(
    answer: str, letter: str | None, lmms: str | None
) -> None:
    for true in "ABC":
        truth = {"letters": ["A", "B", "C"], "pictured": True}
        prediction = Prediction("", "1", "all", "?", answer, [true], truth=truth)
        scores = ScienceQA(Path()).score([prediction])
        assert scores["img/accuracy"] == 100 * (letter == true)
        assert scores["lmms-eval/img/accuracy"] == 100 * (lmms == true)
        assert scores["unread"] == 100 * (letter is None)


def test_prompts_are_those_of_llavas_file(benchmark: ScienceQA) -> None:
    (ask,) = read_protocol("llava").asks["scienceqa"]
    assert read_protocol("lmms-eval").asks["scienceqa"] == (ask,)
    letter = "\nAnswer with the option's letter from the given choices directly."
    assert [ask.render(q.fields) for q in benchmark.questions()] == [
        "Which figure of speech is used in this text?\nSing, O goddess.\nA. chiasmus\nB. apostrophe" + letter,
        "What is the name of the colony shown?\nA. Maryland\nB. New Hampshire\nC. Rhode Island\nD. Vermont"
        + letter,
        "Context: Select the best answer.\nWhich property do these three objects have in common?\n"
        "A. shiny\nB. slippery\nC. opaque" + letter,
    ]


def test_pictures_are_scored_apart(benchmark: ScienceQA) -> None:
    questions = list(benchmark.questions())
    assert [len(q.images) for q in questions] == [0, 1, 1]
    assert questions[1].images == [benchmark.root / "scienceqa/images/test/11/image.png"]
    scores = benchmark.score(answered(benchmark, ["B", "B. New Hampshire", "A"]))
    assert (scores["accuracy"], scores["img/accuracy"]) == (pytest.approx(200 / 3), 50)
    assert (scores["language science/accuracy"], scores["natural science/accuracy"]) == (100, 0)
    assert "img/accuracy" not in benchmark.score(answered(benchmark, "BBA")[:1])


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("pid_splits.json", '{"test": ["4"]}', "no test split of 3 questions"),
        ("pid_splits.json", '["4"]', "no test split"),
        ("pid_splits.json", '{"test": ["4", "4", "46"]}', "the id '4' twice"),
        ("pid_splits.json", '{"test": ["4", "11", "4', "no JSON.*cut short"),
        ("problems.json", json.dumps(PROBLEMS)[:-40], "no JSON.*cut short"),
        ("problems.json", '{"4": {"question": "?"}}', "no 'choices' of type list for problem '4'"),
        (
            "problems.json",
            json.dumps({**PROBLEMS, "11": {**PROBLEMS["11"], "answer": 4}}),
            "4 choices and the answer 4",
        ),
        ("problems.json", "[]", "no 'question'"),
    ],
)
def test_other_files_are_refused(benchmark: ScienceQA, file: str, text: str, message: str) -> None:
    (benchmark.root / "scienceqa" / file).write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        list(benchmark.questions())
    assert "\n" not in str(error.value)
