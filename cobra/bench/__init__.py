"""`cobra bench e2e|decode|prefill|compare`: models of true size, random weights, the best honest settings.

Read arguments.py (what can be asked), subjects.py and build.py (the models), cases.py (what is timed; other
runtimes have their own), plan.py (in which engines), room.py (which fit together), run.py, then rates.py
(what the seconds mean) and the reports. Processes and clocks are those of cobra/bench/timing.
"""
