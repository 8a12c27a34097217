"""A tokenizer in a GGUF file's metadata, and whether llama.cpp cuts texts as it does."""

import ctypes
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from cobra.data.chat import Chat
from cobra.export.gguf.file import Value
from cobra.export.gguf.llama import bindings
from cobra.export.gguf.sentencepiece import (
    CONTROL,
    NORMAL,
    UNUSED,
    USER_DEFINED,
    CannotExpress,
    is_sentencepiece,
    sentencepiece_metadata,
)
from cobra.export.gguf.stock_template import stock_template

# llama.cpp's names of ways to cut a text into words, by the pattern in tokenizer.json; "" is GPT-2's own
_SUFFIXES = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CUTS = {"": "gpt-2", f"{_SUFFIXES}{_REST}": "qwen2", f"{_SUFFIXES}{{1,3}}{_REST}": "llama-bpe"}
# what tokenizers differ in: spaces, cases, digits, marks, scripts, bytes
_PROBES = (
    "What is the colour of the circle left of the square?", " one  two   three    four", "a\n\nb\r\n\tc \n ",
    "I'm sure they'll say it's we've I'D DON'T", "3.14159, 1,000,000 and 2026-11-30; x=12345678",
    "def f(x):\n    return x**2 # ok?!...", "naïve café — “quoted” … €100", "русский текст, ελληνικά",
    "日本語の文章と中文。", "한국어 문장", "🙂👩‍👩‍👧 emoji", "https://example.org/a_b?c=d&e=%20f", "", " ",
    "\n", "A", "UPPER lower MiXeD under_score-hyphen", "तीन शब्द यहाँ", "tab\tseparated", "'s 't ''re''",
)  # fmt: skip


def tokenizer_metadata(chat: Chat, vocab_size: int) -> dict[str, Value]:
    """Tokens, merges, special tokens and chat template, padded to `vocab_size` tokens.

    Raises:
        CannotExpress: where llama.cpp has no such tokenizer, saying why.
    """
    said = json.loads(chat.tokenizer.backend_tokenizer.to_str())
    model = said["model"]
    if model["type"] != "BPE":
        raise CannotExpress(f"it is {model['type']}, not BPE")
    texts = [f"[UNUSED{number}]" for number in range(vocab_size)]
    types = [UNUSED] * vocab_size
    for text, number in model["vocab"].items():
        texts[number], types[number] = text, NORMAL
    for token in said["added_tokens"]:
        texts[token["id"]] = token["content"]
        types[token["id"]] = CONTROL if token["special"] else USER_DEFINED
    own = sentencepiece_metadata(said, types) if is_sentencepiece(said) else _byte_level(said)
    metadata: dict[str, Value] = {
        **own,
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.eos_token_id": chat.eos_id,
        "tokenizer.ggml.padding_token_id": chat.pad_id,
        # templates write what a text begins with
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.chat_template": stock_template(chat.tokenizer.chat_template),
    }
    # rows that fill the vocabulary up are never said
    if unknown := [number for number, kind in enumerate(types) if kind == UNUSED]:
        metadata["tokenizer.ggml.suppress_tokens"] = unknown
    if (bos := chat.tokenizer.bos_token_id) is not None:
        metadata["tokenizer.ggml.bos_token_id"] = bos
    return metadata


def _byte_level(said: dict[str, Any]) -> dict[str, Value]:
    merges = [m if isinstance(m, str) else " ".join(m) for m in said["model"]["merges"]]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": _cut(said),
        # a list of nothing has no type: a merge that never applies
        "tokenizer.ggml.merges": merges or ["\u0000 \u0000"],
    }


def without_tokenizer() -> dict[str, Value]:
    """The metadata of a file whose tokens have no texts."""
    return {"tokenizer.ggml.model": "none"}


def _cut(said: dict[str, Any]) -> str:
    """llama.cpp's name of how a text is cut into words.

    Raises:
        CannotExpress: where it has no such way.
    """
    steps = said["pre_tokenizer"] or {}
    steps = steps.get("pretokenizers", [steps])
    *before, last = steps
    patterns = [step["pattern"].get("Regex") for step in before if step.get("type") == "Split"]
    normal = (said["normalizer"] or {}).get("type", "NFC")
    is_known = last.get("type") == "ByteLevel" and len(patterns) == len(before) <= 1 and normal == "NFC"
    pattern = patterns[0] if patterns else ""
    if (
        not is_known
        or last.get("add_prefix_space")
        or pattern not in _CUTS
        or (last.get("use_regex", True) != (not patterns))
    ):
        raise CannotExpress("llama.cpp knows no way like its own to cut a text into words")
    return _CUTS[pattern]


def check_tokens(path: Path, encode: Callable[[str], list[int]], special: Sequence[str] = ()) -> list[str]:
    """Compare how llama.cpp and a tokenizer cut texts, by the metadata of a file.

    Args:
        path: a GGUF file.
        encode: the tokenizer that was written into it.
        special: texts besides those that tokenizers are known to differ in; special tokens in them are such.

    Returns:
        Those of the special texts after which llama.cpp cuts what follows otherwise, e.g. puts a space.

    Raises:
        CannotExpress: naming the first text that they cut in two ways.
    """
    with _vocabulary(path) as cut:
        for text in (*_PROBES, *special):
            if (ours := encode(text)) != (theirs := cut(text)):
                raise CannotExpress(f"llama.cpp cuts {text!r} into {theirs}, not {ours}")
        return [text for text in special if encode(f"{text}A") != cut(f"{text}A")]


@contextmanager
def _vocabulary(path: Path) -> Iterator[Callable[[str], list[int]]]:
    """What cuts texts by a file's metadata."""
    llama = bindings()
    options = llama.llama_model_default_params()
    options.vocab_only = True
    model = llama.llama_model_load_from_file(str(path).encode(), options)
    if not model:
        raise CannotExpress("llama.cpp cannot read it")
    try:
        yield partial(_cut_by, llama, llama.llama_model_get_vocab(model))
    finally:
        llama.llama_model_free(model)


def _cut_by(llama: Any, vocabulary: Any, text: str) -> list[int]:
    encoded = text.encode()
    ids = (ctypes.c_int32 * (len(encoded) + 8))()
    count = llama.llama_tokenize(vocabulary, encoded, len(encoded), ids, len(ids), False, True)
    return list(ids[:count])
