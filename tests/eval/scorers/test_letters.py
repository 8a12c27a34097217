"""Letters in answers, in English and Chinese."""

import pytest

from cobra.eval.scorers.letters import read_letter

ANIMALS = {"A": "cat", "B": "dog", "C": "a black bear", "D": "bird"}
CHINESE = {"A": "天坛", "B": "故宫", "C": "黄鹤楼", "D": "少林寺"}


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("B.", "B"),
        ("(B)", "B"),
        ("[B]", "B"),
        ("**B**", "B"),
        ("B. dog", "B"),
        ("B: dog", "B"),
        ("\nB\n", "B"),
        ("Answer: B", "B"),
        ("The answer is B.", "B"),
        ("The correct option is (D).", "D"),
        # one of several: the letter wins, several letters name none
        ("A or B", None),
        ("A, cat", "A"),
        ("B, not the cat", "B"),
        ("B B", "B"),
        # an article is a letter, to VLMEvalKit too, but only near the end
        ("A dog", "A"),
        ("A very large dog is on the left", "B"),
        # no letters
        ("b", None),
        ("AB", None),
        ("E", None),
        ("B-", None),
        ("Option B)", "B"),
        # by text
        ("It is a dog.", "B"),
        ("DOG", "B"),
        ("a black bear", "C"),
        ("a bear", None),
        ("the cat and the dog", None),
        ("catalogue", "A"),
        ("a dog that runs after a ball in the garden of a house", None),
        # none
        ("", None),
        ("Z", None),
        ("Z, dog", None),
        ("A is what one could say of the dog, Z", "B"),
        ("I cannot say", None),
    ],
)
def test_english(answer: str, letter: str | None) -> None:
    assert read_letter(answer, ANIMALS, english=True) == letter
    assert read_letter(answer, ANIMALS) == letter


@pytest.mark.parametrize(
    ("answer", "letter", "english"),
    [
        ("B", "B", "B"),
        ("B.故宫", "B", "B"),
        ("B。", "B", None),
        ("答案是B", "B", None),
        ("答案是B。", "B", None),
        ("答案：B", "B", None),
        ("答案: B", "B", "B"),
        ("选B", "B", None),
        ("选项 B", "B", "B"),
        ("（B）", "B", None),
        ("【B】", "B", None),
        ("应该选择B、故宫", "B", "B"),
        # full width
        ("Ｂ", "B", None),
        ("Ｂ．故宫", "B", "B"),
        ("A和B", None, None),
        ("A、B都对", None, None),
        # by text
        ("故宫", "B", "B"),
        ("图中是故宫。", "B", "B"),
        ("天坛或故宫", None, None),
        ("颐和园", None, None),
        ("图中所示的建筑是位于北京中轴线上的明清皇家宫殿故宫", None, None),
        ("", None, None),
        ("WiFiB", None, None),
    ],
)
def test_chinese_and_what_vlmevalkit_makes_of_it(
    answer: str, letter: str | None, english: str | None
) -> None:
    assert read_letter(answer, CHINESE) == letter
    assert read_letter(answer, CHINESE, english=True) == english


@pytest.mark.parametrize("option", ["红色（左）", "雄性，雌性", "１２", "½ cup", "H₂O"])
def test_option_of_full_width_is_read_where_it_is_repeated(option: str) -> None:
    options = {"A": "都不是", "B": option}
    assert read_letter(option, options) == read_letter(option, options, english=True) == "B"
    assert read_letter(f"图中是{option}。", options) == "B"


@pytest.mark.parametrize("name", ["Cézanne", "Côte d'Ivoire", "Dürer", "Ce\u0301zanne", "Đống Đa"])
def test_a_letter_before_an_accent_is_none(name: str) -> None:
    options = {"A": "Monet", "B": name, "C": "Degas", "D": "Munch"}
    assert read_letter(name, options) == "B"
    assert read_letter(f"It is {name}.", options) == "B"
    assert read_letter(f"答案是C（{name}）。", options) == "C"
