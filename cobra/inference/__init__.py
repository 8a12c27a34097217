"""Conversations with a model: in Python, in the terminal, from the command line."""
