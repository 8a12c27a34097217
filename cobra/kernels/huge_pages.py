"""Tensors on huge pages: what every token reads is found sooner there, and a long result is made sooner."""

import math
import mmap
import os

import torch
from torch import Tensor

HUGE_PAGE = 2**21
# Memory of this size glibc's malloc takes from the system and gives back, each time, unless it is told not to
# (mallopt(3)); less it may keep.
FROM_SYSTEM = 2**25
_MALLOC_KEEPS_ALL = os.environ.get("MALLOC_MMAP_MAX_") == "0" and "MALLOC_TRIM_THRESHOLD_" in os.environ


def zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros, on the CPU of Linux in pages of 2 MiB as far as they fill them.

    Linux gives such pages only where it is asked for them, unless it is set up otherwise
    (/sys/kernel/mm/transparent_hugepage/enabled).
    """
    size = math.prod(shape) * dtype.itemsize
    if device.type != "cpu" or size < HUGE_PAGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.zeros(shape, dtype=dtype, device=device)
    memory = mmap.mmap(-1, size + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    start = -torch.frombuffer(memory, dtype=torch.uint8).data_ptr() % HUGE_PAGE
    # the rest stays on small pages, which take no more than is needed
    memory.madvise(mmap.MADV_HUGEPAGE, start, size // HUGE_PAGE * HUGE_PAGE)
    # the tensor keeps the memory alive
    return torch.frombuffer(memory, dtype=dtype, count=math.prod(shape), offset=start).view(shape)


def unwritten(x: Tensor) -> Tensor:
    """x, which nothing was written to yet, or as much on such pages where x is fresh from the system.

    The first access to a page costs a page fault: on small ones those of a long sequence's result take a
    third of the time that computing it takes.
    """
    kept = _MALLOC_KEEPS_ALL or x.nbytes < FROM_SYSTEM
    return x if kept else zeros(tuple(x.shape), x.dtype, x.device)


def copy(x: Tensor) -> Tensor:
    """A contiguous copy of x, on such pages."""
    return zeros(tuple(x.shape), x.dtype, x.device).copy_(x)
