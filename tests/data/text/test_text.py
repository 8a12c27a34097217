"""Text as rows of tokens: nothing lost, nothing on two sides, nothing seen over a border that resets."""

import gzip
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from cobra.data.chat import Chat
from cobra.data.processor import Processor
from cobra.data.text.documents import Documents, TextFiles, TextTable, is_held_out
from cobra.data.text.rows import TextRows
from cobra.data.text.tokens import Part
from cobra.models.vlm import CobraVLM
from tests.models.builders import LMS, PROJECTORS, small_vit

TOKENIZER = "cobra:data/shapes/tokenizer"
WORDS = ["is", "there", "a", "red", "circle", "?", "<|endoftext|>", "Grüße", "🐍\n\n"]


class Texts(Documents):
    """Random texts, or given ones."""

    def __init__(self, *texts: str, count: int = 30) -> None:
        rng = np.random.default_rng(0)
        self.texts = texts or [" ".join(rng.choice(WORDS, rng.integers(0, 40))) for _ in range(count)]

    def __len__(self) -> int:
        return len(self.texts)

    def __iter__(self) -> Iterator[str]:
        yield from self.texts

    def key(self) -> dict[str, Any]:
        return {"texts": list(self.texts)}


@pytest.fixture(scope="module")
def chat() -> Chat:
    return Chat(TOKENIZER)


def rows(documents: Documents, chat: Chat, cache: Path, length: int = 16, **options: Any) -> TextRows:
    source = TextRows(lambda: documents, cache_dir=str(cache), **options)
    source.prepare(chat, length)
    return source


def joined(source: TextRows) -> list[int]:
    return np.concatenate([source[index].tokens for index in range(len(source))]).tolist()


