"""The rates at which this CPU multiplies matrices: bf16 compared with fp32, oneDNN with BLAS."""

import functools
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from cobra.kernels.onednn import HAS_ONEDNN, linear_by_onednn


@functools.cache
def bf16_speed() -> float:
    """How many times as fast as in fp32 torch multiplies in bf16, by timing both once for some 30 ms.

    About 2 with AVX512-BF16 on an AMD EPYC and 6 with AMX; 1/2 on an Intel Xeon without AMX, which starts
    `vdpbf16ps` every other cycle; less without either.
    """
    # whatever context the first call is made in, the answer is the CPU's
    with torch.autocast("cpu", enabled=False), torch.no_grad():
        return _best_time(_product(torch.float32)) / _best_time(_product(torch.bfloat16))


@functools.cache
def onednn_speed() -> float:
    """How many times as fast as by its BLAS torch multiplies in fp32 by oneDNN, timed once for some 30 ms.

    2.2 with AVX-512 on an AMD EPYC, where MKL keeps to 256 bits; 0 where torch has no oneDNN.
    """
    if not HAS_ONEDNN:
        return 0.0
    with torch.autocast("cpu", enabled=False), torch.no_grad():
        x, weight = (torch.ones(shape, device="cpu") for shape in ((512, 256), (1024, 256)))
        return _best_time(lambda: F.linear(x, weight)) / _best_time(lambda: linear_by_onednn(x, weight, None))


def _product(dtype: torch.dtype) -> Callable[[], torch.Tensor]:
    left, right = (torch.ones(shape, dtype=dtype, device="cpu") for shape in ((512, 256), (256, 1024)))
    return lambda: left @ right


def _best_time(work: Callable[[], object], repeats: int = 10) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)
