"""Benchmarks: each reads its published files and scores predictions, in one file."""
