"""VQA soft accuracy: how many of ten people gave the model's answer (Antol et al. 2015, arXiv 1505.00468)."""

import re
from functools import lru_cache

# Meant as "not between digits", but `(?!<=` looks ahead: it takes any period that no digit follows.
_PERIOD = re.compile(r"(?!<=\d)(\.)(?!\d)")
# The scripts pass `re.UNICODE` where `sub` takes a count, so that no more than 32 periods go.
_MOST_PERIODS = int(re.UNICODE)
_DIGIT_COMMA = re.compile(r"\d,\d")
_PUNCTUATION = frozenset(';/[]"{}()=+\\_-><@`,?!')
_ARTICLES = frozenset({"a", "an", "the"})
_TO_TEN = "zero one two three four five six seven eight nine ten"
_NUMBERS = {"none": "0", **{word: str(number) for number, word in enumerate(_TO_TEN.split())}}
_CONTRACTED = (
    "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't "
    "haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've "
    "might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've "
    "shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll "
    "someone's something'd something'd've something'll that's there'd there'd've there're there's they'd "
    "they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've "
    "when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't "
    "would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've"
)
# What people write who leave one apostrophe out; the last is an error of the scripts.
_CONTRACTIONS = {
    **{
        word[:i] + word[i + 1 :]: word for word in _CONTRACTED.split() for i, c in enumerate(word) if c == "'"
    },
    "somebody'd": "somebodyd",
}


def soft_accuracy(prediction: str, answers: list[str], official: bool) -> float:
    """The mean over the people of min(1, how many others gave the prediction / 3): 0 to 1.

    Args:
        prediction: what the model said.
        answers: what each of ten people said; of fewer than four, nobody's answer is worth 1.
        official: compare as VQAv2's script does, which normalises only where people differ: where all said
            `yes`, `Yes.` is wrong. Else as EvalAI and M4C (TextVQA) do, which always normalise, by
            `evalai_answer`.
    """
    if not answers:
        raise ValueError("soft accuracy needs the answers of people, and there are none")
    if not official:
        return agreement(evalai_answer(prediction), [evalai_answer(answer) for answer in answers])
    people = [_one_line(answer) for answer in answers]
    if len(set(people)) == 1:
        return agreement(_one_line(prediction), people)
    return agreement(official_answer(prediction), [official_answer(answer) for answer in people])


def agreement(said: str, people: list[str]) -> float:
    """Soft accuracy of texts that are normalised already."""
    same = people.count(said)
    of_same, of_others = min(1.0, max(same - 1, 0) / 3), min(1.0, same / 3)
    return (same * of_same + (len(people) - same) * of_others) / len(people)


@lru_cache(1 << 17)
def evalai_answer(text: str) -> str:
    """The answer as EvalAI and M4C normalise it, and as LLaVA does before it uploads.

    Commas and question marks go and `'s` becomes a word before the steps of `official_answer`.
    """
    return official_answer(text.lower().replace(",", "").replace("?", "").replace("'s", " 's"))


@lru_cache(1 << 17)
def official_answer(text: str) -> str:
    """The answer as VQAv2's script normalises it: punctuation, number words, articles, contractions."""
    words = (_NUMBERS.get(word, word) for word in without_punctuation(_one_line(text)).lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def without_punctuation(text: str) -> str:
    """The text with each punctuation mark dropped or made a space, as VQAv2's script does.

    A mark is dropped where it stands beside a space anywhere in the text, and so are all where a comma stands
    between digits; periods are dropped unless a digit follows.
    """
    number = _DIGIT_COMMA.search(text) is not None
    kept = text
    for mark in _PUNCTUATION.intersection(text):
        dropped = number or f"{mark} " in text or f" {mark}" in text
        kept = kept.replace(mark, "" if dropped else " ")
    return _PERIOD.sub("", kept, count=_MOST_PERIODS)


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()
