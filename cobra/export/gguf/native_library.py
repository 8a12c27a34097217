"""The native library that runs pictures.gguf, beside llama.cpp's: found for these sources, loaded once."""

import ctypes
import hashlib
from ctypes import POINTER, c_char_p, c_int32, c_int64, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

from cobra.export.gguf.llama import bindings, built_folder
from cobra.export.lacking import LackingError

SOURCES = Path(__file__).parent / "native"

_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "open": (c_void_p, c_char_p, c_int32),
    "planes": (c_int32, c_void_p),
    "pixel_shape": (None, c_void_p, c_int32, POINTER(c_int64)),
    "token_shape": (None, c_void_p, POINTER(c_int64)),
    "run": (c_int32, c_void_p, POINTER(c_void_p), c_void_p),
    "close": (None, c_void_p),
    "error": (c_char_p,),
}


def native_folder(built: Path) -> Path:
    """Where a build of llama.cpp holds what was built from these sources."""
    texts = "".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.name}\n" for path in sorted(SOURCES.iterdir())
    )
    return built / f"cobra-{hashlib.sha256(texts.encode()).hexdigest()[:16]}"


@cache
def library() -> ctypes.CDLL:
    """The library, of the build of llama.cpp that runs in this process.

    Raises:
        LackingError: where it was not built, or for other sources.
    """
    opened = ctypes.CDLL(str(_built("libcobra_pictures.*")))
    for name, (result, *arguments) in _FUNCTIONS.items():
        function = getattr(opened, f"cobra_pictures_{name}")
        function.restype, function.argtypes = result, arguments
    return opened


def program(variant: str | None = None) -> Path:
    """The program cobra-run, of the same build or of another; errors as of `library`."""
    return _built("cobra-run*", variant)


def _built(pattern: str, variant: str | None = None) -> Path:
    of_llama = Path(bindings()._lib._name).parent.parent if variant is None else built_folder(variant)
    folder = native_folder(of_llama)
    if found := sorted(folder.glob(pattern)):
        return found[0]
    raise LackingError(
        "what runs exports beside llama.cpp is not built for this version: run `cobra export llama"
        f"{f' --variant {variant}' if variant else ''}` (seconds, where llama.cpp is built already)"
    )


def is_there() -> bool:
    """Whether `library` finds it, and llama.cpp with it."""
    try:
        library()
    except LackingError:
        return False
    return True
