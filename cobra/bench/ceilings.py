"""Ceilings of the machine: the most it can do, which everything else is held to."""

from collections.abc import Callable
from typing import Any

import torch

from cobra.bench.timing.case import Case, Stopwatch, dtype_of
from cobra.bench.timing.sample import Measurement, Runner, Sample
from cobra.kernels import huge_pages

MACHINE = Runner("ceilings", __name__)


def bandwidth(mebibytes: int, device: str) -> Measurement:
    """Bytes that are read a second."""
    return Measurement(MACHINE, "read", {"mebibytes": mebibytes, "device": device})


def product_rate(size: int, device: str = "cpu", dtype: str = "float32") -> Measurement:
    """Operations a second of a square matrix product."""
    return Measurement(MACHINE, "gemm", {"size": size, "device": device, "dtype": dtype})


def read(mebibytes: int, device: str) -> Case:
    """A sum over distinct data on huge pages: the read bandwidth, if there is more than any cache holds."""
    data = huge_pages.zeros((mebibytes * 2**18,), torch.float32, torch.device(device)).fill_(1)
    return _settled(data.sum, device, data.nbytes)


def gemm(size: int, device: str, dtype: str) -> Case:
    """A square matrix product of `size`, a multiply-add counted as two."""
    a, b = torch.randn(2, size, size, device=device).to(dtype_of(dtype)).unbind()
    return _settled(lambda: a @ b, device, 2 * size**3)


def _settled(call: Callable[[], Any], device: str, amount: float) -> Case:
    def run() -> Sample:
        # once without the clock: after minutes of rest a first pass was seen at half the rate
        call()
        watch = Stopwatch(device)
        call()
        watch.mark("")
        return watch.sample()

    return Case(run, about={"amount": amount})


CASES: dict[str, Callable[..., Case]] = {case.__name__: case for case in (read, gemm)}
