"""Token ids of documents, made once and kept in a file that is mapped and not read."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console
from rich.progress import track
from tokenizers import Tokenizer

from cobra.config.text_file import read_text
from cobra.data.cache_folder import cache_folder
from cobra.data.chat import Chat
from cobra.data.text.documents import Documents, is_held_out
from cobra.weights.saving import hold, put, saving

# Part of the key under which a file is found again: raise it with any change to what is written.
_VERSION = 2
# characters that are tokenized at a time
_CHARACTERS = 2**20

# All documents, those that are trained on, or the others.
Part = Literal["all", "train", "held_out"]


@dataclass(frozen=True)
class TokenFile:
    """Documents laid end to end, an end of text behind each.

    Attributes:
        ids: (tokens,) uint16 or uint32, mapped.
        ends: (documents,) int64, where each ends, behind its end of text; mapped.
        bytes: of all texts in UTF-8.
        sha256: of the ids.
        folder: where they are kept.
    """

    ids: np.ndarray
    ends: np.ndarray
    bytes: int
    sha256: str
    folder: Path

    def __reduce__(self) -> tuple[Callable[[Path], "TokenFile"], tuple[Path]]:
        # another process maps the files itself: copied, they would be there once a worker
        return _read, (self.folder,)


def token_file(
    documents: Documents, chat: Chat, part: Part = "all", held_out: float = 0.0, cache: Path | None = None
) -> TokenFile:
    """The token ids of a part of some documents: from the cache, or made there while other processes wait.

    Args:
        documents: which.
        chat: whose tokenizer makes them. What looks like a special token in a text is none.
        part: `train` are those that are not among the `held_out`.
        held_out: share of the documents that are; see `is_held_out`.
        cache: folder; $COBRA_CACHE/text or ~/.cache/cobra/text when left out.
    """
    tokenizer = Tokenizer.from_str(chat.tokenizer.backend_tokenizer.to_str())
    end = chat.tokenizer.eos_token_id
    key = {
        "version": _VERSION,
        "documents": documents.key(),
        "part": [part, held_out if part != "all" else 0],
        "tokenizer": sha256(tokenizer.to_str().encode()).hexdigest(),
        "end": end,
    }
    cache = cache or cache_folder("text")
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    if not folder.is_dir():
        lock_file = folder.with_suffix(".lock")
        while (lock := hold(lock_file)) is None:
            time.sleep(0.2)
        with lock:
            # another process may have made it meanwhile
            if not folder.is_dir():
                kept = {"all": None, "train": False, "held_out": True}[part]
                chosen = (t for t in _shown(documents) if kept is None or is_held_out(t, held_out) is kept)
                with saving(cache) as new:
                    _write(chosen, tokenizer, end, new)
                    put(new, folder)
        lock_file.unlink(missing_ok=True)
    return _read(folder)


def _read(folder: Path) -> TokenFile:
    about = json.loads(read_text(folder / "about.json"))
    ids, ends = (_mapped(folder / name, dtype) for name, dtype in (("ids", about["dtype"]), ("ends", "<i8")))
    if about["tokens"] != len(ids) or about["tokens"] != (ends[-1] if len(ends) else 0):
        raise ValueError(f"{folder} does not hold the {about['tokens']} tokens that were written: remove it")
    return TokenFile(ids, ends, about["bytes"], about["sha256"], folder)


def _write(texts: Iterator[str], tokenizer: Tokenizer, end: int, folder: Path) -> None:
    tokenizer.no_truncation()
    tokenizer.no_padding()
    # a text about special tokens writes them, and means none
    tokenizer.encode_special_tokens = True
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values())
    dtype = "<u2" if largest < 2**16 else "<u4"
    size = total = 0
    digest = sha256()
    with (folder / "ids").open("wb") as ids, (folder / "ends").open("wb") as ends:
        for batch in _batches(text for text in texts if text):
            size += sum(len(text.encode()) for text in batch)
            for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False):
                row = np.array([*encoding.ids, end], dtype).tobytes()
                total += len(encoding) + 1
                ids.write(row)
                digest.update(row)
                ends.write(np.int64(total).astype("<i8").tobytes())
    about = {"dtype": dtype, "tokens": total, "bytes": size, "sha256": digest.hexdigest()}
    (folder / "about.json").write_text(json.dumps(about))


def _batches(texts: Iterator[str]) -> Iterator[list[str]]:
    """Texts together as long as is tokenized at a time; a longer one alone."""
    seen = 0

    def number(text: str) -> int:
        nonlocal seen
        seen += len(text)
        return (seen - 1) // _CHARACTERS

    for _, group in groupby(texts, number):
        yield list(group)


def _shown(documents: Documents) -> Iterator[str]:
    """The documents, with a progress bar."""
    yield from track(documents, "Tokenizing documents", len(documents), console=Console(stderr=True))


def _mapped(file: Path, dtype: str) -> np.ndarray:
    # an empty file cannot be mapped
    return np.memmap(file, dtype, "r") if file.stat().st_size else np.zeros(0, dtype)
