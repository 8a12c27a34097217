"""A tokenizer trained on text: it loses nothing, and a chat reads it."""

import json
import sys
from pathlib import Path

import pytest

from cobra.cli import main
from cobra.data.chat import Chat
from cobra.data.record import assistant, user
from cobra.data.text.documents import is_held_out
from cobra.data.text.tokenizer import make_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "plain.txt").write_text(Path(__file__).read_text())
    (folder / "table.jsonl").write_text(json.dumps({"text": "the lazy dog " * 9}) + "\n")
    make_tokenizer([folder / "plain.txt", folder / "table.jsonl"], 400, folder / "made", 0.0)
    return folder


@pytest.mark.parametrize(
    "text", ["def lazy(dog):\n    return 1\n", "Grüße, 世界! 🐍 \x00", "  \t", "<|user|>"]
)
def test_any_text_survives(text: str, folder: Path) -> None:
    chat = Chat(str(folder / "made"))
    ids = chat.encode_words(text)
    assert chat.tokenizer.decode(ids) == text
    assert all(5 <= token < 400 for token in ids)


def test_a_chat_reads_it(folder: Path) -> None:
    chat = Chat(str(folder / "made"))
    assert (len(chat), chat.eos_id, chat.pad_id) == (400, 0, 1)
    segments = chat.segments([m.as_dict() for m in (user("why?", images=1), assistant("lazy"))])
    assert [s.text for s in segments if s.is_learned] == [" lazy<|endoftext|>"]
    assert len(chat.encode(" lazy")) == 1


def test_the_tokenizer_never_sees_what_is_held_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"{letter * 4} " * 50 for letter in "abcdefghijklmnop"]
    (folder / "letters.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    words = [str(folder / "letters.jsonl"), "--vocab-size", "300", "--held-out", "0.5", "--out"]
    monkeypatch.setattr(sys, "argv", ["cobra", "data", "tokenizer", *words, str(folder / "half")])
    main()
    chat = Chat(str(folder / "half"))
    known = [len(chat.encode_words(text[:4])) < 4 for text in texts]
    assert known == [not is_held_out(text, 0.5) for text in texts]
    assert 0 < sum(known) < len(texts)