def test_rows_end_to_end_are_the_documents_end_to_end(chat: Chat, tmp_path: Path) -> None:
    documents = Texts()
    source = rows(documents, chat, tmp_path)
    # what a text says of special tokens are words
    expected = [token for text in documents if text for token in [*chat.encode_words(text), 0]]
    assert expected.count(0) == len([text for text in documents if text])
    assert joined(source) == expected[: len(expected) // 16 * 16]
    resetting = rows(documents, chat, tmp_path, reset=True)
    for index in range(len(source)):
        ids, borders = resetting[index].tokens, resetting[index].borders
        assert ids is not None
        assert borders is not None
        assert borders.tolist() == [at for at in range(1, 16) if ids[at - 1] == 0]
    size = sum(len(text.encode()) for text in documents)
    assert source.bytes_per_token == pytest.approx(size / len(expected))


def test_every_document_is_on_one_side_with_its_copies_whatever_others_there_are(
    chat: Chat, tmp_path: Path
) -> None:
    texts = [f"is there a red circle {number}?" for number in range(400)]
    documents, parts = Texts(*texts, *texts[:50]), get_args(Part)[1:]
    sides = [rows(documents, chat, tmp_path, 4, part=part, held_out=0.25) for part in parts]
    train, held_out = ({chat.decode(part.tolist()) for part in pieces(side)} for side in sides)
    assert not train & held_out
    assert train | held_out == set(texts)
    assert 60 < len(held_out) < 140
    fewer = rows(Texts(*texts[:200]), chat, tmp_path, 4, part="held_out", held_out=0.25)
    assert {chat.decode(part.tolist()) for part in pieces(fewer)} == held_out & set(texts[:200])


def pieces(source: TextRows) -> list[np.ndarray]:
    assert source.tokens is not None
    return [piece[:-1] for piece in np.split(np.asarray(source.tokens.ids), source.tokens.ends)[:-1]]


def test_documents_are_tokenized_once(chat: Chat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = rows(Texts(), chat, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Texts, "__iter__", lambda self: pytest.fail("read again"))
        again = rows(Texts(), chat, tmp_path)
    assert (joined(again), again.identity()) == (joined(first), first.identity())
    assert isinstance(again.tokens and again.tokens.ids, np.memmap)
    other = rows(Texts(count=31), chat, tmp_path)
    assert other.identity() != first.identity()
    # as many rows, and longer ones: what was counted of one is not so of the other
    tokens = len(joined(first))
    one, two = (rows(Texts(), chat, tmp_path, tokens // 2 - more) for more in (0, 1))
    assert len(one) == len(two)
    assert one.identity() != two.identity()
    for ids in tmp_path.glob("*/ids"):
        ids.write_bytes(ids.read_bytes()[:-2])
    with pytest.raises(ValueError, match=r"does not hold the \d+ tokens that were written: remove it"):
        rows(Texts(), chat, tmp_path)


@pytest.mark.parametrize("name", ["mamba2", "hybrid", "llama", "mobile_llm"])
def test_documents_that_reset_lose_what_each_loses_alone(name: str, chat: Chat, tmp_path: Path) -> None:
    texts = ["is there a red circle?", "the blue square", "is left of it", "a"]
    source = rows(Texts(*texts), chat, tmp_path, 20, reset=True)
    torch.manual_seed(0)
    model = CobraVLM(small_vit, PROJECTORS["linear"], LMS[name]).eval()
    processor = Processor.of(model, chat, 20)
    batch = processor.collate([processor.encode(source[index]) for index in range(len(source))])
    assert batch.places is not None
    assert batch.seq_idx is not None
    hidden = model(batch.ids, None, batch.seq_idx)
    packed = model.loss(hidden, batch.labels, batch.places) * len(batch.places)
    alone, count = torch.zeros(()), 0
    for row in torch.split(batch.ids[0], torch.bincount(batch.seq_idx[0]).tolist()):
        logits = model.lm.head(model(row[None]))[0, :-1]
        alone = alone + torch.nn.functional.cross_entropy(logits, row[1:], reduction="sum")
        count += len(row) - 1
    assert (len(batch.places), batch.seq_idx.max()) == (count, 2)
    torch.testing.assert_close(packed, alone, rtol=1e-5, atol=1e-5)
    joint = model.loss(model(batch.ids), batch.labels, batch.places) * len(batch.places)
    assert abs(joint - alone) > 1e-3


def test_a_row_that_goes_on_over_documents_learns_every_token_but_its_first(
    chat: Chat, tmp_path: Path
) -> None:
    source = rows(Texts(), chat, tmp_path)
    processor = Processor.of(CobraVLM(small_vit, PROJECTORS["linear"], LMS["mamba2"]), chat, 16)
    batch = processor.collate([processor.encode(source[index]) for index in (0, 1)])
    assert batch.seq_idx is None
    assert batch.places is not None
    assert torch.equal(batch.labels[:, 1:], batch.ids[:, 1:])
    assert len(batch.places) == 2 * 15


def test_a_worker_process_gets_the_names_of_files_and_not_the_tokens(chat: Chat, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("so it goes, " * 5000)
    source = rows(TextFiles(str(tmp_path), ["a.txt"]), chat, tmp_path / "cache")
    expected = joined(source)
    sent = pickle.dumps(source.tokens)
    assert len(sent) < 2000 < len(expected)
    source.tokens = pickle.loads(sent)
    assert joined(source) == expected


def test_files_and_tables_give_the_same_texts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    texts = ["one\r\n two", "", "three 🐍", "four"]
    names = ["a.txt", "b.txt", "c/d.txt.gz", "c/e.md"]
    (tmp_path / "c").mkdir()
    for name, text in zip(names, texts, strict=True):
        data = text.encode()
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    (tmp_path / "f.txt").write_bytes(b"\xff\xfe\xff")
    assert list(TextFiles(str(tmp_path), ["**/*.txt", "**/*.gz", "**/*.md"])) == texts
    assert "left out 1 files that are no UTF-8" in caplog.text
    table = tmp_path / "t.jsonl"
    table.write_text("".join(json.dumps({"n": 1, "said": text or None}) + "\n" for text in texts))
    read = TextTable(str(tmp_path / "*.jsonl"), column="said")
    assert list(read) == texts
    read.table.to_parquet(tmp_path / "t.parquet")
    assert list(TextTable(str(tmp_path / "t.parquet"), column="said")) == texts
    with pytest.raises(ValueError, match="has no column 'text': name one of n, said"):
        TextTable(str(table))


def test_what_cannot_be_a_source_of_text_is_told(chat: Chat, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="check `path`"):
        TextTable(str(tmp_path / "*.jsonl"))
    with pytest.raises(FileNotFoundError, match="check `folder`"):
        TextFiles(str(tmp_path / "none"), ["*"])
    with pytest.raises(ValueError, match=r"held_out 0\.0 must be a share"):
        TextRows(Texts, part="train")
    with pytest.raises(ValueError, match="before `prepare`"):
        len(TextRows(Texts))
    with pytest.raises(ValueError, match=r"have 2 tokens, fewer than data\.max_length 16"):
        rows(Texts("a"), chat, tmp_path)


def test_the_share_that_is_held_out_is_a_share() -> None:
    held_out = [sum(is_held_out(str(number), share) for number in range(2000)) for share in (0.0, 0.1, 1.0)]
    assert held_out == [0, pytest.approx(200, abs=50), 2000]
