"""Tensors in files, shape checks and finiteness; knows no model."""
