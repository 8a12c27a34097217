"""A tokenizer of the tokenizers library alone: neither transformers nor torch is imported."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from tokenizers import AddedToken, Tokenizer

from cobra.config.text_file import read_text

# by their names in tokenizer_config.json, as chat templates know them
_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class ChatTokenizer(Protocol):
    """What a chat asks of a tokenizer; those of transformers have it."""

    chat_template: Any
    backend_tokenizer: Tokenizer

    @property
    def eos_token_id(self) -> int | None:
        """Of the end of a text."""

    @property
    def pad_token_id(self) -> int | None:
        """Of padding."""

    @property
    def bos_token(self) -> str | None:
        """What texts begin with."""

    @property
    def special_tokens_map(self) -> Mapping[str, str]:
        """Special tokens by their roles."""

    @property
    def added_tokens_decoder(self) -> Mapping[int, AddedToken]:
        """Added tokens by their ids."""

    def get_vocab(self) -> Mapping[str, int]:
        """Ids of all tokens."""

    def decode(self, ids: list[int], *, skip_special_tokens: bool, clean_up_tokenization_spaces: bool) -> str:
        """Text of ids."""

    def __len__(self) -> int: ...


class PlainTokenizer:
    """The tokenizer in a folder that `Chat.save` wrote.

    Args:
        folder: with tokenizer.json, tokenizer_config.json and chat_template.jinja.

    Raises:
        FileNotFoundError: where a file is missing.
        ValueError: where one is damaged.
    """

    def __init__(self, folder: Path) -> None:
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            if not (folder / name).is_file():
                raise FileNotFoundError(f"{folder / name} is missing: restore the tokenizer's files")
        try:
            with panic_told(str(folder)):
                self.backend_tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            said = json.loads(read_text(folder / "tokenizer_config.json"))
            self.special_tokens_map = {role: _text(said[role]) for role in _ROLES if said.get(role)}
        # the library raises what has no class of its own
        except Exception as error:
            raise ValueError(
                f"the tokenizer in {folder} cannot be read ({error}): restore its files"
            ) from error
        self.chat_template = read_text(folder / "chat_template.jinja")
        self.added_tokens_decoder = self.backend_tokenizer.get_added_tokens_decoder()

    @property
    def eos_token_id(self) -> int | None:
        """See `ChatTokenizer`, as for all that follow."""
        return self._id("eos_token")

    @property
    def pad_token_id(self) -> int | None:
        """None where there is none."""
        return self._id("pad_token")

    @property
    def bos_token(self) -> str | None:
        """None where there is none."""
        return self.special_tokens_map.get("bos_token")

    def _id(self, role: str) -> int | None:
        token = self.special_tokens_map.get(role)
        return None if token is None else self.backend_tokenizer.token_to_id(token)

    def get_vocab(self) -> Mapping[str, int]:
        """Added tokens are among them."""
        return self.backend_tokenizer.get_vocab(with_added_tokens=True)

    def decode(self, ids: list[int], *, skip_special_tokens: bool, clean_up_tokenization_spaces: bool) -> str:
        """As it was said; spaces are not cleaned up."""
        assert not clean_up_tokenization_spaces
        return self.backend_tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)

    def __len__(self) -> int:
        return self.backend_tokenizer.get_vocab_size(with_added_tokens=True)


@contextmanager
def panic_told(path: str) -> Iterator[None]:
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


def _text(token: Any) -> str:
    """Of a token, which a file may describe with all its settings."""
    return token["content"] if isinstance(token, dict) else token
