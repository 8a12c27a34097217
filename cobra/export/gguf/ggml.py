"""ggml's C functions that read and pack rows of a GGUF file, by their names, from libraries of llama.cpp."""

import ctypes
from collections.abc import Mapping
from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    c_bool,
    c_char_p,
    c_int,
    c_int64,
    c_size_t,
    c_void_p,
)
from functools import cache
from pathlib import Path
from types import SimpleNamespace

from cobra.export.gguf.llama import bindings


class FileOptions(Structure):
    """`gguf_init_params`."""

    _fields_ = (("no_alloc", c_bool), ("context", POINTER(c_void_p)))


class TypeTraits(Structure):
    """`ggml_type_traits`, up to what makes fp32 of a row."""

    _fields_ = (
        ("type_name", c_char_p),
        ("block_size", c_int64),
        ("block_size_interleave", c_int64),
        ("type_size", c_size_t),
        ("is_quantized", c_bool),
        ("to_float", CFUNCTYPE(None, c_void_p, c_void_p, c_int64)),
    )


_FUNCTIONS: dict[str, tuple[object, ...]] = {
    "gguf_init_from_file": (c_void_p, c_char_p, FileOptions),
    "gguf_free": (None, c_void_p),
    "gguf_find_tensor": (c_int64, c_void_p, c_char_p),
    "gguf_get_data_offset": (c_size_t, c_void_p),
    "gguf_get_tensor_offset": (c_size_t, c_void_p, c_int64),
    "gguf_get_tensor_type": (c_int, c_void_p, c_int64),
    "gguf_get_n_tensors": (c_int64, c_void_p),
    "gguf_get_tensor_name": (c_char_p, c_void_p, c_int64),
    "gguf_get_tensor_size": (c_size_t, c_void_p, c_int64),
    "gguf_get_tensor_ne": (POINTER(c_int64), c_void_p, c_int64),
    "ggml_quantize_chunk": (c_size_t, c_int, c_void_p, c_void_p, c_int64, c_int64, c_int64, c_void_p),
    "ggml_row_size": (c_size_t, c_int, c_int64),
    "ggml_get_type_traits": (POINTER(TypeTraits), c_int),
    "ggml_get_name": (c_char_p, c_void_p),
    "ggml_nelements": (c_int64, c_void_p),
    "ggml_backend_tensor_get": (None, c_void_p, c_void_p, c_size_t, c_size_t),
}


@cache
def ggml() -> SimpleNamespace:
    """The functions, without `ggml_` before their names.

    Raises:
        LackingError: where llama.cpp is not here.
    """
    return functions({"libggml-base": _FUNCTIONS})


def functions(tables: Mapping[str, Mapping[str, tuple[object, ...]]]) -> SimpleNamespace:
    """C functions without `ggml_` before their names.

    Args:
        tables: by library, and by the functions' names: the type of what comes out, and of each argument.
    """
    folder, found = Path(bindings()._lib._name).parent, {}
    for library, table in tables.items():
        opened = ctypes.CDLL(str(next(folder.glob(f"{library}.*"))))
        for name, (result, *arguments) in table.items():
            function = getattr(opened, name)
            function.restype, function.argtypes = result, arguments
            found[name.removeprefix("ggml_")] = function
    return SimpleNamespace(**found)
