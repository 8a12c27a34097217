"""The contract of a source of records: what an importer is, whatever it reads."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from hashlib import sha256
from types import MappingProxyType
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from cobra.data.bad_sample import BadSample
from cobra.data.chat import Chat
from cobra.data.record import Record


class Source(Dataset[Record], ABC):
    """Records by number, 0 to `len` - 1.

    It travels to worker processes, so it holds names and tables, no pictures. A record that cannot be made
    raises ValueError or OSError; what `on_bad_sample` says is done with it.

    Attributes:
        dropped: what an importer has left out for want of a chat, and how many records, by the reason.
        mended: what it has changed, and in how many.
    """

    dropped: Mapping[str, int] = MappingProxyType({})
    mended: Mapping[str, int] = MappingProxyType({})

    def prepare(self, chat: Chat, max_length: int) -> None:
        """Get ready for a run's tokenizer and its longest sequence, before anything is asked of it.

        Records of a chat need neither.
        """

    def bad_records(self) -> Iterable[BadSample]:
        """Those that were left out, each with its reason."""
        return ()

    @abstractmethod
    def __len__(self) -> int:
        """Records."""

    @abstractmethod
    def __getitem__(self, index: int) -> Record:
        """One record."""

    @property
    def bytes_per_token(self) -> float | None:
        """Of its text, where they are known: a held-out loss is then told in bits a byte, too."""
        return None

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """The numbers of all records (len,) in random order, as an epoch goes through them.

        A source that reads neighbours together keeps them near each other.
        """
        return rng.permutation(len(self))

    def identity(self) -> dict[str, Any]:
        """What is cheaply known of it, as plain data: two that differ in it differ."""
        size = len(self)
        ends = [self._said(index) for index in (0, size - 1)] if size else []
        return {"records": size, "ends": sha256(repr(ends).encode()).hexdigest()[:12]}

    def _said(self, index: int) -> Any:
        try:
            record = self[index]
        # a bad sample is told where a batch comes to it
        except (ValueError, OSError):
            return None
        return record.id, [message.text for message in record.messages]
