"""The machine and the process that measures on it."""

import os
import platform
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from cobra.kernels.cpu import library


def about() -> dict[str, Any]:
    """When, on what, versions, threads, and the native library's ISA level or why there is none."""
    reason = library.unavailable()
    return {
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "transformers": version("transformers"),
        "torch": torch.__version__,
        "triton": version("triton") if find_spec("triton") else None,
        "threads": torch.get_num_threads(),
        "isa": None if reason else library.level(),
        "native_library": reason or "ok",
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
