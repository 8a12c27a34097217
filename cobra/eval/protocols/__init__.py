"""Protocols: how a family of papers asks each benchmark, and which of its numbers they print."""
