"""Chats without transformers: what was saved by one that has it is read to the same ids and texts."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cobra.data.chat import Chat
from cobra.data.plain_chat import PlainChat, Segment
from cobra.data.record import Message, Record, assistant, user
from cobra.data.turn_ids import rendered, rendered_question, token_ids
from tests.data.sentencepiece_model import write_model

# what looks like a special token, spaces at seams, characters of several bytes
SAID = [
    ("What is it?", "A red cat."),
    (" Is it  é 😀\n12? ", "No"),
    ("<|endoftext|> </s><s> <|end|>", "<|user|>"),
    ("USER: a", " US"),
]
_PICTURES = [3, 2]


def saved(kind: str, folder: Path) -> Chat:
    if kind == "shapes":
        chat = Chat("cobra:data/shapes/tokenizer")
    elif kind == "llama":
        said = write_model(folder / "llama", legacy=True, pad_token="<unk>")
        chat = Chat(str(said), "cobra:data/templates/vicuna_v1.jinja")
    else:
        tokens = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
        added = {
            str(420 + n): {"content": token, "rstrip": True, "special": True}
            for n, token in enumerate(tokens)
        }
        said = write_model(folder / "phi3", legacy=False, added_tokens_decoder=added)
        chat = Chat(str(said), "cobra:data/templates/imp_phi3.jinja")
    chat.save(folder)
    return chat


@pytest.mark.parametrize("kind", ["shapes", "llama", "phi3"])
def test_ids_and_texts_are_those_of_the_chat_that_was_saved(kind: str, tmp_path: Path) -> None:
    theirs = saved(kind, tmp_path)
    ours = PlainChat.read(tmp_path)
    assert (ours.eos_id, ours.pad_id, len(ours)) == (theirs.eos_id, theirs.pad_id, len(theirs))
    assert ours.unknown(600).tolist() == theirs.unknown_ids(600).tolist()
    for turns in range(1, len(SAID) + 1):
        whole = token_ids(ours, *of_whole(ours, turns))
        assert whole == token_ids(theirs, *of_whole(theirs, turns))
        assert token_ids(ours, *of_last(ours, turns)) == token_ids(theirs, *of_last(theirs, turns))
    ids = [token for token in whole[0] if token >= 0]
    assert ours.decode_part(ids) == theirs.decode_part(ids)


def chat_of(turns: int) -> list[Message]:
    return [m for n, (q, a) in enumerate(SAID[:turns]) for m in (user(q, 0 if n else 2), assistant(a))]


def of_whole(chat: PlainChat, turns: int) -> tuple[list[Segment], str, list[int]]:
    return rendered(chat, "r", chat_of(turns)), "r", _PICTURES


def of_last(chat: PlainChat, turns: int) -> tuple[list[Segment], str, list[int]]:
    asked = Record("r", chat_of(turns)[:-1], [np.zeros((1, 1, 3), np.uint8)] * 2)
    return rendered_question(chat, asked), "r", [] if turns > 1 else _PICTURES


@pytest.mark.parametrize(
    ("name", "spoiled", "message"),
    [
        ("tokenizer.json", None, r"tokenizer\.json is missing"),
        ("tokenizer.json", "{", "cannot be read .*restore its files"),
        ("tokenizer_config.json", "[]", "cannot be read .*restore its files"),
        ("tokenizer_config.json", json.dumps({"pad_token": "<|pad|>"}), "no end-of-text token"),
        ("chat_template.jinja", "{% for %}", r"cannot be read .*restore its chat_template\.jinja"),
        ("chat_template.jinja", "", "has no chat template"),
    ],
)
def test_a_damaged_file_is_told_of_in_a_line(
    name: str, spoiled: str | None, message: str, tmp_path: Path
) -> None:
    saved("shapes", tmp_path)
    (tmp_path / name).unlink()
    if spoiled is not None:
        (tmp_path / name).write_text(spoiled)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as raised:
        PlainChat.read(tmp_path)
    assert "\n" not in str(raised.value)


def test_neither_torch_nor_transformers_is_imported() -> None:
    code = "import sys, cobra.export.run, cobra.export.engines.gguf, cobra.models.vision.square as s\n"
    code += "assert s and not {'torch', 'transformers'} & sys.modules.keys(), 'imported'"
    subprocess.run([sys.executable, "-c", code], check=True)
