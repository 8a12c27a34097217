"""llama.cpp's own tokens of a text, by the vocabulary in a GGUF file."""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from cobra.export.gguf.llama import bindings


@contextmanager
def vocabulary(path: Path) -> Iterator[Callable[[str], list[int]]]:
    """What cuts a text in which there are no special tokens.

    Raises:
        OSError: where the file has no vocabulary.
    """
    llama = bindings()
    options = llama.llama_model_default_params()
    options.vocab_only = True
    model = llama.llama_model_load_from_file(str(path).encode(), options)
    if not model:
        raise OSError(f"llama.cpp reads no vocabulary from {path}")
    try:
        yield partial(_cut, llama, llama.llama_model_get_vocab(model))
    finally:
        llama.llama_model_free(model)


def _cut(llama: Any, vocab: Any, text: str) -> list[int]:
    encoded = text.encode()
    ids = (ctypes.c_int32 * (len(encoded) + 8))()
    count = llama.llama_tokenize(vocab, encoded, len(encoded), ids, len(ids), False, False)
    return list(ids[:count])
