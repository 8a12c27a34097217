"""LLaVA-style JSON, which most published instruction data comes in."""

import json
import logging
from collections import Counter
from collections.abc import Iterator
from os.path import expanduser
from pathlib import Path
from typing import Any

import numpy as np

from cobra.config.text_file import read_text
from cobra.data.record import Message, Part, Record, Role
from cobra.data.source import Source

logger = logging.getLogger(__name__)

# Part of the key under which a converted table is found again: raise it with any change to `_rows`.
_VERSION = 2

_PLACEHOLDER = "<image>"
_ROLES: dict[str, Role] = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}


class LlavaJson(Source):
    """Chats from a file of `{"id", "image", "conversations": [{"from", "value"}, ...]}`, an array or lines.

    `{"messages": [{"role", "content"}, ...]}` is read as well, content being text or parts.

    The file is converted once to an Arrow table, which is mapped and not read, so that workers share it.
    Records without a picture are text only. `<image>` keeps its place in the text; pictures that no text
    places come first. As by LLaVA, answers before the first question and a question after the last answer are
    left out, and counted in `mended`; an answer may be empty, but not all. Records that are no chat are
    dropped, counted in `dropped` and logged in one line with the first of each kind.

    Args:
        json: the file.
        image_root: folder that the file's image paths start from.
        cache_dir: where the table is kept; the `datasets` library's own folder when left out.
    """

    def __init__(self, json: str | Path, image_root: str | Path, cache_dir: str | Path | None = None) -> None:
        # no shell has read the yaml that these may come from
        path, self.image_root = (Path(expanduser(name)).absolute() for name in (json, image_root))
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {str(path)!r}: check `json`")
        if not self.image_root.is_dir():
            raise FileNotFoundError(f"there is no folder {str(self.image_root)!r}: check `image_root`")
        self.table = _convert(path, expanduser(cache_dir) if cache_dir else None)
        self.source = path.stem
        problems, mended, ids = (
            self.table.data.column(name).to_pylist() for name in ("problem", "mended", "id")
        )
        self.kept = np.flatnonzero([not problem for problem in problems])
        self.dropped = dict(Counter(problem for problem in problems if problem))
        self.mended = dict(Counter(what for what in mended if what))
        if not len(self.kept):
            raise ValueError(
                f"none of the {len(problems)} records of {path} is a LLaVA-style chat: {self.dropped}"
            )
        if self.dropped:
            lost = len(problems) - len(self.kept)
            firsts = {problem: ids[problems.index(problem)] for problem in self.dropped}
            logger.warning(
                "dropped %d of %d records of %s: %s; the first of each: %s",
                lost, len(problems), path, self.dropped, firsts,
            )  # fmt: skip

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, index: int) -> Record:
        row = self.table[int(self.kept[index])]
        messages = [Message(turn["role"], _parts(turn["text"])) for turn in row["turns"]]
        return Record(row["id"], messages, [self.image_root / name for name in row["images"]], self.source)


class LlavaCaptions(LlavaJson):
    """Pictures with the first answer about them and no question: what Cobra's stage `align` reads."""

    def __getitem__(self, index: int) -> Record:
        record = super().__getitem__(index)
        pictures: list[Part] = [{"type": "image"} for _ in record.images]
        messages = [Message("user", pictures), record.messages[1]]
        return Record(record.id, messages, record.images, record.source)


def _convert(path: Path, cache_dir: str | None) -> Any:
    """The file as a mapped table; converted anew when it has changed since."""
    from datasets import Dataset as Table
    from datasets import Features, List, Value
    from datasets.exceptions import DatasetGenerationError

    text = Value("string")
    turn = {"role": text, "text": text}
    names = ("id", "mended", "problem")
    features = Features({**dict.fromkeys(names, text), "images": List(text), "turns": List(turn)})
    stat = path.stat()
    # a table is found again by these arguments
    key = {"path": str(path), "size": stat.st_size, "changed": stat.st_mtime_ns, "version": _VERSION}
    try:
        return Table.from_generator(_rows, features, cache_dir, gen_kwargs=key)
    except DatasetGenerationError as error:
        raise error.__cause__ or error from None
    except OSError as error:
        raise OSError(
            f"the table of {path} cannot be written ({error}): set `cache_dir` to a folder with room"
        ) from error


def _rows(path: str, size: int, changed: int, version: int) -> Iterator[dict[str, Any]]:
    """All records in one schema: ids are strings, `image` a list, roles ours; `problem` is what is wrong."""
    number = -1
    for number, raw in enumerate(read_json_records(Path(path))):
        try:
            yield _row(raw, number)
        except ValueError as problem:
            name = str(raw.get("id", number)) if isinstance(raw, dict) else str(number)
            yield {"id": name, "images": [], "turns": [], "mended": "", "problem": str(problem)}
    if number < 0:
        raise ValueError(f"{path} holds no records: fetch it again")


