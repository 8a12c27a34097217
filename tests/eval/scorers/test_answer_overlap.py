import pytest

from cobra.eval.scorers.answer_overlap import (
    NO_ANSWER,
    character_f1,
    list_f1,
    list_ndcg,
    short_answer,
    squad_words,
)


@pytest.mark.parametrize(
    ("said", "answers", "exact", "f1"),
    [
        ("12 exercises", ["12", "12 exercises"], 1, 1),
        ("The 12 Exercises!", ["12 exercises"], 1, 1),
        ("12", ["12 exercises"], 0, 2 / 3),
        ("12 exercises in total", ["12 exercises"], 0, 2 / 3),
        # The best of the answers, not the first: 1 of 2 and 1 of 1 words.
        ("wall", ["the wall sit", "sit wall wall", "wall sit"], 0, 2 / 3),
        # Words count as often as they occur.
        ("sit sit", ["sit"], 0, 2 / 3),
        ("sit wall", ["wall sit"], 0, 1),
        ("$5.99", ["5.99"], 1, 1),
        ("5.99", ["599"], 1, 1),
        ("it's", ["its"], 1, 1),
        ("8:30 a.m.", ["8:30 am"], 1, 1),
        # Punctuation goes first, so that `a.` leaves an article, which goes, too.
        ("a. b", ["b"], 1, 1),
        ("anthem", ["them"], 0, 0),
        ("", ["12"], 0, 0),
        ("12", [""], 0, 0),
        # Both are empty: they match, and share no word.
        ("the", ["a"], 1, 0),
        (NO_ANSWER, ["12", NO_ANSWER], 1, 1),
        (NO_ANSWER, ["12"], 0, 0),
        ("12", [NO_ANSWER], 0, 0),
        # It is taken as it stands, and no word of it counts for another answer.
        ("no answer", [NO_ANSWER], 0, 0),
        ("no answer", [NO_ANSWER, "no"], 0, 2 / 3),
        ("No Answer", ["no answer"], 1, 1),
        ("été", ["ÉTÉ"], 1, 1),
    ],
)
def test_short_answers(said: str, answers: list[str], exact: float, f1: float) -> None:
    assert short_answer(said, answers) == pytest.approx((exact, f1))


def test_words_are_those_of_squad() -> None:
    assert squad_words("The  an-apple, a day!") == ["anapple", "day"]
    # A curly quote is no punctuation of ASCII.
    assert squad_words("it’s") == ["it’s"]


@pytest.mark.parametrize(
    ("said", "answers", "f1"),
    [
        ("设置", ["设置"], 1),
        ("设", ["设置"], 2 / 3),
        ("置设", ["设置"], 1),
        ("aab", ["abb", "aac"], 2 / 3),
        ("x", ["y"], 0),
        ("anything", ["无人应答"], 1),
        ("", ["y"], 0),
    ],
)
def test_characters(said: str, answers: list[str], f1: float) -> None:
    assert character_f1(said, answers) == pytest.approx(f1)


@pytest.mark.parametrize(
    ("said", "lists", "f1", "ndcg"),
    [
        (["a"], [["a"]], 1, 1),
        (["a", "b"], [["b", "a"]], 1, 1),
        (["a", "b"], [["a"]], 2 / 3, 1),
        (["b", "a"], [["a"]], 2 / 3, 0.63093),
        (["a"], [["a", "b"]], 2 / 3, 1 / 1.63093),
        (["a", "a"], [["a"]], 2 / 3, 1),
        (["c"], [["a"], ["b"]], 0, 0),
        ([], [["a"], []], 1, 1),
        ([], [["a"]], 0, 0),
        (["a"], [[]], 0, 0),
        (["A"], [["a"]], 0, 0),
    ],
)
def test_lists(said: list[str], lists: list[list[str]], f1: float, ndcg: float) -> None:
    assert list_f1(said, lists) == pytest.approx(f1)
    assert list_ndcg(said, lists) == pytest.approx(ndcg, abs=1e-5)
