"""Letters of options, read from answers in words."""

import re
import unicodedata
from collections.abc import Mapping

# VLMEvalKit's: what stands between words, beside spaces
_BETWEEN = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
# Such as Chinese, in which no space ends a word; a letter with an accent is part of one.
_FOREIGN = re.compile(r"[^\x00-\x7fÀ-ÖØ-öø-\u024f\u1e00-\u1eff]")
# The letter is one of so many words at the end.
_LAST = 5


def read_letter(text: str, options: Mapping[str, str], english: bool = False) -> str | None:
    """The letter of the option that an answer names; None where it names none, or several.

    The rules are VLMEvalKit's without its judge (`vlmeval/utils/matching_util.py`): the one letter that
    stands alone among the last five words, else the one option whose text is part of the answer.

    Args:
        text: what was answered.
        options: their texts by their letters.
        english: as VLMEvalKit does it, where only spaces and ASCII punctuation end a word, so that no
            letter is found in `答案是B。`; MMBench-CN falls by half of its points for it (VLMEvalKit#1529).
    """
    if not english:
        # both: a text of full width must still be part of what repeats it
        text = _narrowed(text)
        options = {letter: _narrowed(option) for letter, option in options.items()}
    spaced = text if english else _FOREIGN.sub(" ", text)
    words = spaced.translate(_BETWEEN).split()
    named = [letter for letter in options if letter in words]
    if len(named) == 1 and words.index(named[0]) > len(words) - _LAST:
        return named[0]
    # it says by this that no option fits
    if not named and "Z" in words:
        return None
    return _read_text(text, options)


def _narrowed(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


def _read_text(text: str, options: Mapping[str, str]) -> str | None:
    # so long an answer speaks of other things, too
    if len(text) > 2 * sum(map(len, options.values())):
        return None
    named = [letter for letter, option in options.items() if option.lower() in text.lower()]
    return named[0] if len(named) == 1 else None
