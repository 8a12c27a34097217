"""libmtmd, llama.cpp's library for pictures: what its own programs make of an mmproj file and a picture."""

import ctypes
import os
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from cobra.export.engine import Floats
from cobra.export.gguf.llama import bindings, built_folder
from cobra.export.lacking import LackingError

_BINDINGS = "llama_cpp.mtmd_cpp"
_ERROR = 4


@cache
def mtmd() -> Any:
    """llama-cpp-python's module of libmtmd's functions; the library says nothing but errors.

    Raises:
        LackingError: where llama.cpp was built without it.
    """
    llama = bindings()
    # beside the library that is in use; an installed package finds its own
    if any((lib := Path(llama.__file__).parents[1] / "lib").glob("libmtmd*")):
        os.environ["MTMD_CPP_LIB"] = str(lib)
    try:
        found = import_module(_BINDINGS)
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise LackingError(
            f"libmtmd is not here: remove {built_folder()}, and `cobra export llama` builds llama.cpp with it"
        ) from error
    finally:
        os.environ.pop("MTMD_CPP_LIB", None)
    for log in (found.mtmd_log_set, found.mtmd_helper_log_set):
        log(_say_errors(llama), ctypes.c_void_p())
    return found


def is_there() -> bool:
    """Whether `mtmd` finds it."""
    try:
        mtmd()
    except LackingError:
        return False
    return True


@cache
def _say_errors(llama: Any) -> Any:
    """A callback, which lives as long as the library may call it."""

    def say(level: int, text: bytes, data: Any) -> None:
        if level == _ERROR:
            sys.stderr.write(text.decode(errors="replace"))

    return llama.llama_log_callback(say)


class StockPictures:
    """Encoder and projector of an mmproj file, run as llama.cpp's own programs run them.

    Args:
        path: of the file.
        weights: of its language model, from `open_weights`; freed after this.
        threads: of a product.

    Raises:
        OSError: where llama.cpp cannot open the file.
    """

    def __init__(self, path: Path, weights: Any, threads: int = 1) -> None:
        self._mtmd = lib = mtmd()
        options = lib.mtmd_context_params_default()
        options.use_gpu, options.warmup, options.print_timings = False, False, False
        options.n_threads = threads
        # as for text: fp32 between the products
        options.flash_attn_type = bindings().LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.context = lib.mtmd_init_from_file(str(path).encode(), weights, options)
        if not self.context:
            raise OSError(f"llama.cpp cannot open {path}: export the model again")
        self._width = bindings().llama_model_n_embd(weights)

    def __call__(self, picture: Path) -> Floats:
        """Image tokens (M, D) of a picture's file."""
        lib = self._mtmd
        chunks = self.chunks(lib.mtmd_default_marker(), picture)
        try:
            (chunk,) = (
                chunk
                for number in range(lib.mtmd_input_chunks_size(chunks))
                if lib.mtmd_input_chunk_get_type(chunk := lib.mtmd_input_chunks_get(chunks, number))
                == lib.MTMD_INPUT_CHUNK_TYPE_IMAGE
            )
            if lib.mtmd_encode_chunk(self.context, chunk):
                raise ValueError(f"llama.cpp cannot read the picture {picture}")
            shape = (lib.mtmd_input_chunk_get_n_tokens(chunk), self._width)
            return np.ctypeslib.as_array(lib.mtmd_get_output_embd(self.context), shape).copy()
        finally:
            lib.mtmd_input_chunks_free(chunks)

    def chunks(self, text: bytes, picture: Path) -> Any:
        """Chunks, to be freed, of a text with one marker in the place of a picture."""
        lib = self._mtmd
        bitmap = lib.mtmd_helper_bitmap_init_from_file(self.context, str(picture).encode(), False)
        if not bitmap:
            raise ValueError(f"llama.cpp cannot open the picture {picture}: save it as PNG or JPEG")
        chunks = lib.mtmd_input_chunks_init()
        said = lib.mtmd_input_text(text, len(text), False, True)
        status = lib.mtmd_tokenize(self.context, chunks, ctypes.byref(said), (ctypes.c_void_p * 1)(bitmap), 1)
        lib.mtmd_bitmap_free(bitmap)
        if status:
            lib.mtmd_input_chunks_free(chunks)
            raise ValueError(f"llama.cpp cannot prepare the picture {picture}")
        return chunks

    def close(self) -> None:
        """Free the memory."""
        self._mtmd.mtmd_free(self.context)
