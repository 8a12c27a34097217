"""Captions: any source of chats about pictures, as a stage that aligns takes it."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from cobra.data.bad_sample import BadSample
from cobra.data.chat import Chat
from cobra.data.raw_chat import caption
from cobra.data.record import Record
from cobra.data.source import Source


class Captions(Source):
    """Pictures with the first answer about them and no question: what Cobra's stage `align` reads.

    Args:
        source: the chats.
    """

    def __init__(self, source: Callable[[], Source]) -> None:
        self.source = source()
        self.dropped, self.mended = self.source.dropped, self.source.mended

    def prepare(self, chat: Chat, max_length: int) -> None:
        """Get the source ready."""
        self.source.prepare(chat, max_length)

    def bad_records(self) -> Iterable[BadSample]:
        """The source's."""
        return self.source.bad_records()

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Record:
        record = self.source[index]
        return replace(record, messages=caption(record.messages))

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """The source's."""
        return self.source.order(rng)

    def identity(self) -> dict[str, Any]:
        """The source's, as captions."""
        return {"captions": self.source.identity()}
