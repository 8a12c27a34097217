"""Benchmarks as VLMEvalKit publishes them: tables of questions with their pictures in base64."""

from collections.abc import Iterator
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import pyarrow as pa

from cobra.data.chat_table import ChatTable
from cobra.data.file_list import find_files
from cobra.data.raw_chat import RawChat
from cobra.data.record import ImageSource
from cobra.data.tsv_rows import LONGEST_INDEX, decode_pictures, read_rows

_SAME = b"row:"


class BenchTSV(ChatTable):
    """Questions from a TSV of `index`, `image`, `question`, options `A`, `B`, ..., `answer`.

    A question is its `hint`, if any, the question, its options and what the answer shall be, each on a line
    of its own, as LLaVA-1.5 asks it. All columns but the picture are in the record's `meta`. Rows without an
    answer are questions alone, whose answers are secret. The file is converted once to an Arrow table, with
    the pictures as the bytes of their files.

    Args:
        tsv: the file.
        options_prompt: asks for the answer where there are options.
        prompt: asks for the answer where there are none.
        cache_dir: where the table is kept; the `datasets` library's own folder when left out.
    """

    image_type = pa.binary()
    may_ask = True

    def __init__(
        self,
        tsv: str | Path,
        options_prompt: str = "Answer with the option's letter from the given choices directly.",
        prompt: str = "Answer the question using a single word or phrase.",
        cache_dir: str | Path | None = None,
    ) -> None:
        self.files = find_files(tsv, ".tsv")
        if len(self.files) > 1:
            raise ValueError(f"{str(tsv)!r} are {len(self.files)} files: name one with `tsv`")
        self.options_prompt, self.prompt = options_prompt, prompt
        super().__init__(self.files[0].stem, self.files, cache_dir, [options_prompt, prompt])

    def raws(self) -> Iterator[RawChat]:
        """The rows in order."""
        places: dict[str, tuple[int, int]] = {}
        for number, row in enumerate(read_rows(self.files[0])):
            if None in row.values():
                yield RawChat(
                    {"id": row.get("index") or number}, problem="it has fewer cells than the header"
                )
                continue
            meta = {name: value for name, value in row.items() if name != "image" and value}
            try:
                images = _pictures(row["image"], places)
            except ValueError:
                yield RawChat({"id": meta.get("index", number)}, problem="its picture is no base64")
                continue
            if images and not images[0].startswith(_SAME):
                places[row.get("index", "")] = (number, len(images))
            yield RawChat(self._chat(meta, number, images), meta)

    def image(self, name: bytes, row: int) -> ImageSource:
        """The bytes of the picture, or those of the row that has it."""
        if not name.startswith(_SAME):
            return name
        wanted, _, number = name.removeprefix(_SAME).partition(b":")
        rows = self.rows()
        index = int(rows.searchsorted(int(wanted)))
        if index == len(rows) or rows[index] != int(wanted):
            raise ValueError(f"the row {int(wanted)} that has its picture was dropped: mend that row")
        return self._row(index)["images"][int(number)]

    def _chat(self, meta: dict[str, str], number: int, images: list[bytes]) -> dict[str, Any]:
        options = [f"{letter}. {meta[letter]}" for letter in ascii_uppercase if letter in meta]
        asks = self.options_prompt if options else self.prompt
        asked = "\n".join(filter(None, (meta.get("hint"), meta.get("question"), *options, asks)))
        turns = [{"from": "human", "value": asked if meta.get("question") else ""}]
        answers = [{"from": "gpt", "value": meta["answer"]}] if meta.get("answer") else []
        return {"id": meta.get("index", number), "conversations": turns + answers, "images": images}


def _pictures(cell: str, places: dict[str, tuple[int, int]]) -> list[bytes]:
    """The bytes of a cell's pictures: base64, a list of it, or the index of the row that has the picture."""
    if 0 < len(cell) <= LONGEST_INDEX and cell in places:
        row, count = places[cell]
        return [_SAME + f"{row}:{number}".encode() for number in range(count)]
    return decode_pictures(cell)
