"""Kernels in Triton for GPUs: compiled by Triton when they are first called, nothing to build."""

import os
from importlib.util import find_spec

from cobra.kernels.registration import Operators

# Triton's own variable, read when a kernel is defined: kernels then run on the CPU, program after program.
INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")
# an AMD GPU is a cuda device to torch
DEVICES = ("cuda", "xpu", "cpu") if INTERPRETED else ("cuda", "xpu")

# not of one device: Triton's interpreter takes tensors of the CPU
OPERATORS = Operators("cobra_triton", "CompositeExplicitAutograd")


def unavailable() -> str | None:
    """Why Triton cannot run on this machine, or None if it can."""
    if find_spec("triton") is None:
        return "Triton is not installed: it comes with torch's builds for GPUs, or pip install triton"
    return None
