"""The measuring process: one JSON request a line on stdin, one JSON answer a line on stdout.

`{"do": "prepare", "key": KEY, "case": NAME, "arguments": {...}}` builds a case and answers what it is,
`{"do": "time", "key": KEY}` answers the seconds of a call, `{"do": "forget", "key": KEY}` drops it. A name is
looked up in the table of the module that the command line names: nothing that arrives is executed.
"""

import importlib
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch

from cobra.bench.timing.case import Case, Stopwatch
from cobra.bench.timing.machine import about
from cobra.bench.timing.memory import peak_bytes
from cobra.bench.timing.sample import Prepared, Sample

# A sample shorter than this repeats its call, or it would show the caches that another process left behind.
_SHORTEST = 0.1
_MODULES = tuple(
    f"cobra.bench.{name}"
    for name in (
        "ceilings",
        *(f"{kind}_cases" for kind in ("torch", "transformers", "gguf", "executorch", "op")),
    )
)


class Worker:
    """Prepares cases and times them.

    Args:
        cases: functions that build a case, by name.
    """

    def __init__(self, cases: dict[str, Callable[..., Case]]) -> None:
        self.cases = cases
        self.prepared: dict[str, tuple[Case, int, Prepared]] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to one request; `missing` holds the reason if there is none."""
        try:
            if request["do"] == "about":
                return about()
            if request["do"] == "prepare":
                return asdict(self.prepare(request["key"], request["case"], request["arguments"]))
            if request["do"] == "time":
                return asdict(self.time(request["key"]))
            self.forget(request["key"])
            return {}
        except Exception as error:
            # the process must outlive one broken case, and the report says what broke
            return {"missing": f"{type(error).__name__}: {error}".splitlines()[0]}

    def prepare(self, key: str, name: str, arguments: dict[str, Any]) -> Prepared:
        """Build a case, run it until its speed is known, and measure how much memory it takes; once."""
        if key in self.prepared:
            return self.prepared[key][-1]
        if name not in self.cases:
            raise LookupError(f"no case is called {name}: this runner has {', '.join(self.cases)}")
        case = self.cases[name](**arguments)
        rehearse = case.rehearsal or case.run
        rehearse()
        walls: list[float] = []
        memory = peak_bytes(lambda: walls.append(clock(rehearse, 1).wall))
        found = Prepared(*memory, case.about)
        self.prepared[key] = case, max(1, int(_SHORTEST / max(walls[0], 1e-7))), found
        return found

    def forget(self, key: str) -> None:
        """Free a case that was prepared."""
        case, *_ = self.prepared.pop(key, (None,))
        if case is not None and case.end is not None:
            case.end()

    def time(self, key: str) -> Sample:
        """Seconds of a call."""
        case, calls, _ = self.prepared[key]
        return clock(case.run, calls)


def clock(run: Callable[[], object], calls: int) -> Sample:
    """Seconds of a call, averaged over some, a GPU's work included; its own, of one, where it tells them."""
    watch = Stopwatch(str(torch.get_default_device()))
    for _ in range(calls):
        result = run()
        if isinstance(result, Sample):
            return result
    watch.mark("calls")
    total = watch.sample()
    return Sample(total.cpu / calls, total.wall / calls)


def main() -> None:
    """Answer until stdin ends."""
    module, threads, device = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    if module not in _MODULES:
        raise SystemExit(f"{module} holds no cases: name one of {', '.join(_MODULES)}")
    torch.set_num_threads(threads)
    torch.set_default_device(device)
    worker = Worker(importlib.import_module(module).CASES)
    # libraries print to stdout: keep the channel for answers
    channel, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        channel.write(json.dumps(worker.answer(json.loads(line))) + "\n")
        channel.flush()


if __name__ == "__main__":
    main()
