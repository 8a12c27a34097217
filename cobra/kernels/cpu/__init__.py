"""C++ kernels for the CPU behind a plain C interface; csrc/abi.h is what they take."""

from cobra.kernels.cpu.library import unavailable

__all__ = ["unavailable"]
