"""Fewer bits for the matrices of a GGUF file, by llama.cpp's own quantiser."""

import ctypes
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cobra.export.gguf.llama import bindings, say_errors

# llama.cpp's numbers of files (LLAMA_FTYPE_MOSTLY_*), by what `--quant` calls them
FILE_TYPES = {"q8_0": 7, "q4_0": 2, "q4_k_m": 15}
_ALL_F32, _F16 = 0, 1
# what llama.cpp says of each tensor: its number and how many there are
_TENSOR = re.compile(rb"\[\s*(\d+)/\s*(\d+)\]")


def quantize(source: Path, target: Path, quant: str, kept: Sequence[str] = (), threads: int = 1) -> None:
    """Write `source` with fewer bits; what is no matrix (A, dt, D, filters, norms, biases) stays fp32.

    Args:
        source: a GGUF file in fp32, fp16 or bf16.
        target: written over.
        quant: one of `FILE_TYPES`.
        kept: patterns of names of matrices that become fp16 instead.
        threads: of the quantiser.

    Raises:
        OSError: where llama.cpp fails, having said why.
    """
    with _shown(bindings(), "quantising"):
        _convert(source, target, FILE_TYPES[quant], kept, threads)


def dequantize(source: Path, target: Path) -> None:
    """Write the values of a GGUF file's weights as fp32.

    Raises:
        OSError: where llama.cpp fails, having said why.
    """
    with _shown(bindings(), "unpacking"):
        _convert(source, target, _ALL_F32)


def _convert(source: Path, target: Path, file_type: int, kept: Sequence[str] = (), threads: int = 1) -> None:
    llama = bindings()
    options = llama.llama_model_quantize_default_params()
    options.nthread, options.ftype, options.allow_requantize = threads, file_type, file_type == _ALL_F32
    rules = (llama.llama_model_tensor_override * (len(kept) + 1))()
    for rule, pattern in zip(rules, kept, strict=False):
        rule.pattern, rule.type = pattern.encode(), _F16
    # the list ends with a pattern that is none
    options.tt_overrides = ctypes.cast(rules, type(options.tt_overrides))
    failed = llama.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(options))
    if failed:
        free = shutil.disk_usage(target.parent).free
        raise OSError(
            f"llama.cpp could not write {target.name} of {source.name} (status {failed}): on its disk "
            f"{free / 1e6:.1f} MB are free, make room where that is little"
        )


@contextmanager
def _shown(llama: Any, what: str) -> Iterator[None]:
    """A progress bar of the tensors that llama.cpp's quantiser tells of while it runs."""
    before = say_errors(llama)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=None)

        def say(level: int, text: bytes, data: Any) -> None:
            if found := _TENSOR.match(text):
                bar.update(task, completed=int(found[1]), total=int(found[2]))
            else:
                before(level, text, data)

        told = llama.llama_log_callback(say)
        llama.llama_log_set(told, ctypes.c_void_p())
        try:
            yield
        finally:
            llama.llama_log_set(before, ctypes.c_void_p())
