"""`cobra bench`: speed, with random weights and the best honest settings.

Read arguments.py (what can be asked). Models: subjects.py and build.py (which), runtimes.py and engines.py
(in which settings), exports.py with random_gguf.py and random_programs.py (mobile builds of them), room.py
(which fit together), model_bench.py (the plan), torch_cases.py (what is timed; other runtimes have theirs).
Operators: op_bench.py (the table), op_cases.py. Then run.py, ceilings.py and rates.py (what the seconds
mean), report.py with tables.py, and plot.py. Processes and clocks are those of timing/; systems/ is `cobra
models`.
"""
