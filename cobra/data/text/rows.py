"""Source: rows of tokens, as language models are pretrained on."""

from collections.abc import Callable
from os.path import expanduser
from pathlib import Path
from typing import Any

import numpy as np

from cobra.data.chat import Chat
from cobra.data.record import Record
from cobra.data.source import Source
from cobra.data.text.documents import Documents
from cobra.data.text.tokens import Part, TokenFile, token_file


class TextRows(Source):
    """Documents laid end to end, an end of text behind each, cut into rows of `data.max_length` tokens.

    Every token but a row's first is learned. A row goes on over the border of documents, which nothing but
    the end of text marks, as in GPT-3's training (arXiv 2005.14165, appendix B), whose recipe Mamba's authors
    follow. What is left behind the last whole row is left out.

    Args:
        documents: whose texts, as a factory: they are opened when a run begins.
        part: `train` and `held_out` divide the documents, `all` does not.
        held_out: share of the documents that are held out. Which depends on each one's text alone.
        reset: start each document anew within a row: none sees the one before, nor is its first token
            learned.
        cache_dir: where token ids are kept; $COBRA_CACHE/text or ~/.cache/cobra/text when left out.
    """

    def __init__(
        self,
        documents: Callable[[], Documents],
        part: Part = "all",
        held_out: float = 0.0,
        reset: bool = False,
        cache_dir: str | None = None,
    ) -> None:
        if part != "all" and not 0 < held_out < 1:
            raise ValueError(
                f"held_out {held_out} must be a share between 0 and 1 where part is {part!r}: say which, "
                "or take all"
            )
        self.documents, self.part, self.held_out, self.reset = documents, part, held_out, reset
        self.cache = Path(expanduser(cache_dir)) if cache_dir else None
        self.tokens: TokenFile | None = None
        self.length = 0

    def prepare(self, chat: Chat, max_length: int) -> None:
        """Tokenize all documents, unless that was done before."""
        self.tokens = token_file(self.documents(), chat, self.part, self.held_out, self.cache)
        self.length = max_length
        if not len(self):
            raise ValueError(
                f"the documents of part {self.part!r} have {len(self.tokens.ids)} tokens, fewer than "
                f"data.max_length {max_length}: name more of them"
            )

    def __len__(self) -> int:
        return len(self._made().ids) // self.length

    def __getitem__(self, index: int) -> Record:
        made, begin = self._made(), index * self.length
        ids = made.ids[begin : begin + self.length].astype(np.int64)
        first, last = np.searchsorted(made.ends, (begin, begin + self.length - 1), side="right")
        borders = made.ends[first:last] - begin if self.reset else None
        return Record(str(index), [], source="text", tokens=ids, borders=borders)

    @property
    def bytes_per_token(self) -> float:
        """Of all its documents; an end of text is a token of none."""
        made = self._made()
        return made.bytes / len(made.ids)

    def identity(self) -> dict[str, Any]:
        """The tokens themselves, and how they are cut."""
        return {
            "records": len(self),
            "tokens": self._made().sha256[:12],
            "length": self.length,
            "reset": self.reset,
        }

    def _made(self) -> TokenFile:
        if self.tokens is None:
            raise ValueError("a source of text has no rows before `prepare` has given it a tokenizer")
        return self.tokens
