"""Scorers that several benchmarks share: pure functions from answers to credit."""
