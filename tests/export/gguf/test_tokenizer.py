"""Tokenizers in GGUF metadata, cut by llama.cpp."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from cobra.data.chat import Chat
from cobra.export.gguf.file import write_gguf
from cobra.export.gguf.target import NO_MODEL
from cobra.export.gguf.tokenizer import CannotExpress, check_tokens, tokenizer_metadata
from tests.export.gguf.exported import NO_LLAMA, TOKENIZER

pytestmark = [pytest.mark.export, pytest.mark.skipif(bool(NO_LLAMA), reason=NO_LLAMA)]


def written(path: Path, chat: Chat) -> Path:
    write_gguf(path, {**NO_MODEL, **tokenizer_metadata(chat, 512)}, {})
    return path


def test_llama_cpp_cuts_texts_as_the_tokenizer_does(tmp_path: Path) -> None:
    chat = Chat(TOKENIZER)
    texts = ["<|user|> Which shape is it?<|assistant|> a circle<|endoftext|>", "<|user|><image> a"]
    check_tokens(written(tmp_path / "t.gguf", chat), chat.tokenizer.backend_tokenizer, texts)


def test_a_text_that_is_cut_in_two_ways_is_named(tmp_path: Path) -> None:
    chat = Chat(TOKENIZER)
    other = Tokenizer.from_str(chat.tokenizer.backend_tokenizer.to_str())
    other.add_tokens(["circle"])
    with pytest.raises(CannotExpress, match="What is the colour of the circle"):
        check_tokens(written(tmp_path / "t.gguf", chat), other)
