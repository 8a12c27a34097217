"""Token counts of every record of a source: what grouping, packing and `cobra data check` go by."""

import pickle
from dataclasses import dataclass
from hashlib import blake2b, sha256
from typing import Any

import numpy as np
import pyarrow as pa

from cobra.data.measured import measured
from cobra.data.processor import Processor
from cobra.data.record import ImageSource, Record
from cobra.data.source import Source
from cobra.models.vision.pictures import ONE_TILE, Layout

# Part of the key under which counts are found again: raise it with any change to what is counted.
_VERSION = 1
_COLUMNS = {
    "tokens": "int32",
    "learned": "int32",
    "answer": "int32",
    "seen": "int32",
    "pictures": "int32",
    "content": "uint64",
}


@dataclass
class TokenCounts:
    """What a processor makes of each record, before any is cut; all (records,), 0 where there is a problem.

    Attributes:
        tokens: image tokens included.
        learned: those that are labels.
        answer: the place of the first label; where there is none, the end.
        seen: the end of the last picture.
        pictures: how many.
        content: a number that records of the same text and pictures share.
        problems: why a record cannot be encoded, by its number.
    """

    tokens: np.ndarray
    learned: np.ndarray
    answer: np.ndarray
    seen: np.ndarray
    pictures: np.ndarray
    content: np.ndarray
    problems: dict[int, str]

    @classmethod
    def of(cls, source: Source, name: str, processor: Processor) -> "TokenCounts":
        """Those of a source for a processor, from the cache folder if they were counted before."""
        key = {"source": source.identity(), **_identity(processor), "version": _VERSION}
        title = f"Counting tokens of {name}"
        return cls.read(measured(source, Counting(processor), _COLUMNS, key, title))

    @classmethod
    def read(cls, table: pa.Table) -> "TokenCounts":
        """Those of a table."""
        told = table.column("problem").to_numpy()
        problems = {int(index): told[index] for index in np.flatnonzero(told != "")}
        return cls(**{name: table.column(name).to_numpy() for name in _COLUMNS}, problems=problems)

    def digest(self) -> str:
        """What all of it comes to: two that differ in what batches go by differ."""
        digest = sha256()
        for column in (self.tokens, self.pictures):
            digest.update(column.tobytes())
        return digest.hexdigest()[:12]


@dataclass
class Counting:
    """Counts one record.

    Args:
        processor: that of the run.
    """

    processor: Processor

    def __call__(self, record: Record) -> dict[str, int]:
        """A value for each column."""
        tokens, learned, answer, seen = self.processor.count(record)
        return {
            "tokens": tokens,
            "learned": learned,
            "answer": answer,
            "seen": seen,
            "pictures": len(record.images),
            "content": _content(record),
        }


def _content(record: Record) -> int:
    digest = blake2b(digest_size=8)
    for message in record.messages:
        digest.update(repr((message.role, message.content)).encode("utf-8", "replace"))
    if record.tokens is not None:
        digest.update(np.ascontiguousarray(record.tokens).tobytes())
    for image in record.images:
        digest.update(image_bytes(image) + b"\0")
    return int.from_bytes(digest.digest(), "little")


def image_bytes(image: ImageSource) -> bytes:
    """What tells a picture from others: its pixels, its file's bytes or the name of that."""
    if isinstance(image, np.ndarray):
        return image.tobytes()
    return image if isinstance(image, bytes) else str(image).encode("utf-8", "replace")


def _identity(processor: Processor) -> dict[str, Any]:
    """What the tokens of a record depend on beside it."""
    chat, layout = processor.chat, getattr(processor.transform, "layout", None)
    pictures: Any = processor.num_image_tokens(layout or ONE_TILE)
    if not isinstance(layout, Layout):
        # both travel to worker processes
        pictures = sha256(pickle.dumps((processor.transform, processor.num_image_tokens))).hexdigest()
    tokenizer = chat.tokenizer.backend_tokenizer.to_str() + str(chat.tokenizer.special_tokens_map)
    return {
        "tokenizer": sha256(tokenizer.encode()).hexdigest(),
        "template": sha256(str(chat.tokenizer.chat_template).encode()).hexdigest(),
        "image_tokens": pictures,
    }
