"""Text and tokens, without torch and transformers: a tokenizer with its chat template."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cobra.data.chat_template import ChatTemplate
from cobra.data.plain_tokenizer import ChatTokenizer, PlainTokenizer, panic_told
from cobra.data.token_ids import IMAGE_TEXT, TokenIds

_ROLES = ("user", "assistant")
# What a template with a place for a system turn writes there.
_PROBE = "You see."


@dataclass
class Segment:
    """A stretch of rendered chat.

    Attributes:
        text: as rendered.
        is_answer: whether the assistant says it.
        is_learned: whether it carries loss: an answer that is not empty.
        before: what is rendered before it, since the last picture.
    """

    text: str
    is_answer: bool
    is_learned: bool
    before: str


class PlainChat:
    """A tokenizer and a chat template.

    Args:
        path: where they are from, for errors.
        tokenizer: with the template; of transformers, or a `PlainTokenizer`.
    """

    def __init__(self, path: str, tokenizer: ChatTokenizer) -> None:
        self.path, self.tokenizer = path, tokenizer
        if not tokenizer.chat_template:
            raise ValueError(
                f"tokenizer {path!r} has no chat template: restore its chat_template.jinja, or name one with "
                "`template`"
            )
        if (end := tokenizer.eos_token_id) is None:
            raise ValueError(f"tokenizer {path!r} has no end-of-text token, which stops an answer")
        self._ids = TokenIds(tokenizer)
        self._template = self._compiled()
        self.eos_id: int = self._end_of_answer(end)
        pad = tokenizer.pad_token_id
        self.pad_id: int = self.eos_id if pad is None else pad

    @classmethod
    def read(cls, folder: Path) -> "PlainChat":
        """What `Chat.save` wrote there; errors as of `PlainTokenizer`."""
        return cls(str(folder), PlainTokenizer(folder))

    def __len__(self) -> int:
        return len(self.tokenizer)

    def check_vocabulary(self, size: int) -> None:
        """Refuse a model that knows `size` tokens where there are others.

        Raises:
            ValueError: naming the numbers.
        """
        largest = int(self._known_ids.max())
        if largest >= size:
            raise ValueError(
                f"tokenizer {self.path!r} has {len(self)} tokens with ids up to {largest}, vocab_size is "
                f"{size}: raise it, or use the tokenizer that the model was made for"
            )

    def unknown(self, size: int) -> NDArray[np.int64]:
        """Ids (N,) below `size` that the tokenizer does not have, e.g. of rows that fill a vocabulary up."""
        is_unknown = np.ones(size, bool)
        is_unknown[self._known_ids] = False
        return np.flatnonzero(is_unknown)

    @cached_property
    def _known_ids(self) -> NDArray[np.int64]:
        return np.array([*self.tokenizer.get_vocab().values()])

    @cached_property
    def has_system(self) -> bool:
        """Whether the template has a place for a system turn. Those of the published systems have none."""
        said = {"role": "system", "content": [{"type": "text", "text": _PROBE}]}
        asked = {"role": "user", "content": [{"type": "text", "text": "a"}]}
        try:
            return any(_PROBE in segment.text for segment in self.segments([said, asked], prompt=True))
        # some refuse the role
        except ValueError:
            return False

    def segments(self, messages: list[dict[str, Any]], prompt: bool = False) -> list[Segment]:
        """The rendered chat, cut where the assistant starts and stops; `prompt`: ready for its next turn."""
        tokens = self.tokenizer.special_tokens_map
        try:
            given = [self._guarded(message) for message in messages]
            stretches = self._template.render(given, prompt, **tokens)
        # a template is a program of its own: it may fail in any way
        except Exception as error:
            raise ValueError(
                f"the template of tokenizer {self.path!r} fails ({error}): restore its chat_template.jinja"
            ) from error
        segments, before = [], ""
        for text, is_answer in stretches:
            if text:
                is_learned = is_answer and self._ids.is_word(text)
                segments.append(Segment(text, is_answer, is_learned, before))
            before = (before + text).rpartition(IMAGE_TEXT)[2]
        return segments

    def _compiled(self) -> ChatTemplate:
        try:
            return ChatTemplate(self.tokenizer.chat_template)
        except Exception as error:
            raise ValueError(
                f"the template of tokenizer {self.path!r} cannot be read ({error}): restore its "
                "chat_template.jinja"
            ) from error

    def _guarded(self, message: dict[str, Any]) -> dict[str, Any]:
        """The message with its words as words: what looks like a special token in them is none."""
        content, guard = message["content"], self._ids.guard
        if isinstance(content, str):
            return {**message, "content": guard(content)}
        return {
            **message,
            "content": [{**p, "text": guard(p["text"])} if "text" in p else p for p in content],
        }

    def encode(self, text: str, before: str = "") -> list[int]:
        """Token ids of rendered text that stands behind `before`; see `TokenIds`."""
        with panic_told(self.path):
            return self._ids.encode(text, before)

    def pieces(self, text: str, before: str = "") -> list[int | str]:
        """Rendered text that stands behind `before` as it is cut; see `TokenIds`."""
        return self._ids.pieces(text, before)

    def encode_words(self, text: str) -> list[int]:
        """Token ids of what somebody said: what looks like a special token in it is none."""
        return self.encode(self._ids.guard(text))

    def answer_ids(self, text: str) -> list[int]:
        """Token ids with which an answer of this text begins, without what ends it.

        Raises:
            ValueError: where it has none.
        """
        asked, said = (
            {"role": role, "content": [{"type": "text", "text": t}]}
            for role, t in zip(_ROLES, ("a", text), strict=True)
        )
        answer = [segment for segment in self.segments([asked, said]) if segment.is_answer][-1]
        ids = self.encode(answer.text, answer.before)
        end = ids.index(self.eos_id) if self.eos_id in ids else len(ids)
        if not text.strip() or not end:
            raise ValueError(f"the answer {text!r} has no token under this chat template")
        return ids[:end]

    def decode(self, ids: list[int]) -> str:
        """Text of an answer's ids, up to its end."""
        return self.decode_part(ids).strip()

    def decode_part(self, ids: list[int]) -> str:
        """Text of a part of an answer, with the spaces around it."""
        # as it was said: a tokenizer's file may ask for "It 's" to become "It's"
        with panic_told(self.path):
            return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _end_of_answer(self, end_of_text: int) -> int:
        """The special token that the template ends an answer with; else the tokenizer's end of text."""
        asked, said = ({"role": role, "content": [{"type": "text", "text": "a"}]} for role in _ROLES)
        ends = [
            self.encode(segment.text, segment.before)[-1]
            for segment in self.segments([asked, said])
            if segment.is_answer
        ]
        added = self.tokenizer.added_tokens_decoder
        special = [end for end in ends if end in added and added[end].special]
        return special[0] if special else end_of_text
