"""A few chats about pictures, written as each importer reads them."""

import base64
import csv
import io
import json
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from cobra.data.hub import HubDataset
from cobra.data.llava import LlavaCaptions, LlavaJson
from cobra.data.lrv import LrvInstruct
from cobra.data.parquet import ParquetChats
from cobra.data.source import Source
from cobra.data.text.documents import TextTable
from cobra.data.text.rows import TextRows
from cobra.data.tsv import BenchTSV
from cobra.data.webdataset import WebDataset

QUESTION, ANSWER = "what digit is written?", "seven"
SIZE = 6


def picture(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (40, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def write_pictures(root: Path) -> list[str]:
    """Their names from `root`."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    for number in range(SIZE):
        (root / f"images/{number}.jpg").write_bytes(picture(number))
    return [f"images/{number}.jpg" for number in range(SIZE)]


def write_llava(path: Path, root: Path, text_only: bool = True) -> None:
    """LLaVA's JSON and its pictures; the last chat has none where `text_only`."""
    turns = [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": ANSWER}]
    seen = [{"from": "human", "value": f"<image>\n{QUESTION}"}, turns[1]]
    chats = [{"id": name, "image": name, "conversations": seen} for name in write_pictures(root)]
    if text_only:
        chats[-1] = {"id": "text", "conversations": turns}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(chats))


def write_text(path: Path) -> None:
    """Documents, long enough for a row of a few thousand tokens."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"text": f"{number}: {QUESTION} {ANSWER} " * 100} for number in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _llava(folder: Path, kind: type[LlavaJson] = LlavaJson) -> Callable[[], Source]:
    write_llava(folder / "chat.json", folder, text_only=kind is LlavaJson)
    return partial(kind, folder / "chat.json", folder)


def _messages(folder: Path) -> Callable[[], Source]:
    rows = []
    for name in write_pictures(folder):
        parts = [{"type": "image", "path": name}, {"type": "text", "text": QUESTION}]
        turns = [{"role": "user", "content": parts}, {"role": "assistant", "content": ANSWER}]
        rows.append(json.dumps({"messages": turns}) + "\n")
    (folder / "messages.jsonl").write_text("".join(rows))
    return partial(LlavaJson, folder / "messages.jsonl", folder)


def _lrv(folder: Path) -> Callable[[], Source]:
    names = [Path(name).stem for name in write_pictures(folder)]
    rows = [{"image_id": name, "question": QUESTION, "answer": ANSWER} for name in names]
    (folder / "filter_cap1.json").write_text(json.dumps(rows))
    return partial(LrvInstruct, folder / "filter_cap1.json", folder / "images")


def _table() -> pa.Table:
    turns = [{"user": QUESTION, "assistant": ANSWER}]
    rows = [{"images": [{"bytes": picture(number), "path": None}], "texts": turns} for number in range(SIZE)]
    return pa.Table.from_pylist(rows)


def _parquet(folder: Path) -> Callable[[], Source]:
    pq.write_table(_table(), folder / "train-00000.parquet")
    return partial(ParquetChats, folder)


def _hub(folder: Path) -> Callable[[], Source]:
    (folder / "set").mkdir()
    pq.write_table(_table(), folder / "set/train-00000.parquet")
    return partial(HubDataset, str(folder / "set"))


def _shards(folder: Path) -> Callable[[], Source]:
    turns = [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": ANSWER}]
    with tarfile.open(folder / "shard-000.tar", "w:") as tar:
        for number in range(SIZE):
            chat = json.dumps({"conversations": turns}).encode()
            for name, data in ((f"{number}.jpg", picture(number)), (f"{number}.json", chat)):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return partial(WebDataset, folder)


def write_tsv(path: Path) -> None:
    """A benchmark of VLMEvalKit."""
    with path.open("w", newline="") as file:
        table = csv.writer(file, delimiter="\t")
        table.writerow(["index", "image", "question", "A", "B", "answer"])
        for number in range(SIZE):
            code = base64.b64encode(picture(number)).decode()
            table.writerow([number, code, QUESTION, "six", ANSWER, "B"])


def _tsv(folder: Path) -> Callable[[], Source]:
    write_tsv(folder / "bench.tsv")
    return partial(BenchTSV, folder / "bench.tsv")


def _text(folder: Path) -> Callable[[], Source]:
    write_text(folder / "text.jsonl")
    return partial(TextRows, partial(TextTable, str(folder / "text.jsonl")))


# what each writes into an empty folder, and the source that reads it
IMPORTERS: dict[str, Callable[[Path], Callable[..., Source]]] = {
    "captions": partial(_llava, kind=LlavaCaptions),
    "hub": _hub,
    "llava": _llava,
    "lrv": _lrv,
    "messages": _messages,
    "parquet": _parquet,
    "text": _text,
    "tsv": _tsv,
    "webdataset": _shards,
}


def on_disk(name: str, folder: Path) -> Callable[[], Source]:
    """A source of an importer's format, written below `folder`, that keeps its tables there."""
    (folder / name).mkdir(parents=True)
    made: Any = IMPORTERS[name](folder / name)
    return partial(made, cache_dir=str(folder / "cache"))
