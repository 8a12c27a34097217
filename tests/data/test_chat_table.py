"""Tables of chats: written once, whole or not at all, shared by processes, and never a copy in memory."""

import json
import mmap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cobra.data import chat_table, table_writer
from cobra.data.chat_table import ChatTable
from cobra.data.raw_chat import RawChat


class Numbers(ChatTable):
    """Chats about the numbers of a JSON file; what is no number is no chat."""

    reads = 0
    fails = 0

    def __init__(self, path: Path, cache: Path) -> None:
        self.file = path
        super().__init__("numbers", [path], cache)

    def raws(self) -> Iterator[RawChat]:
        Numbers.reads += 1
        for number in json.loads(self.file.read_text()):
            if number == self.fails:
                raise ConnectionError("unplugged")
            said = [{"role": "user", "content": f"n{number}"}, {"role": "assistant", "content": "a" * 500}]
            yield RawChat({"id": number, "messages": said} if isinstance(number, int) else None)

    def image(self, name: str, row: int) -> Path:
        return self.file


def write(folder: Path, numbers: list[Any]) -> Path:
    (folder / "numbers.json").write_text(json.dumps(numbers))
    return folder / "numbers.json"


def test_records_keep_their_order_and_bad_ones_come_after_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_writer, "_ROWS", 3)
    monkeypatch.setattr(chat_table, "_FORGET", 2)
    data = Numbers(write(tmp_path, ["x", *range(1, 9), None, 9]), tmp_path / "cache")
    assert [data[index].id for index in range(9)] == [str(n) for n in range(1, 10)]
    assert data.rows().tolist() == [*range(1, 9), 10]
    assert [(bad.id, bad.reason) for bad in data.bad_records()] == [
        ("0", "no conversations"),
        ("9", "no conversations"),
    ]
    for index in (-1, 9, 11):
        with pytest.raises(IndexError, match=f"no record {index} in numbers, which has 9"):
            data[index]


@pytest.mark.skipif(not hasattr(mmap, "MADV_DONTNEED"), reason="this system has no way to let go of pages")
def test_what_was_read_is_let_go_of(tmp_path: Path) -> None:
    data = Numbers(write(tmp_path, [*range(1, 8_000)]), tmp_path / "cache")

    def resident() -> int:
        for entry in Path("/proc/self/smaps").read_text().split("VmFlags"):
            if data.path.name in entry:
                return int(entry.partition("Rss:")[2].split()[0])
        raise AssertionError("the table is not mapped")

    if not Path("/proc/self/smaps").exists():
        pytest.skip("this system does not tell what is in memory")
    sizes = []
    for number in range(4 * chat_table._FORGET):
        data[number * 157 % len(data)]
        sizes += [] if data._taken % chat_table._FORGET else [resident()]
    assert len(sizes) >= 4
    assert max(sizes) < data.path.stat().st_size / 1024 / 4


def test_processes_that_start_together_convert_once(tmp_path: Path) -> None:
    path, reads = write(tmp_path, [*range(1, 500)]), Numbers.reads
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append(len(Numbers(path, tmp_path / "cache"))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [499] * 4
    assert Numbers.reads == reads + 1


def test_a_conversion_that_ends_early_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cache = write(tmp_path, [1, 2, 3]), tmp_path / "cache"
    with monkeypatch.context() as patch:
        patch.setattr(Numbers, "fails", 2)
        with pytest.raises(ConnectionError, match="unplugged"):
            Numbers(path, cache)
    with monkeypatch.context() as patch:
        patch.setattr(
            table_writer.TableWriter, "flush", lambda self: (_ for _ in ()).throw(OSError(28, "full"))
        )
        with pytest.raises(
            OSError, match=r"table of .*numbers\.json cannot be written .*full.*: set `cache_dir`"
        ):
            Numbers(path, cache)
    assert not list(cache.glob("*.arrow")) + list(cache.glob("*.partial"))
    with pytest.raises(OSError, match="set `cache_dir` to a folder with room"):
        Numbers(path, path)
    assert len(Numbers(path, cache)) == 3
    (table,) = cache.glob("*.arrow")
    table.write_bytes(table.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"the table .*\.arrow cannot be read .*: delete it"):
        Numbers(path, cache)
