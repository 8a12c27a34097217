"""Plain PyTorch that is parallel over tokens, on any device and in float64: the scans in chunks.

Ops that the reference computes in parallel already are the reference's.
"""
