"""`cobra bench kernels`: what the CPU kernels cost, beside transformers' path and the machine's ceilings.

Read plan.py and targets.py (what is measured), cases.py (how), workers.py and worker.py (where), run.py, then
the reports.
"""
