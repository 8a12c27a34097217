"""Token ids of rendered chat: special tokens where the template wrote them, all else as plain text."""

import json
import re
from collections.abc import Iterator
from typing import NamedTuple

from tokenizers import Tokenizer

from cobra.data.plain_tokenizer import ChatTokenizer

# What a chat template writes where a picture goes.
IMAGE_TEXT = "<image>"

# Stands inside special tokens that users wrote, which are then none. Unicode calls it no character.
_GUARD = "\ufdd0"

# Questions repeat, long texts hardly do; together these hold a few megabytes.
_MAX_REMEMBERED, _MAX_CHARACTERS = 16384, 256


class Seam(NamedTuple):
    """How text starts, by what stands before it.

    Attributes:
        prefix: the space that it gets.
        swallows: whether it loses its own, as after Phi-3's tokens.
    """

    prefix: str = ""
    swallows: bool = False


_INSIDE = Seam()


class TokenIds:
    """A tokenizer's ids of stretches of text, with the spaces that SentencePiece puts before a stretch.

    It puts one before the first words of a text and after a picture, since the authors encode what stands
    between pictures apart; in the middle of a text none; after a special token, such as the end of the last
    answer, as the tokenizer's file says: where `legacy` is true in LLaMA's, and else not.

    Args:
        tokenizer: of the tokenizers library, as all of ours are.
    """

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        added = tokenizer.added_tokens_decoder.items()
        self._ids = {token.content: number for number, token in added if token.special and token.content}
        self._text, prefix, spaces_all = _without_prefix(tokenizer.backend_tokenizer)
        self._start = Seam(prefix)
        self._after = {
            token.content: Seam(prefix if spaces_all else "", token.rstrip)
            for _, token in added
            if token.content in self._ids
        }
        self._after[tokenizer.bos_token or ""] = self._start
        longest_first = sorted(self._ids, key=len, reverse=True)
        self._special = re.compile("(" + ("|".join(map(re.escape, longest_first)) or "(?!)") + ")")
        self._remembered: dict[tuple[Seam, str], list[int]] = {}

    def guard(self, text: str) -> str:
        """A user's text for the template: no special token is in it; `encode` takes the guards out again."""
        return self._special.sub(_guarded, text)

    def is_word(self, text: str) -> bool:
        """Whether rendered text has more in it than special tokens and spaces."""
        return bool(self._special.sub("", text).strip())

    def encode(self, text: str, before: str = "") -> list[int]:
        """Token ids of rendered text; `before` it stands nothing at the start of all and after a picture."""
        key = (self._seam(before), text)
        if key not in self._remembered:
            if not text.isascii():
                _check_unicode(text)
            ids = self._encode(text, key[0])
            if len(text) > _MAX_CHARACTERS or len(self._remembered) == _MAX_REMEMBERED:
                return ids
            self._remembered[key] = ids
        return list(self._remembered[key])

    def _seam(self, before: str) -> Seam:
        """Between what is rendered before and what follows."""
        if not before:
            return self._start
        for token, seam in self._after.items():
            if token and (before.rstrip() if seam.swallows else before).endswith(token):
                return seam
        return _INSIDE

    def pieces(self, text: str, before: str = "") -> list[int | str]:
        """Rendered text as `encode` cuts it: ids of special tokens, and the texts that are encoded apart."""
        return list(self._pieces(text, self._seam(before)))

    def _encode(self, text: str, seam: Seam) -> list[int]:
        ids: list[int] = []
        for piece in self._pieces(text, seam):
            ids += (
                [piece] if isinstance(piece, int) else self._text.encode(piece, add_special_tokens=False).ids
            )
        return ids

    def _pieces(self, text: str, seam: Seam) -> Iterator[int | str]:
        for piece in self._special.split(text):
            if piece in self._ids:
                yield self._ids[piece]
                seam = self._after[piece]
                continue
            piece = piece.lstrip() if seam.swallows else piece
            # cut where a guard stands, so that no merge makes a special token again
            yield from filter(None, f"{seam.prefix if piece else ''}{piece}".split(_GUARD))
            seam = _INSIDE if piece else seam


def _guarded(match: re.Match[str]) -> str:
    # a picture's place is refused later, with or without a token of that name
    return match[0] if match[0] == IMAGE_TEXT else match[0][0] + _GUARD + match[0][1:]


def _without_prefix(backend: Tokenizer) -> tuple[Tokenizer, str, bool]:
    """The tokenizer without the space that it puts first; that space; whether special tokens have it, too."""
    steps = {
        "normalizers": json.loads(backend.normalizer.__getstate__()) if backend.normalizer else {},
        "pretokenizers": json.loads(backend.pre_tokenizer.__getstate__()) if backend.pre_tokenizer else {},
    }
    prefix, after_special = "", False
    for name, step in steps.items():
        for part in step.get(name, [step]):
            if part.get("type") == "Prepend":
                prefix, after_special, part["prepend"] = part["prepend"], True, ""
            if part.get("type") == "Metaspace" and part["prepend_scheme"] != "never":
                prefix, after_special = part["replacement"], part["prepend_scheme"] == "always"
                part["prepend_scheme"] = "never"
    if not prefix:
        return backend, "", False
    described = json.loads(backend.to_str())
    described |= {"normalizer": steps["normalizers"] or None, "pre_tokenizer": steps["pretokenizers"] or None}
    return Tokenizer.from_str(json.dumps(described)), prefix, after_special


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{text[:40]!r} holds half a character at {error.start}, of bytes that are no UTF-8: retype it"
        ) from error
