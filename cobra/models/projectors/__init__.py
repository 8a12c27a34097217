"""Projectors from patches to image tokens."""
