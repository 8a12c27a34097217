from collections.abc import Callable
from pathlib import Path

import pytest

from cobra.eval.benchmarks import mme
from cobra.eval.benchmarks.mme import COGNITION, PERCEPTION, Mme
from cobra.eval.predictions import Prediction
from cobra.eval.protocols.protocol import read_protocol
from tests.eval.benchmarks.predictions import answered

ASK = " Please answer yes or no."


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """MME with two pictures a category, in both layouts."""
    monkeypatch.setattr(mme, "_PICTURES", 28)
    for number, category in enumerate((*PERCEPTION, *COGNITION)):
        folder = tmp_path / "mme" / category
        texts, pictures = (
            (folder / "questions_answers_YN", folder / "images") if number % 2 else (folder, folder)
        )
        for made in (texts, pictures):
            made.mkdir(parents=True, exist_ok=True)
        for name in ("a", "b"):
            (texts / f"{name}.txt").write_text(f"Is it {name}?{ASK}\tYes\nIs it c?{ASK}\tNo\n\n")
            (pictures / f"{name}.png").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("answer", "read", "first"),
    [
        ("Yes", "Yes", "Yes"),
        ("no", "No", "No"),
        ("No.", "No", "No"),
        ("YES!", "Yes", "Yes"),
        ("Yes, it is.", "Yes", "Yes"),
        ("no it is not", "No", "No"),
        # words, not letters
        ("Notice the sign", "", "No"),
        ("not sure", "", "No"),
        ("unknown", "", ""),
        ("Nothing", "", "No"),
        ("Yesterday", "", "Yes"),
        # the word may come late
        ("The answer is yes", "Yes", ""),
        ("I would say no", "No", ""),
        ("It is not there, no.", "No", ""),
        # both, or neither
        ("yes and no", "", "Yes"),
        ("", "", ""),
        ("Maybe", "", ""),
        ("y", "", "Yes"),
        ("N", "", "No"),
        ("x", "", ""),
        ("  yes  ", "Yes", "Yes"),
        ("A: no", "No", ""),
        ("是 yes", "Yes", ""),
    ],
)
def test_answers_are_read_by_words_and_by_first_letters(answer: str, read: str, first: str) -> None:
    for true in ("Yes", "No"):
        prediction = Prediction("", "1", "OCR", "?", answer, [true], truth={"picture": "OCR/a"})
        scores = Mme(Path()).score([prediction])
        assert (scores["OCR/acc"], scores["lmms-eval/OCR/acc"]) == (
            100 * (read == true),
            100 * (first == true),
        )


def test_both_layouts_are_read_with_their_pictures(root: Path) -> None:
    questions = list(Mme(root).questions())
    assert len(questions) == 56 == len({q.id for q in questions})
    assert all(Path(str(q.images[0])).is_file() for q in questions)
    first = questions[0]
    assert (first.fields["question"], first.answers, first.kind) == (f"Is it a?{ASK}", ["Yes"], "existence")


def test_an_oracle_has_all_points(root: Path) -> None:
    scores = Mme(root).score(answered(Mme(root), ["Yes", "No"] * 28))
    assert (scores["perception"], scores["cognition"], scores["total"]) == (2000, 800, 2800)


def test_papers_points_are_those_of_mmes_script() -> None:
    """Its calculation.py takes the first word that it sees in four letters, whatever follows."""
    headline = read_protocol("llava").headlines["mme"]
    verbose = Prediction("", "1", "OCR", "?", "Yes, there is no 7 but a 1.", ["Yes"], truth={"picture": "a"})
    assert Mme(Path()).score([verbose])[headline.metric] == 100


def test_yes_to_all_has_half_of_the_first_points_and_none_of_the_second(root: Path) -> None:
    scores = Mme(root).score(answered(Mme(root), ["Yes"] * 56))
    assert (scores["perception"], scores["cognition"]) == (500, 200)
    assert (scores["OCR/acc"], scores["OCR/acc+"]) == (50, 0)


def test_one_wrong_answer_costs_its_question_and_its_picture(root: Path) -> None:
    # of four questions about two pictures
    scores = Mme(root).score(answered(Mme(root), ["No", "No", *["Yes", "No"] * 27]))
    assert (scores["existence/acc"], scores["existence/acc+"]) == (75, 50)
    assert scores["perception"] == 1925


def test_a_picture_asked_about_once_has_no_second_points(root: Path) -> None:
    predictions = answered(Mme(root), ["Yes", "No"] * 28)
    assert Mme(root).score(predictions[:1])["existence/acc+"] == 0
    assert Mme(root).score(predictions[:3])["existence/acc+"] == 100


Damage = Callable[[Path], object]


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda r: (r / "mme/OCR/questions_answers_YN/a.txt").unlink(), ValueError, "27 pictures, not 28"),
        (lambda r: (r / "mme/count").rename(r / "gone"), FileNotFoundError, "no questions in .*count"),
        (
            lambda r: (r / "mme/existence/a.txt").write_text("Is it?\tYes\n"),
            ValueError,
            "existence/a.txt has no",
        ),
        (lambda r: (r / "mme/existence/a.txt").write_text("?\tYes\n?\tMaybe"), ValueError, "Yes or No"),
        (lambda r: (r / "mme/existence/a.txt").write_bytes(b"\xff\xfe"), ValueError, "no UTF-8"),
    ],
)
def test_what_is_incomplete_is_refused_by_name(
    root: Path, damage: Damage, error: type[Exception], message: str
) -> None:
    damage(root)
    with pytest.raises(error, match=message):
        list(Mme(root).questions())
