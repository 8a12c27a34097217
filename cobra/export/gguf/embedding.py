"""Rows of a GGUF file's embedding, as llama.cpp reads tokens."""

import ctypes
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cobra.export.gguf.ggml import FileOptions, ggml

_NAME = b"token_embd.weight"
_FLOAT32 = 0


def embedding_rows(path: Path, ids: NDArray[np.integer], width: int) -> NDArray[np.float32]:
    """Embeddings (T, D) of token ids (T,); only those rows are read.

    Args:
        path: of the file.
        ids: rows.
        width: D.
    """
    lib = ggml()
    file = lib.gguf_init_from_file(str(path).encode(), FileOptions(True, None))
    try:
        number = lib.gguf_find_tensor(file, _NAME)
        kind = lib.gguf_get_tensor_type(file, number)
        start = lib.gguf_get_data_offset(file) + lib.gguf_get_tensor_offset(file, number)
    finally:
        lib.gguf_free(file)
    size, rows = lib.row_size(kind, width), np.empty((len(ids), width), np.float32)
    with path.open("rb") as opened:
        for row, index in zip(rows, ids.tolist(), strict=True):
            opened.seek(start + index * size)
            packed = opened.read(size)
            if kind == _FLOAT32:
                row[:] = np.frombuffer(packed, np.float32)
            else:
                to_float = lib.get_type_traits(kind).contents.to_float
                to_float(ctypes.c_char_p(packed), row.ctypes.data, width)
    return rows
