"""C++ kernels for the CPU behind a plain C interface; csrc/abi.h is what they take."""

from cobra.kernels.cpu.library import unavailable
from cobra.kernels.registration import Operators

__all__ = ["OPERATORS", "unavailable"]

OPERATORS = Operators("cobra_cpu", "CPU")
