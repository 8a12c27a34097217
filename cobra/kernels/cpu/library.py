"""The native library: found, checked and loaded once, and its kernels as Python functions."""

import ctypes
import functools
import hashlib
import os
import struct
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import as_file, files
from itertools import count, takewhile

import torch
from torch import Tensor

FILE_NAME = "libcobra_cpu.so"
REMEDY = "run `pip install -e .` (or install the package again) with a C++ compiler on the PATH"
LEVEL_VARIABLE = "COBRA_ISA"

# As `DType` in csrc/abi.h.
_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.int32: 2, torch.int64: 3, torch.bool: 4}
_ABSENT = (0, 0, 0, 0, 0)
_PADDING = ((), (0, 0, 0), (0, 0), (0,), ())
# As `Failure` there.
_NO_ROOM, _NO_SUCH_ROW = 2, 3
# of the description of an array, which begins with its address
ARRAY_BYTES = 40


class LibraryUnavailable(Exception):
    """Why the native kernels cannot be used here; what to do is part of the message."""


def unavailable() -> str | None:
    """Why the library cannot be used, or None if it can; warns the first time.

    Raises:
        ValueError: if `COBRA_ISA` names no level that this machine runs.
    """
    try:
        load()
    except LibraryUnavailable as reason:
        _warn_once(str(reason))
        return str(reason)
    return None


@functools.cache
def _warn_once(reason: str) -> None:
    warnings.warn(
        f"plain PyTorch, which is slower, is used on the CPU: {reason}", RuntimeWarning, stacklevel=2
    )


@functools.cache
def load() -> ctypes.CDLL:
    """The library, at the ISA level that `COBRA_ISA` asks for or the fastest.

    Raises:
        LibraryUnavailable: if it was not built, does not load or is stale.
        ValueError: if `COBRA_ISA` names no level that this machine runs.
    """
    resource = files("cobra.kernels.cpu") / FILE_NAME
    if not resource.is_file():
        raise LibraryUnavailable(
            f"{FILE_NAME} was not built, because a compiler was missing or failed; {REMEDY}"
        )
    with as_file(resource) as path:
        try:
            library = ctypes.CDLL(str(path))
        except OSError as error:
            raise LibraryUnavailable(f"{path} does not load ({error}); {REMEDY}") from error
    for name in ("cobra_fingerprint", "cobra_level", "cobra_supported_level"):
        getattr(library, name).restype = ctypes.c_char_p
    library.cobra_supported_level.argtypes = [ctypes.c_int64]
    library.cobra_run_plan.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.POINTER(ctypes.c_int64)]
    _refuse_stale(library.cobra_fingerprint().decode(), str(path))
    asked = os.environ.get(LEVEL_VARIABLE)
    if asked:
        _set_level(library, asked, f"{LEVEL_VARIABLE} is")
    return library


def _refuse_stale(built: str, path: str) -> None:
    present = fingerprint()
    if present is not None and present != built:
        raise LibraryUnavailable(
            f"{path} was built from other sources ({built[:12]}) than those in csrc ({present[:12]}); "
            f"{REMEDY}"
        )


def fingerprint() -> str | None:
    """A hash of the C++ sources, or None where they are not installed; as CMakeLists.txt computes it."""
    folder = files("cobra.kernels.cpu") / "csrc"
    if not folder.is_dir():
        return None
    sources = {
        source.name: source for source in folder.iterdir() if source.name.endswith((".cpp", ".h", ".inc"))
    }
    listing = "".join(
        f"{hashlib.sha256(sources[name].read_bytes()).hexdigest()} {name}\n" for name in sorted(sources)
    )
    return hashlib.sha256(listing.encode()).hexdigest()


def level() -> str:
    """The ISA level in use: base, avx2 and avx512, or neon and neon_dot."""
    return load().cobra_level().decode()


def levels() -> list[str]:
    """The levels that this machine runs, slowest first."""
    return _levels(load())


