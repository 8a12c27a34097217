"""Text and tokens: a tokenizer with its chat template."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before transformers)

import torch  # isort: skip
from torch import Tensor  # isort: skip
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast  # isort: skip

from cobra.config.limits import MAX_TOKEN_ID
from cobra.config.text_file import read_text
from cobra.data.chat_template import ChatTemplate
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


class Chat:
    """A tokenizer and a chat template, both read from files.

    Args:
        path: directory with the tokenizer's files, or its name on the hub.
        template: Jinja chat template; the tokenizer's own when left out. Assistant turns stand between
            `{% generation %}` and `{% endgeneration %}`, pictures are written as `<image>`.
    """

    def __init__(self, path: str, template: str | None = None) -> None:
        self.path = _resolve(path)
        self.tokenizer = load_tokenizer(self.path)
        if template is not None:
            self.tokenizer.chat_template = _read_template(Path(_resolve(template)))
        if not self.tokenizer.chat_template:
            raise ValueError(
                f"tokenizer {path!r} has no chat template: restore its chat_template.jinja, or name one with "
                "`template`"
            )
        if self.tokenizer.eos_token_id is None:
            raise ValueError(f"tokenizer {path!r} has no end-of-text token, which stops an answer")
        self._ids = TokenIds(self.tokenizer)
        self._template = self._compiled()
        self.eos_id: int = self._end_of_answer()
        pad = self.tokenizer.pad_token_id
        self.pad_id: int = self.eos_id if pad is None else pad

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

    def unknown_ids(self, size: int) -> Tensor:
        """Ids (N,) below `size` that the tokenizer does not have, e.g. of rows that fill a vocabulary up."""
        is_unknown = torch.ones(size, dtype=torch.bool)
        is_unknown[self._known_ids] = False
        return is_unknown.nonzero().flatten()

    @cached_property
    def _known_ids(self) -> Tensor:
        return torch.tensor([*self.tokenizer.get_vocab().values()])

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
        with _panic_told(self.path):
            return self._ids.encode(text, before)

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
        with _panic_told(self.path):
            return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _end_of_answer(self) -> int:
        """The special token that the template ends an answer with; else the tokenizer's end of text."""
        asked, said = ({"role": role, "content": [{"type": "text", "text": "a"}]} for role in _ROLES)
        ends = [
            self.encode(segment.text, segment.before)[-1]
            for segment in self.segments([asked, said])
            if segment.is_answer
        ]
        added = self.tokenizer.added_tokens_decoder
        special = [end for end in ends if end in added and added[end].special]
        return special[0] if special else self.tokenizer.eos_token_id

    def save(self, directory: Path) -> None:
        """Write the tokenizer's files and the template, for `Chat(directory)`."""
        self.tokenizer.save_pretrained(directory)


def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or a hub name; a file in it may describe a tokenizer, never run as code."""
    # the file is the whole tokenizer: nothing has to be guessed from a model's configuration
    whole = (Path(path) / "tokenizer.json").is_file()
    if not Path(path).is_dir() and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", path):
        raise FileNotFoundError(
            f"there is no folder {path!r} with a tokenizer, and no hub repository has such a name"
        )
    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(path) if whole else _joined(Path(path))
        if not tokenizer.is_fast:
            raise ValueError("it has no tokenizer.json, nor parts that make one")
        # some settings are only looked at here
        with _panic_told(path):
            tokenizer.encode("a", add_special_tokens=False)
        return tokenizer
    except OSError as error:
        reason = str(error).strip().partition("\n")[0]
        raise OSError(
            f"{path!r} is no folder with a tokenizer, and cannot be fetched from the hub ({reason}): name a "
            "folder with its tokenizer.json and tokenizer_config.json"
        ) from error
    # its parts are read by several libraries, which fail in their own ways on damaged files
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"tokenizer {path!r} cannot be read ({type(error).__name__}: {reason}): restore its "
            "tokenizer.json and tokenizer_config.json"
        ) from error


@contextmanager
def _panic_told(path: str) -> Iterator[None]:
    """A panic of the tokenizers library, which is no Exception, as a ValueError."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError(
            f"tokenizer {path!r} fails on this text ({error}): a pattern in its tokenizer.json cannot be "
            "matched; restore that file"
        ) from error


def _joined(folder: Path) -> PreTrainedTokenizerBase:
    """A tokenizer in parts, or on the hub; its added tokens have the ids that its files give them."""
    said, added = (_read(folder / name) for name in ("tokenizer_config.json", "added_tokens.json"))
    ids = {token["content"]: int(number) for number, token in said.get("added_tokens_decoder", {}).items()}
    ids |= added
    if max(ids.values(), default=0) > MAX_TOKEN_ID:
        raise ValueError(f"a token has the id {max(ids.values())}, more than {MAX_TOKEN_ID}")
    # LLaMA's was true by default when the models here were published
    is_old = (folder / "tokenizer.model").is_file() and said.get("legacy") is None
    options = {"legacy": True} if is_old else {}
    tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, **options)
    for token, number in ids.items():
        if tokenizer.convert_tokens_to_ids(token) != number:
            raise ValueError(f"{token} would not have its id {number}: ids before it are missing")
    return tokenizer


def _read_template(file: Path) -> str:
    if not file.is_file():
        raise FileNotFoundError(f"there is no chat template {str(file)!r}: check `template`")
    return read_text(file)


def _read(file: Path) -> dict[str, Any]:
    return json.loads(read_text(file)) if file.is_file() else {}


def _resolve(path: str) -> str:
    """A path inside the package, written `cobra:data/...`, or any other; `~` is the user's home."""
    package, _, inside = path.partition("cobra:")
    return str(Path(__file__).parents[1] / inside) if inside and not package else os.path.expanduser(path)
