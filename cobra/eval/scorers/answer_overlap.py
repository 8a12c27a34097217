"""Overlap of answers: F1 of words, characters and lists, and nDCG of lists."""

import math
import re
import string
from collections import Counter
from collections.abc import Sequence

# What people and models of ScreenQA answer to a question that the screen does not answer.
NO_ANSWER = "<no answer>"
# The same in XiaoMi's test set; its script gives full marks to any answer beside this one.
_NOBODY_ANSWERED = "无人应答"
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLE = re.compile(r"\b(a|an|the)\b")


def short_answer(prediction: str, answers: Sequence[str]) -> tuple[float, float]:
    """Exact match and F1 of words with the best of the answers, 0 to 1, as ScreenQA's metrics.py has them.

    A prediction of `<no answer>` is right where somebody gave that; any other is compared with the rest.
    """
    if prediction == NO_ANSWER:
        return (1.0, 1.0) if NO_ANSWER in answers else (0.0, 0.0)
    given = [squad_words(answer) for answer in answers if answer != NO_ANSWER]
    if not given:
        return 0.0, 0.0
    said = squad_words(prediction)
    return float(said in given), max(overlap_f1(said, words) for words in given)


def squad_words(text: str) -> list[str]:
    """The words of an answer as SQuAD compares them: lower case, without punctuation and articles."""
    return _ARTICLE.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split()


def overlap_f1(said: Sequence[str], true: Sequence[str]) -> float:
    """F1 of two bags of words, characters or lines; 0 where they share none, also where both are empty."""
    same = (Counter(said) & Counter(true)).total()
    return 2 * same / (len(said) + len(true)) if same else 0.0


def character_f1(prediction: str, answers: Sequence[str]) -> float:
    """F1 of characters with the best of the answers, as XiaoMi scores ScreenQA."""
    if _NOBODY_ANSWERED in answers:
        return 1.0
    return max((overlap_f1(prediction, answer) for answer in answers), default=0.0)


def list_f1(said: Sequence[str], lists: Sequence[Sequence[str]]) -> float:
    """F1 with the best of the lists; nothing said is right where a list is empty."""
    if not said:
        return float(any(not each for each in lists))
    return max((overlap_f1(said, each) for each in lists if each), default=0.0)


def list_ndcg(said: Sequence[str], lists: Sequence[Sequence[str]]) -> float:
    """Normalised discounted cumulative gain against the best of the lists: 1 where it is said first.

    A line that is in the list counts 1 / log2(1 + its place), each as often as the list has it.
    """
    if not said:
        return float(any(not each for each in lists))
    return max((_ndcg(said, each) for each in lists if each), default=0.0)


def _ndcg(said: Sequence[str], true: Sequence[str]) -> float:
    left, gain = Counter(true), 0.0
    for place, each in enumerate(said, 1):
        if left[each] > 0:
            left[each] -= 1
            gain += 1 / math.log2(1 + place)
    return gain / sum(1 / math.log2(1 + place) for place in range(1, len(true) + 1))
