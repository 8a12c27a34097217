"""Tokenizers in GGUF metadata, cut by llama.cpp."""

import json
import random
from pathlib import Path

import pytest
from tokenizers import Tokenizer, normalizers

from cobra.data.chat import Chat
from cobra.export.gguf.file import write_gguf
from cobra.export.gguf.sentencepiece import CannotExpress
from cobra.export.gguf.target import NO_MODEL
from cobra.export.gguf.tokenizer import check_tokens, tokenizer_metadata
from tests.export.gguf.exported import NO_LLAMA, TOKENIZER, llama_chat, phi3_chat

pytestmark = [pytest.mark.export, pytest.mark.skipif(bool(NO_LLAMA), reason=NO_LLAMA)]


def written(path: Path, chat: Chat) -> Path:
    write_gguf(path, {**NO_MODEL, **tokenizer_metadata(chat, 512)}, {})
    return path


def drawn_texts(chat: Chat) -> list[str]:
    """Texts of the tokenizer's own words in any order, so that merges meet that are in no sentence."""
    chance = random.Random(0)
    pieces = [p.replace("▁", " ") for p in chat.tokenizer.get_vocab() if not p.startswith("<")]
    return ["".join(chance.choices(pieces, k=40)) for _ in range(50)]


def test_llama_cpp_cuts_texts_as_the_tokenizer_does(tmp_path: Path) -> None:
    chat = Chat(TOKENIZER)
    texts = ["<|user|> Which shape is it?<|assistant|> a circle<|endoftext|>", "<|user|><image> a"]
    assert check_tokens(written(tmp_path / "t.gguf", chat), chat.encode, texts) == []
    never = tokenizer_metadata(chat, 512)["tokenizer.ggml.suppress_tokens"]
    assert never == chat.unknown_ids(512).tolist()


def test_a_text_that_is_cut_in_two_ways_is_named(tmp_path: Path) -> None:
    chat = Chat(TOKENIZER)
    other = Tokenizer.from_str(chat.tokenizer.backend_tokenizer.to_str())
    other.add_tokens(["circle"])
    with pytest.raises(CannotExpress, match="What is the colour of the circle"):
        check_tokens(written(tmp_path / "t.gguf", chat), lambda text: other.encode(text).ids)


@pytest.mark.parametrize("legacy", [None, True, False])
def test_llama_cpp_cuts_texts_as_sentencepiece_does(legacy: bool | None, tmp_path: Path) -> None:
    chat = llama_chat(tmp_path / "llama", legacy=legacy)
    path = written(tmp_path / "t.gguf", chat)
    assert check_tokens(path, chat.encode, drawn_texts(chat)) == []
    # llama.cpp is legacy: a space stands behind every special token; first ones have it in any case
    assert check_tokens(path, chat.encode, ["<s>", "</s>"]) == ([] if legacy is not False else ["</s>"])


def test_phi_3_s_tokens_swallow_spaces_in_llama_cpp_too(tmp_path: Path) -> None:
    chat = phi3_chat(tmp_path / "phi3")
    words = "<s><|user|>\nWhat is it?<|end|>\n<|assistant|>\n A red cat.<|end|>"
    texts = [words, "<|end|>  a", *chat.tokenizer.all_special_tokens]
    assert check_tokens(written(tmp_path / "t.gguf", chat), chat.encode, texts) == []


def test_spaces_that_llama_cpp_does_not_put_are_refused(tmp_path: Path) -> None:
    chat = llama_chat(tmp_path / "llama")
    backend = chat.tokenizer.backend_tokenizer
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace(" ", "▁")])
    with pytest.raises(CannotExpress, match="no way like its own to put spaces"):
        tokenizer_metadata(chat, 512)
    said = json.loads(llama_chat(tmp_path / "bytes").tokenizer.backend_tokenizer.to_str())
    del said["model"]["vocab"]["<0x41>"]
    chat.tokenizer._tokenizer = Tokenizer.from_str(json.dumps(said))
    with pytest.raises(CannotExpress, match="no token for the byte <0x41>"):
        tokenizer_metadata(chat, 512)
