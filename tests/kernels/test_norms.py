"""The norms against torch's own and against their formulas."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cobra.kernels import cpu
from cobra.kernels.cpu import library
from cobra.kernels.dispatch import use_backend
from cobra.kernels.ops import add_layer_norm, add_rms_norm, rms_norm, rms_norm_gated

WIDTH = 12
LEVELS = [] if cpu.unavailable() else library.levels()


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("shape", [(WIDTH,), (3, WIDTH), (2, 5, WIDTH), (2, 0, WIDTH)])
def test_rms_norm_is_torchs(shape: tuple[int, ...]) -> None:
    x, weight = normal(*shape), normal(WIDTH, seed=1)
    torch.testing.assert_close(rms_norm(x, weight, 1e-3), F.rms_norm(x, (WIDTH,), weight, 1e-3))


def test_a_number_is_no_row() -> None:
    x = torch.tensor(1.0)
    for norm in (rms_norm, lambda x, weight: add_rms_norm(x, None, weight)):
        with pytest.raises(ValueError, match=r"^x has no dimensions but needs at least one: reshape it"):
            norm(x, x)
    with pytest.raises(ValueError, match=r"^x has no dimensions"):
        rms_norm_gated(x, x, x)


def test_half_precision_norms_in_fp32() -> None:
    x, weight = 300.0 * normal(4, WIDTH, dtype=torch.float16), normal(WIDTH, seed=1, dtype=torch.float32)
    y = rms_norm(x, weight)
    assert y.dtype == torch.float16
    torch.testing.assert_close(y, rms_norm(x.double(), weight.double()).half(), rtol=2e-3, atol=0)


def test_add_rms_norm_returns_the_norm_of_the_sum_and_the_sum() -> None:
    x, residual, weight = normal(2, 3, WIDTH), normal(2, 3, WIDTH, seed=1), normal(WIDTH, seed=2)
    normed, total = add_rms_norm(x, residual, weight)
    torch.testing.assert_close(total, x + residual)
    torch.testing.assert_close(normed, rms_norm(x + residual, weight))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_add_layer_norm_is_torchs(dtype: torch.dtype, level: str) -> None:
    for shape in [(1,), (3, 7), (2, 3, 64), (1, 2560), (0, 16)]:
        width = shape[-1]
        # a mean far from 0 must not cost the digits of the variance
        x, residual = 30 + normal(*shape, dtype=dtype), normal(*shape, seed=1, dtype=torch.float32)
        parallel, weight, bias = (
            normal(*s, seed=seed, dtype=dtype) for seed, s in enumerate([shape, (width,), (width,)], 2)
        )
        total = x.double() + residual.double() + parallel.double()
        expected = F.layer_norm(total, (width,), weight.double(), bias.double(), 1e-3)
        with library.use_level(level), use_backend("cpu"):
            normed, kept = add_layer_norm(x, residual, weight, bias, 1e-3, parallel=parallel)
        torch.testing.assert_close(kept, total.float())
        rtol, atol = (4e-3, 1e-5) if dtype == torch.bfloat16 else (1e-5, 2e-5)
        torch.testing.assert_close(normed.double(), expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("norm", ["rms", "layer"])
@pytest.mark.parametrize("residual", [None, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("in_fp32", [False, True])
def test_the_residual_keeps_its_dtype(norm: str, residual: torch.dtype | None, in_fp32: bool) -> None:
    x, weight = normal(2, WIDTH, dtype=torch.bfloat16), normal(WIDTH, seed=2, dtype=torch.float32)
    before = None if residual is None else normal(2, WIDTH, seed=1, dtype=residual)
    if norm == "rms":
        normed, total = add_rms_norm(x, before, weight, residual_in_fp32=in_fp32)
    else:
        normed, total = add_layer_norm(x, before, weight, weight, residual_in_fp32=in_fp32)
    assert normed.dtype == torch.bfloat16
    assert total.dtype == (torch.float32 if in_fp32 else residual or torch.bfloat16)


@pytest.mark.parametrize("groups", [1, 3])
def test_gated_norm_is_its_formula(groups: int) -> None:
    x, z, weight = normal(2, 4, WIDTH), normal(2, 4, WIDTH, seed=1), normal(WIDTH, seed=2)

    def norm(v: Tensor) -> Tensor:
        parts = [F.rms_norm(part, (WIDTH // groups,), eps=1e-5) for part in v.chunk(groups, dim=-1)]
        return torch.cat(parts, dim=-1) * weight

    size = WIDTH // groups
    torch.testing.assert_close(rms_norm_gated(x, z, weight, group_size=size), norm(x * F.silu(z)))


def test_gradients_are_those_of_finite_differences() -> None:
    leaves = [normal(2, WIDTH, seed=seed).requires_grad_() for seed in range(2)]
    weight = normal(WIDTH, seed=2).requires_grad_()

    def gated(x: Tensor, z: Tensor, w: Tensor) -> Tensor:
        return rms_norm_gated(x, z, w, group_size=4)

    assert torch.autograd.gradcheck(gated, (*leaves, weight), fast_mode=True)
    assert torch.autograd.gradcheck(add_rms_norm, (*leaves, weight), fast_mode=True)

    def layer(x: Tensor, residual: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return add_layer_norm(x, residual, w, b, parallel=2 * x)

    bias = normal(WIDTH, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(layer, (*leaves, weight, bias), fast_mode=True)
