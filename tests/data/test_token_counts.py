"""Tokens of records, counted once and as the encoder of examples would have them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cobra.data.cache_folder import cache_folder
from cobra.data.chat import Chat
from cobra.data.measured import measured
from cobra.data.processor import Processor
from cobra.data.record import Record, assistant, user
from cobra.data.source import Source
from cobra.data.token_counts import TokenCounts
from cobra.models.projectors.base import TileTokens
from cobra.models.vision.fused import FusedTransform
from cobra.models.vision.transform import SquashTransform
from cobra.models.vlm import IGNORE_ID, IMAGE_ID
from tests.models.tiled import TileTransform

TOKENIZER = "cobra:data/shapes/tokenizer"
SQUARE = SquashTransform(8, (0.5,) * 3, (0.5,) * 3)


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COBRA_CACHE", str(tmp_path / "cache"))


class Chats(Source):
    """Chats of several lengths, about pictures that are there or not."""

    def __init__(self, folder: Path | None, size: int = 12) -> None:
        self.folder, self.size = folder, size
        self.read = 0

    def __len__(self) -> int:
        return self.size

    def identity(self) -> dict[str, int]:
        return {"records": self.size}

    def __getitem__(self, index: int) -> Record:
        self.read += 1
        if index == 5:
            raise ValueError("turns must alternate")
        pictures = index % 3
        path = self.folder / f"{index % 2}.png" if self.folder else Path("missing.png")
        words = ["red", "", "blue, I think"][index % 3]
        turns = [user("what? " * (index % 4 + 1), images=pictures), assistant(words)]
        return Record(str(index), turns, [path] * pictures)


def processor(transform: object = SQUARE, tokens: int = 4, **options: int) -> Processor:
    return Processor(Chat(TOKENIZER), transform, TileTokens(tokens), **options)  # type: ignore[arg-type]


def pictures(folder: Path) -> Path:
    for number in (0, 1):
        Image.new("RGB", (30 + 40 * number, 30)).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize(
    "transform",
    [SQUARE, FusedTransform([SQUARE, SQUARE]), TileTransform(SQUARE)],
    ids=["one", "fused", "tiles"],
)
def test_counts_are_those_of_the_encoded_examples(transform: object, tmp_path: Path) -> None:
    made = processor(transform)
    source = Chats(pictures(tmp_path))
    counts = TokenCounts.of(source, "chats", made)
    assert counts.problems == {5: "turns must alternate"}
    for index in (i for i in range(len(source)) if i != 5):
        example = made.encode(source[index])
        assert counts.tokens[index] == len(example.ids)
        labels = np.array([IGNORE_ID, *example.labels[1:]]) != IGNORE_ID
        assert counts.learned[index] == labels.sum()
        assert counts.answer[index] == (labels.argmax() if labels.any() else len(labels))
        images = np.flatnonzero(np.array(example.ids) == IMAGE_ID)
        assert counts.seen[index] == (images.max() + 1 if len(images) else 0)
        assert counts.pictures[index] == len(example.pictures)


def test_pictures_are_not_opened_where_their_tokens_are_known() -> None:
    assert list(TokenCounts.of(Chats(None), "chats", processor()).problems) == [5]
    # a picture of which tiles are cut has to be there
    told = TokenCounts.of(Chats(None), "chats", processor(TileTransform(SQUARE))).problems
    assert list(told) == [i for i in range(12) if i % 3 or i == 5]
    assert "missing.png" in told[1]


def test_records_of_the_same_text_and_pictures_are_known_as_such() -> None:
    content = np.delete(TokenCounts.of(Chats(None, 24), "chats", processor()).content, [5, 17])
    assert (content[:11] == content[11:]).all()
    assert len(set(content.tolist())) == 11


def test_tokens_are_counted_once_for_a_source_a_tokenizer_and_a_number_of_image_tokens() -> None:
    first, again = Chats(None), Chats(None)
    one = TokenCounts.of(first, "chats", processor())
    two = TokenCounts.of(again, "chats", processor(max_length=7))
    # but for that with a problem, which may have been mended
    assert (first.read, again.read) == (12, 1)
    assert one.digest() == two.digest()
    other = TokenCounts.of(again, "chats", processor(tokens=5))
    assert again.read == 13
    assert other.digest() != one.digest()
    # mapped, so that processes share it
    assert not two.tokens.flags.owndata
    assert not two.tokens.flags.writeable


@pytest.mark.parametrize("broken", [b"", b"ARROW1 and nothing else", None])
def test_a_broken_or_short_file_is_measured_again(broken: bytes | None) -> None:
    expected = TokenCounts.of(Chats(None), "chats", processor()).digest()
    (path,) = cache_folder("measured").iterdir()
    path.write_bytes(path.read_bytes()[:-200] if broken is None else broken)
    again = Chats(None)
    assert TokenCounts.of(again, "chats", processor()).digest() == expected
    assert again.read == 12
    assert [file.suffix for file in cache_folder("measured").iterdir()] == [".arrow"]


def test_records_that_could_not_be_read_are_counted_when_they_can_be(tmp_path: Path) -> None:
    made, source = processor(TileTransform(SQUARE)), Chats(tmp_path)
    assert len(TokenCounts.of(source, "chats", made).problems) == 8
    expected = TokenCounts.of(Chats(pictures(tmp_path), 13), "chats", made).tokens[:12]
    for _ in "now", "and kept":
        found = TokenCounts.of(source, "chats", made)
        assert list(found.problems) == [5]
        assert (found.tokens == expected).all()
    assert source.read == 12 + 8 + 1


def test_users_of_a_machine_share_what_was_counted() -> None:
    TokenCounts.of(Chats(None), "chats", processor())
    (path,) = cache_folder("measured").iterdir()
    assert path.stat().st_mode & 0o044 == 0o044


def _number(record: Record) -> dict[str, int]:
    return {"number": int(record.id)}


@pytest.mark.slow
def test_processes_measure_what_one_does() -> None:
    table = measured(Chats(None, 3000), _number, {"number": "int64"}, "many", "Counting")
    assert table.column("number").to_pylist() == [0 if i == 5 else i for i in range(3000)]
    assert table.column("problem").to_pylist() == [
        "turns must alternate" if i == 5 else "" for i in range(3000)
    ]
