"""Activations against torch's own."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cobra.kernels import cpu
from cobra.kernels.cpu import library
from cobra.kernels.dispatch import use_backend
from cobra.kernels.ops import gelu_tanh, silu_mul

LEVELS = [] if cpu.unavailable() else library.levels()
BACKENDS = [*(["cpu"] if LEVELS else []), "reference"]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("backend", BACKENDS)
def test_silu_mul_is_torchs(backend: str) -> None:
    gate, up = 20 * normal(3, 77), normal(3, 77, seed=1)
    with use_backend(backend):
        torch.testing.assert_close(silu_mul(gate, up), F.silu(gate) * up)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gelu_tanh_is_torchs(backend: str, dtype: torch.dtype) -> None:
    # 5,003 channels are more than one piece of the kernel
    for width in (1, 7, 64, 5003):
        x = (4 * normal(3, width)).to(dtype)
        with use_backend(backend):
            y = gelu_tanh(x)
        torch.testing.assert_close(y, F.gelu(x.double(), approximate="tanh").to(dtype))


@pytest.mark.parametrize("level", LEVELS)
def test_gelu_tanh_of_what_is_large_or_no_number(level: str) -> None:
    x = torch.tensor([-3e38, -100.0, -0.0, 100.0, 3e38, torch.inf, torch.nan])
    with library.use_level(level), use_backend("cpu"):
        y = gelu_tanh(x)
    torch.testing.assert_close(y, x.clamp(min=0), equal_nan=True)


def test_a_number_has_no_channels() -> None:
    with pytest.raises(ValueError, match=r"^x has no dimensions"):
        gelu_tanh(torch.tensor(1.0))
