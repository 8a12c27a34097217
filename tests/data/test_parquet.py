"""Parquet with pictures inside: right rows, read about once, in bounded memory."""

import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cobra.data.parquet import ParquetChats

IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def rows(start: int, stop: int) -> list[dict[str, Any]]:
    """FineVision's, whose pictures are known by their bytes; every fifth is text alone."""
    return [
        {
            "images": [{"bytes": b"%d-%d" % (n, k) * 100, "path": None} for k in range(n % 5)],
            "texts": [{"user": f"what is {n}?", "assistant": str(n)}, {"user": "and?", "assistant": "so"}],
            "source": "set",
            "relevance_ratings": [5, n % 6],
            "formatting_ratings": [None, 5],
        }
        for n in range(start, stop)
    ]  # fmt: skip


def write(path: Path, found: list[dict[str, Any]], group: int = 7) -> None:
    turn = pa.struct({"user": pa.string(), "assistant": pa.string()})
    ratings = pa.list_(pa.int64())
    schema = pa.schema({"images": pa.list_(IMAGE), "texts": pa.list_(turn), "source": pa.string(),
                        "relevance_ratings": ratings, "formatting_ratings": ratings})  # fmt: skip
    pq.write_table(pa.Table.from_pylist(found, schema), path, row_group_size=group)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "set").mkdir()
    write(tmp_path / "set/train-00000.parquet", rows(0, 40))
    write(tmp_path / "set/train-00001.parquet", rows(40, 60), group=20)
    return tmp_path / "set"


def load(folder: Path, **options: Any) -> ParquetChats:
    return ParquetChats(folder, cache_dir=folder.parent / "cache", **options)


def check(data: ParquetChats, order: np.ndarray) -> None:
    for index in order.tolist():
        record = data[index]
        assert record.messages[0].text == f"what is {index}?"
        assert record.images == [b"%d-%d" % (index, k) * 100 for k in range(index % 5)]


def test_rows_become_chats_with_their_pictures_in_front(folder: Path) -> None:
    data = load(folder)
    assert (len(data), data.dropped, data.mended, data.source) == (60, {}, {}, "set")
    check(data, np.arange(60))
    record = data[42]
    assert record.id == "train-00001-2"
    assert [part["type"] for part in record.messages[0].content] == ["image", "image", "text"]
    assert len(load(folder / "*-00001.parquet")) == 20
    check(pickle.loads(pickle.dumps(data)), np.arange(59, 0, -1))


@pytest.mark.parametrize("piece", [1, 3000, 1 << 20])
def test_an_epoch_is_a_permutation_that_reads_every_run_about_once(
    folder: Path, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: Counter[int] = Counter()
    data = load(folder)
    data.pictures.pieces.clear()
    data.pictures.cache = piece * 8
    data.pictures.cut("images")
    keep = data.pictures._keep
    monkeypatch.setattr(
        data.pictures, "_keep", lambda number, batch: (taken.update([number]), keep(number, batch))
    )
    orders = [data.order(np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])
    assert sorted(orders[0]) == list(range(60))
    check(data, orders[0])
    assert (len(data.pictures.pieces) == 7) == (piece == 1 << 20)
    assert set(taken.values()) == {1}
    assert sum(batch.nbytes for batch in data.pictures._kept.values()) <= max(piece * 8, 1300)


def test_rows_are_mixed_with_those_of_other_groups_but_not_of_all(folder: Path) -> None:
    data = load(folder)
    data.pictures.pieces.clear()
    data.pictures.cache = 20_000
    data.pictures.cut("images")
    groups = data.order(np.random.default_rng(0)) // 7
    changes = int((groups[1:] != groups[:-1]).sum())
    assert 15 < changes < 55
    assert len(set(groups[:20].tolist())) < 9


def test_turns_that_are_rated_low_are_left_out_and_counted(folder: Path) -> None:
    data = load(folder, min_rating=3)
    assert data.mended == {"has turns rated below 3": 30}
    assert [len(data[n].messages) for n in range(6)] == [2, 2, 2, 4, 4, 4]


def test_messages_and_one_picture_a_row_are_read_as_well(tmp_path: Path) -> None:
    content = [{"type": "image", "text": None}, {"type": "text", "text": "what?"}]
    chat = [{"role": "user", "content": content}, {"role": "assistant", "content": [content[1]]}]
    picture = {"bytes": b"a", "path": "a.png"}
    pq.write_table(
        pa.Table.from_pylist([{"id": 7, "messages": chat, "image": picture}]), tmp_path / "a.parquet"
    )
    record = load(tmp_path / "a.parquet")[0]
    assert (record.id, record.images, record.messages[0].text) == ("7", [b"a"], "what?")
    pairs = {"q": "what?", "a": "this", "question": "why?", "answer": "so", "picture": picture}
    pq.write_table(pa.Table.from_pylist([pairs]), tmp_path / "b.parquet")
    data = load(tmp_path / "b.parquet", images="picture")
    assert [message.text for message in data[0].messages] == ["why?", "so"]
    assert data[0].images == [b"a"]


def test_pictures_are_those_of_the_column_whatever_the_chats_call_them(tmp_path: Path) -> None:
    def chat(image: object) -> list[dict[str, object]]:
        parts = [{"type": "image", "image": image}, {"type": "text", "text": "what?"}]
        return [{"role": "user", "content": parts}, {"role": "assistant", "content": parts[1:]}]

    found = [{"messages": chat(image)} for image in ("a.png", "b.png")]
    pq.write_table(pa.Table.from_pylist(found), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"none of the 2 records .* and pictures differ in number"):
        load(tmp_path / "a.parquet")
    found = [{"messages": chat(image), "images": [{"bytes": b"p"}]} for image in (b"\xff", None)]
    pq.write_table(pa.Table.from_pylist(found), tmp_path / "b.parquet")
    data = load(tmp_path / "b.parquet")
    assert [data[index].images for index in (0, 1)] == [[b"p"], [b"p"]]


def test_errors_name_the_file_and_the_row(folder: Path) -> None:
    found = rows(1, 9)
    found[5]["images"][0] = {"bytes": None, "path": None}
    write(folder / "z.parquet", found, group=4)
    (folder / "z").mkdir()
    with pytest.raises(
        ValueError, match=r"'z-5' of z: row 1 of row group 1 of .*z\.parquet: its picture 0 has neither"
    ):
        load(folder / "z.parquet")[5]
    with pytest.raises(ValueError, match=r"has no column 'words', but \['images', 'texts'"):
        load(folder, chats="words")
    with pytest.raises(FileNotFoundError, match=r"no \.parquet file in or of .*none"):
        load(folder / "none")
    pq.write_table(pa.table({"a": [1]}), folder / "z/a.parquet")
    with pytest.raises(
        ValueError, match=r"a\.parquet has no column of chats, but \['a'\]: name it with `chats`"
    ):
        load(folder / "z")
    with pytest.raises(ValueError, match=r"z/a\.parquet has columns \['a'\], not \['images'"):
        load(folder / "**/*.parquet")
    (folder / "z/a.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"a\.parquet is no parquet file that can be read"):
        load(folder / "z")


def test_a_damaged_row_group_is_told_when_it_is_read(folder: Path) -> None:
    path = folder / "train-00001.parquet"
    data = load(path)
    group = pq.ParquetFile(path).metadata.row_group(0).column(0)
    damaged = bytearray(path.read_bytes())
    damaged[group.data_page_offset : group.data_page_offset + 200] = b"\xff" * 200
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"record 'train-00001-1' of .* of row group 0 of .* cannot be read"):
        data[1]
