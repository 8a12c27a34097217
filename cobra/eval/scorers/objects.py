"""Objects that a caption speaks of."""

import re
from collections.abc import Collection, Iterator

_IRREGULAR = {
    "children": "child", "feet": "foot", "geese": "goose", "mice": "mouse", "people": "person",
    "teeth": "tooth",
}  # fmt: skip


def find_words(text: str, words: Collection[str]) -> list[str]:
    """The words that a text has of a list, in its order and as often as it has them.

    Of words that begin at one place the longest counts: in a hot dog there is no dog. Plurals are found by
    the rules of spelling; no tagger or dictionary is needed.

    Args:
        text: a caption in English.
        words: words and phrases in lower case.
    """
    longest = max((word.count(" ") + 1 for word in words), default=0)
    said = re.findall(r"[a-z]+(?:-[a-z]+)*", text.lower())
    found, place = [], 0
    while place < len(said):
        lengths = range(min(longest, len(said) - place), 0, -1)
        phrases = ((length, said[place : place + length]) for length in lengths)
        length, word = next(
            ((length, word) for length, phrase in phrases for word in _singulars(phrase) if word in words),
            (1, ""),
        )
        found += [word] if word else []
        place += length
    return found


def _singulars(phrase: list[str]) -> Iterator[str]:
    """The phrase, then what it may be the plural of."""
    *before, word = phrase
    endings = [("", ""), ("men", "man"), ("ies", "y"), ("ves", "f"), ("ves", "fe"), ("s", ""), ("es", "")]
    for ending, singular in endings:
        if word.endswith(ending):
            yield " ".join([*before, word.removesuffix(ending) + singular])
    if word in _IRREGULAR:
        yield " ".join([*before, _IRREGULAR[word]])
