"""llama.cpp's library and its Python names: built into the cache by `cobra export llama`, or installed."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from cobra.data.cache_folder import cache_folder
from cobra.export.lacking import LackingError

# of llama-cpp-python on PyPI, whose source archive holds llama.cpp and its bindings
VERSION = "0.3.36"
# what is built; vulkan has the CPU's backend as well
VARIANTS = ("cpu", "vulkan")
# what is built for other machines, with the instructions that these must have
ARM64 = {"arm64": "armv8-a", "arm64-v8.2": "armv8.2-a+dotprod+fp16"}
_BINDINGS = "llama_cpp.llama_cpp"


def built_folder(variant: str = "cpu") -> Path:
    """Where a build is: `lib` with the libraries, `llama_cpp` with the bindings, `include` with headers."""
    return cache_folder("llama.cpp") / (VERSION if variant == "cpu" else f"{VERSION}-{variant}")


def bindings(variant: str = "cpu") -> Any:
    """llama-cpp-python's module of llama.cpp's functions; the library says nothing but errors.

    The build in the cache comes first: an installed package may have been built for this very machine, and on
    some such a build dies in its quantised products (AMX). A process has one library, whose names are
    global: the first that is asked for. Vulkan's serves the CPU as well.

    Args:
        variant: one of `VARIANTS`.

    Raises:
        LackingError: where it is not here.
        ValueError: where this process has another library already.
    """
    if not can_load(variant) and variant != "cpu":
        raise ValueError(
            f"this process runs llama.cpp of {next(iter(_loaded))}, and needs another for {variant}"
        )
    if not _loaded:
        _loaded[variant] = _load(variant)
    return next(iter(_loaded.values()))


# the one library of this process
_loaded: dict[str, Any] = {}


def can_load(variant: str) -> bool:
    """Whether this process has no other library than that."""
    return not _loaded or variant in _loaded


def _load(variant: str) -> Any:
    folder = built_folder(variant)
    if (folder / "lib").is_dir():
        with _library_in(folder / "lib"):
            found = _from_folder(folder / "llama_cpp")
    elif variant != "cpu":
        raise LackingError(
            f"llama.cpp for {variant} is not here: `cobra export llama --variant {variant}` builds it"
        )
    else:
        try:
            found = import_module(_BINDINGS)
        except ModuleNotFoundError as error:
            raise LackingError(
                "llama.cpp is not here: `cobra export llama` builds it (CMake, a C++ compiler, minutes), or "
                "pip install 'cobra-vlm[llama]' does for Python as a whole"
            ) from error
    found.llama_log_set(say_errors(found), ctypes.c_void_p())
    found.llama_backend_init()
    return found


def _from_folder(package: Path) -> Any:
    """The bindings' two files, without the rest of the package, which imports much."""
    if "llama_cpp" not in sys.modules:
        sys.modules["llama_cpp"] = made = ModuleType("llama_cpp")
        made.__path__ = [str(package)]
    return import_module(_BINDINGS)


@contextmanager
def _library_in(folder: Path) -> Iterator[None]:
    """The bindings read where the library is from the environment."""
    before = os.environ.get("LLAMA_CPP_LIB_PATH")
    os.environ["LLAMA_CPP_LIB_PATH"] = str(folder)
    try:
        yield
    finally:
        os.environ.pop("LLAMA_CPP_LIB_PATH")
        if before is not None:
            os.environ["LLAMA_CPP_LIB_PATH"] = before


@cache
def say_errors(found: Any) -> Any:
    """A callback, which lives as long as the library may call it."""

    def say(level: int, text: bytes, data: Any) -> None:
        if level == _ERROR:
            sys.stderr.write(text.decode(errors="replace"))

    return found.llama_log_callback(say)


_ERROR = 4
