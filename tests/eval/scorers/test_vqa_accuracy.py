import time

import pytest

from cobra.eval.scorers.vqa_accuracy import evalai_answer, official_answer, soft_accuracy


@pytest.mark.parametrize(
    ("text", "official", "evalai"),
    [
        ("Yes.", "yes", "yes"),
        ("The red car", "red car", "red car"),
        ("none", "0", "0"),
        ("TEN", "10", "10"),
        # Not a number word of the table.
        ("eleven", "eleven", "eleven"),
        ("dont know", "don't know", "don't know"),
        ("couldnt've", "couldn't've", "couldn't've"),
        # The table has it the wrong way round.
        ("somebody'd", "somebodyd", "somebodyd"),
        # `Im` is in the table, but the words are lower case by then.
        ("Im here", "im here", "im here"),
        # `we'd` is not in the table, and nor is `wed`.
        ("wed", "wed", "wed"),
        ("it's", "it's", "it 's"),
        ("1,000", "1000", "1000"),
        # All marks are dropped, not only the comma, where digits stand around one.
        ("1,000-2,000", "10002000", "1000 2000"),
        ("red,blue", "red blue", "redblue"),
        ("red, blue", "red blue", "red blue"),
        # No mark beside a space: each becomes a space.
        ("t-shirt", "t shirt", "t shirt"),
        ("t-shirt - blue", "tshirt blue", "tshirt blue"),
        ("3.5", "3.5", "3.5"),
        ("v.2", "v.2", "v.2"),
        # A period behind a digit goes: the regular expression does not look behind.
        ("3. 5", "3 5", "3 5"),
        ("a.m.", "am", "am"),
        # `a` is dropped as a word only once the period is gone.
        ("a.", "", ""),
        ("what?", "what", "what"),
        ("10:30", "10:30", "10:30"),
        ("don’t", "don’t", "don’t"),
        ("", "", ""),
        ("." * 40, "." * 8, "." * 8),
    ],
)
def test_answers_are_normalised_as_the_scripts_do(text: str, official: str, evalai: str) -> None:
    assert official_answer(text) == official
    assert evalai_answer(text) == evalai


def people(*counts: tuple[str, int]) -> list[str]:
    """Ten answers."""
    answers = [answer for answer, count in counts for _ in range(count)]
    assert len(answers) == 10
    return answers


@pytest.mark.parametrize(
    ("prediction", "answers", "official", "evalai"),
    [
        ("yes", people(("yes", 10)), 1, 1),
        # All agree, so the official script compares as it stands, even the case.
        ("Yes.", people(("yes", 10)), 0, 1),
        ("Yes", people(("yes", 10)), 0, 1),
        (" yes\n", people(("yes", 10)), 1, 1),
        ("two", people(("2", 10)), 0, 1),
        ("2", people(("two", 10)), 0, 1),
        # They differ before normalisation, and agree after it.
        ("Yes.", people(("yes", 9), ("Yes", 1)), 1, 1),
        # One of ten: its nine fellows see it once, it sees it not at all.
        ("cat", people(("cat", 1), ("dog", 9)), 0.3, 0.3),
        # Two: 8 see two thirds, 2 see one third.
        ("cat", people(("cat", 2), ("dog", 8)), 0.6, 0.6),
        # Three: 7 see three thirds, 3 see two.
        ("cat", people(("cat", 3), ("dog", 7)), 0.9, 0.9),
        ("cat", people(("cat", 4), ("dog", 6)), 1, 1),
        ("cat", people(("the cat", 3), ("a dog", 7)), 0.9, 0.9),
        ("the cat.", people(("Cat", 2), ("cat", 2), ("dog", 6)), 1, 1),
        ("bird", people(("cat", 4), ("dog", 6)), 0, 0),
        ("", people(("cat", 4), ("dog", 6)), 0, 0),
        # An article alone is an empty answer.
        ("", people(("a", 4), ("dog", 6)), 1, 1),
        ("none", people(("0", 4), ("zero", 6)), 1, 1),
        ("yes yes", people(("yes", 10)), 0, 0),
        # Only EvalAI splits the possessive, in both alike.
        ("mike's", people(("mike 's", 4), ("mike", 6)), 0, 1),
        ("red,blue", people(("red blue", 4), ("red", 6)), 1, 0),
        ("don't", people(("dont", 4), ("no", 6)), 1, 1),
        ("1,000", people(("1000", 10)), 0, 1),
    ],
)
def test_soft_accuracy_of_ten_people(
    prediction: str, answers: list[str], official: float, evalai: float
) -> None:
    assert soft_accuracy(prediction, answers, official=True) == pytest.approx(official)
    assert soft_accuracy(prediction, answers, official=False) == pytest.approx(evalai)


def test_soft_accuracy_without_people_is_refused() -> None:
    with pytest.raises(ValueError, match="there are none"):
        soft_accuracy("yes", [], official=False)


def test_nine_thousand_answers_take_less_than_two_seconds() -> None:
    answers = [[f"Answer no. {i}", f"the answers' no. {i}", *["two, or 2,000?"] * 8] for i in range(9000)]
    start = time.process_time()
    for official in (True, False):
        assert sum(soft_accuracy(a[0], a, official) for a in answers) == pytest.approx(9000 * 0.3)
    assert time.process_time() - start < 2
