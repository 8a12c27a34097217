"""Whether this CPU gains from bf16."""

import time
from collections.abc import Callable

import torch

# bf16 also costs conversions: it must win clearly
_GAIN = 1.5


def fastest_precision() -> str:
    """Lightning's name of the faster training precision, by timing matrix products of both for some 20 ms.

    CPUs with AVX512-BF16, AMX or the like multiply bf16 at least twice as fast as fp32, others no faster.
    """
    seconds = {dtype: _best_time(_product(dtype)) for dtype in (torch.float32, torch.bfloat16)}
    faster = seconds[torch.float32] > _GAIN * seconds[torch.bfloat16]
    return "bf16-mixed" if faster else "32-true"


def _product(dtype: torch.dtype) -> Callable[[], torch.Tensor]:
    left, right = torch.ones(512, 256, dtype=dtype), torch.ones(256, 1024, dtype=dtype)
    return lambda: left @ right


def _best_time(work: Callable[[], object], repeats: int = 10) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)
