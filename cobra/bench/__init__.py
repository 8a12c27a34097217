"""`cobra bench e2e|decode|prefill|kernels|compare`: speed, with random weights and the best honest settings.

Read arguments.py (what can be asked). Models: subjects.py and build.py (which), engines.py (in which
settings), room.py (which fit together), model_bench.py (the plan), torch_cases.py (what is timed; other
runtimes have their own). Operators: op_bench.py (the table), op_cases.py. Then run.py, ceilings.py and
rates.py (what the seconds mean), report.py with tables.py, and plot.py. Processes and clocks are those of
timing/; systems/ is `cobra models`.
"""
