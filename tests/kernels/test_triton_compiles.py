"""Every Triton kernel compiled for GPUs that are not here, within their limits."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cobra.kernels import triton

pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(triton.unavailable() is not None, reason=str(triton.unavailable())),
]

# bytes of shared memory a block at most (CUDA C++ Programming Guide, technical specifications)
SHARED_MEMORY = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
# kernels that multiply matrices, at least in some case
PRODUCTS = {
    *("ssd_segments_kernel", "ssd_scan_kernel", "ssd_sweeps_kernel", "ssd_pairs_kernel", "ssd_rows_kernel"),
    *("attention_kernel", "bf16_rows_kernel", "mamba_project_kernel", "packed_rows_kernel"),
}
# bytes of the stack a thread where 32 do not suffice
SPILLED = {"ssd_pairs_kernel": 248, "ssd_rows_kernel": 88}


def compiled(arch: int) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "tests.kernels.compile_triton", str(arch)]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    root = Path(__file__).parents[2]
    result = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    return json.loads(result.stdout)


@pytest.mark.parametrize("arch", SHARED_MEMORY)
def test_kernels_fit_a_gpu(arch: int) -> None:
    kernels = compiled(arch)
    assert kernels
    for kernel in kernels:
        assert kernel["shared"] <= SHARED_MEMORY[arch], kernel
        assert kernel["spilled"] <= SPILLED.get(kernel["name"], 32), kernel
    assert {kernel["name"] for kernel in kernels if kernel["products"]} == PRODUCTS
