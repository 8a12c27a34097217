"""llama.cpp's contexts: sequences that weights have read, and what they read next."""

import ctypes
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cobra.export.engine import Floats, Ids
from cobra.export.gguf.device import Device
from cobra.export.gguf.llama import bindings

# tokens that are read at a time
_PIECE = 256


def open_weights(path: Path, device: Device | None = None) -> Any:
    """llama.cpp's model of a file, mapped into memory, or in that of a device that runs all of its layers.

    Raises:
        OSError: where it cannot be read.
    """
    llama = bindings()
    options = llama.llama_model_default_params()
    # else matrices are in memory twice: as they are in the file, and laid out anew for products
    options.use_extra_bufts = False
    # a list that a null ends; left out, llama.cpp would take any device that it finds
    devices = (ctypes.c_void_p * 2)(device.pointer if device else None)
    options.devices = ctypes.cast(devices, ctypes.c_void_p)
    opened = llama.llama_model_load_from_file(str(path).encode(), options)
    if not opened:
        raise OSError(f"llama.cpp cannot open {path}: export the model again")
    return opened


class Context:
    """Some sequences of a model.

    Args:
        weights: from `open_weights`; freed after this.
        length: tokens that transformers have room for, in all sequences together.
        rows: sequences.
        threads: of a product.
        exact: keep a transformer's keys and values in fp32 instead of fp16.
        seen: called with the address of every tensor that is to be computed and True, and, where it then says
            True, with the same and False when it is; see `ggml_backend_sched_eval_callback`.
        more: settings of llama.cpp besides, by its names.

    Attributes:
        vocab_size: logits V.
        d_model: width D of embeddings.
        recurrent: whether its state has one size, however much is read.
    """

    def __init__(
        self,
        weights: Any,
        length: int,
        rows: int,
        threads: int,
        exact: bool,
        seen: Callable[[int, bool, int], bool] | None = None,
        **more: Any,
    ) -> None:
        self._llama, self._length = (llama := bindings()), length
        settings = llama.llama_context_default_params()
        settings.n_ctx, settings.n_seq_max, settings.n_batch, settings.n_ubatch = length, rows, _PIECE, _PIECE
        settings.n_outputs_max = rows
        settings.n_threads = settings.n_threads_batch = threads
        # on CPUs the slower way for long contexts
        settings.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
        if exact:
            settings.type_k = settings.type_v = llama.GGML_TYPE_F32
        if seen is not None:
            settings.cb_eval = self._seen = llama.ggml_backend_sched_eval_callback(seen)
        for name, value in more.items():
            setattr(settings, name, value)
        self._context = llama.llama_init_from_model(weights, settings)
        if not self._context:
            raise OSError(f"llama.cpp has no memory for {length} tokens: take fewer")
        self._memory = llama.llama_get_memory(self._context)
        self.recurrent = bool(llama.llama_model_is_recurrent(weights))
        self.vocab_size = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(weights))
        self.d_model = llama.llama_model_n_embd(weights)

    def reset(self) -> None:
        """Forget all sequences."""
        self._llama.llama_memory_clear(self._memory, True)

    def read(self, tokens: Ids | Floats) -> Floats:
        """More of the first sequence, ids (T,) or embeddings (T, D), to the logits (V,) behind the last."""
        if not len(tokens):
            raise ValueError("there are no tokens to read")
        for piece in self._pieces(tokens):
            self._decode(piece)
        return self._logits(-1)

    def read_rows(self, texts: Sequence[Ids]) -> Floats:
        """More of each sequence, in one batch, to the logits (rows, V) behind each."""
        lengths = [len(text) for text in texts]
        if not min(lengths) or sum(lengths) > _PIECE:
            raise ValueError(f"texts of {lengths} tokens are empty or more than {_PIECE} together")
        ids = self._checked(np.concatenate(texts))
        row = np.repeat(np.arange(len(texts), dtype=np.int32), lengths)
        read = [self._llama.llama_memory_seq_pos_max(self._memory, r) + 1 for r in range(len(texts))]
        positions = np.concatenate(
            [np.arange(n, dtype=np.int32) + r for n, r in zip(lengths, read, strict=True)]
        )
        ends, is_last = np.cumsum(lengths) - 1, np.zeros(len(ids), np.int8)
        is_last[ends] = 1
        ones, places = np.ones(len(ids), np.int32), (ctypes.POINTER(ctypes.c_int32) * len(ids))()
        for number in range(len(ids)):
            places[number] = row[number:].ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        batch = self._llama.llama_batch(n_tokens=len(ids), seq_id=places)
        arrays: dict[str, NDArray[Any]] = {
            "token": ids,
            "pos": positions.astype(np.int32),
            "n_seq_id": ones,
            "logits": is_last,
        }
        for name, array in arrays.items():
            setattr(batch, name, array.ctypes.data_as(type(getattr(batch, name))))
        self._decode(batch)
        return np.stack([self._logits(int(end)) for end in ends])

    def snapshot(self) -> NDArray[np.uint8]:
        """The state of the first sequence; empty where nothing was read."""
        if self._llama.llama_memory_seq_pos_max(self._memory, 0) < 0:
            return np.empty(0, np.uint8)
        saved = np.empty(self._llama.llama_state_seq_get_size(self._context, 0), np.uint8)
        size = self._llama.llama_state_seq_get_data(self._context, _bytes(saved), len(saved), 0)
        return saved[:size]

    def restore(self, snapshot: NDArray[np.uint8]) -> None:
        """Go on from a snapshot of the first sequence.

        Raises:
            ValueError: where it is of another model, or does not fit.
        """
        self.reset()
        taken = not len(snapshot) or self._llama.llama_state_seq_set_data(
            self._context, _bytes(snapshot), len(snapshot), 0
        )
        if not taken:
            raise ValueError("llama.cpp does not take this state: it is another model's, or too long")

    def repeat(self, length: int) -> None:
        """As if what the first sequence has read had been read again and again, up to `length` tokens.

        Steps then cost what they cost after so long a text. Keys and values are copied to cells of their own,
        and turned to their positions when the next token is read; a recurrent state is left as it is. The
        context needs two rows and `kv_unified`.
        """
        llama, memory = self._llama, self._memory
        if self.recurrent:
            return
        piece, read = self.snapshot(), llama.llama_memory_seq_pos_max(memory, 0) + 1
        for start in range(read, length, read):
            if not llama.llama_state_seq_set_data(self._context, _bytes(piece), len(piece), 1):
                raise ValueError(f"llama.cpp has no room for {length} tokens: open it with a longer context")
            llama.llama_memory_seq_add(memory, 1, 0, -1, start)
            llama.llama_memory_seq_cp(memory, 1, 0, -1, -1)
            llama.llama_memory_seq_rm(memory, 1, -1, -1)
        self.rewind(length)

    def rewind(self, length: int) -> None:
        """Forget what the first sequence read behind `length` tokens; a recurrent state forgets nothing."""
        if not self.recurrent:
            self._llama.llama_memory_seq_rm(self._memory, 0, length, -1)

    def close(self) -> None:
        """Free it."""
        if self._context:
            self._llama.llama_free(self._context)
            self._context = None

    def _decode(self, batch: Any) -> None:
        if failed := self._llama.llama_decode(self._context, batch):
            raise ValueError(
                f"llama.cpp could not read {batch.n_tokens} tokens (status {failed}): a transformer's "
                f"context of {self._length} tokens is full, start anew or with less text"
            )

    def _logits(self, place: int) -> Floats:
        found = self._llama.llama_get_logits_ith(self._context, place)
        return np.ctypeslib.as_array(found, (self.vocab_size,)).copy()

    def _pieces(self, tokens: Ids | Floats) -> Iterator[Any]:
        """Batches whose positions and outputs llama.cpp counts by itself: of the last token alone."""
        is_ids = tokens.ndim == 1
        values = self._checked(tokens) if is_ids else np.ascontiguousarray(tokens, np.float32)
        if not is_ids and values.shape[1] != self.d_model:
            raise ValueError(f"embeddings of width {values.shape[1]} are not of d_model {self.d_model}")
        for start in range(0, len(values), _PIECE):
            piece = values[start : start + _PIECE]
            batch = self._llama.llama_batch(n_tokens=len(piece))
            name = "token" if is_ids else "embd"
            setattr(batch, name, piece.ctypes.data_as(type(getattr(batch, name))))
            yield batch

    def _checked(self, ids: NDArray[Any]) -> NDArray[np.int32]:
        if ids.min() < 0 or ids.max() >= self.vocab_size:
            raise ValueError(f"token ids from {ids.min()} to {ids.max()} are not below {self.vocab_size}")
        return np.ascontiguousarray(ids, np.int32)


def _bytes(array: NDArray[np.uint8]) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
