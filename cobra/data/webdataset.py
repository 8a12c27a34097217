"""WebDataset: tar shards whose members of one name make a sample, read by their places."""

import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cobra.config.limits import MAX_RECORD_TEXT
from cobra.data.chat_table import ChatTable
from cobra.data.file_list import find_files, tracked
from cobra.data.raw_chat import RawChat
from cobra.data.record import ImageSource

_PICTURES = {"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm"}


class WebDataset(ChatTable):
    """Chats or captions from tar shards: `000.jpg` and `000.json` are one sample.

    The JSON is a chat as `LlavaJson` takes it, or has a `caption`; a sample with a `.txt` is a caption, too.
    As in the webdataset library a sample's name ends at the first dot of its file's name, and its members
    follow each other. Several pictures of a sample are `000.0.jpg`, `000.1.jpg` and so on, in the order of
    the shard; files that a chat names by itself are not looked for. The texts are converted once to an Arrow
    table with the place of every picture; pictures are then read at their places, in any order.

    Args:
        files: a folder with .tar files, a pattern such as `data/shard-*.tar`, or one file; not compressed.
        cache_dir: where the table is kept; the `datasets` library's own folder when left out.
    """

    def __init__(self, files: str | Path, cache_dir: str | Path | None = None) -> None:
        self.files = find_files(files, ".tar")
        name = Path(files).stem if "*" not in str(files) else self.files[0].stem
        super().__init__(name, self.files, cache_dir)

    def raws(self) -> Iterator[RawChat]:
        """The samples of all shards, in order."""
        for number, path in enumerate(tracked(self.files, self.source)):
            try:
                # without a colon a compressed shard would be read, which has no places
                with tarfile.open(path, "r:") as shard:
                    yield from _samples(shard, number)
            # a size that no file can have is a ValueError
            except (tarfile.TarError, ValueError) as error:
                raise ValueError(
                    f"{path} is no whole, uncompressed tar of chats ({error}): unpack it, or fetch it again"
                ) from error

    def image(self, name: str, row: int) -> ImageSource:
        """The bytes of a member."""
        shard, offset, size = map(int, name.split(":"))
        with self.files[shard].open("rb") as file:
            data = os.pread(file.fileno(), size, offset)
        if len(data) != size:
            raise ValueError(f"{self.files[shard]} ends at byte {offset + len(data)}: fetch it again")
        return data


def _samples(shard: tarfile.TarFile, number: int) -> Iterator[RawChat]:
    key = ""
    texts: dict[str, bytes] = {}
    pictures: list[str] = []
    for member in shard:
        # else the list of a shard's members would grow for ever
        shard.members = []  # type: ignore[attr-defined]
        folder, _, base = member.name.rpartition("/")
        stem, _, ending = base.partition(".")
        if not member.isfile() or member.size < 0 or not stem or not ending:
            continue
        if f"{folder}/{stem}" != key:
            if texts or pictures:
                yield _sample(key, texts, pictures)
            key, texts, pictures = f"{folder}/{stem}", {}, []
        kind = ending.rpartition(".")[2].lower()
        if kind in _PICTURES and not member.issparse():
            pictures.append(f"{number}:{member.offset_data}:{member.size}")
        elif kind in ("json", "txt"):
            texts[kind] = _text(shard, member)
    if texts or pictures:
        yield _sample(key, texts, pictures)


def _text(shard: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > MAX_RECORD_TEXT:
        raise ValueError(
            f"{member.name!r} has {member.size} bytes, more than {MAX_RECORD_TEXT}: it is no chat"
        )
    file = shard.extractfile(member)
    assert file is not None
    return file.read()


def _sample(key: str, texts: dict[str, bytes], pictures: list[str]) -> RawChat:
    """The chat of a sample."""
    name = key.removeprefix("/")
    try:
        chat: Any = json.loads(texts["json"]) if "json" in texts else {}
        caption = texts["txt"].decode() if "txt" in texts else None
    except (ValueError, RecursionError):
        return RawChat({"id": name}, problem="its json or txt cannot be read")
    if not isinstance(chat, dict):
        return RawChat({"id": name}, problem="its json is no dictionary")
    caption = chat.get("caption") if caption is None else caption
    if not chat.keys() & {"conversations", "messages", "texts", "completion"} and caption is not None:
        question = "<image>" * len(pictures)
        turns = [{"from": "human", "value": question}, {"from": "gpt", "value": caption}]
        chat = {**chat, "conversations": turns}
    # the pictures lie beside the chat, whatever names it has for them
    named = {name: value for name, value in chat.items() if name not in ("image", "images")}
    return RawChat({"id": name, **named, "images": pictures}, is_named=False)
