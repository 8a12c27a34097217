"""The measuring processes, one a runner, started when first asked."""

import json
import os
import subprocess
import sys
from types import TracebackType
from typing import Any

from cobra.bench.timing.sample import Measurement, Missing, Prepared, Runner, Sample


class Workers:
    """Answers from measuring processes, which live as long as this context.

    Args:
        threads: of each process.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.processes: dict[str, subprocess.Popen[str]] = {}

    def __enter__(self) -> "Workers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in list(self.processes):
            self._stop(name)

    def about(self, runner: Runner) -> dict[str, Any]:
        """Versions and ISA level of a runner's process."""
        return self._ask(runner, {"do": "about"})

    def prepare(self, measurement: Measurement) -> Prepared:
        """Build and warm up a case.

        Raises:
            Missing: if it cannot run there, with the reason.
        """
        request = {"do": "prepare", "key": measurement.key, "case": measurement.case}
        return Prepared(
            **self._ask(measurement.runner, {**request, "arguments": dict(measurement.arguments)})
        )

    def time(self, measurement: Measurement) -> Sample:
        """Seconds of one call of a prepared case."""
        return Sample(**self._ask(measurement.runner, {"do": "time", "key": measurement.key}))

    def forget(self, measurement: Measurement) -> None:
        """Free the memory of a case."""
        self._ask(measurement.runner, {"do": "forget", "key": measurement.key})

    def stop(self, runner: Runner) -> None:
        """End a runner's process, and free all its memory."""
        self._stop(runner.name)

    def _stop(self, name: str) -> None:
        process = self.processes.pop(name, None)
        if process is not None:
            process.kill()
            process.wait()

    def _ask(self, runner: Runner, request: dict[str, Any]) -> dict[str, Any]:
        process = self.processes.get(runner.name)
        if process is None:
            process = self.processes[runner.name] = _start(runner, self.threads)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            del self.processes[runner.name]
            raise Missing(f"the process of {runner.name} died (exit status {process.wait()})")
        answer = json.loads(line)
        if "missing" in answer:
            raise Missing(answer["missing"])
        return answer


def _start(runner: Runner, threads: int) -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("COBRA_BACKEND", "COBRA_ISA")}
    # of torch, OpenMP and MKL alike
    environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
    environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    if runner.backend:
        environment["COBRA_BACKEND"] = runner.backend
    if runner.isa:
        environment["COBRA_ISA"] = runner.isa
    command = [sys.executable, "-m", "cobra.bench.timing.worker", runner.cases, str(threads), runner.device]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True, encoding="utf-8"
    )
