"""Memory that a call takes."""

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_bytes(run: Callable[[], object]) -> tuple[float, float]:
    """How far memory grows during a call, and its peak: a GPU's once it is in use, else the process's.

    NaN where the system does not tell.
    """
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        run()
        peak = torch.cuda.max_memory_allocated()
        return peak - held, peak
    try:
        gc.collect()
        # freed memory that the allocator keeps would hide what the call takes
        ctypes.CDLL(None).malloc_trim(0)
        # proc(5): 5 sets the peak back to what is resident now
        _CLEAR.write_text("5")
        before = status("VmRSS")
        run()
        return status("VmHWM") - before, status("VmHWM")
    except (OSError, AttributeError):
        return float("nan"), float("nan")


def status(name: str) -> float:
    """A size in bytes from Linux's status of this process, by its name there."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(name))
    return float(line.split()[1]) * 1024
