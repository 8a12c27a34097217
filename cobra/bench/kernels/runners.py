"""The processes that run cases."""

from collections.abc import Mapping, Sequence
from typing import Any

from cobra.bench.timing.sample import Measurement, Runner

OURS = Runner("cpu", "cobra.bench.kernels.cases", backend="cpu")
KEEPING = Runner("cpu, memory kept", OURS.cases, OURS.backend, keeps_memory=True)
REFERENCE = Runner("reference", "cobra.bench.kernels.cases", backend="reference")
TRANSFORMERS = Runner("transformers", "cobra.bench.kernels.transformers_cases")


def ours_at(isa: str) -> Runner:
    """Our kernels at another ISA level than the machine's best."""
    return Runner(f"cpu {isa}", OURS.cases, OURS.backend, isa)


def slower(levels: Sequence[str], case: str, arguments: Mapping[str, Any]) -> dict[str, Measurement]:
    """A case of our kernels at the levels below the best, by level."""
    return {level: Measurement(ours_at(level), case, arguments) for level in levels[-2::-1]}
