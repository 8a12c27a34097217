"""`cobra bench kernels`: what the CPU kernels cost, beside transformers' path and the machine's ceilings.

Read plan.py and targets.py (what is measured), cases.py (how), run.py, then the reports; processes and clocks
are those of cobra/bench/timing.
"""
