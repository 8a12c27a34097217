"""Plain PyTorch that is parallel over tokens, on any device and in float64: the scans in chunks.

Ops that the reference computes in parallel already are the reference's. The scans are operators of torch, as
the compiled backends' are: one gradient that computes again what it needs serves eager mode, torch.compile
(which would otherwise trace a graph as long as the sequence) and activation checkpointing.
"""

from cobra.kernels.registration import Operators

OPERATORS = Operators("cobra_torch", "CompositeExplicitAutograd")
