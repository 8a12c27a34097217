"""Objects in captions."""

import time

import pytest

from cobra.eval.scorers.objects import find_words

WORDS = {
    "dog", "hot dog", "dog house", "person", "people", "man", "woman", "child", "bus", "knife", "glass",
    "wine glass", "bench", "puppy", "sheep", "fire hydrant", "leaf", "snowman", "mouse", "e-book",
    "tv", "potted plant",
}  # fmt: skip


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A dog.", ["dog"]),
        ("Dogs and a DOG", ["dog", "dog"]),
        ("two hot dogs on a plate", ["hot dog"]),
        ("a hot, brown dog", ["dog"]),
        ("The dog's bone", ["dog"]),
        ("doghouse", []),
        ("two dog houses", ["dog house"]),
        ("three men and women", ["man", "woman"]),
        ("snowmen", ["snowman"]),
        ("children", ["child"]),
        ("many people", ["people"]),
        ("persons", ["person"]),
        ("buses", ["bus"]),
        ("knives", ["knife"]),
        ("leaves", ["leaf"]),
        ("puppies", ["puppy"]),
        ("benches", ["bench"]),
        ("glasses of wine", ["glass"]),
        ("wine glasses", ["wine glass"]),
        ("sheep", ["sheep"]),
        ("mice", ["mouse"]),
        ("a fire hydrant, and a fire", ["fire hydrant"]),
        ("an e-book on TV", ["e-book", "tv"]),
        ("potted\nplants", ["potted plant"]),
        ("", []),
        ("没有狗", []),
        ("hot dog dog hot", ["hot dog", "dog"]),
    ],
)
def test_words_are_found_with_their_plurals_and_the_longest_at_each_place(
    caption: str, words: list[str]
) -> None:
    assert find_words(caption, WORDS) == words


def test_words_that_only_look_like_plurals_are_themselves() -> None:
    assert find_words("people press a bus", {"person", "press", "bus", "bu"}) == ["person", "press", "bus"]


def test_a_caption_without_end_is_read_at_once() -> None:
    started = time.process_time()
    assert len(find_words("hot dog s-" * 20_000, WORDS)) == 20_000
    assert find_words("a-" * 50_000, WORDS) == []
    assert time.process_time() - started < 2
