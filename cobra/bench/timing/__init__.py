"""Timing calls in processes of their own, in turn: what every `cobra bench` shares.

Read case.py (what is run), sample.py (what one run gives), workers.py and worker.py (where), then
interleave.py (in which order).
"""
