"""Tar shards: samples by their names, pictures at their places."""

import io
import json
import pickle
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from cobra.data.captions import Captions
from cobra.data.image import load_rgb
from cobra.data.webdataset import WebDataset


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def shard(path: Path, members: dict[str, bytes], mode: str = "w:") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def chat(**more: object) -> bytes:
    turns = [{"from": "human", "value": "which?"}, {"from": "gpt", "value": "that"}]
    return json.dumps({"conversations": turns, **more}).encode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "set").mkdir()
    long = "a/" + "b" * 120
    first = {
        "a/0.0.png": png(1), "a/0.1.png": png(2), "a/0.json": chat(image="elsewhere.jpg"), "a/1.txt": b"x",
        "a/1.JPG": png(3), "README": b"none", f"{long}.jpg": png(4), f"{long}.json": b'{"caption": "y"}',
    }  # fmt: skip
    shard(tmp_path / "set/0.tar", first)
    second = {"2.jpg": png(5), "2.json": b"{", "3.json": b"[]", "4.json": chat(id="own"), "5.jpg": png(6)}
    shard(tmp_path / "set/1.tar", second)
    return tmp_path / "set"


def test_samples_are_chats_or_captions_and_pictures_are_read_at_their_places(folder: Path) -> None:
    data = WebDataset(folder, folder.parent / "cache")
    copy = pickle.loads(pickle.dumps(data))
    records = [copy[number] for number in (3, 2, 1, 0)][::-1]
    assert [record.id for record in records] == ["a/0", "a/1", "a/" + "b" * 120, "own"]
    assert [[load_rgb(image).getpixel((0, 0)) for image in record.images] for record in records] == [
        [(1, 0, 0), (2, 0, 0)], [(3, 0, 0)], [(4, 0, 0)], []
    ]  # fmt: skip
    assert [record.messages[-1].text for record in records] == ["that", "x", "y", "that"]
    assert data.dropped == {
        "its json or txt cannot be read": 1, "its json is no dictionary": 1, "no conversations": 1
    }  # fmt: skip
    assert Captions(lambda: data)[1].messages[0].content == [{"type": "image"}]


def test_compressed_or_broken_shards_are_refused(folder: Path) -> None:
    path = shard(folder / "z.tar", {"0.jpg": png(1), "0.txt": b"x"}, "w:gz")
    with pytest.raises(ValueError, match=r"z\.tar is no whole, uncompressed tar"):
        WebDataset(path, folder.parent / "cache")
    path = shard(folder / "y.tar", {"0.jpg": png(1), "0.txt": b"x"})
    data = WebDataset(path, folder.parent / "cache")
    path.write_bytes(path.read_bytes()[:530])
    with pytest.raises(ValueError, match=r"record '0' of y: .*y\.tar ends at byte 530: fetch it again"):
        data[0]


@pytest.mark.parametrize("size", [b"77777777777\0", b"\x80" + b"\x7f" * 11], ids=["8 GB", "2^87"])
def test_a_member_of_any_size_is_not_read(folder: Path, size: bytes) -> None:
    header = bytearray(tarfile.TarInfo("0.png").tobuf()[:512])
    header[124:136], header[148:156] = size, b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (folder / "x.tar").write_bytes(bytes(header) + bytes(10240))
    with pytest.raises(ValueError, match=r"x\.tar is no whole, uncompressed tar"):
        WebDataset(folder / "x.tar", folder.parent / "cache")


def test_a_text_of_any_size_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cobra.data.webdataset.MAX_RECORD_TEXT", 3)
    with pytest.raises(ValueError, match=r"0\.tar is .* \('a/0\.json' has \d+ bytes, more than 3"):
        WebDataset(folder, folder.parent / "cache")
