"""Columns of a table that holds chats: which they are, and the raw chats that their rows make."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cobra.data.raw_chat import RawChat
from cobra.data.record import ImageSource

_CHATS, _IMAGES = ("messages", "conversations", "texts"), ("images", "image")
# Halves of a chat of one turn: TRL's, and those of sets of questions.
_HALVES = (("prompt", "completion"), ("question", "answer"))
# FineVision's, a list each with a number from 1 to 5 for each turn.
_RATINGS = (
    "relevance_ratings",
    "image_correspondence_ratings",
    "visual_dependency_ratings",
    "formatting_ratings",
)


@dataclass(frozen=True)
class Columns:
    """Which columns a chat comes from.

    Attributes:
        chats: one of chats, or two of their halves.
        images: of pictures, one or a list; None for text alone.
        others: the id and the ratings, where there are.
        min_rating: least rating of a turn that is kept.
    """

    chats: tuple[str, ...]
    images: str | None
    others: tuple[str, ...]
    min_rating: int = 0

    @classmethod
    def find(
        cls,
        names: Iterable[str],
        where: str,
        chats: str | None = None,
        images: str | None = None,
        min_rating: int = 0,
    ) -> "Columns":
        """Those that are named, else those that have one of the usual names.

        Raises:
            ValueError: where there is none, with those that there are.
        """
        known = list(names)
        if len(set(known)) < len(known):
            raise ValueError(f"{where} has two columns of one name in {known}: rename one")
        for asked in filter(None, (chats, images)):
            if asked not in known:
                raise ValueError(f"{where} has no column {asked!r}, but {known}")
        candidates = [(name,) for name in ([chats] if chats else _CHATS)] + ([] if chats else [*_HALVES])
        found = next((names for names in candidates if set(names) <= set(known)), None)
        if found is None:
            raise ValueError(f"{where} has no column of chats, but {known}: name it with `chats`")
        pictures = images or next((name for name in _IMAGES if name in known), None)
        return cls(found, pictures, tuple(n for n in ("id", *_RATINGS) if n in known), min_rating)

    @property
    def texts(self) -> list[str]:
        """All but the pictures."""
        return [*self.chats, *self.others]

    def raws(self, batch: pa.RecordBatch | pa.Table, ids: Iterable[str]) -> Iterator[RawChat]:
        """The chats of some rows; a picture's name is its number in its row.

        Args:
            batch: the columns; of pictures, a part is enough that tells how many there are.
            ids: what rows without an id are called.
        """
        counts = count_pictures(batch.column(self.images)) if self.images else [0] * batch.num_rows
        rows = batch.select(self.texts).to_pylist()
        for row, count, name in zip(rows, counts, ids, strict=True):
            chat, mended = self._chat(row)
            own = row.get("id")
            chat |= {"id": name if own is None else own, "images": [str(number) for number in range(count)]}
            yield RawChat(chat, mended=mended, is_named=False)

    def _chat(self, row: dict[str, Any]) -> tuple[dict[str, Any], str]:
        values = [row[name] for name in self.chats]
        if len(values) == 2:
            return {"prompt": values[0], "completion": values[1]}, ""
        (turns,) = values
        if not (isinstance(turns, list) and turns and isinstance(turns[0], dict) and "user" in turns[0]):
            return {"conversations": turns}, ""
        kept = [turn for number, turn in enumerate(turns) if self._is_good(row, number)]
        return {"texts": kept}, f"has turns rated below {self.min_rating}" if len(kept) < len(turns) else ""

    def _is_good(self, row: dict[str, Any], turn: int) -> bool:
        lists = [row[name] for name in _RATINGS if isinstance(row.get(name), list)]
        rated = [ratings[turn] for ratings in lists if len(ratings) > turn]
        return all(rating >= self.min_rating for rating in rated if isinstance(rating, int | float))


def count_pictures(column: pa.Array | pa.ChunkedArray) -> list[int]:
    """Pictures of each row, without a look at them."""
    kinds = pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list
    if any(is_kind(column.type) for is_kind in kinds):
        return pc.fill_null(pc.list_value_length(column), 0).to_pylist()
    return [int(there) for there in pc.is_valid(column).to_pylist()]


def picture(value: Any, number: int) -> ImageSource:
    """The bytes of a picture, or the file, in a row's cell.

    Args:
        value: the cell: one picture or a list.
        number: of the picture in its row.
    """
    one = value[number] if isinstance(value, list) else value
    named = one if isinstance(one, dict) else {"bytes": one}
    if isinstance(named.get("bytes"), bytes):
        return named["bytes"]
    if isinstance(named.get("path"), str):
        return Path(named["path"])
    raise ValueError(f"its picture {number} has neither bytes nor a file: drop the row")