def read_json_records(path: Path) -> Iterator[Any]:
    """The elements of a JSON array, or of a file with one value a line, without holding them all as objects.

    Raises:
        ValueError: where the file is no JSON or an array has no end, with the position.
    """
    text = read_text(path)
    # a download may have stopped just after a record
    if text[:100].lstrip().startswith("[") and not text[-100:].rstrip().endswith("]"):
        raise ValueError(f"{path} is an array without an end at character {len(text)}: fetch it again")
    decoder, at = json.JSONDecoder(), 0
    while True:
        while at < len(text) and text[at] in " \t\r\n,[]":
            at += 1
        if at == len(text):
            return
        try:
            value, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path} is no JSON at character {error.pos} ({error.msg}): fetch it again"
            ) from error
        yield value


def _row(raw: Any, number: int) -> dict[str, Any]:
    if isinstance(raw, dict) and isinstance(raw.get("messages"), list):
        raw = {**raw, **_as_llava(raw["messages"])}
    if not isinstance(raw, dict) or not isinstance(raw.get("conversations"), list):
        raise ValueError("no conversations")
    turns, mended = _whole([_turn(turn, number) for number, turn in enumerate(raw["conversations"])])
    if any(turn["role"] != ("assistant" if n % 2 else "user") for n, turn in enumerate(turns)):
        raise ValueError("roles do not alternate")
    if not any(turn["text"].strip() for turn in turns[1::2]):
        raise ValueError("no answer" if turns else "no turns")
    images = raw.get("image") or raw.get("images") or []
    images = [images] if isinstance(images, str) else images
    if not isinstance(images, list) or not all(isinstance(name, str) for name in images):
        raise ValueError("image is no path")
    placed = sum(turn["text"].count(_PLACEHOLDER) for turn in turns)
    if images and not placed:
        turns[0]["text"] = _PLACEHOLDER * len(images) + turns[0]["text"]
    elif placed != len(images):
        raise ValueError("<image> and pictures differ in number")
    return {
        "id": str(raw.get("id", number)),
        "images": images,
        "turns": turns,
        "mended": mended,
        "problem": "",
    }


def _whole(turns: list[dict[str, str]]) -> tuple[list[dict[str, str]], str]:
    """From the first question to the last answer, and what that leaves out."""
    roles = [turn["role"] for turn in turns]
    start = roles.index("user") if "user" in roles else len(turns)
    stop = len(turns) - (roles[-1:] == ["user"])
    left_out = {"starts with an answer": start > 0, "ends on a question": stop < len(turns)}
    return turns[start:stop], ", ".join(what for what, is_so in left_out.items() if is_so)


def _as_llava(messages: list[Any]) -> dict[str, Any]:
    """Messages as OpenAI's and Hugging Face's chats have them, whose parts may name pictures."""
    images, turns = [], []
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            images += [part["image"] for part in content if isinstance(part, dict) and "image" in part]
            content = "".join(
                _PLACEHOLDER if part.get("type") == "image" else str(part.get("text", ""))
                for part in content
                if isinstance(part, dict)
            )
        turns.append({"from": message.get("role") if isinstance(message, dict) else None, "value": content})
    return {"conversations": turns, **({"images": images} if images else {})}


def _turn(turn: Any, number: int) -> dict[str, str]:
    if not isinstance(turn, dict) or turn.get("from") not in _ROLES:
        # every published template has a system text of its own, or none
        is_system = isinstance(turn, dict) and turn.get("from") == "system"
        raise ValueError("a system turn, for which no template has a place" if is_system else "unknown role")
    role, text = _ROLES[turn["from"]], turn.get("value")
    if text is not None and not isinstance(text, str):
        raise ValueError(f"turn {number} is no text, but {type(text).__name__}")
    if text is None or not (text.strip() or role == "assistant"):
        raise ValueError("empty turn")
    if role == "assistant" and _PLACEHOLDER in text:
        raise ValueError("an answer contains <image>")
    # half a surrogate pair is valid JSON but no UTF-8, which Arrow stores
    return {"role": role, "text": text.encode("utf-8", "replace").decode()}


def _parts(text: str) -> list[Part]:
    """The text cut at its placeholders, without the space around them."""
    parts: list[Part] = []
    for number, piece in enumerate(text.split(_PLACEHOLDER)):
        if number:
            parts.append({"type": "image"})
        if piece.strip():
            parts.append({"type": "text", "text": piece.strip()})
    # a question of pictures alone is one, too: without a text part it would be the start of a caption
    return parts if any("text" in part for part in parts) else [*parts, {"type": "text", "text": ""}]