def _levels(library: ctypes.CDLL) -> list[str]:
    names = (library.cobra_supported_level(index) for index in count())
    return [name.decode() for name in takewhile(bool, names)]


@contextmanager
def use_level(name: str) -> Iterator[None]:
    """Run the kernels of this process at another ISA level, e.g. to test the slower ones.

    Raises:
        ValueError: if this machine does not run it.
    """
    library, before = load(), level()
    _set_level(library, name, "the level is")
    try:
        yield
    finally:
        _set_level(library, before, "the level is")


def _set_level(library: ctypes.CDLL, name: str, subject: str) -> None:
    if library.cobra_set_level(name.encode()):
        raise ValueError(
            f"{subject} {name!r} but this machine runs {', '.join(_levels(library))}: name one of these"
        )


class Kernel:
    """One function of the library, as a Python function.

    Args:
        name: its name without `cobra_`.
        arrays: number of tensors in its structure (csrc/abi.h).
        sizes: number of integers, without the threads.
        reals: number of floats.
    """

    def __init__(self, name: str, arrays: int, sizes: int, reals: int = 0) -> None:
        self.name = name
        self.layout = struct.Struct(f"{5 * arrays + sizes + 1}q{reals}d")

    def __call__(self, arrays: Sequence[Tensor | None], sizes: Sequence[int], *reals: float) -> None:
        """Run it on as many threads as torch uses.

        Arrays are copied where their last dimension is not contiguous; in those that it writes it must be.

        Raises:
            MemoryError: if the kernel could not allocate its buffers.
            ValueError: if there is no room for another token.
            IndexError: if an id is no row of a weight.
        """
        parts: list[int] = []
        copies: list[Tensor] = []
        for array in arrays:
            parts += _ABSENT if array is None else _describe(array, copies)
        arguments = self.layout.pack(*parts, *sizes, torch.get_num_threads(), *reals)
        if code := self.function(arguments):
            raise failure(self.name, code)
        if _watcher.watch is not None:
            _watcher.watch(self, arguments, arrays)

    @functools.cached_property
    def function(self) -> Callable[[bytes], int]:
        """The function itself, whose structure must be as long as what is packed here."""
        library = load()
        size = getattr(library, f"cobra_{self.name}_bytes")
        size.restype = ctypes.c_int64
        assert size() == self.layout.size, f"{self.name}: {size()} bytes in csrc, {self.layout.size} packed"
        function = getattr(library, f"cobra_{self.name}")
        function.argtypes = [ctypes.c_char_p]
        return function

    @property
    def address(self) -> int:
        """Where the function lies in memory."""
        return ctypes.cast(getattr(load(), f"cobra_{self.name}"), ctypes.c_void_p).value or 0


def failure(name: str, code: int) -> Exception:
    """What a kernel that returned `code` (csrc/abi.h, Failure) raises."""
    if code == _NO_ROOM:
        return ValueError(f"{name} has no room for another token: allocate a state of a larger max_length")
    if code == _NO_SUCH_ROW:
        return IndexError(
            f"{name}: an id is no row of the weight: use the tokenizer that belongs to the model"
        )
    return MemoryError(f"{name} could not allocate its buffers: use shorter or fewer sequences")


Watch = Callable[[Kernel, bytes, Sequence[Tensor | None]], None]


class _Watcher(threading.local):
    watch: Watch | None = None


_watcher = _Watcher()


@contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Tell `watch` of every kernel that this thread runs: which, its structure and its arrays."""
    before, _watcher.watch = _watcher.watch, watch
    try:
        yield
    finally:
        _watcher.watch = before


def _describe(array: Tensor, copies: list[Tensor]) -> tuple[int, ...]:
    """An `Array` of csrc/abi.h: address, dtype and three strides, of all dimensions but the last."""
    strides = array.stride()
    if strides[-1] != 1 and array.shape[-1] > 1:
        array = array.contiguous()
        strides = array.stride()
        copies.append(array)  # alive until the kernel returns
    return array.data_ptr(), _DTYPES[array.dtype], *strides[:-1], *_PADDING[len(strides)]
