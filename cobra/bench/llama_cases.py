"""llama.cpp, `--runtime llama.cpp`: its own llama-bench on a GGUF file of the same shape."""

import json
import math
import subprocess
from collections.abc import Callable

from cobra.bench.timing.case import Case
from cobra.bench.timing.sample import Sample


def decode(binary: str, gguf: str, threads: int, context: int, tokens: int, flash: bool) -> Case:
    """Steps after a context; llama-bench reads it for real, outside its clock."""
    return _case(binary, gguf, threads, flash, ["-p", "0", "-n", str(tokens), "-d", str(context)], tokens)


def prefill(binary: str, gguf: str, threads: int, length: int, flash: bool) -> Case:
    """A prompt."""
    return _case(binary, gguf, threads, flash, ["-p", str(length), "-n", "0"], length)


def _case(binary: str, gguf: str, threads: int, flash: bool, what: list[str], tokens: int) -> Case:
    command = [binary, "-m", gguf, "-t", str(threads), "-fa", str(int(flash)), "-r", "1", "-o", "json", *what]

    def run() -> Sample:
        return Sample(math.nan, _bench(command)["avg_ns"] / 1e9)

    found = _bench(command)
    about = {
        "tokens": tokens,
        "model_bytes": found["model_size"],
        "build": found["build_commit"],
        "type": found["model_type"],
    }
    return Case(run, rehearsal=lambda: None, about=about)


def _bench(command: list[str]) -> dict:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {last}")
    (result,) = json.loads(done.stdout)
    return result


CASES: dict[str, Callable[..., Case]] = {case.__name__: case for case in (decode, prefill)}
