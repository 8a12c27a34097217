"""ggml's C functions that a picture's program needs, by their names, from the libraries of llama.cpp."""

import ctypes
from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    c_bool,
    c_char_p,
    c_float,
    c_int,
    c_int64,
    c_size_t,
    c_void_p,
)
from functools import cache
from pathlib import Path
from types import SimpleNamespace

from cobra.export.gguf.llama import bindings


class ContextOptions(Structure):
    """`ggml_init_params`."""

    _fields_ = (("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool))


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


_P, _I, _F, _N = c_void_p, c_int, c_float, c_int64
_BASE: dict[str, tuple[object, ...]] = {
    "ggml_init": (_P, ContextOptions),
    "ggml_free": (None, _P),
    "gguf_init_from_file": (_P, c_char_p, FileOptions),
    "gguf_free": (None, _P),
    "gguf_find_key": (_N, _P, c_char_p),
    "gguf_get_val_str": (c_char_p, _P, _N),
    "gguf_find_tensor": (_N, _P, c_char_p),
    "gguf_get_data_offset": (c_size_t, _P),
    "gguf_get_tensor_offset": (c_size_t, _P, _N),
    "gguf_get_tensor_type": (_I, _P, _N),
    "ggml_row_size": (c_size_t, _I, _N),
    "ggml_get_type_traits": (POINTER(TypeTraits), _I),
    "ggml_get_tensor": (_P, _P, c_char_p),
    "ggml_new_tensor_1d": (_P, _P, _I, _N),
    "ggml_set_input": (None, _P),
    "ggml_set_output": (None, _P),
    "ggml_tensor_overhead": (c_size_t,),
    "ggml_graph_overhead_custom": (c_size_t, c_size_t, c_bool),
    "ggml_new_graph_custom": (_P, _P, c_size_t, c_bool),
    "ggml_build_forward_expand": (None, _P, _P),
    "ggml_backend_get_default_buffer_type": (_P, _P),
    "ggml_backend_graph_compute": (_I, _P, _P),
    "ggml_backend_tensor_set": (None, _P, _P, c_size_t, c_size_t),
    "ggml_backend_tensor_get": (None, _P, _P, c_size_t, c_size_t),
    "ggml_backend_free": (None, _P),
    "ggml_gallocr_new": (_P, _P),
    "ggml_gallocr_alloc_graph": (c_bool, _P, _P),
    "ggml_gallocr_free": (None, _P),
    "ggml_add": (_P, _P, _P, _P),
    "ggml_mul": (_P, _P, _P, _P),
    "ggml_scale": (_P, _P, _P, _F),
    "ggml_mul_mat": (_P, _P, _P, _P),
    "ggml_norm": (_P, _P, _P, _F),
    "ggml_group_norm": (_P, _P, _P, _I, _F),
    "ggml_soft_max_ext": (_P, _P, _P, _P, _F, _F),
    "ggml_im2col": (_P, _P, _P, _P, *[_I] * 6, c_bool, _I),
    "ggml_conv_2d_dw_direct": (_P, _P, _P, _P, *[_I] * 6),
    "ggml_mean": (_P, _P, _P),
    "ggml_concat": (_P, _P, _P, _P, _I),
    "ggml_view_3d": (_P, _P, _P, _N, _N, _N, c_size_t, c_size_t, c_size_t),
    "ggml_reshape_4d": (_P, _P, _P, _N, _N, _N, _N),
    "ggml_permute": (_P, _P, _P, _I, _I, _I, _I),
    "ggml_cont": (_P, _P, _P),
    **{
        f"ggml_{name}": (_P, _P, _P)
        for name in ("relu", "gelu", "gelu_erf", "silu", "sigmoid", "hardswish", "hardsigmoid")
    },
}
_CPU: dict[str, tuple[object, ...]] = {
    "ggml_backend_cpu_init": (_P,),
    "ggml_backend_cpu_set_n_threads": (None, _P, _I),
}


@cache
def ggml() -> SimpleNamespace:
    """The functions, without `ggml_` before their names.

    Raises:
        ModuleNotFoundError: where llama.cpp is not here.
    """
    folder = Path(bindings()._lib._name).parent
    found = {}
    for library, functions in (("libggml-base", _BASE), ("libggml-cpu", _CPU)):
        opened = ctypes.CDLL(str(next(folder.glob(f"{library}.*"))))
        for name, (result, *arguments) in functions.items():
            function = getattr(opened, name)
            function.restype, function.argtypes = result, arguments
            found[name.removeprefix("ggml_")] = function
    return SimpleNamespace(**found)
